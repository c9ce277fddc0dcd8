import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.edges.http.documents import YAML_TYPES, parse_documents
from meshd.model.errors import RejectedError
from meshd.settings.yaml_text import BYTES_MAX

JSON = "application/json"


def problems(raw: bytes, content_type: str) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        parse_documents(raw, content_type)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("content_type", [*sorted(YAML_TYPES), "application/vnd.x+yaml; a=b"])
def test_yaml_has_the_line_of_each_document(content_type: str) -> None:
    raw = b"# nothing\n---\na: 1\n---\n\nb: 2\n"
    assert parse_documents(raw, content_type) == [("line 3", {"a": 1}), ("line 6", {"b": 2})]


@pytest.mark.parametrize("content_type", [JSON, "Application/JSON; charset=utf-8", "x/y+json"])
def test_json_is_one_document_or_a_list_of_them(content_type: str) -> None:
    assert parse_documents(b'\xef\xbb\xbf{"a": [1, null]}', content_type) == [
        ("document", {"a": [1, None]})
    ]
    assert parse_documents(b'[{"a": 1}, 2]', content_type) == [
        ("document 0", {"a": 1}),
        ("document 1", 2),
    ]


@pytest.mark.parametrize(
    ("raw", "content_type", "expected"),
    [
        (b"", JSON, "line 1: is not JSON: Expecting value (mend it)"),
        (b'{"a":\n 1,}', JSON, "line 2: is not JSON: "),
        (b'{"a":\n "\xff"}', JSON, "line 2: is not UTF-8 (save it as UTF-8)"),
        (b'{"a": {"b": 1, "b": 2}}', JSON, "the key 'b' is in one object twice (remove one)"),
        (b'{"a": NaN}', JSON, "NaN is not JSON (remove it)"),
        (b'{"a": -Infinity}', JSON, "-Infinity is not JSON (remove it)"),
        (b"9" * 31, JSON, "a number of 31 digits (write it as a text)"),
        (b"[" * 100_000, JSON, "is nested too deep (make it flatter)"),
        (b" " * (BYTES_MAX + 1), JSON, f"more than {BYTES_MAX} bytes (split it)"),
        (b"[]", JSON, "there is no document in it (send at least one)"),
        (b"---\n# nothing\n", "", "there is no document in it (send at least one)"),
        (b"a: 1\na: 2\n", "", "line 2: the key 'a' is here twice (remove one)"),
        (b"<a/>", "text/xml", "content type 'text/xml' is unknown (send application/yaml)"),
    ],
    ids=range(13),
)
def test_what_cannot_be_read_is_refused(raw: bytes, content_type: str, expected: str) -> None:
    assert problems(raw, content_type)[0].startswith(expected)


@given(st.binary(max_size=60), st.sampled_from([JSON, "application/yaml"]))
def test_any_body_is_read_or_refused(raw: bytes, content_type: str) -> None:
    try:
        found = parse_documents(raw, content_type)
    except RejectedError as error:
        found = [(problem.what, None) for problem in error.problems]
    assert found
