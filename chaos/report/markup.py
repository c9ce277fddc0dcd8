"""HTML and SVG as trees, written out in one piece.

For: pages that stand alone. Not for: what is on them. Invariant: text is always escaped, since it
is never anything but text of a tree.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from chaos.report.junit import clean

Child = ET.Element | str | None


def el(tag: str, *children: Child, **attributes: str | float) -> ET.Element:
    """An element. `class_` is `class`; other names have - for _."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    made = ET.Element(tag, {name: _text(value) for name, value in named.items()})
    for child in children:
        add(made, child)
    return made


def add(parent: ET.Element, child: Child) -> None:
    """Put something behind what is in it already; None is nothing."""
    if isinstance(child, str):
        text = clean(child)
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + text
        else:
            parent.text = (parent.text or "") + text
    elif child is not None:
        parent.append(child)


def _text(value: str | float) -> str:
    return clean(value) if isinstance(value, str) else f"{value:.6g}"


def written(root: ET.Element) -> str:
    """The whole document."""
    return "<!DOCTYPE html>\n" + ET.tostring(root, encoding="unicode", method="html") + "\n"
