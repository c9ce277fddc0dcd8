"""Write the generated parts of `protocols/`, or with --check say whether they are current.

For: JSON Schemas of every event's data, and openapi.json (which is also in the package, so that an
installed meshd serves it). Not for: golden records, which are made once and never again
(`make_golden.py`). Invariant: what is written depends on the code alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from openapi_paths import document

from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.event import EventType
from meshd.model.identity import Identity
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.schema import json_schema
from meshd.model.service import Service

ROOT = Path(__file__).parents[1]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID_BASE = "https://meshd.io/schemas/events/"

DATA_OF = {
    EventType.CLUSTER_SET: ClusterInfo,
    EventType.SERVICE_SET: Service,
    EventType.SERVICE_REMOVED: None,
    EventType.ENDPOINT_SET: Endpoint,
    EventType.ENDPOINT_REMOVED: None,
    EventType.NODE_SET: Node,
    EventType.NODE_REMOVED: None,
    EventType.IDENTITY_SET: Identity,
    EventType.IDENTITY_REMOVED: None,
    EventType.POLICY_SET: Policy,
    EventType.POLICY_REMOVED: None,
    EventType.PEER_SET: ListedPeer,
    EventType.PEER_REMOVED: None,
    EventType.SKIP_SET: Skip,
    EventType.SKIP_REMOVED: None,
    EventType.OPERATION_SET: Operation,
    EventType.OPERATION_REMOVED: None,
}


def event_schema(kind: EventType) -> dict[str, object]:
    """The schema of one event type's data."""
    value = DATA_OF[kind]
    body: dict[str, object] = {"type": "null"} if value is None else json_schema(value)
    return {"$schema": DIALECT, "$id": f"{ID_BASE}{kind}.schema.json"} | body


def generated() -> dict[Path, str]:
    """Every generated file's text."""
    described = _text(document())
    files = {
        ROOT / f"protocols/events/{kind}.schema.json": _text(event_schema(kind))
        for kind in EventType
    }
    files[ROOT / "protocols/openapi.json"] = described
    files[ROOT / "meshd/protocols/openapi.json"] = described
    return files


def _text(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def stale(files: dict[Path, str]) -> list[Path]:
    """The files that aren't as they should be, those that should not be there included."""
    wrong = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    present = set((ROOT / "protocols/events").glob("*"))
    return wrong + sorted(present - set(files))


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of protocols/.")
    parser.add_argument("--check", action="store_true", help="only say whether they are current")
    files = generated()
    if parser.parse_args().check:
        wrong = stale(files)
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is not current: run `make schemas`", file=sys.stderr)
        return 1 if wrong else 0
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
