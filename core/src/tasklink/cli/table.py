"""Columns of text that stand under each other: every table of the program."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = "  "


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), width: int | None = None) -> list[str]:
    """Lay out rows in columns; the first row is the head.

    Args:
        rows: equally long; their texts hold nothing that a terminal acts upon.
        right: the columns whose texts end under each other, as numbers do.
        width: where lines are cut; None: nowhere.

    >>> for line in table([("task", "seconds"), ("count", "1.2"), ("align", "13.4")], right=[1]):
    ...     print(line)
    task   seconds
    count      1.2
    align     13.4
    """
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for number, text in enumerate(row):
            blank = " " * (widths[number] - columns(text))
            cells.append(blank + text if number in right else text + blank)
        lines.append(fit(_GAP.join(cells).rstrip(), width))
    return lines


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: two for a wide character, none for an accent of its own."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def fit(text: str, width: int | None) -> str:
    """Cut a text that is too wide, and mark the cut."""
    if width is None or columns(text) <= width:
        return text
    room = width - 1
    for number, character in enumerate(text):
        room -= _columns(character)
        if room < 0:
            return text[:number] + "…"
    return text


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
