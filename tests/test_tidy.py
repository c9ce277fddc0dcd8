"""House rules that no other tool checks (after TigerBeetle's tidy): each is one test here."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from meshd.model.event import EventType

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
GENERATED = "meshd/edges/etcd/pb"
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
QUEUES = {"Queue", "LifoQueue", "PriorityQueue"}


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file of meshd. path: from the root."""

    path: str
    text: str
    tree: ast.Module

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path}:{node.lineno}"


def modules() -> tuple[Module, ...]:
    return modules_of("meshd")


@cache
def modules_of(package: str) -> tuple[Module, ...]:
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        if not path.startswith(GENERATED):
            text = file.read_text()
            found.append(Module(path, text, ast.parse(text, path)))
    return tuple(found)


def within(*rooms: str) -> Iterator[Module]:
    for module in modules():
        if module.path.startswith(tuple(f"meshd/{room}/" for room in rooms)):
            yield module


NOT_OURS = {".git", ".venv", ".cache", "build", "dist", "htmlcov", "__pycache__", ".hypothesis"}
"""Folders of a working tree that are never committed."""


@cache
def tracked_files() -> tuple[str, ...]:
    """What is in version control, or would be with the next commit.

    A machine without git has a copy of a commit: there that is everything that no tool made.
    """
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        files = (path for path in ROOT.rglob("*") if path.is_file())
        inner = (path.relative_to(ROOT) for path in files)
        return tuple(str(path) for path in inner if not _is_made(path))
    return tuple(name for name in _listed() if (ROOT / name).is_file())


def _listed() -> list[str]:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in names.split("\0") if name]


def _is_made(path: Path) -> bool:
    return (
        bool(NOT_OURS & set(path.parts))
        or path.name.startswith(".coverage")
        or any(part.endswith((".egg-info", "_cache")) for part in path.parts)
    )


def found_in_tracked_files(pattern: str) -> list[str]:
    """All lines of texts that match, as 'path:line'."""
    wanted = re.compile(pattern)
    found = []
    for name in tracked_files():
        try:
            lines = (ROOT / name).read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{number}" for number, line in enumerate(lines, 1) if wanted.search(line)]
    return found


def test_there_is_something_to_check() -> None:
    assert len(modules()) > 60
    assert "tests/test_tidy.py" in tracked_files()


# --- sizes and names ------------------------------------------------------------------------------


def test_functions_fit_on_a_screen() -> None:
    too_long = [
        f"{module.at(node)} {node.name}"
        for module in (*modules(), *modules_of("chaos"))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_modules_can_be_read_in_one_go() -> None:
    too_long = [
        f"{module.path}: {len(module.text.splitlines())}"
        for module in (*modules(), *modules_of("chaos"))
        if len(module.text.splitlines()) > MODULE_LINES_MAX
    ]
    assert too_long == []


def test_a_modules_name_says_what_is_in_it() -> None:
    named = (*modules(), *modules_of("chaos"))
    parts = {part for module in named for part in Path(module.path).with_suffix("").parts}
    assert parts & VAGUE_NAMES == set()


def test_a_promise_names_its_issue() -> None:
    promise = "TO" + "DO"
    assert found_in_tracked_files(rf"\b{promise}\b(?!\(#\d+\))") == []
    assert found_in_tracked_files(r"\b(FIX" + r"ME|XX" + r"X)\b") == []


# --- what waits, and how long a queue may be ------------------------------------------------------


def test_what_names_and_what_decides_never_waits() -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [
        module.at(node)
        for module in within("core", "model")
        for node in ast.walk(module.tree)
        if isinstance(node, waiting)
    ]
    assert found == []


def unbounded_queues(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _called(node) in QUEUES:
            sizes = [*node.args, *(word.value for word in node.keywords if word.arg == "maxsize")]
            if not sizes or (isinstance(sizes[0], ast.Constant) and not sizes[0].value):
                yield module.at(node)


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def test_every_queue_is_bounded() -> None:
    assert [place for module in modules() for place in unbounded_queues(module)] == []


@pytest.mark.parametrize(
    ("code", "is_bounded"),
    [
        ("asyncio.Queue(maxsize=10)", True),
        ("asyncio.Queue(limits.queue_max)", True),
        ("asyncio.Queue[int](maxsize=10)", True),
        ("asyncio.Queue()", False),
        ("Queue(0)", False),
        ("asyncio.PriorityQueue(maxsize=0)", False),
    ],
)
def test_an_unbounded_queue_would_be_found(code: str, *, is_bounded: bool) -> None:
    found = list(unbounded_queues(Module("x.py", code, ast.parse(code))))
    assert found == ([] if is_bounded else ["x.py:1"])


# --- settings, metrics, events --------------------------------------------------------------------


def settings_fields() -> Iterator[tuple[str, str, bool]]:
    """Subject, field, and whether a docstring stands under it."""
    declaring = {f"meshd/settings/{name}.py" for name in ("subjects", "serving", "keeping", "mqtt")}
    bodies = [one.tree.body for one in modules() if one.path in declaring]
    for subject in (subject for body in bodies for subject in body):
        if isinstance(subject, ast.ClassDef):
            following = [*subject.body[1:], None]
            for statement, after in zip(subject.body, following, strict=True):
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield subject.name, statement.target.id, _is_text(after)


def _is_text(statement: ast.stmt | None) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def test_every_setting_says_why_it_is_as_it_is() -> None:
    fields = list(settings_fields())
    assert len(fields) > 40
    assert [f"{subject}.{name}" for subject, name, is_told in fields if not is_told] == []


def test_every_setting_is_read() -> None:
    """A setting that nobody reads is a lie."""
    read = {
        node.attr
        for module in modules()
        if not module.path.startswith("meshd/settings/")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert [f"{subject}.{name}" for subject, name, _ in settings_fields() if name not in read] == []


def test_every_metric_is_measured_and_told() -> None:
    (module,) = (one for one in modules() if one.path == "meshd/telemetry/metrics.py")
    declared = {
        target.id: statement.value
        for statement in module.tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)
        for target in statement.targets
        if isinstance(target, ast.Name) and _called(statement.value) in _METRICS
    }
    assert len(declared) > 8
    used = {
        node.attr
        for other in modules()
        if other is not module
        for node in ast.walk(other.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "metrics"
    }
    assert declared.keys() - used == set()
    told = (ROOT / "protocols" / "metrics.md").read_text()
    names = [ast.literal_eval(call.args[0]) for call in declared.values()]
    assert [name for name in names if f"`{name}`" not in told] == []


_METRICS = {"Counter", "Gauge", "Histogram", "Summary", "Info"}


def test_every_event_type_has_a_golden_record() -> None:
    """Once a type was written it must stay readable for ever; the golden records hold us to it."""
    files = sorted((ROOT / "protocols" / "golden").glob("*.json"))
    chains = [json.loads(file.read_text()).get("chain", []) for file in files]
    records = [record for chain in chains for record in chain]
    types = {event["type"] for record in records for event in record["fields"]["events"]}
    assert set(EventType) - types == set()
    schemas = {path.name for path in (ROOT / "protocols" / "events").iterdir()}
    assert {f"{kind}.schema.json" for kind in EventType} - schemas == set()


# --- what may not be in any file ------------------------------------------------------------------


def test_no_file_names_a_package_registry() -> None:
    """Packages come from wherever the machine at hand gets them."""
    hosts = (
        "py" + "pi.org",
        "py" + "pi.python",
        "pythonhost" + "ed",
        "deb.deb" + "ian",
        "npm" + "js",
    )
    assert found_in_tracked_files("|".join(re.escape(host) for host in hosts)) == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a copy without git has no links")
def test_no_link_is_committed() -> None:
    """A link to a folder of somebody's machine would take the place of that folder elsewhere."""
    assert [name for name in _listed() if (ROOT / name).is_symlink()] == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    places = "|".join(("wo" + "rk", "ro" + "ot"))
    assert found_in_tracked_files(rf"(^|[^A-Za-z0-9_.\-])/({places})(/|\b)") == []
