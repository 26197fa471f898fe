"""How far a measurement is, for who waits for it: on stderr. Beside `live`, the only file that imports rich."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from tasklink.cli.report import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Show = Callable[[float, str], None]


def gauge(*, quiet: bool) -> AbstractContextManager[Show]:
    """Give what shows how far it is: how much is done, from 0 to 1, and what comes next.

    Args:
        quiet: nothing is shown; else it is a bar where stderr is a terminal and rich is installed, or else lines.
    """
    if quiet:
        return nullcontext(lambda _, __: None)
    if sys.stderr.isatty() and importlib.util.find_spec("rich"):  # an extra: tasklink[rich]
        return _bar()
    return nullcontext(lambda done, what: tell(f"{done:4.0%} {what}"))


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console  # noqa: PLC0415 - rich takes 100 ms to import
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = (
        BarColumn(30, complete_style="cyan", finished_style="cyan"),
        TextColumn("{task.percentage:>3.0f} %", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    # Twice a second and no more: what draws it takes CPU time from what is measured.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2, redirect_stdout=False) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda done, what: progress.update(task, completed=done, description=what)
