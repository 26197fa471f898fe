"""What a Task prints: clauses 12.3 and 12.6.

The Task's descriptors are held by this process, or by one that is killed.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tasklink import vocabulary
from tasklink.errors import ClosedError, CommunicatorError, EndOfMessages
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import Skipped, clause, expect, expect_error
from tasklink.testing.checks.flow import readable, take_what_is_there
from tasklink.testing.checks.traces import expect_nothing_left
from tasklink.testing.errand import pattern, print_and_leave, print_and_wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasklink.communicator import Communicator, Listener
    from tasklink.testing.subject import Subject

_SIGNALS = {1: vocabulary.STDOUT, 2: vocabulary.STDERR}
_LAST_WORDS = 3000  # bytes, which a pipe and a terminal hold before they are read


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
