"""protocols/model.md against the schemas: every field, what is needed, and every default."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from meshd.core.annotations import OURS, read_annotations
from meshd.core.document import Fields, Report
from meshd.core.manifests import read_manifests
from meshd.core.overlaps import RangeCondition
from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.schema import json_schema
from meshd.model.service import Service

TEXT = (Path(__file__).parents[2] / "protocols/model.md").read_text()
SECTIONS: dict[str, str] = dict(
    re.findall(r"^###? (\w+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
)
KINDS: dict[str, Any] = {
    "Service": Service,
    "Endpoint": Endpoint,
    "Cluster": ClusterInfo,
    "Node": Node,
    "Identity": Identity,
    "Policy": Policy,
    "Peer": ListedPeer,
    "Skip": Skip,
    "Operation": Operation,
}
PARTS = {"ClusterSelector": "Clusters", "ListedTls": "Tls", "SkippedRecord": "Record"}
"""What a part is called here, where it isn't called as in the schemas."""

ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)


def _shapes() -> dict[str, dict[str, Any]]:
    """Every shape that has fields, by its section."""
    found: dict[str, dict[str, Any]] = {}
    for name, kind in KINDS.items():
        schema = json_schema(kind)
        found[name] = schema
        for part, shape in schema.get("$defs", {}).items():
            if "properties" in shape:
                found[PARTS.get(part, part)] = shape
    return found


SHAPES = _shapes()


def test_there_is_a_section_for_everything_and_for_nothing_else() -> None:
    assert set(SECTIONS) == set(SHAPES)


@pytest.mark.parametrize("section", SHAPES)
def test_every_field_is_told_with_its_default(section: str) -> None:
    shape = SHAPES[section]
    rows = {name: default.strip() for name, _, default, _ in ROW.findall(SECTIONS[section])}
    assert list(rows) == list(shape["properties"])
    for name, field in shape["properties"].items():
        told = rows[name]
        assert (told == "needed") is (name in shape.get("required", ())), name
        if told.startswith("`"):
            default = field.get("default", {})
            assert json.loads(told.strip("`")) == default, name


@pytest.mark.parametrize("section", SHAPES)
def test_every_limit_and_every_choice_is_told(section: str) -> None:
    shape = SHAPES[section]
    definitions = {name: one for kind in KINDS.values() for name, one in _definitions(kind)}
    for name, form, _, _ in ROW.findall(SECTIONS[section]):
        field = shape["properties"][name]
        most = field.get("maximum", field.get("maxItems"))
        words = ("weight", "percent", "milliseconds")
        if most is not None and not form.startswith(words):
            assert f"{most:,}" in form, name
        choices = definitions.get(field.get("$ref", "").rpartition("/")[2], {}).get("enum", ())
        for choice in choices:
            assert f"`{choice}`" in form, name


def _definitions(kind: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(json_schema(kind).get("$defs", {}).items())


def test_the_kinds_the_annotations_and_the_conditions_are_told() -> None:
    document = {"apiVersion": "meshd.io/v1", "kind": "X"}
    with pytest.raises(RejectedError) as caught:
        read_manifests([("", document)], ClusterName("east"))
    kinds = caught.value.problems[0].remedy.removeprefix("meshd.io/v1 has ").split(", ")
    assert [kind for kind in kinds if f"`{kind}`" not in TEXT] == []
    report = Report("")
    read_annotations(Fields(report, "", {f"{OURS}x-y-z": ""}), json.loads)
    names = re.findall(rf"{OURS}([a-z-]+)", report.problems[0].remedy)
    assert len(names) > 5
    told = SECTIONS["Service"]
    assert [name for name in names if f"`{name}`" not in told and OURS + name not in told] == []
    assert [kind for kind in RangeCondition if f"`{kind}`" not in TEXT] == []
