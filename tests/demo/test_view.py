"""What is shown: it fits, and it says what is so."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from meshd.client import BackendItem, Client, TableService, Target
from meshd.client.tables import TierItem
from meshd.demo.caller import Answer, Kind
from meshd.demo.feed import Feed, Look, PeerLook, targets_of
from meshd.demo.mesh import Mesh
from meshd.demo.performance import Options, Performance
from meshd.demo.pictures import cluster_panel, service_dots, traffic
from meshd.demo.plain import PlainLines
from meshd.demo.scene import Finding, Scene, Tone
from meshd.demo.story import STEPS_TOTAL
from meshd.demo.tally import Recent
from meshd.demo.view import screen, summary

LOG_ID = "0" * 32
SIZES = [(80, 24), (100, 30), (140, 40), (60, 20)]


def shown(picture: object, width: int = 100, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(picture)
    return capture.get().splitlines()


def backend(cluster: str, priority: int = 0, reason: str | None = None) -> BackendItem:
    return BackendItem(
        cluster=cluster,
        name=f"{cluster}-1",
        address="127.0.0.1",
        ports=[{"port": 80, "name": "http", "protocol": "TCP", "app_protocol": ""}],
        priority=priority,
        endpoint_weight=100,
        weight=100,
        region="",
        zone="",
        node="",
        serving=True,
        eligible=reason is None,
        reason=reason,
        origin={"cluster": cluster, "log_id": LOG_ID, "seq": 1, "time": "", "actor": ""},
    )


def tier(priority: int) -> TierItem:
    return TierItem(
        priority=priority,
        clusters=[],
        backends=1,
        eligible=1,
        weight=100,
        healthy_ppm=1_000_000,
        turned_ppm=1_000_000,
        percent=100,
        reach_ppm=0,
        share_ppm=0 if priority else 1_000_000,
    )


def service(name: str, *backends: BackendItem) -> TableService:
    return TableService(
        namespace="shop",
        name=name,
        ports=[],
        headless=False,
        session_affinity="none",
        session_timeout_s=10_800,
        affinity="none",
        spill={},
        exposure="internal",
        labels={},
        clusters=[],
        stale=[],
        conditions=[],
        digest="",
        tiers=[tier(priority) for priority in sorted({one["priority"] for one in backends})],
        backends=list(backends),
    )


def peer(name: str, phase: str = "Ready", standing: str = "fresh") -> PeerLook:
    return PeerLook(name, phase, "", standing, 5, 5, 2, 0)


def feed_of(look: Look | None, *services: TableService) -> Feed:
    feed = Feed(Client(Target(url="http://127.0.0.1:1")))
    feed.look = look
    feed.services = services
    feed.table = {one["name"]: targets_of(one) for one in services}
    return feed


def look(*peers: PeerLook) -> Look:
    vector = f"east:{LOG_ID}:19,south:{LOG_ID}:15"
    return Look(
        ready=True, vector_text=vector, digest="4d2e55e4" * 4, peers={p.name: p for p in peers}
    )


WEB = service("web", backend("east"), backend("south"), backend("west", 1000))


def performance() -> Performance:
    scene = Scene(STEPS_TOTAL)
    performance = Performance(Options(seed=1, pace=0, folder=None, stay=False), scene)
    performance.mesh = Mesh({})
    performance.mesh.feeds = {
        "east": feed_of(look(peer("west", "Stale", "demoted"), peer("south")), WEB),
        "west": feed_of(None, WEB),
        "south": feed_of(look(peer("east"), peer("west")), *[WEB] * 9),
    }
    scene.begin_step("a", "A step with quite a long title that has to fit in somehow or other")
    for number in range(30):
        scene.find(Finding(f"finding {number} " + "of many words " * 20, ok=True, detail=""))
    return performance


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_screen_is_filled_and_never_overflows(width: int, height: int) -> None:
    lines = shown(screen(performance(), width, height), width, height)
    if height >= 24:
        assert len(lines) == height
        assert "finding 29" in lines[-1]
    assert max(map(len, lines)) <= width


def test_there_is_a_screen_before_there_is_a_mesh() -> None:
    early = Performance(Options(seed=1, pace=0, folder=None, stay=False), Scene(STEPS_TOTAL))
    text = "\n".join(shown(screen(early, 80, 24), 80, 24))
    assert text.count("starting") == 3


def test_a_panel_tells_phases_vector_and_where_requests_go() -> None:
    east = feed_of(look(peer("west", "Stale", "demoted"), peer("south")), WEB)
    text = "\n".join(shown(cluster_panel("east", east, 5), 40))
    for words in ("ready", "Stale demoted", "e19 s15", "4d2e55e4", "e1 (w1) s1"):
        assert words in text
    assert "web" not in text
    assert "web" in "\n".join(shown(cluster_panel("east", east, 8), 40))


def test_a_killed_cluster_looks_killed() -> None:
    assert "killed" in shown(cluster_panel("west", feed_of(None, WEB), 5), 40)[0]
    assert "starting" in shown(cluster_panel("west", feed_of(None), 5), 40)[0]


def test_dots_tell_in_from_out_and_tier_from_tier() -> None:
    mixed = service("web", backend("east"), backend("west", 0, "not-ready"), backend("south", 1000))
    assert service_dots(mixed).plain == "web       ● ○ → ◌ "
    none = service("web", backend("east", 0, "not-ready"))
    assert service_dots(none).plain == "web       ○ no backend"


def test_bars_are_as_long_as_their_shares() -> None:
    recent = Recent()
    for cluster in ("east", "east", "east", "west"):
        recent.add("east", Answer("web", Kind.ANSWERED, cluster, "web-1"))
    line = next(line for line in shown(traffic(recent, 77, 11), 77) if " web" in line)
    assert f" e{'━' * 14}w{'━' * 4} " in line


def test_failures_are_seen_in_a_bar() -> None:
    recent = Recent()
    recent.add("east", Answer("web", Kind.FAILED))
    recent.add("east", Answer("ledger", Kind.NO_BACKEND))
    text = "\n".join(shown(traffic(recent, 100, 11)))
    assert "▒" in text
    assert "no backend left" in text


def test_plain_lines_survive_a_terminal_of_another_time() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    scene = Scene(STEPS_TOTAL)
    scene.listeners.append(PlainLines(out))
    scene.tell(Tone.GOOD, "it's → done")
    assert raw.getvalue().endswith(b"it's ? done\n")


def test_the_summary_names_what_went_wrong() -> None:
    scene = Scene(STEPS_TOTAL)
    scene.begin_step("a", "A step")
    scene.find(Finding("the sun rises", ok=True, detail="06:12"))
    scene.find(Finding("the moon is made of cheese", ok=False, detail="it is stone"))
    text = summary(scene).plain
    assert "✗ 1 A step" in text
    assert "1 of 2 expectations kept" in text
    assert "the moon is made of cheese: it is stone" in text
    assert "the sun rises" not in text
    assert not scene.ok
