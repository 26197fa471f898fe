"""The same three Tasks over one protocol after the other, and the comparison of what they gave."""

from __future__ import annotations

import shutil
import sysconfig
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from tasklink import Executor, TaskSpec
from tasklink.demo.echo import Echo
from tasklink.demo.library import ReadLibrary
from tasklink.errors import SignalNotDeliveredError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tasklink import TaskFuture, TaskResult

TASKS = ("library", "listing", "echo")
PINGS = 200


@attrs.frozen
class Trial:
    """One Task, run over one protocol.

    Attributes:
        task: its name.
        communicators: the protocol: names of communicators, several of them used as one.
        result: how the run ended.
        found: what it gave, in a few words.
        round_trip: seconds from a signal to the answer of the Task; None where nobody talked with it.
        identical: whether all that it gave is what it gave over the first protocol; None for that first one.
    """

    task: str
    communicators: tuple[str, ...]
    result: TaskResult
    found: str
    round_trip: float | None
    identical: bool | None


def protocols_of(carrying: Sequence[str], capturing: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Give each communicator by itself and then, where there are several, all of them together.

    Args:
        carrying: the names of those that carry messages.
        capturing: the names of those that only capture output; each of them needs another one for messages.
    """
    alone = [(name,) for name in carrying]
    beside = [(name, *carrying[:1]) for name in capturing]
    return alone + beside + ([(*capturing, *carrying)] if len(carrying) > 1 else [])


def task_names(protocols: Iterable[tuple[str, ...]]) -> list[str]:
    """Return what the runs of `try_protocols` are called."""
    return [_label(task, names) for names in protocols for task in TASKS]


def try_protocols(protocols: Iterable[tuple[str, ...]], observers: Iterable[object] = ()) -> Iterator[Trial]:
    """Run the three Tasks at a time over each protocol, one protocol after the other.

    Raises:
        PluginError: a communicator cannot be used.
    """
    first: dict[str, object] = {}
    for names in protocols:
        # What a user changes to change the protocol is this line.
        with Executor(names, observers=observers, parallel=3) as executor:
            library = executor.submit(TaskSpec(name=_label("library", names), run=ReadLibrary))
            listing = executor.submit(_listing(_label("listing", names)))
            echo = executor.submit(TaskSpec(name=_label("echo", names), run=Echo))
            round_trip = converse(echo)
            for task, future in zip(TASKS, (library, listing, echo), strict=True):
                result = future.result()
                given = _all_that_was_given(result)
                identical = given == first[task] if task in first else None
                first.setdefault(task, given)
                talked = task == "echo" and bool(round_trip)
                yield Trial(task, names, result, _find(task, result), round_trip if talked else None, identical)


def converse(echo: TaskFuture) -> float:
    """Talk with an Echo to its end, and return how long a ping took to be answered, in seconds."""
    replies = echo.messages()
    seconds = 0.0
    # If it ends too early, its result says why.
    with suppress(SignalNotDeliveredError, StopIteration):
        begun = time.perf_counter()
        for number in range(PINGS):
            echo.signal("ping", number)
            next(replies)
        seconds = (time.perf_counter() - begun) / PINGS
        echo.signal("voice", "loud")
        next(replies)
        echo.pause()
        echo.signal("ping", "are you there?")  # it stays unanswered until
        echo.resume()
        next(replies)
        echo.signal("stop")
    return seconds


def _listing(name: str) -> TaskSpec:
    """A program that prints thousands of lines: the first of some that is installed."""
    commands = (
        (
            "tar",
            "-cvf",
            "/dev/null",
            "--exclude=__pycache__",
            "--exclude=site-packages",
            "--exclude=dist-packages",
            ".",
        ),
        ("find", ".", "-name", "*.py", "-print"),
        ("ls", "-R", "."),
    )
    command = next((command for command in commands if shutil.which(command[0])), commands[-1])
    return TaskSpec(name=name, command=command, cwd=sysconfig.get_path("stdlib"))


def _label(task: str, names: tuple[str, ...]) -> str:
    return f"{task} {'+'.join(names)}"


def _all_that_was_given(result: TaskResult) -> object:
    """Everything that has to be the same whichever way it came."""
    reports = [(message.signal, message.contents) for message in result.messages]
    return result.status, result.value, reports, result.stdout, result.stderr


def _find(task: str, result: TaskResult) -> str:
    if task == "listing":
        lines = len((result.stdout + result.stderr).splitlines())
        return f"{lines:,} lines"
    if not isinstance(result.value, dict):
        return ""
    if task == "echo":
        return f"{sum(result.value.values())} answers"
    return f"{len(result.value['modules'])} modules, {len(result.value['places']) // 2:,} nodes"
