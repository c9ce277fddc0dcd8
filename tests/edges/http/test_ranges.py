"""What collides is of the states as they are, also where a log is folded otherwise than before."""

from __future__ import annotations

import pytest

from meshd.core.skipping import skip_of
from meshd.edges.http.ranges import Ranges
from meshd.model.command import RemoveSkip, SetNode
from meshd.model.ids import ClusterName
from meshd.model.node import Node
from meshd.model.peer import Phase
from meshd.model.replica import Resync
from tests.mesh import Mesh

pytestmark = pytest.mark.looptime

WEST = ClusterName("west")


async def test_a_log_that_was_read_anew_without_a_skip_says_other_ranges_at_the_same_place() -> (
    None
):
    narrow = Mesh(names=("east", "west"), peer_fields=", announces: [10.9.0.0/16]")
    mesh = Mesh(names=("east", "west"), etcds=narrow.etcds)
    async with mesh.running("east") as east, mesh.running("west") as west:
        node = east.parts.node
        node.peers.relist(narrow.settings("east").peers)
        await west.submit(SetNode("wide", Node(addresses=("10.9.0.1",), pod_cidrs=("10.0.0.0/8",))))
        await west.submit(
            SetNode("narrow", Node(addresses=("10.9.0.2",), pod_cidrs=("10.9.1.0/24",)))
        )
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        stopped = node.peers.state(WEST)
        assert stopped is not None
        await east.submit(skip_of(WEST, stopped, None))
        await east.until_ready("west")
        ranges, at = Ranges(node.projector), node.projector.head(WEST)
        assert at is not None
        assert (await ranges.found()).shown == ()
        await east.submit(RemoveSkip(WEST, at.log_id))
        node.peers.relist(mesh.settings("east").peers)
        node.peers.control(WEST, Resync(), "test")
        await east.until(lambda: "wide" in node.projector.states[WEST].nodes)
        assert node.projector.head(WEST) == at
        (found,) = (await ranges.found()).shown
        assert found.ranges == ("10.0.0.0/8", "10.9.1.0/24")
        # What may not have changed isn't looked at again.
        assert await ranges.found() is await ranges.found()
