"""How far a measurement is, on a terminal. Beside `live`, the only file that imports rich."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def gauge() -> Iterator[Callable[[float, str], None]]:
    """Keep a bar on stderr, and give what moves it: how much is done, from 0 to 1, and what comes next."""
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
