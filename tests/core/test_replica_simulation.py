"""Long lives of one followed log, on the simulator's model of a peer (`tests/sim/core_ring`).

Ring 1 runs many short schedules; what takes long, such as Lost, or a log replaced a dozen times, is
met here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshd.model.peer import Phase
from tests.sim.core_ring import Simulation
from tests.sim.tally import Tally

TURNS = 300
ODDS = {
    "wipe": 0.01,
    "restore": 0.01,
    "found again": 0.005,
    "corrupt": 0.01,
    "poison": 0.005,
    "compact": 0.03,
    "flood": 0.01,
    "cut": 0.03,
    "flaky": 0.03,
    "lost": 0.05,
    "repeated": 0.1,
    "late": 0.01,
}
SHORTENS = 0.05


def live(seed: int) -> Iterator[Simulation]:
    """One long life, turn by turn."""
    it = Simulation(seed, Tally(), ODDS, shape=(1, 1), shorten=SHORTENS)
    (link,) = it.links
    for _ in range(TURNS):
        it.disturb()
        it.turn()
        # Stricter than ring 1, whose replacements come thick enough to look like a hole twice.
        assert phase_in(it) is not Phase.QUARANTINED or link.peer.ever_unsound
        yield it


def phase_in(it: Simulation) -> Phase:
    return it.links[0].phase(it.now_s)


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_to_a_peer_it_is_read_once_and_found_again(seed: int) -> None:
    """`Simulation` holds every step against what the peer wrote; `heal` demands the end."""
    *_, it = live(seed)
    it.heal()
    (link,), (reader,) = it.links, it.readers
    assert phase_in(it) is Phase.READY
    assert link.state.at == link.peer.head
    assert reader.vector() == {link.peer.name: link.peer.head}


def test_the_faults_bite() -> None:
    """Many of these runs must fork, be quarantined and meet duplicates, or they prove little."""
    phases: set[Phase] = set()
    forks = duplicates = snapshots = 0
    for seed in range(20):
        it = None
        for it in live(seed):
            phases.add(phase_in(it))
        assert it is not None
        traffic = it.links[0].state.traffic
        forks += traffic.forks
        duplicates += traffic.records_duplicate
        snapshots += traffic.snapshots
    assert phases >= {
        Phase.CONNECTING,
        Phase.SYNCING,
        Phase.READY,
        Phase.STALE,
        Phase.LOST,
        Phase.FORKED,
        Phase.QUARANTINED,
    }
    assert forks > 20
    assert duplicates > 20
    assert snapshots > 20
