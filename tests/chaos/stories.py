"""What happens to the model mesh, as histories that are clean.

For: what is judged, doctored and drawn. Not for: the mesh itself (`model_run`).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

from chaos.evidence import Evidence
from chaos.history import Entry
from tests.chaos.model_logs import key_of
from tests.chaos.model_run import BOUNDS, STEP_MS, Model


def history(model: Model) -> list[Entry]:
    """Its entries in order, with their lines."""
    ordered = sorted(model.entries, key=lambda entry: entry.at_ns)
    return numbered(ordered)


def numbered(entries: Sequence[Entry]) -> list[Entry]:
    return [replace(entry, line=line) for line, entry in enumerate(entries, 1)]


def kill_one() -> list[Entry]:
    """c's meshd is killed while the others work on; a's logs are summed up and trimmed."""
    model = Model()
    model.work(25)
    model.now_ms += STEP_MS
    model.dump()
    model.clusters["a"].local.sum_up()
    fault = model.kill("c")
    model.work(25, "a", "b")
    model.now_ms += STEP_MS
    model.command("c")
    model.start(model.clusters["c"])
    model.now_ms += STEP_MS
    model.heal(fault)
    model.deliver()
    model.now_ms += 2000
    model.work(5)
    model.end()
    return history(model)


def wipe_one() -> list[Entry]:
    """c's etcd is wiped, and its new log is followed."""
    model = Model()
    model.work(25)
    model.dump()
    model.now_ms += STEP_MS
    model.wipe("c")
    model.now_ms += 1000 * round(BOUNDS.notice_fork_s + 1)
    model.work(25)
    model.end()
    return history(model)


def restore_one() -> list[Entry]:
    """c's etcd is restored from a backup that is a little older."""
    model = Model()
    model.work(15)
    c = model.clusters["c"]
    backup = deepcopy(c.local), deepcopy(c.export)
    model.work(10)
    model.dump()
    model.now_ms += STEP_MS
    model.restore("c", backup)
    model.now_ms += 1000 * round(BOUNDS.notice_fork_s + 1)
    model.work(25)
    model.end()
    return history(model)


def poison_one() -> list[Entry]:
    """Somebody writes into c's export log what is no record; the others stop before it."""
    model = Model()
    model.work(25)
    model.now_ms += STEP_MS
    export = model.clusters["c"].export
    where = f"c:{export.log_id}:{export.seq + 1}"
    fault = model.inject("poison", "c", poisons=(where,))
    model.phases["c"] = "Quarantined"
    model.work(25, "a", "b")
    model.phases.clear()
    bad = key_of(f"log/{export.seq + 1:020}", 99, b"no record")
    model.note_log("c", "export/mesh", (*export.keys(), bad))
    # Dumped while there is a record that is sound and only means harm. It goes as it is healed,
    # and c goes on in its place before all others are healed.
    malicious = deepcopy(export)
    malicious.append(
        [
            ["endpoint.set", "shop/web/bad", {"address": "10.9.9.9"}, "eve", ""],
            ["cluster.set", "somebody-else", {"name": "somebody-else"}, "eve", ""],
        ],
        98,
    )
    model.note_log("c", "export/mesh", malicious.keys())
    model.now_ms += STEP_MS
    begun_ms = model.now_ms
    model.work(3, "c")
    model.heal(fault, begun_ms)
    model.end()
    return history(model)


def evidence(entries: Sequence[Entry]) -> Evidence:
    return Evidence(entries)
