"""The reporter for terminals: a bar for each run below the lines of news. Beside `gauge`, only this file imports rich.

Lines are handed to rich as they are: it neither wraps nor styles what a Task printed, which for 100,000 lines would
take longer than the Task. Where the terminal wraps them, the bars move down by themselves.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tasklink.cli.progress import Activity, Line, Reporter, Tone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import ConsoleOptions, RenderableType, RenderResult

_STYLES = {
    Tone.OUTPUT: Style(),
    Tone.NEWS: Style(dim=True),
    Tone.WARNING: Style(color="yellow"),
    Tone.GOOD: Style(color="green"),
    Tone.BAD: Style(color="red"),
}
_NAME = Style(color="cyan")
_BAR_WIDTH = 20
# For the ^C that a terminal shows where the cursor is: in a line of its own it would push the bars up.
_ROOM = 3


class LiveReporter(Reporter):
    """Keeps bars at the bottom of the terminal. See `Reporter` for the arguments."""

    tells_of_starts: ClassVar[bool] = False  # a bar appears

    def __init__(self, names: Iterable[str], *, output: bool = True) -> None:
        super().__init__(names, output=output)
        self._console = _console()
        self._live = Live(
            console=self._console,
            get_renderable=self._bars,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
        )

    def write(self, lines: Sequence[Line]) -> None:
        """Show lines above the bars."""
        with suppress(OSError):  # the terminal may be gone
            # Without soft_wrap rich would cut every line at the edge.
            self._console.print(_Lines(lines), soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._live.stop()

    def _bars(self) -> RenderableType:
        bars = Table.grid(padding=(0, 1))
        bars.width = self._console.width - _ROOM
        bars.add_column(no_wrap=True)
        bars.add_column(width=_BAR_WIDTH)
        bars.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        activities = self.activities
        for activity in activities:
            bars.add_row(Text(self.padded(activity.name), _NAME), _bar(activity), Text(activity.describe()))
        if self.total > 1 and activities:
            bars.add_row("", "", Text(f"{self.ended} of {self.total} ended", "dim"))
        return bars


class _Lines:
    """Lines as rich prints them: their own characters, and nothing else."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, _: Console, __: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            if line.name:
                yield Segment(f"{line.name} {line.mark} ", _NAME)
            yield Segment(line.text, _STYLES[line.tone])
            yield Segment.line()


def can_move_cursor() -> bool:
    """Whether the terminal on stderr can do what bars need."""
    return not _console().is_dumb_terminal


def _console() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _bar(activity: Activity) -> ProgressBar:
    fraction = activity.fraction
    return ProgressBar(
        total=1,
        completed=fraction or 0,
        pulse=fraction is None,
        width=_BAR_WIDTH,
        complete_style=_NAME,
        finished_style=_NAME,
        pulse_style=_NAME,
    )
