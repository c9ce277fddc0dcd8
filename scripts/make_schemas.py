"""Write the generated parts of `protocols/`, or with --check say whether they are current.

For: JSON Schemas of every event's data, openapi.json and asyncapi.json (which are also in the
package, so that an installed meshd serves them). Not for: golden records, which are made once and
never again (`make_golden.py`). Invariant: what is written depends on the code alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from asyncapi_document import document as streams
from event_schemas import event_schema
from openapi_paths import document

from meshd.model.event import EventType

ROOT = Path(__file__).parents[1]


def generated() -> dict[Path, str]:
    """Every generated file's text."""
    files = {
        ROOT / f"protocols/events/{kind}.schema.json": _text(event_schema(kind))
        for kind in EventType
    }
    for name, described in (("openapi", document()), ("asyncapi", streams())):
        for folder in ("protocols", "meshd/protocols"):
            files[ROOT / folder / f"{name}.json"] = _text(described)
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
