"""What happens in the runs, for the person who waits for them: on stderr, as it happens.

A `Reporter` is an observer that makes lines of the news. Where they go is the matter of two classes derived from it:
`PlainReporter` writes them one below the other, for files, pipes and pagers, and says from time to time how far
everything is; `tasklink.cli.live` keeps bars below them, on a terminal.

Rules of this file: all text of a Task is escaped here, and nothing of it is ever split by the news of another Task. The
hooks are called in the threads of the runs; what a run says stays in order.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from tasklink.cli.lines import LineSplitter, abridge
from tasklink.cli.number import count_of, spell_bytes, spell_number, spell_rate, spell_roughly, spell_seconds
from tasklink.cli.table import columns
from tasklink.hooks import hookimpl
from tasklink.result import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasklink.errors import TasklinkError
    from tasklink.hooks import TaskInfo
    from tasklink.result import TaskResult

# Loggers whose names say nothing: Task.log, the root logger, and Python's warnings.
_ANONYMOUS = frozenset({"task", "root", "py.warnings"})
# What a run calls its plain pipes where no communicator captures the output.
_CAPTURE = "output"
_YEARS = 1e8


class Tone(Enum):
    """What kind of line it is; `live` gives each its colour."""

    OUTPUT = "output"
    NEWS = "news"
    WARNING = "warning"
    GOOD = "good"
    BAD = "bad"


_TONES = {"warning": Tone.WARNING, "error": Tone.BAD, "critical": Tone.BAD}


@attrs.frozen
class Line:
    """One line of news.

    Attributes:
        name: of the Task, padded to the width of the longest one; empty where the news is of no single Task.
        mark: "|" for its standard output, "!" for its standard error, a blank for other news.
        text: what there is to say.
        tone: what kind of line it is.
    """

    name: str
    mark: str
    text: str
    tone: Tone = Tone.NEWS

    def __str__(self) -> str:
        return f"{self.name} {self.mark} {self.text}".rstrip() if self.name else self.text


@attrs.define(eq=False)
class Activity:
    """What is known of a run that has not ended."""

    name: str
    begun: float = attrs.field(factory=time.monotonic)
    done: float | None = None
    total: float | None = None
    note: str = ""
    lines: int = 0
    last_line: str = ""
    streams: dict[str, LineSplitter] = attrs.field(factory=dict)
    _first: tuple[float, float] | None = None  # the time of the first progress, and what was done by then

    def advance(self, done: float, total: float | None, note: str) -> None:
        """Take in how far the Task is."""
        if self._first is None or self.done is None or done < self.done:  # a Task may begin something new
            self._first = time.monotonic(), done
        self.done, self.total, self.note = done, total, abridge(note, 200)

    @property
    def fraction(self) -> float | None:
        """How much is done, from 0 to 1; None when that is not known."""
        if self.done is None or not self.total:
            return None
        fraction = self.done / self.total
        return min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else None

    def describe(self) -> str:
        """Say in a line how far the Task is."""
        now = time.monotonic()
        if self.done is None:
            facts = [f"running for {spell_roughly(now - self.begun)}"]
            if self.lines:
                facts.append(count_of(self.lines, "line"))
            note = self.last_line
        else:
            facts = [self._amount(), *self._pace(now)]
            note = self.note
        return ", ".join(facts) + (f": {note}" if note else "")

    def _amount(self) -> str:
        assert self.done is not None
        fraction = self.fraction
        if fraction is None or self.total is None:
            return f"{spell_number(self.done)} done"
        return f"{fraction:.0%}, {spell_number(self.done)} of {spell_number(self.total)}"

    def _pace(self, now: float) -> list[str]:
        assert self._first is not None
        assert self.done is not None
        first_time, first_done = self._first
        if now <= first_time or not 0 < (rate := (self.done - first_done) / (now - first_time)) < math.inf:
            return []
        left = (self.total - self.done) / rate if self.total is not None else 0.0
        # Years are no answer, and Tasks may say anything.
        return [spell_rate(rate), f"{spell_roughly(left)} left"] if 0 < left < _YEARS else [spell_rate(rate)]


class Reporter(ABC):
    """An observer that makes lines of what happens. A context manager: it reports within it.

    Args:
        names: of all Tasks that will run, for the width of their column and for how many there are to come.
        output: whether what Tasks print is shown; if not, its lines are counted.
    """

    tells_of_starts: ClassVar[bool] = True

    def __init__(self, names: Iterable[str], *, output: bool = True) -> None:
        shown = [abridge(name, 40) for name in names]
        self.total = len(shown)
        self.ended = 0
        self._width = max(map(columns, shown), default=0)
        self._output = output
        self._activities: dict[str, Activity] = {}
        self._lock = threading.Lock()  # of the two attributes that several runs change

    @abstractmethod
    def write(self, lines: Sequence[Line]) -> None:
        """Show lines, none of them torn; called from any thread."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    def say(self, text: str) -> None:
        """Show something that is about no single Task."""
        self.write([Line("", "", text)])

    @property
    def activities(self) -> list[Activity]:
        """The runs that have not ended, in the order in which they began."""
        with self._lock:
            return list(self._activities.values())

    def padded(self, name: str) -> str:
        """Return a name with the blanks that make it as wide as the widest one."""
        return name + " " * (self._width - columns(name))

    @hookimpl
    def tasklink_task_started(self, task: TaskInfo) -> None:
        """Begin to follow a run."""
        activity = self._activity(task)
        names = [name for name in task.communicators if name != _CAPTURE]
        if self.tells_of_starts:
            self._tell(activity, f"started as process {task.pid}" + (f", over {' + '.join(names)}" if names else ""))

    @hookimpl
    def tasklink_output_received(self, task: TaskInfo, stream: str, data: bytes) -> None:
        """Show what it printed, line by line."""
        activity = self._activity(task)
        splitter = activity.streams.get(stream) or activity.streams.setdefault(stream, LineSplitter())
        self._show_output(activity, stream, splitter.feed(data))

    @hookimpl
    def tasklink_progress(self, task: TaskInfo, done: float, total: float | None, note: str) -> None:
        """Remember how far it is; that is shown when it is time to."""
        self._activity(task).advance(done, total, note)

    @hookimpl
    def tasklink_log(self, task: TaskInfo, level: str, logger: str, text: str) -> None:
        """Show what it logged."""
        origin = [] if level == "info" else [level]
        origin += [] if logger in _ANONYMOUS else [logger]
        lines = [abridge(line) for line in ": ".join([*origin, text]).rstrip().split("\n")]
        self._tell(self._activity(task), *lines, tone=_TONES.get(level, Tone.NEWS))

    @hookimpl
    def tasklink_communicator_broken(self, task: TaskInfo, communicator: str, error: TasklinkError) -> None:
        """Show that a communicator broke."""
        self._tell(self._activity(task), abridge(f"communicator {communicator} broke: {error}"), tone=Tone.WARNING)

    @hookimpl
    def tasklink_task_ended(self, task: TaskInfo, result: TaskResult) -> None:
        """Show how the run ended."""
        activity = self._activity(task)
        for stream, splitter in activity.streams.items():
            self._show_output(activity, stream, splitter.end())
        with self._lock:
            self._activities.pop(task.run_id, None)
            self.ended += 1
        tone = Tone.GOOD if result.status is Status.COMPLETED and not result.lost else Tone.BAD
        self._tell(activity, describe_end(result), tone=tone)

    def _activity(self, task: TaskInfo) -> Activity:
        with self._lock:
            return self._activities.setdefault(task.run_id, Activity(abridge(task.name, 40)))

    def _show_output(self, activity: Activity, stream: str, lines: list[str]) -> None:
        if not lines:
            return
        activity.lines += len(lines)
        activity.last_line = "" if self._output else lines[-1]
        if self._output:
            name, mark = self.padded(activity.name), "!" if stream == "stderr" else "|"
            self.write([Line(name, mark, line, Tone.OUTPUT) for line in lines])

    def _tell(self, activity: Activity, *texts: str, tone: Tone = Tone.NEWS) -> None:
        name = self.padded(activity.name)
        self.write([Line(name, " ", text, tone) for text in texts])


class PlainReporter(Reporter):
    """Writes one line below the other, each with the time of day. See `Reporter` for the other arguments.

    Args:
        heartbeat: seconds between two words about how far everything is; 0: none.
    """

    def __init__(self, names: Iterable[str], *, output: bool = True, heartbeat: float) -> None:
        super().__init__(names, output=output)
        self._heartbeat = heartbeat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="tasklink-heartbeat", daemon=True)
        self._writing = threading.Lock()
        self._nobody_reads = False

    def write(self, lines: Sequence[Line]) -> None:
        """Write lines to stderr, in one go."""
        now = time.strftime("%H:%M:%S")
        text = "".join(f"{now} {line}\n" for line in lines)
        with self._writing:
            if self._nobody_reads:
                return
            try:
                sys.stderr.write(text)
                sys.stderr.flush()
            except OSError:  # `tasklink run … 2>&1 | head`: the runs go on
                self._nobody_reads = True

    def __enter__(self) -> Self:
        if self._heartbeat:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._heartbeat):
            self.write([Line(self.padded(run.name), " ", run.describe()) for run in self.activities])


def describe_end(result: TaskResult) -> str:
    """Say in a line how a run ended."""
    took = f" after {spell_seconds(result.duration)}" if result.pid is not None else ""
    text = f"{result.status}{took}"
    if result.status is Status.COMPLETED:
        traffic = result.communicators.values()
        messages = count_of(sum(one.messages for one in traffic), "message")
        text += f": {messages}, {spell_bytes(sum(one.bytes for one in traffic))}"
    elif result.error is not None:
        text += f": {abridge(str(result.error).partition(chr(10))[0])}"
    return text + (f", {count_of(result.lost, 'message')} lost" if result.lost else "")


def make_reporter(names: Iterable[str], *, heartbeat: float, output: bool = True) -> Reporter:
    """Give the reporter that suits stderr: bars where it is a terminal and rich is installed, else lines."""
    if sys.stderr.isatty():
        try:
            from tasklink.cli.live import LiveReporter, can_move_cursor  # noqa: PLC0415 - rich takes 100 ms to import
        except ModuleNotFoundError:  # rich is an extra: tasklink[rich]
            pass
        else:
            if can_move_cursor():
                return LiveReporter(names, output=output)
    return PlainReporter(names, output=output, heartbeat=heartbeat)
