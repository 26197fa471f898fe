"""How it ended, for people: errors on stderr, a table on stdout."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from tasklink.cli.document import summary
from tasklink.cli.lines import abridge
from tasklink.cli.number import MIB
from tasklink.cli.table import table
from tasklink.errors import TaskFailedError
from tasklink.result import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tasklink.result import TaskResult

_LONG = 200


def print_table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), dim: Collection[int] = ()) -> None:
    """Print a table; its lines are cut at the edge where stdout is a terminal.

    Args:
        rows: the first one is the head.
        right: the columns that hold numbers.
        dim: the numbers of the rows that matter less.
    """
    for number, line in enumerate(table(rows, right=right, width=terminal_width())):
        click.echo(click.style(line, bold=number == 0 or None, dim=number in dim or None))


def print_finding(text: str) -> None:
    """Print what was found out about somebody, below an empty line; its first line is what it is."""
    first, *rest = text.splitlines()
    click.echo("")
    click.echo(click.style(abridge(first), fg="red"))
    for line in rest:
        click.echo(abridge(line))


def tell(text: str = "") -> None:
    """Print a line to stderr, if anybody reads it: that nobody does must not keep results from being printed."""
    with suppress(OSError):
        click.echo(text, err=True)


def terminal_width() -> int | None:
    """Return how wide the terminal on stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def figures(result: TaskResult) -> tuple[str, str, str, str]:
    """Say how long a run took, how many messages and MiB came from it, and how many were lost."""
    traffic = result.communicators.values()
    messages = sum(one.messages for one in traffic)
    size = sum(one.bytes for one in traffic) / MIB
    return f"{result.duration:.2f}", f"{messages:,}", f"{size:.2f}", str(result.lost)


def print_error(result: TaskResult, *, quiet: bool = False) -> None:
    """Print why a run gave no value, with the traceback of the Task where there is one.

    Args:
        result: how it ended.
        quiet: there were no news; if there were, an error of one line has been told.
    """
    error = result.error
    if error is None:
        return
    first, *rest = str(error).split("\n")
    lines = [first, *(f"  {line}" for line in rest)]
    cause = error if isinstance(error, TaskFailedError) else error.__cause__
    if isinstance(cause, TaskFailedError) and "\n" in cause.traceback.rstrip():
        lines += [f"  {line}" for line in cause.traceback.rstrip().split("\n")]
    if not quiet:
        if len(lines) == 1:
            return
        tell()
    for number, line in enumerate(lines):
        text = abridge(line).rstrip()
        tell(text if number else click.style(text, fg="red"))


def result_row(result: TaskResult) -> tuple[str, ...]:
    """Make a row of a run: its name, how it ended, seconds, lost messages, and what it gave."""
    return abridge(result.name, 40), str(result.status), f"{result.duration:.2f}", str(result.lost), _given(result)


def _given(result: TaskResult) -> str:
    if result.value is not None:
        return abridge(summary(result.value), _LONG)
    if result.error is not None:
        return abridge(str(result.error).partition("\n")[0], _LONG)
    return "" if result.status is Status.COMPLETED else str(result.status)
