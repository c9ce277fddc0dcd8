"""Operations as values: what can be one."""

import pytest

from meshd.model.errors import RejectedError
from meshd.model.operation import (
    DrainPlan,
    MigrationPlan,
    Operation,
    Progress,
    Subject,
    SubjectKind,
)
from meshd.model.schema import from_data, to_data

DRAIN = {"kind": "drain", "subjects": ["cluster"], "stages": [{"turned_percent": 0}]}
PLAN = {"from": "east", "to": "west", "services": ["shop/web"], "steps": [{"percent": 100}]}


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("cluster", Subject(SubjectKind.CLUSTER)),
        ("service/shop/web", Subject(SubjectKind.SERVICE, "shop/web")),
        ("endpoint/shop/web/web-1", Subject(SubjectKind.ENDPOINT, "shop/web/web-1")),
        ("node/n1", Subject(SubjectKind.NODE, "n1")),
    ],
)
def test_a_subject_is_read_as_it_is_written(text: str, subject: Subject) -> None:
    assert Subject.parse(text) == subject
    assert str(subject) == text


@pytest.mark.parametrize(
    "text", ["", "clusters", "cluster/x", "service/web", "endpoint/shop/web", "node/", "node/A"]
)
def test_what_is_no_subject(text: str) -> None:
    with pytest.raises(RejectedError):
        Subject.parse(text)
    with pytest.raises(RejectedError, match="subjects"):
        from_data(Operation, DRAIN | {"subjects": [text]}, "")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subjects": []}, "subjects"),
        ({"subjects": ["cluster", "cluster"]}, "names something twice"),
        ({"stages": []}, "stages"),
        ({"stages": [{"turned_percent": 101}]}, r"stages\[0\].turned_percent"),
        ({"stages": [{"turned_percent": 0, "hold_s": -1.0}]}, r"stages\[0\].hold_s"),
        ({"to": "West"}, "to: "),
        ({"kind": "stop"}, "kind"),
        ({"floor_percent": 200}, "floor_percent"),
    ],
)
def test_what_is_no_operation(change: dict[str, object], expected: str) -> None:
    with pytest.raises(RejectedError, match=expected):
        from_data(Operation, DRAIN | change, "")


def test_how_far_an_operation_has_turned_something() -> None:
    stages = [{"turned_percent": 60}, {"turned_percent": 0}]
    fresh = {"stages": stages, "before": {"cluster": 80}}
    assert from_data(Operation, DRAIN | fresh, "").turned_now("cluster") == 80
    begun = from_data(Operation, DRAIN | fresh | {"stage": 1}, "")
    assert begun.turned_now("cluster") == 60
    assert begun.next_stage == begun.stages[1]
    back = from_data(Operation, DRAIN | fresh | {"stage": 1, "progress": "rolled-back"}, "")
    assert back.turned_now("cluster") == 80
    assert not back.is_under_way
    assert from_data(Operation, to_data(begun), "") == begun
    assert from_data(Operation, DRAIN | {"stage": 1}, "").next_stage is None
    assert from_data(Operation, DRAIN, "").progress is Progress.RUNNING


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"services": []}, "services"),
        ({"steps": [{"percent": 0}]}, r"steps\[0\].percent"),
        ({"form": "east"}, "form: unknown field"),
    ],
)
def test_what_is_no_plan(change: dict[str, object], expected: str) -> None:
    assert from_data(MigrationPlan, PLAN, "").steps[0].moved_percent == 100
    with pytest.raises(RejectedError, match=expected):
        from_data(MigrationPlan, PLAN | change, "")


@pytest.mark.parametrize("change", [{"subjects": ["moon"]}, {"steps": 0}, {"to_percent": 101}])
def test_what_is_no_drain(change: dict[str, object]) -> None:
    with pytest.raises(RejectedError, match=next(iter(change))):
        from_data(DrainPlan, {"kind": "drain", "subjects": ["cluster"]} | change, "")
