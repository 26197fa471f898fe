"""Conversations that nobody thought of: the whole of clauses 1 to 3, under one name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklink.stream import StreamCommunicator
from tasklink.testing import need
from tasklink.testing.check import Skipped, clause

if TYPE_CHECKING:
    from tasklink.testing.subject import Subject

_EXAMPLES, _STEPS = 50, 30
_EXAMPLES_OF_PROCESSES, _STEPS_OF_PROCESSES = 5, 25
_DEADLINE = 30.0  # to find the shortest conversation takes a while
_LONG = 50  # times as many


@clause("2.2", group="machine", needs=[need.messages, need.examples], deadline=_DEADLINE)
def check_conversations_over_an_adversary(subject: Subject) -> None:
    """Both ends write, read, time out, close and die, while an adversary passes their bytes on as it likes.

    Mended: the text shows the shortest conversation that was found, step by step; write it down as a test of its own.
    """
    _over_an_adversary(subject, 1, repeatable=True)


@clause("2.2", group="machine", needs=[need.messages, need.examples], soak=True, deadline=_DEADLINE * 2)
def check_many_conversations_over_an_adversary(subject: Subject) -> None:
    """The same, for long, and each time others.

    Mended: the text shows the shortest conversation that was found, step by step; write it down as a test of its own.
    """
    _over_an_adversary(subject, _LONG, repeatable=False)


@clause("2.2", group="machine", needs=[need.messages, need.processes, need.examples], deadline=_DEADLINE)
def check_conversations_of_processes(subject: Subject) -> None:
    """Two processes write, read, time out and close, and one of them is interrupted, stopped and killed.

    Mended: the text shows the shortest conversation that was found, step by step; write it down as a test of its own.
    """
    _of_processes(subject, 1, repeatable=True)


@clause("2.2", group="machine", needs=[need.messages, need.processes, need.examples], soak=True, deadline=_DEADLINE * 2)
def check_many_conversations_of_processes(subject: Subject) -> None:
    """The same, for long, and each time others.

    Mended: the text shows the shortest conversation that was found, step by step; write it down as a test of its own.
    """
    _of_processes(subject, _LONG, repeatable=False)


def _over_an_adversary(subject: Subject, times: int, *, repeatable: bool) -> None:
    from tasklink.testing.machine import adversary_machine, converse  # noqa: PLC0415 - hypothesis is an extra

    if not issubclass(subject.kind, StreamCommunicator):
        raise Skipped("it is no StreamCommunicator, whose bytes an adversary could hold")
    machine = adversary_machine(subject.kind)
    converse(machine, examples=_EXAMPLES * times, steps=_STEPS, repeatable=repeatable)


def _of_processes(subject: Subject, times: int, *, repeatable: bool) -> None:
    from tasklink.testing.machine import converse, process_machine  # noqa: PLC0415 - as above

    machine = process_machine(subject)
    converse(machine, examples=_EXAMPLES_OF_PROCESSES * times, steps=_STEPS_OF_PROCESSES, repeatable=repeatable)
