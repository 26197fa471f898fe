"""What signal handlers may do: clauses 7.4 and 7.5.

Handlers run in the main thread, so all of this happens in the main thread of a process of its own. A timer rings at
random moments, of which some are within the call that is looked at; where a call waits it rings while it does.
"""

from __future__ import annotations

import random
import signal
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tasklink.errors import BrokenError, ClosedError, EndOfMessages
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import clause, expect
from tasklink.testing.checks.flow import FILLING, contents_of, fill
from tasklink.testing.errand import attempt, pattern
from tasklink.testing.holdings import holdings, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklink.communicator import Communicator
    from tasklink.testing.child import Peer
    from tasklink.testing.subject import Pair, Subject
    from tasklink.testing.work import Work

# Ways that a message may take: in one call, in more than one, in pieces.
_SIZES = (10, 10, 10, 5000, 100_000, 1_500_000)
_WRITES = 240
_CLOSES = 10
_CHANNELS = 10  # each of which may be lost by an exception in `read`
_READS = 40
_SHORT, _LONG = 4e-5, 1e-3  # seconds in which a small message is written, and a large one
_WAITING = 0.05  # seconds after which a call that has to wait does so
_LARGE = 20 << 20
_MORE, _END = -2, -1
_APART = 1 << 32  # numbers from here on are none that `fill` gives


class Interrupt(KeyboardInterrupt):
    """What a handler raises."""


class Alarm:
    """Has a signal handler do something, once, a moment after it was set.

    Args:
        action: what it does.

    Attributes:
        rung: how often it has.
    """

    def __init__(self, action: Callable[[], object]) -> None:
        self.rung = 0
        self._action = action
        self._armed = False
        signal.signal(signal.SIGALRM, self._ring)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Ring so many seconds from now, if what is done here still goes on then."""
        self._armed = True
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            self._armed = False

    def _ring(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            self.rung += 1
            self._action()


class Drain:
    """Reads numbered messages in a thread of its own, to the last one.

    Attributes:
        numbers: of those that came, in their order.
    """

    def __init__(self, subject: Subject, reader: Communicator) -> None:
        self.numbers: list[int] = []
        self._reader = reader
        self._subject = subject
        self._reading: Work[Any] = subject.start(self._read)

    def _read(self) -> None:
        while True:
            number, data = contents_of(self._reader, self._subject)
            if number == _END:
                return
            expect(data == pattern(len(data), number), f"message {number} holds other bytes than were written")
            if number != _MORE:
                self.numbers.append(number)

    def end(self, writer: Communicator) -> None:
        """Write the last messages, in a thread that finds what this one has left, and wait until they have come."""
        patience = self._subject.patience
        last = [*(_numbered(_MORE, size) for size in sorted({*_SIZES})), _numbered(_END, 0)]
        self._subject.start(lambda: [writer.write(message, patience) for message in last]).result(patience * 2)
        self._reading.result(patience)


def _numbered(number: int, size: int) -> Message:
    return Message((number, pattern(size, number)))


def _warm(subject: Subject, pair: Pair) -> None:
    """Have everything imported: an import does not bear exceptions at any moment."""
    for writer, reader in pair.ways():
        for size in sorted({*_SIZES}):
            writing = subject.start(writer.write, Message(bytes(size)), subject.patience)
            reader.read(subject.patience)
            writing.result(subject.patience)


@clause("7.4", group="handlers", needs=[need.messages, need.processes])
def check_a_handler_that_calls(subject: Subject) -> None:
    """A signal handler within `write` or `read` writes and reads: that works, or raises BusyError, and never waits.

    Mended: order threads by locks that know their owner (`tasklink.turn`), and refuse who has one already.
    """
    subject.apart(call_in_handlers).answer()


def call_in_handlers(_: Peer, subject: Subject) -> None:
    """Handlers that come at any moment, then some that come while a call waits."""
    _calls_at_any_moment(subject)
    _calls_in_a_write_that_waits(subject)
    _calls_in_a_read_that_waits(subject)


def _calls_at_any_moment(subject: Subject) -> None:
    chance = random.Random(1)  # noqa: S311 - moments, not secrets
    returned: list[int] = []

    def act() -> None:
        number = _WRITES + alarm.rung
        kind, value = attempt(pair.theirs.write, _numbered(number, chance.choice(_SIZES)), subject.patience)
        expect(kind == "value" or value == "BusyError", f"`write` of a handler raised {value}")
        if kind == "value":
            returned.append(number)
        _expect_nothing_or_busy(pair.theirs)

    with subject.pair() as pair:
        _warm(subject, pair)
        alarm, drain = Alarm(act), Drain(subject, pair.ours)
        for number in range(_WRITES):
            size = chance.choice(_SIZES)
            message = _numbered(number, size)
            with alarm.within(chance.uniform(1e-6, _SHORT if size < _SIZES[-2] else _LONG)):
                pair.theirs.write(message, subject.patience)
            returned.append(number)
        drain.end(pair.theirs)
        expect(alarm.rung, "no handler has run")
        missing = sorted(set(returned) - set(drain.numbers))
        expect(not missing, f"messages {missing} were written within and beside handlers, and have not come")
        expect(len(drain.numbers) == len(returned), "messages came twice, or although their `write` raised BusyError")
        own = [number for number in drain.numbers if number < _WRITES]
        expect(own == sorted(own), "the messages of a thread came out of their order")


def _expect_nothing_or_busy(end: Communicator) -> None:
    kind, value = attempt(end.read, 0)
    expect((kind, value) in (("raised", "TimeoutError"), ("raised", "BusyError")), f"`read(0)` of a handler: {value}")
    end.fileno()


def _calls_in_a_write_that_waits(subject: Subject) -> None:
    drains: list[Drain] = []
    returned: list[int] = []

    def act() -> None:
        for number, size in ((_APART, 10), (_APART + 1, _LARGE)):
            kind, value = attempt(pair.theirs.write, _numbered(number, size), 0)
            if kind == "value":
                returned.append(number)  # what is small may have room where what is large has none
            else:
                expect(value in ("TimeoutError", "BusyError"), f"`write(0)` of a handler raised {value}")
        _expect_nothing_or_busy(pair.theirs)
        drains.append(Drain(subject, pair.ours))

    with subject.pair() as pair:
        alarm = Alarm(act)
        fill(pair.theirs)
        with alarm.within(_WAITING):
            pair.theirs.write(_numbered(_APART + 2, _LARGE), subject.patience)
        returned.append(_APART + 2)
        drain = (drains or [Drain(subject, pair.ours)])[0]  # it may have had room for so much
        drain.end(pair.theirs)
        missing = set(returned) - set(drain.numbers)
        expect(not missing, f"of the messages {returned}, written within a `write` and by it, {missing} have not come")
        expect(len(set(drain.numbers)) == len(drain.numbers), "messages came twice")


def _calls_in_a_read_that_waits(subject: Subject) -> None:
    def act() -> None:
        _expect_nothing_or_busy(pair.theirs)
        pair.theirs.write(Message("from the handler"), subject.patience)
        pair.ours.write(Message("go on"), subject.patience)

    with subject.pair() as pair:
        with Alarm(act).within(_WAITING):
            came = pair.theirs.read(subject.patience).contents
        expect(came == "go on", f"a `read` within which a handler ran gave {came!r}")
        came = pair.ours.read(subject.patience).contents
        expect(came == "from the handler", f"what a handler wrote within `read` came as {came!r}")


@clause("7.4", group="handlers", needs=[need.messages, need.processes, need.linux])
def check_a_handler_that_closes(subject: Subject) -> None:
    """A call within which a signal handler closes raises ClosedError; in `close` it may close, too; nothing is left.

    Mended: `close` cannot wait there for the call that it has interrupted: that one releases everything on its way out.
    """
    subject.apart(close_in_handlers).answer()


def close_in_handlers(_: Peer, subject: Subject) -> None:
    """Handlers that close, in calls that wait and in `close`; then count what is left."""
    _closes(subject, _LARGE)  # what is made once, for all, is no leak
    before = holdings()
    _closes(subject, FILLING)
    left = settled(before, holdings, subject.patience / 2)
    expect(not left, f"after a handler has closed this is left: {left}")


def _closes(subject: Subject, size: int) -> None:
    with subject.pair() as pair:
        with Alarm(pair.theirs.close).within(_WAITING):
            outcome = attempt(pair.theirs.read, subject.patience)
        _expect_closed("read", outcome)
    with subject.pair() as pair:
        fill(pair.theirs)

        def act() -> None:
            subject.start(attempt, _read_to_the_end, pair.ours, subject.patience)
            pair.theirs.close()

        with Alarm(act).within(_WAITING):
            outcome = attempt(pair.theirs.write, Message(pattern(size)), subject.patience)
        if size == FILLING or outcome[0] == "raised":  # where there is room for it, what is large need not wait
            _expect_closed("write", outcome)
    chance = random.Random(2)  # noqa: S311 - as above
    for number in range(_CLOSES):
        with subject.pair() as pair:
            reading = subject.start(_read_to_the_end, pair.ours, subject.patience)
            pair.theirs.write(Message(number))
            close = partial(attempt, pair.theirs.close)  # which may raise for who is second: that is clause 6.1
            with Alarm(close).within(chance.uniform(1e-6, _SHORT * 3)):
                close()
            came = reading.result(subject.patience)
            expect(came == [number], f"{came} came of a peer that wrote {number} and closed")


def _expect_closed(name: str, outcome: tuple[str, Any]) -> None:
    seen = f"raised {outcome[1]}" if outcome[0] == "raised" else "returned"
    expect(outcome == ("raised", "ClosedError"), f"a `{name}` within which a handler closed {seen}")


def _read_to_the_end(end: Communicator, patience: float) -> list[object]:
    contents: list[object] = []
    try:
        while True:
            contents.append(end.read(patience).contents)
    except EndOfMessages:
        return contents


@clause("7.5", group="handlers", needs=[need.messages, need.processes, need.interrupts])
def check_a_handler_that_raises_in_a_write(subject: Subject) -> None:
    """An exception of a signal handler at any moment of a `write`: it comes out, and no other message is the worse.

    Mended: take and give back locks as `tasklink.turn.alone` does; keep count of what the system has taken in the call
    that writes; end a frame that was begun before the next one.
    """
    subject.apart(raise_in_writes).answer()


def raise_in_writes(_: Peer, subject: Subject) -> None:
    """Write, and be interrupted; every message whose `write` has returned has to come."""
    chance = random.Random(3)  # noqa: S311 - as above
    returned: list[int] = []
    with subject.pair() as pair:
        _warm(subject, pair)
        alarm, drain = Alarm(_interrupt), Drain(subject, pair.ours)
        for number in range(_WRITES):
            size = chance.choice(_SIZES)
            message = _numbered(number, size)
            try:
                with alarm.within(chance.uniform(1e-6, _SHORT if size < _SIZES[-2] else _LONG)):
                    pair.theirs.write(message, subject.patience)
                    returned.append(number)
            except Interrupt:
                pass
        drain.end(pair.theirs)
        expect(alarm.rung, "no handler has run")
        missing = sorted(set(returned) - set(drain.numbers))
        expect(not missing, f"messages {missing} have not come, whose `write` had returned")
        wrong = [pair for pair in pairwise(drain.numbers) if pair[0] >= pair[1]]
        expect(not wrong, f"messages came twice, or out of their order: one behind the other {wrong}")


def _interrupt() -> None:
    raise Interrupt


@clause("7.5", group="handlers", needs=[need.messages, need.processes, need.interrupts])
def check_a_handler_that_raises_in_a_read(subject: Subject) -> None:
    """An exception of a signal handler at any moment of a `read`: what is read after it is right, or BrokenError.

    Mended: where it is not known what was taken out of the transport, the channel is broken; say so from then on.
    """
    subject.apart(raise_in_reads).answer()


def raise_in_reads(_: Peer, subject: Subject) -> None:
    """Read, and be interrupted, until the channel is broken; over several channels."""
    chance = random.Random(4)  # noqa: S311 - as above
    alarm = Alarm(_interrupt)
    for _channel in range(_CHANNELS):
        with subject.pair() as pair:
            _warm(subject, pair)
            writing = subject.start(_write_for_ever, pair.theirs, subject.patience)
            _read_interrupted(pair.ours, alarm, chance, subject.patience)
            subject.close(*pair)
            expect(writing.ended(subject.patience), "after an exception within `read` `close` does not wake a writer")
    expect(alarm.rung, "no handler has run")


def _read_interrupted(end: Communicator, alarm: Alarm, chance: random.Random, patience: float) -> None:
    last = 0
    for _ in range(_READS):
        message = None
        try:
            with alarm.within(chance.uniform(1e-6, _LONG)):
                message = end.read(patience)
        except BrokenError:
            return
        except Interrupt:
            pass
        if message is not None:
            contents: Any = message.contents
            number, data = contents
            expect(data == pattern(len(data), number), f"message {number} holds other bytes than were written")
            expect(number > last, f"message {number} came after message {last}")
            last = number


def _write_for_ever(end: Communicator, patience: float) -> None:
    chance = random.Random(5)  # noqa: S311 - as above
    try:
        for number in range(1, 1 << 40):
            end.write(_numbered(number, chance.choice(_SIZES)), patience)
    except (BrokenError, ClosedError):
        pass
