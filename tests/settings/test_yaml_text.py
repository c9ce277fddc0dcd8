import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.errors import RejectedError
from meshd.settings import yaml_text
from meshd.settings.yaml_text import DEPTH_MAX, PROBLEMS_MAX, read_yaml


def read(text: str) -> object:
    (document,) = read_yaml(text.encode(), lambda line: f"f:{line}")
    return document.data


def problems(raw: bytes) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        read_yaml(raw, lambda line: f"f:{line}")
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with both parsers: installations without libyaml behave the same."""
    kind = yaml.CSafeLoader if request.param == "libyaml" else yaml.SafeLoader
    monkeypatch.setattr(yaml_text, "_LOADER", kind)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0x1f", 31),
        ("0o17", 15),
        ("010", "010"),
        ("1_000", "1_000"),
        ("22:22", "22:22"),
        ("9" * 31, "9" * 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!int 5", 5),
        ("!!float 5", 5),
        ("! 5", "5"),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("1: x\ntrue: y", {"1": "x", "true": "y"}),
        ("[1, [2, {a: b}], []]", [1, [2, {"a": "b"}], []]),
        ("a: &x 1", {"a": 1}),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("\ufeffa: 1", {"a": 1}),
        ("!!map {a: !!seq [1]}", {"a": [1]}),
    ],
)
def test_reads_what_yaml_1_2_means(text: str, value: object) -> None:
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read_as_a_number_and_left_to_those_who_know_the_field() -> None:
    assert math.isnan(read(".nan"))  # type: ignore[arg-type]


# YAML 1.1 writers take these three for line breaks, and read them back as spaces.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029"))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**20), 10**20)
        | st.floats(allow_nan=False)
        | TEXTS,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3),
        max_leaves=10,
    ).filter(lambda data: data is not None)
)
def test_reads_what_a_yaml_writer_wrote(data: object) -> None:
    # In quotes, since PyYAML's idea of what must be quoted is YAML 1.1's.
    text = yaml.safe_dump(data, default_style='"', allow_unicode=True)
    assert read(text) == data


def test_every_document_has_its_line_and_empty_ones_are_left_out() -> None:
    found = read_yaml(b"# nothing\n---\n---\na: 1\n---\n- b\n---\n", str)
    assert [(document.line, document.data) for document in found] == [(4, {"a": 1}), (6, ["b"])]


def test_every_key_and_item_has_its_line() -> None:
    (document,) = read_yaml(b"a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", str, with_lines=True)
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "d"): 5,
    }


def test_lines_cost_nothing_unless_asked_for() -> None:
    (document,) = read_yaml(b"a: [1]\n", str)
    assert document.lines == {}


@pytest.mark.parametrize(
    ("raw", "place", "word"),
    [
        (b"a: 1\nb: 2\na: 3\n", "f:3:", "twice"),
        (b"a: &x [1]\nb: *x\n", "f:2:", "aliases"),
        (b"a: 1\n&x b: 2\n*x : 3\n", "f:3:", "aliases"),
        (b"a: 1\n? [x]\n: 2\n", "f:2:", "as a key"),
        (b"a: 1\nb: !!python/object:os.system x\n", "f:2:", "tag"),
        (b"a: 1\nb: !!int x\n", "f:2:", "tag"),
        (b"a: 1\nb: !!set {x}\n", "f:2:", "tag"),
        (b"a: 1\nb: [1\nc: 2\n", "f:3:", "not YAML"),
        (b"a: 1\n\xff: 2\n", "f:2:", "UTF-8"),
        (b"a: 1\nb: \x01\n", "f:", "not YAML"),
    ],
)
def test_a_wrong_text_is_refused_with_its_line(raw: bytes, place: str, word: str) -> None:
    assert any(text.startswith(place) and word in text for text in problems(raw))


def test_all_problems_come_at_once() -> None:
    found = problems(b"a: 1\na: 2\nb: *x\nc: !!x y\nd: [\n")
    assert [text.split(":")[1] for text in found[:3]] == ["2", "3", "4"]
    assert len(found) == 4


def test_laughs_are_refused_at_the_first_reference() -> None:
    bomb = b"a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n"
    assert len(problems(bomb)) == 8


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nested deeper" in problems(b"[" * (DEPTH_MAX + 1))[0]
    assert read("[" * DEPTH_MAX + "]" * DEPTH_MAX)
    # As many as are allowed take Python's parser half a minute.
    monkeypatch.setattr(yaml_text, "NODES_MAX", 10_000)
    assert "values" in problems(b"[" + b"1," * 10_000 + b"]")[0]
    assert "bytes" in problems(b"#" * (yaml_text.BYTES_MAX + 1))[0]
    assert len(problems(b"a: 1\n" * (PROBLEMS_MAX * 2))) == PROBLEMS_MAX
