"""The lives of the Tasks of `tasklink.testing.chaos`: how each is to end, what was seen of it, and of them all."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import attrs

from tasklink.hooks import hookimpl
from tasklink.result import Status
from tasklink.testing.errand import pattern
from tasklink.testing.mortal import CODES, VALUE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tasklink.hooks import TaskInfo
    from tasklink.message import Message
    from tasklink.result import TaskResult
    from tasklink.testing.tally import Tally

ENDINGS = ("return", "exception", "exit", "_exit", "segfault", "SIGKILL", "SIGSTOP")
"""How Tasks end. One that is stopped is cancelled then."""

ORDERLY = frozenset({"return", "exception", "exit", "SIGSTOP"})
"""Those after which the Task closes its channel."""

FROM_OUTSIDE = frozenset({"SIGKILL", "SIGSTOP"})
"""Those that are done to the Task."""

# The status, and the exit code or the signal; one that was stopped may end in several ways.
_OUTCOMES: dict[str, tuple[Status, int | str]] = {
    "return": (Status.COMPLETED, 0),
    "exception": (Status.FAILED, 1),
    "exit": (Status.FAILED, CODES["exit"]),
    "_exit": (Status.CRASHED, CODES["_exit"]),
    "segfault": (Status.CRASHED, "SIGSEGV"),
    "SIGKILL": (Status.CRASHED, "SIGKILL"),
    "SIGSTOP": (Status.CANCELLED, 0),
}
_MEAN_LIFE, _LONGEST_LIFE = 0.3, 3.0
_MEAN_STOP = 0.05
_PAUSES = (0.0, 0.0, 0.001, 0.01)
_MIB = 1 << 20


@attrs.define(eq=False)
class Record:
    """What the runs over one protocol came to.

    Attributes:
        names: of its communicators.
        delivers_on_write: whether what was accepted is delivered, however the Task ends; else what was flushed is.
        runs: how many there were.
        messages: how many came.
        lines: how many lines of output came.
        lost: how many messages and lines were promised, and did not come.
        twice: how many came again.
        untrue: how many results, or contents of messages, were not true.
        hangs: how many runs did not end.
        leaks: how often something was left behind.
        worst: the longest time from a death to its result, in seconds.
    """

    names: tuple[str, ...]
    delivers_on_write: bool
    runs: int = 0
    messages: int = 0
    lines: int = 0
    lost: int = 0
    twice: int = 0
    untrue: int = 0
    hangs: int = 0
    leaks: int = 0
    worst: float = 0.0

    @property
    def label(self) -> str:
        """The protocol in a word."""
        return "+".join(self.names)

    def as_dict(self) -> dict[str, object]:
        """Everything by its name, as JSON can hold it."""
        figures = {name: getattr(self, name) for name in _FIGURES}
        return {"communicators": list(self.names), **figures, "worst": round(self.worst, 3)}


_FIGURES = ("runs", "messages", "lines", "lost", "twice", "untrue", "hangs", "leaks")


@attrs.define(eq=False)
class Life:
    """One Task, what is to become of it, and what was seen of it.

    Attributes:
        number: of the run; what is random in it follows from this.
        record: of its protocol.
        ending: how it ends.
        seconds: how long it lives: from when it runs, or for an ending from outside from when its process starts.
        flush_after: when it closes its channel; infinite: at its end.
        sizes: of its messages.
        pause: between two messages.
        stopped_for: how long it is stopped before it is cancelled.
    """

    number: int
    record: Record
    ending: str
    seconds: float
    flush_after: float
    sizes: list[int]
    pause: float
    stopped_for: float
    started: threading.Event = attrs.field(factory=threading.Event)
    process: int = -1  # a pidfd where there are such, so that nobody else is ever signalled
    pid: int | None = None
    struck: float = 0.0  # when the end came, if it came from outside
    ended: float = 0.0  # when there was a result
    messages: int = 0
    lines: int = 0
    begun_line: bytes = b""
    lost: int = 0
    twice: int = 0
    damaged: int = 0

    @classmethod
    def of(cls, number: int, record: Record) -> Self:
        """Choose a life."""
        chance = random.Random(number)  # noqa: S311 - nothing is kept secret by it
        ending = ENDINGS[number % len(ENDINGS)]
        seconds = min(chance.expovariate(1 / _MEAN_LIFE), _LONGEST_LIFE)
        flushes = not record.delivers_on_write and ending not in ORDERLY and chance.random() < 0.5
        return cls(
            number=number,
            record=record,
            ending=ending,
            seconds=seconds,
            flush_after=seconds / 2 if flushes else math.inf,
            sizes=[_size(chance) for _ in range(50)],
            pause=chance.choice(_PAUSES),
            stopped_for=chance.expovariate(1 / _MEAN_STOP),
        )

    @property
    def name(self) -> str:
        """What the Task is called."""
        return f"{self.record.label} {self.number}: {self.ending} after {self.seconds:.2f} s"

    def take(self, message: Message) -> None:
        """Look at a message."""
        try:
            contents: Any = message.contents
            number, data = contents
            whole = data == pattern(self.sizes[number % len(self.sizes)], number)
        except Exception:  # noqa: BLE001 - whatever cannot be read, or is something else
            self.damaged += 1
            return
        self.damaged += not whole
        self.twice += number < self.messages
        self.lost += max(0, number - self.messages)
        self.messages = max(self.messages, number + 1)

    def take_output(self, data: bytes) -> None:
        """Look at what was printed: a terminal ends a line with more than a newline."""
        *lines, self.begun_line = (self.begun_line + data).split(b"\n")
        for line in lines:
            try:
                number = int(line)
            except ValueError:
                self.damaged += 1
                continue
            self.twice += number < self.lines
            self.lost += max(0, number - self.lines)
            self.lines = max(self.lines, number + 1)

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal; it may have ended."""
        try:
            if self.process >= 0:
                signal.pidfd_send_signal(self.process, number)
            elif self.pid is not None and not self.ended:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def note_end(self, _: object) -> None:
        """There is a result."""
        self.ended = time.monotonic()
        self.started.set()

    def release(self) -> None:
        """Let go of the process."""
        if self.process >= 0:
            os.close(self.process)
            self.process = -1


def _size(chance: random.Random) -> int:
    """Most messages are small, and a few are large."""
    if chance.random() < 0.9:
        return chance.randrange(200)
    return min(int(chance.lognormvariate(math.log(50_000), 2)), 8 * _MIB)


class Witness:
    """An observer that looks at everything that comes."""

    def __init__(self) -> None:
        self._lives: dict[str, Life] = {}

    @contextmanager
    def following(self, life: Life) -> Iterator[None]:
        """Follow a run."""
        self._lives[life.name] = life
        try:
            yield
        finally:
            del self._lives[life.name]
            life.release()

    @hookimpl
    def tasklink_task_started(self, task: TaskInfo) -> None:
        """Take hold of its process, which nobody has waited for yet."""
        life = self._lives[task.name]
        life.pid = task.pid
        if hasattr(os, "pidfd_open"):
            assert task.pid is not None
            life.process = os.pidfd_open(task.pid)
        life.started.set()

    @hookimpl
    def tasklink_message_received(self, task: TaskInfo, message: Message) -> None:
        """Look at a message."""
        self._lives[task.name].take(message)

    @hookimpl
    def tasklink_output_received(self, task: TaskInfo, stream: str, data: bytes) -> None:
        """Look at the lines; on standard error there are the stacks of those that crash."""
        if stream == "stdout":
            self._lives[task.name].take_output(data)


def untruth(life: Life, tally: Tally, result: TaskResult) -> str:
    """Say what is not true of a result; nothing where all is."""
    status, ended = _OUTCOMES[life.ending]
    seen = result.signal_name or result.exit_code
    if life.ending == "SIGSTOP":
        return "" if result.status is status else f"it was cancelled, and is said to be {result.status}"
    # Of a Task that is killed at once, or before anything of it was flushed, nobody knows that it had begun.
    unknown = not tally.begun or (not life.record.delivers_on_write and not life.messages)
    if seen != ended:
        return f"it is said to have ended by {seen}, not {ended}"
    if result.status is not status and not (unknown and result.status is Status.NOT_STARTED):
        return f"it is said to be {result.status}, not {status}"
    if result.value != (VALUE if status is Status.COMPLETED else None):
        return f"it is said to have returned {result.value!r}"
    return ""
