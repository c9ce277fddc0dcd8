"""What annotations of a Kubernetes Service say of it here.

For: `meshd.io/...` and, of those that both know, Cilium's `service.cilium.io/...`. Not for: the
rest of the manifest (`kubernetes`). Invariant: an annotation that is read and wrong is a problem
that names it; one that isn't known is passed over, unless it is ours: then it is a mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from meshd.core.document import Fields, shown
from meshd.model.errors import Problem, RejectedError
from meshd.model.service import Affinity

OURS = "meshd.io/"
SHARED_PREFIXES = ("service.cilium.io/", OURS)
"""Later ones win."""

Texts = Callable[[str], object]
"""Reads a text as YAML, which JSON is too; raises RejectedError."""
Said = tuple[dict[str, object], dict[str, str]]
"""The fields of a service, and where each was said."""

_FLAGS: Mapping[str, object] = {"true": True, "false": False}
_SHARED: Mapping[str, Mapping[str, object]] = {
    "global": _FLAGS,
    "shared": _FLAGS,
    "affinity": {str(kind): kind for kind in Affinity},
}
_NUMBER = re.compile(r"[0-9]{1,9}\Z")


def read_annotations(annotations: Fields, texts: Texts) -> Said:
    """Read all of them."""
    found: dict[str, object] = {}
    where: dict[str, str] = {}
    for prefix in SHARED_PREFIXES:
        for name, choices in _SHARED.items():
            value = annotations.data.get(prefix + name)
            if value is None:
                continue
            if not isinstance(value, str) or value not in choices:
                wanted = " or ".join(f'"{choice}"' for choice in choices)
                annotations.problem(prefix + name, f"is {shown(value)}", f"write {wanted}")
            else:
                found[name] = choices[value]
    for name, (path, read) in _MORE.items():
        text = annotations.data.get(OURS + name)
        if not isinstance(text, str):
            # What is no text is a problem, but for null.
            annotations.text(OURS + name)
            continue
        try:
            value = read(text, texts)
        except RejectedError as error:
            problem = error.problems[0]
            annotations.problem(OURS + name, f"is {shown(text)}: {problem.what}", problem.remedy)
            continue
        where[path] = annotations.at(OURS + name)
        outer, dot, inner = path.partition(".")
        found[outer] = {inner: value} if dot else value
    _refuse_unknown(annotations)
    return found, where


def read_json(text: str) -> object:
    """Read a text as JSON; raises RejectedError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RejectedError((Problem("", f"is not JSON: {error}", "mend it"),)) from None


def _refuse_unknown(annotations: Fields) -> None:
    known = (*_SHARED, *_MORE)
    for name in annotations.data:
        ours = name.removeprefix(OURS)
        if len(ours) < len(name) and ours not in known:
            near = get_close_matches(ours, known, n=1)
            all_known = ", ".join(OURS + one for one in known)
            remedy = f"did you mean {OURS}{near[0]}?" if near else f"there are {all_known}"
            annotations.problem(name, "unknown annotation", remedy)


def _number(text: str, _: Texts) -> object:
    """A number; what is none stays a text, which the value's own check then refuses."""
    return int(text) if _NUMBER.match(text) else text


def _names(text: str, _: Texts) -> object:
    return [name.strip() for name in text.split(",")]


def _word(text: str, _: Texts) -> object:
    return text


def _data(text: str, texts: Texts) -> object:
    return texts(text)


_MORE: Mapping[str, tuple[str, Callable[[str, Texts], object]]] = {
    "weight": ("weight", _number),
    "tiers": ("tiers", _data),
    "spill-below-percent": ("spill.below_percent", _number),
    "export-audiences": ("export.audiences", _names),
    "exposure": ("exposure", _word),
    "staleness-policy": ("staleness.policy", _word),
}
"""What each says, as the path of a field of a service."""
