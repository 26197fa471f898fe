"""What a Task prints: clauses 12.3 and 12.6, and those about closing and forks, which hold for it, too.

The Task's descriptors are held by this process, or by one that is killed.
"""

from __future__ import annotations

import os
import signal
import warnings
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tasklink import vocabulary
from tasklink.errors import ClosedError, CommunicatorError, EndOfMessages
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import Skipped, clause, expect, expect_error
from tasklink.testing.checks.flow import readable, take_what_is_there
from tasklink.testing.checks.many import in_a_fork
from tasklink.testing.checks.traces import expect_nothing_left
from tasklink.testing.errand import pattern, print_and_leave, print_and_wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasklink.communicator import Communicator, Listener
    from tasklink.testing.child import Peer
    from tasklink.testing.subject import Subject

_SIGNALS = {1: vocabulary.STDOUT, 2: vocabulary.STDERR}
_LAST_WORDS = 3000  # bytes, which a pipe and a terminal hold before they are read
_READERS = 3
_MOMENT = 0.05  # seconds for another thread to come as far as it comes


def _output_of(subject: Subject, listener: Listener) -> Listener:
    if listener.output is None:
        declared = subject.kind.capabilities.captures_output
        raise Skipped(f"it declares captures_output={declared}, and its Listener has no `output`")
    return listener.output


@contextmanager
def _printing(subject: Subject) -> Iterator[tuple[Communicator, dict[int, int]]]:
    """Give what is captured, and descriptors to print to by the number that they have in a Task."""
    with ExitStack() as opened:
        with subject.listening() as listener:
            output = _output_of(subject, listener)
            theirs = {number: os.dup(end) for number, end in output.standard_descriptors.items() if number in _SIGNALS}
            opened.callback(_close_all, theirs)
            captured = output.accept(subject.patience)
            opened.callback(captured.close)
        yield captured, theirs


def _close_all(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _said(messages: list[Message]) -> dict[str | None, bytes]:
    said: dict[str | None, bytes] = dict.fromkeys(_SIGNALS.values(), b"")
    for message in messages:
        said[message.signal] += b"".join(bytes(buffer) for buffer in message.buffers or ())
    return said


def _read_to_the_end(captured: Communicator, patience: float) -> dict[str | None, bytes]:
    messages = []
    try:
        while True:
            messages.append(captured.read(patience))
    except EndOfMessages:
        return _said(messages)


@clause("12.3", group="output", needs=[need.listener])
def check_captured_output(subject: Subject) -> None:
    """What a process prints on both streams arrives byte by byte, with what is no text; then the end.

    Mended: drain both streams as bytes until both have ended; keep no copy of their writing ends on this side. A
    communicator that captures nothing leaves `Listener.output` None.
    """
    printed = {1: pattern(300_000) + b"\xff\0\r no newline", 2: b"\x80error\n" * 1000}
    declared = subject.kind.capabilities.captures_output
    with ExitStack() as opened, subject.listening() as listener:
        kept = declared is (listener.output is not None)
        expect(kept, f"it declares captures_output={declared}, and its Listener has `output` {listener.output!r}")
        output = _output_of(subject, listener)
        standard = dict(output.standard_descriptors)  # `accept` may take them out
        expect(standard, "its `output` takes no standard descriptor of the Task")
        child = subject.run(print_and_leave, *printed.values(), standard=standard)
        captured = output.accept(subject.patience)
        opened.callback(captured.close)
        _expect_printed(_read_to_the_end(captured, subject.patience), printed, standard)
        child.wait()


def _expect_printed(
    said: Mapping[str | None, bytes], printed: Mapping[int, bytes], standard: Mapping[int, int]
) -> None:
    for number, data in printed.items():
        came = said[_SIGNALS[number]]
        expect(
            number not in standard or came == data,
            f"{_SIGNALS[number]}: {len(came)} bytes came, or others than the {len(data)} that were printed",
        )


@clause("12.6", group="output", needs=[need.listener])
def check_output_that_pauses(subject: Subject) -> None:
    """While nothing is printed `read` keeps its time-out; what is printed shows in the descriptor, and no longer.

    Mended: as for messages: the descriptor is that of a selector, or of a bell that is rung; a pause is no end.
    """
    with _printing(subject) as (captured, theirs):
        for round_ in range(6):
            for timeout in (0, -1, 0.01):
                expect_error(TimeoutError, captured.read, timeout)
            expect(not readable(captured, 0), "nothing was printed, and the descriptor is readable")
            for number, descriptor in theirs.items():
                data = b"%d\xff\r" % round_
                os.write(descriptor, data)
                expect(readable(captured, subject.patience), "what was printed does not show in the descriptor")
                came = _said(take_what_is_there(captured))[_SIGNALS[number]]
                expect(came == data, f"{came!r} came instead of {data!r}")


@clause("12.6", group="output", needs=[need.listener, need.processes])
def check_the_end_of_output(subject: Subject) -> None:
    """The last words of a process that is killed come, and then the end, each time one asks.

    Mended: what the system still holds is read before the end is told; and the end is remembered.
    """
    printed = {1: pattern(_LAST_WORDS), 2: pattern(_LAST_WORDS, 1)}
    with ExitStack() as opened, subject.listening() as listener:
        output = _output_of(subject, listener)
        standard = dict(output.standard_descriptors)
        child = subject.run(print_and_wait, *printed.values(), standard=standard)
        captured = output.accept(subject.patience)
        opened.callback(captured.close)
        child.answer()
        child.signal(signal.SIGKILL)
        _expect_printed(_read_to_the_end(captured, subject.patience), printed, standard)
        for _ in range(2):
            expect_error(EndOfMessages, captured.read, subject.patience)


@clause("12.6", group="output", needs=[need.listener])
def check_output_is_only_read(subject: Subject) -> None:
    """Writing to it raises an error of tasklink, as a second `accept` does, and as every call does after `close`.

    Mended: derive from `tasklink.output.OutputCommunicator`; look in `accept` at what was given away.
    """
    with subject.listening() as listener:
        output = _output_of(subject, listener)
        output.accept(subject.patience).close()
        expect_error(CommunicatorError, output.accept, 0)
    with _printing(subject) as (captured, _):
        expect_error(CommunicatorError, captured.write, Message("to the Task"))
        captured.close()
        captured.close()
        for call in (captured.read, captured.fileno):
            expect_error(ClosedError, call)


@clause("12.6", group="output", needs=[need.listener, need.processes, need.linux])
def check_output_gives_everything_back(subject: Subject) -> None:
    """Descriptors, threads, processes and files are as before, after something was printed, and its reader closed.

    Mended: as for messages: `close` gives back what `accept` gave away, and `Listener.close` the rest.
    """
    with subject.listening() as listener:
        _output_of(subject, listener)
    expect_nothing_left(subject, print_and_close)


def print_and_close(subject: Subject) -> None:
    """Something is printed, of which a part is read."""
    with _printing(subject) as (captured, theirs):
        for descriptor in theirs.values():
            os.write(descriptor, b"words")
        captured.read(subject.patience)


@clause("6.2", group="output", needs=[need.listener])
def check_close_wakes_who_reads_output(subject: Subject) -> None:
    """Threads that wait in `read` for what is printed raise ClosedError when another one closes.

    Mended: closing a descriptor wakes nobody; have the selector watch a `Doorbell`, too, that `close` rings, and let
    go of the descriptors when no thread waits for them.
    """
    with _printing(subject) as (captured, _):
        reading = [subject.start(captured.read) for _ in range(_READERS)]
        reading[0].ended(_MOMENT)
        captured.close()
        for work in reading:
            expect(work.ended(subject.patience), "a thread still waits in `read`")
            expect(isinstance(work.error, ClosedError), f"`read` ended with {work.error!r}")


@clause("8.1", group="output", needs=[need.listener, need.processes])
def check_a_fork_cannot_read_output(subject: Subject) -> None:
    """In a forked child `read`, `fileno` and `write` raise ForkedError, also while a thread of the parent waits.

    Mended: derive from FramedCommunicator, which asks first.
    """
    facts = _told_by_a_fork(subject, "use")
    expect(facts == ["ForkedError"] * 3, f"read, fileno and write gave {facts} in a forked child")


@clause("8.2", group="output", needs=[need.listener, need.processes])
def check_a_fork_leaves_output_alone(subject: Subject) -> None:
    """A forked child that closes does not hang, and the parent goes on reading, to the end.

    Mended: in a fork close descriptors and nothing else: what is taken out of an epoll is taken out of the parent's.
    """
    facts = _told_by_a_fork(subject, "close")
    expect(facts == [None], f"`close` gave {facts} in a forked child")


def _told_by_a_fork(subject: Subject, what: str) -> list[str | None]:
    with subject.listening() as listener:
        _output_of(subject, listener)
    told: list[str | None] = subject.apart(fork_beside_output, what).answer()
    return told


def fork_beside_output(_: Peer, subject: Subject, what: str) -> list[str | None]:
    """Fork while a thread waits for output; the child tells what its calls raised; the parent reads to the end."""
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, which is what is checked
    with _printing(subject) as (captured, theirs):
        reading = subject.start(_read_to_the_end, captured, subject.patience)
        reading.ended(_MOMENT)
        using = [captured.read, captured.fileno, partial(captured.write, Message())]
        told = in_a_fork(*(using if what == "use" else [captured.close]))
        printed = {number: b"printed to %d" % number for number in theirs}
        for number, data in printed.items():
            os.write(theirs[number], data)
        descriptors = dict(theirs)
        _close_all(theirs)
        _expect_printed(reading.result(subject.patience), printed, descriptors)
    return told
