import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshd.cli.applying import File, bundle_files
from meshd.edges.http.documents import parse_documents

DOCUMENTS = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(-(2**63), 2**63)), min_size=1, max_size=3
)


@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.booleans())
def test_files_put_together_are_the_documents_of_each(
    contents: list[list[dict[str, int]]], marked: bool
) -> None:
    files = [
        File(f"{number}.yaml", yaml.safe_dump_all(docs, explicit_start=marked).encode())
        for number, docs in enumerate(contents)
    ]
    bundle = bundle_files(files)
    found = parse_documents(bundle.raw, bundle.content_type)
    assert [data for _, data in found] == [doc for docs in contents for doc in docs]


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbfb: 1",
        b"%YAML 1.1\n---\nb: 1\n",
        b"# comment\nb: 1\n",
        b"---\nb: 1\n...\n",
    ],
)
def test_any_file_may_follow_another(raw: bytes) -> None:
    bundle = bundle_files([File("a.yaml", b"a: |-\n  text"), File("b.yaml", raw)])
    found = parse_documents(bundle.raw, bundle.content_type)
    assert [data for _, data in found] == [{"a": "text"}, {"b": 1}]


def test_json_beside_yaml() -> None:
    files = [File("a.json", b'{\n\t"a":\n\t"x\\ty"\n}'), File("b.yaml", b"b: 1\n")]
    bundle = bundle_files(files)
    found = parse_documents(bundle.raw, bundle.content_type)
    assert [data for _, data in found] == [{"a": "x\ty"}, {"b": 1}]


def test_json_alone_stays_json() -> None:
    bundle = bundle_files([File("a.json", b"[1]")])
    assert (bundle.raw, bundle.content_type) == (b"[1]", "application/json")
    assert bundle.place("document 0 kind") == "a.json document 0 kind"
    assert bundle.place("line 2") == "a.json:2"


def test_a_line_of_the_request_is_a_line_of_its_file() -> None:
    bundle = bundle_files(
        [File("a.yaml", b"1\n2"), File("b.yaml", b"---\n1\n2\n"), File("c.yaml", b"1")]
    )
    lines = bundle.raw.split(b"\n")
    for number, line in enumerate(lines, 1):
        name, _, rest = bundle.place(f"line {number} x").partition(":")
        if line.isdigit():
            content = next(file.raw for file in bundle.files if file.name == name)
            assert content.split(b"\n")[int(rest.split()[0]) - 1] == line
    assert bundle.place("line 0") == "a.yaml:0"
    assert bundle.place("elsewhere") == "elsewhere"
    assert bundle_files([File("a.yaml", b"")]).place("") == "a.yaml"
