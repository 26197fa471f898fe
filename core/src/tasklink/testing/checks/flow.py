"""Who waits for whom, and for how long: clauses 1.2 to 1.4, 2.5, 2.6, 4 and 5."""

from __future__ import annotations

import select
import signal
import time
from typing import TYPE_CHECKING, Any

from tasklink.errors import EndOfMessages
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import ConformanceError, clause, expect, expect_error
from tasklink.testing.errand import obey, pattern

if TYPE_CHECKING:
    from tasklink.communicator import Communicator
    from tasklink.testing.subject import Subject

FILLING = 32_000  # bytes of a message; small enough to go the way of small ones
_MOST_UNREAD = 256 << 20  # bytes
_LARGE = 40 << 20
_ROUNDS = 4
_AT_ONCE = 50  # messages that another process reads before it answers
_MOMENT = 0.1  # seconds for another thread to come as far as it comes


def fill(writer: Communicator, seconds: float = 0.25) -> int:
    """Write numbered messages until one runs out of time; how many were written.

    Args:
        writer: where.
        seconds: the time of each: so much that one for which there is room is not late, on a machine that is busy.

    Raises:
        ConformanceError: it took more than memory should be used for.
    """
    count = 0
    while count * FILLING < _MOST_UNREAD:
        try:
            writer.write(Message((count, pattern(FILLING, count))), timeout=seconds)
        except TimeoutError:
            return count
        count += 1
    raise ConformanceError(f"{_MOST_UNREAD >> 20} MiB were written to a peer that reads nothing, and nothing waited")


def contents_of(end: Communicator, subject: Subject) -> Any:
    """Read a message, and give what it holds."""
    return end.read(subject.patience).contents


def readable(end: Communicator, seconds: float) -> bool:
    """Whether the descriptor of an end says that there is work."""
    poll = select.poll()
    poll.register(end.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def take_what_is_there(end: Communicator) -> list[Message]:
    """Read as one reads after `fileno` was readable."""
    messages = []
    while True:
        try:
            messages.append(end.read(timeout=0))
        except TimeoutError:
            return messages


@clause("1.2", group="backpressure", needs=[need.messages])
def check_a_slow_reader_holds_its_writer(subject: Subject) -> None:
    """Who writes to a peer that does not read has to wait before 256 MiB are under way, and goes on when it reads.

    Mended: bound what is queued, by bytes, on both sides together; never read from the transport what nobody asked for.
    """
    with subject.pair() as pair:
        written = fill(pair.theirs)
        waiting = subject.start(pair.theirs.write, Message("last"))
        while (content := pair.ours.read(subject.patience).contents) != "last":
            assert isinstance(content, tuple)
            expect(content[0] <= written, f"message {content[0]} came although only {written} were written")
        waiting.result(subject.patience)


@clause("1.2", group="backpressure", needs=[need.messages, need.processes])
def check_a_peer_that_is_stopped(subject: Subject) -> None:
    """While the peer's process is stopped its writer waits; when it goes on, everything arrives.

    Mended: as for a slow reader; a peer that is silent is not a peer that is gone.
    """
    with subject.peer(obey) as (ours, child):
        child.ask("write", "ready", subject.patience)
        ours.read(subject.patience)
        child.signal(signal.SIGSTOP)
        try:
            written = fill(ours)
        finally:
            child.signal(signal.SIGCONT)
        waiting = subject.start(ours.write, Message("last"))
        come: list[object] = []
        while not come or come[-1] != "last":
            kind, value = child.ask("skim", _AT_ONCE, subject.patience)
            expect(kind == "value", f"the peer's read raised {value} after {len(come)} messages")
            come += value
        waiting.result(subject.patience)
        expect(come[:-1] in (list(range(written)), list(range(written + 1))), f"of {written} messages came {len(come)}")
        child.ask("close")


@clause("1.3", group="timeouts", needs=[need.messages])
def check_the_time_out_of_a_write(subject: Subject) -> None:
    """A write that finds no room raises TimeoutError when its time is up: small or large, 0 or less at once.

    Mended: take the deadline once, on entry, from `time.monotonic`, and wait for the rest of it only: for a lock, too.
    """
    with subject.pair() as pair:
        fill(pair.theirs)
        for timeout in (0, -1, 0.05):
            for size in (FILLING, 3 << 20):
                writing = subject.start(pair.theirs.write, Message(pattern(size)), timeout)
                if not writing.ended(subject.patience / 2):
                    raise ConformanceError(f"a write of {size} bytes with a time-out of {timeout} s still waits")
                if size == FILLING or isinstance(writing.error, Exception):
                    expect(isinstance(writing.error, TimeoutError | None), f"it raised {writing.error!r}")
        subject.start(pair.theirs.write, Message(pattern(20 << 20)))
        waiting = subject.start(pair.theirs.write, Message(pattern(20 << 20)), 0.05)
        expect(waiting.ended(subject.patience / 2), "a write that waits for another writer does not keep its time-out")


@clause("2.5", group="timeouts", needs=[need.messages])
def check_the_time_out_of_a_read(subject: Subject) -> None:
    """A read that finds nothing raises TimeoutError when its time is up; a month, or for ever, is only a long time.

    Mended: as for a write; and poll(2) takes its time in milliseconds, as a C int, so longer waits have to be cut.
    """
    with subject.pair() as pair:
        for timeout in (0, -1, 0.01, 0.1):
            begun = time.monotonic()
            reading = subject.start(pair.ours.read, timeout)
            if not reading.ended(subject.patience / 2):
                raise ConformanceError(f"a read with a time-out of {timeout} s still waits")
            expect(isinstance(reading.error, TimeoutError), f"a read with nothing to read: {reading.error!r}")
            expect(time.monotonic() - begun >= timeout * 0.9, f"a time-out of {timeout} s was up too soon")
        for timeout in (30 * 86400.0, 1e12, float("inf")):
            reading = subject.start(pair.ours.read, timeout)
            expect(not reading.ended(0.02), f"a read with a time-out of {timeout} s did not wait: {reading.error!r}")
            pair.theirs.write(Message(timeout))
            came = reading.result(subject.patience).contents
            expect(came == timeout, f"{came!r} came instead of {timeout}")


@clause("2.6", group="timeouts", needs=[need.messages])
def check_a_time_out_of_a_read_loses_nothing(subject: Subject) -> None:
    """Readers that run out of time again and again, also within large messages, get all of them whole.

    Mended: keep what was read of a message in the communicator, not in the call that reads.
    """
    contents = [pattern(size, size) for size in (10, 3_000_000, 100_000, 0, 5_000_000, 1)]
    with subject.pair() as pair:
        writing = subject.start(lambda: [pair.theirs.write(Message(content)) for content in contents])
        come: list[object] = []
        deadline = time.monotonic() + subject.patience
        turn = 0
        while len(come) < len(contents):
            expect(time.monotonic() < deadline, f"only {len(come)} of {len(contents)} messages came")
            turn += 1
            try:
                come.append(pair.ours.read((0, 0.0001, 0.01)[turn % 3]).contents)
            except TimeoutError:
                continue
        expect(come == contents, "what came is not what was written")
        writing.result(subject.patience)


@clause("1.4", group="timeouts", needs=[need.messages])
def check_after_a_write_ran_out_of_time(subject: Subject) -> None:
    """Messages that ran out of time arrive once or not at all, all others once, in order; the end is in good order.

    Mended: a frame that was begun has to be ended before the next one, from a copy; or the peer has to be told that it
    was given up (`framing.GIVEN_UP`).
    """
    with subject.pair() as pair:
        written = fill(pair.theirs)
        # There is room for a part of the next one; a Unix socket takes nothing before three quarters are free.
        come: list[int] = [contents_of(pair.ours, subject)[0] for _ in range(written)]
        late: list[object] = []
        for size in (5 << 20, 5 << 20, FILLING):
            number = written + len(late)
            late.append(number)
            try:
                pair.theirs.write(Message((number, pattern(size, number))), timeout=0.02)
            except TimeoutError:
                continue
        last = written + len(late)
        writing = subject.start(pair.theirs.write, Message((last, b"last")))
        while not come or come[-1] != last:
            number, data = contents_of(pair.ours, subject)
            expect(
                number == last or data == pattern(len(data), number), f"message {number} is torn: it holds other bytes"
            )
            come.append(number)
        writing.result(subject.patience)
        expect(come[:written] == list(range(written)), "a message whose write had returned is missing, or out of order")
        expect(come == sorted(set(come)), f"messages came twice or out of order: {come[written:]}")
        closing = subject.start(pair.theirs.close)
        expect_error(EndOfMessages, pair.ours.read, subject.patience)
        closing.result(subject.patience)


@clause("4.1", group="urgency", needs=[need.messages])
def check_a_small_message_overtakes_a_large_one(subject: Subject) -> None:
    """A signal that is written while 40 MiB are under way, and nobody reads, is there before all of them were read.

    Mended: write large messages in pieces (`framing.split`), and let whoever has a small one go first after each piece.
    """
    with subject.pair() as pair:
        for _ in range(_ROUNDS):
            large = subject.start(pair.theirs.write, Message(pattern(_LARGE)))
            if large.ended(_MOMENT):
                large.result(0)
                pair.ours.read(subject.patience)  # it did not have to wait: so nobody has to wait for it
                return
            urgent = subject.start(pair.theirs.write, Message(None, "cancel"))
            urgent.ended(_MOMENT)  # until it waits for its turn; where that takes longer, the next round may show it
            come = [pair.ours.read(subject.patience) for _ in range(2)]
            large.result(subject.patience)
            urgent.result(subject.patience)
            if come[0].signal == "cancel":
                expect(come[1].contents == pattern(_LARGE), "the large message is not what was written")
                return
        raise ConformanceError(
            f"what is urgent came after all of the {_LARGE >> 20} MiB, {_ROUNDS} times out of {_ROUNDS}"
        )


@clause("5.1", group="descriptor", needs=[need.messages])
def check_the_descriptor_shows_work(subject: Subject) -> None:
    """It is readable when a message is there, each time anew, and when the peer has ended: for as long as it is so.

    Mended: whatever takes a message out of the transport before `read` gives it must leave something in the descriptor,
    such as a `Doorbell` that is rung.
    """
    with subject.pair() as pair:
        for writer, reader in pair.ways():
            for number in range(20):
                writer.write(Message(number))
                come: list[Message] = []
                while not come:
                    expect(
                        readable(reader, subject.patience),
                        f"message {number} was written, and the descriptor shows nothing",
                    )
                    come += take_what_is_there(reader)
                expect([message.contents for message in come] == [number], "what came is not what was written")
        closing = subject.start(pair.theirs.close)
        for _ in range(3):
            expect(readable(pair.ours, subject.patience), "the end of the peer does not show in the descriptor")
            while True:
                try:
                    pair.ours.read(timeout=0)
                except TimeoutError:
                    expect(readable(pair.ours, subject.patience), "the end of the peer shows no more")
                except EndOfMessages:
                    break
        closing.result(subject.patience)


@clause("5.2", group="descriptor", needs=[need.messages])
def check_a_loop_over_the_descriptor(subject: Subject) -> None:
    """Who waits for the descriptor and reads until TimeoutError gets everything, and is not woken for nothing after.

    Mended: clear a bell before looking for messages, not after; then nothing that comes in between is missed.
    """
    sizes = [number * 100_003 % 1_500_000 if number % 5 == 0 else number for number in range(60)]
    with subject.pair() as pair:
        writing = subject.start(lambda: [pair.theirs.write(Message(pattern(size, size))) for size in sizes])
        come: list[object] = []
        while len(come) < len(sizes):
            expect(readable(pair.ours, subject.patience), f"only {len(come)} of {len(sizes)} messages showed")
            come += [message.contents for message in take_what_is_there(pair.ours)]
        writing.result(subject.patience)
        expect(come == [pattern(size, size) for size in sizes], "what came is not what was written")
        deadline = time.monotonic() + subject.patience
        while readable(pair.ours, 0) and time.monotonic() < deadline:
            expect(not take_what_is_there(pair.ours), "a message came that nobody has written")
        expect(not readable(pair.ours, 0), "the descriptor is readable for ever, although there is nothing to read")
