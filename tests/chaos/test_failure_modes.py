"""The table of failure modes in chaos/README.md names what there is, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from chaos.faults.catalogue import faults
from chaos.faults.rows import ROWS
from chaos.mesh.mesh_file import read_mesh_file

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "chaos/README.md").read_text()


def rows() -> dict[int, str]:
    """The last column of each row, by its number."""
    part = README.partition("## What still works")[2].partition("\n## ")[0]
    found = re.findall(r"^\| (\d+) .*\| ([^|]*) \|$", part, re.MULTILINE)
    assert len(found) == len({number for number, _ in found})
    return {int(number): proof for number, proof in found}


def test_every_fault_is_in_its_row_and_every_name_is_a_fault() -> None:
    named = {number: re.findall(r"`fault/([a-z0-9-]+)`", proof) for number, proof in rows().items()}
    known: dict[int, list[str]] = {row.number: [] for row in ROWS}
    for name, fault in faults().items():
        known[fault.number].append(name)
    assert {number: sorted(names) for number, names in named.items()} == {
        number: sorted(names) for number, names in known.items()
    }


def test_a_row_without_a_fault_names_a_test_or_says_so() -> None:
    for number, proof in rows().items():
        tests = re.findall(r"`(tests/[a-z0-9_/]+\.py)`", proof)
        assert tests or "fault/" in proof or proof == "not yet", number
        assert all((ROOT / test).is_file() for test in tests)


def test_the_example_of_a_mesh_file_is_one(tmp_path: Path) -> None:
    part = README.partition("## A mesh that you run")[2]
    example = part.partition("```yaml\n")[2].partition("```")[0]
    tree = yaml.safe_load(example)
    del tree["clusters"][1]["meshds"][0]["token_env"]  # It would have to be set here.
    (tmp_path / "mesh.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "east.token").touch()
    (tmp_path / "ca.pem").touch()
    file = read_mesh_file(tmp_path / "mesh.yaml")
    assert file.allowed.servers == ("west/meshd-1", "west/etcd-1")


def test_every_experiment_is_described() -> None:
    part = README.partition("## Chaos Toolkit")[2].partition("\n## ")[0]
    described = set(re.findall(r"^\| `([a-z-]+)` \|", part, re.MULTILINE))
    assert described == {path.stem for path in (ROOT / "chaos/experiments").glob("*.yaml")}
