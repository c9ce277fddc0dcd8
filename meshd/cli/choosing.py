"""`--type`, `--namespace`, `--service`, `--label`: which events.

For: the options that lists and streams of events share. Not for: where they begin. Invariant: the
server checks them, so that what it doesn't know is refused with what it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from meshd.client import EventChoice

OPTIONS = (
    ("--type", "types", "Only this type, like service.set"),
    ("--namespace", "namespaces", "Only what is in this namespace"),
    ("--service", "services", "Only this service, NAMESPACE/NAME, and its endpoints"),
    ("--label", "labels", "Only what has this label, NAME=VALUE or NAME; removals too"),
)


def choice_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, as its argument `choice`."""

    @wraps(command)
    def chosen(
        *arguments: Any,
        types: Sequence[str],
        namespaces: Sequence[str],
        services: Sequence[str],
        labels: Sequence[str],
        **others: Any,
    ) -> None:
        choice = EventChoice(types=types, namespaces=namespaces, services=services, labels=labels)
        command(*arguments, choice=choice, **others)

    for flag, name, text in reversed(OPTIONS):
        chosen = click.option(flag, name, multiple=True, help=f"{text}; several times.")(chosen)
    return chosen
