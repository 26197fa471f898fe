"""Several communicators used as one.

Every message gets a number when it is written, and says after which number it may be delivered (`after`): normally
the last one whose write had returned. So the reader restores the order whichever way each message came, while two
messages that were written at the same time do not wait for each other; and a cancel, which says 0, waits for nothing.

The numbers are also the ledger: the reader knows which are missing, and the last message says how many there were.

This module is part of the Task side. One thread reads a Link at a time; any number write.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock
from time import monotonic

from tasklink import codec, vocabulary
from tasklink.errors import BrokenError, CommunicatorError, EndOfMessages, ForkedError
from tasklink.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Mapping, Sequence

    from tasklink.codec import Payload
    from tasklink.communicator import Communicator

# From this size on, a payload prefers a communicator that does not copy it. Below, all of them are equally fast.
LARGE = 64 << 10


class Member:
    """A communicator of a Link, under the name that the config gives it.

    Attributes:
        messages: how many messages it has brought.
        bytes: how many bytes of contents it has brought.
        readable: more may come from it.
        writable: messages may be written to it.
    """

    __slots__ = ("bytes", "communicator", "messages", "name", "readable", "writable")

    def __init__(self, name: str, communicator: Communicator) -> None:
        self.name = name
        self.communicator = communicator
        self.messages = 0
        self.bytes = 0
        self.readable = True
        self.writable = communicator.capabilities.carries_messages


class Link:
    """Communicators in order of preference, written and read as one.

    Attributes:
        members: the communicators, with what they have brought.
        encoding: the number of the codec for contents.

    Args:
        members: name and communicator of each; owned by the Link from now on.
        routes: which communicator carries what: kind of message (`vocabulary.KINDS`) to name.
        encoding: the number of the codec for contents.
        rank: the number of this process among several of one Task.
        on_broken: is told the name of a communicator that failed, and why; the others go on.
    """

    def __init__(
        self,
        members: Sequence[tuple[str, Communicator]],
        *,
        routes: Mapping[str, str] | None = None,
        encoding: int = codec.PICKLE,
        rank: int = 0,
        on_broken: Callable[[str, CommunicatorError], object] = lambda *_: None,
    ) -> None:
        self.members = [Member(name, communicator) for name, communicator in members]
        self._routes = dict(routes or {})
        self.encoding = encoding
        self._rank = rank
        self._on_broken = on_broken
        self._process = os.getpid()
        self._numbers = _Numbers()
        self._ledgers: dict[int, _Ledger] = {}
        self._ready: list[Message] = []
        self._with_work: list[Member] = []
        self._selector: selectors.BaseSelector | None = None

    def add(self, name: str, communicator: Communicator) -> None:
        """Take in a communicator whose peer came late."""
        member = Member(name, communicator)
        self.members.append(member)
        if self._selector is not None:
            self._selector.register(communicator.fileno(), 1)

    # Writing

    def write(self, message: Message, timeout: float | None = None) -> None:
        """Send a message over the communicator that suits it; over the next one when that is broken.

        Args:
            message: what to send; it is not changed.
            timeout: seconds to wait for a slow peer; None: as long as it takes.

        Raises:
            EncodeError, MessageTooLargeError, TimeoutError, ClosedError: as `Communicator.write`.
            BrokenError: no communicator is left.
            ForkedError: this process is a fork of the one that opened the Link.
        """
        if os.getpid() != self._process:  # before any lock: in a fork its holder may not exist
            raise ForkedError(
                f"this Task talks from process {self._process}, of which this process ({os.getpid()}) is a fork; "
                "send from the parent, or start the child as a Task of its own"
            )
        payload = message.payload or codec.encode(message.contents, self.encoding)
        self._fill_gaps(timeout)
        number, after = self._numbers.draw()
        if message.signal in vocabulary.URGENT:
            after = 0
        try:
            self._write_numbered(payload, message.signal, number, after, timeout)
        except BaseException:
            self._numbers.give_up(number)
            raise
        self._numbers.written(number)

    def finish(self, timeout: float | None = None) -> None:
        """Send the last message, which tells the reader how many there were.

        Raises:
            TimeoutError, BrokenError: as `write`.
        """
        self.write(vocabulary.record(vocabulary.END), timeout)

    def _fill_gaps(self, timeout: float | None) -> None:
        """Tell the reader of numbers that nobody will use, or it would wait for them."""
        for number in self._numbers.take_gaps():
            void = vocabulary.record(vocabulary.VOID).payload
            assert void is not None
            try:
                self._write_numbered(void, vocabulary.VOID, number, 0, timeout)
            except BaseException:
                self._numbers.give_up(number)
                raise

    def _write_numbered(
        self, payload: Payload, signal: str | None, number: int, after: int, timeout: float | None
    ) -> None:
        message = Message.encoded(payload, signal, number, after)
        message.rank = self._rank
        for member in self._candidates(signal, payload.nbytes):
            try:
                member.communicator.write(message, timeout)
            except BrokenError as error:
                self._writing_failed(member, error)
            else:
                return
        names = ", ".join(member.name for member in self.members) or "none"
        raise BrokenError(f"no communicator is left that can carry a message (there were: {names})")

    def _candidates(self, signal: str | None, size: int) -> list[Member]:
        """The members that can carry a message, the most suitable first."""
        able = [member for member in self.members if member.writable and _fits(member, size)]
        if len(able) < 2:
            return able
        route = self._routes.get(vocabulary.kind(signal))
        return sorted(able, key=lambda member: (member.name != route, size >= LARGE and not _zero_copy(member)))

    def _writing_failed(self, member: Member, error: CommunicatorError) -> None:
        if member.writable:
            member.writable = False
            self._on_broken(member.name, error)

    # Reading

    def read(self, timeout: float | None = None) -> Message:
        """Wait for the next message in order.

        Args:
            timeout: seconds to wait; 0: take what is there; None: as long as it takes.

        Raises:
            EndOfMessages: every communicator has ended, and everything that came was given.
            TimeoutError: no message came in time.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self._ready:
            readable = [member for member in self.members if member.readable]
            if not readable:
                self._settle()
            elif len(readable) == 1:
                if not self._read_member(readable[0], _rest(deadline)):
                    raise TimeoutError("no message came in time")
            else:
                self._read_one_of(readable, deadline)
        return self._ready.pop(0)

    def fileno(self) -> int:
        """A descriptor that is readable when `read` has work."""
        if self._selector is None:
            import selectors  # noqa: PLC0415 - a Task, which has a thread to wait with, never gets here

            self._selector = selectors.DefaultSelector()
            for member in self.members:
                if member.readable:
                    self._selector.register(member.communicator.fileno(), selectors.EVENT_READ)
        descriptor = self._selector.fileno()  # type: ignore[attr-defined]
        assert isinstance(descriptor, int)
        return descriptor

    @property
    def missing(self) -> list[range]:
        """The numbers of messages that were sent and have not come."""
        return [gap for _, ledger in sorted(self._ledgers.items()) for gap in ledger.missing()]

    def close(self) -> None:
        """Close every communicator."""
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        for member in self.members:
            member.readable = member.writable = False
            member.communicator.close()

    def _read_one_of(self, readable: list[Member], deadline: float | None) -> None:
        if not self._with_work:
            self._with_work = _wait_for_one(readable, deadline)
        # Each in turn, so that a flood from one does not keep the others waiting.
        member = self._with_work.pop(0)
        if member.readable and self._read_member(member, 0):
            self._with_work.append(member)

    def _read_member(self, member: Member, timeout: float | None) -> bool:
        """Read one message; False when none came in time."""
        try:
            message = member.communicator.read(timeout)
        except TimeoutError:
            return False
        except EndOfMessages:
            self._stop_reading(member)
        except CommunicatorError as error:
            self._stop_reading(member)
            self._on_broken(member.name, error)
        else:
            self._take(member, message)
        return True

    def _take(self, member: Member, message: Message) -> None:
        message.communicator = member.name
        member.messages += 1
        if message.payload is not None:
            member.bytes += message.payload.nbytes
        if message.sequence == 0 or message.signal in vocabulary.OUTPUT:
            self._ready.append(message)
            return
        ledger = self._ledgers.get(message.rank)
        if ledger is None:
            ledger = self._ledgers[message.rank] = _Ledger()
        ledger.take(message, self._ready)

    def _stop_reading(self, member: Member) -> None:
        member.readable = False
        if self._selector is not None:
            self._selector.unregister(member.communicator.fileno())

    def _settle(self) -> None:
        """Nothing more can come: give what waited for something that is lost."""
        for ledger in self._ledgers.values():
            ledger.settle(self._ready)
        if not self._ready:
            raise EndOfMessages


class _Numbers:
    """The numbers of what is written, and which of them are on their way."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._last = 0
        self._under_way: set[int] = set()
        self._gaps: list[int] = []

    def draw(self) -> tuple[int, int]:
        """Give a new number, and the last one up to which everything has been written."""
        with self._lock:
            after = min(self._under_way) - 1 if self._under_way else self._last
            self._last += 1
            self._under_way.add(self._last)
            return self._last, after

    def written(self, number: int) -> None:
        with self._lock:
            self._under_way.discard(number)

    def give_up(self, number: int) -> None:
        with self._lock:
            self._gaps.append(number)

    def take_gaps(self) -> list[int]:
        if not self._gaps:
            return self._gaps
        with self._lock:
            gaps, self._gaps = self._gaps, []
            self._under_way.difference_update(gaps)
            return gaps


class _Ledger:
    """What has come from one sender: restores the order, drops duplicates, knows what is missing."""

    def __init__(self) -> None:
        self._complete = 0  # every number up to this one has been delivered
        self._beyond: set[int] = set()  # delivered, but not all before it
        self._waiting: dict[int, list[Message]] = {}  # by the number they wait for
        self._held: set[int] = set()  # the numbers of those that wait

    def take(self, message: Message, ready: list[Message]) -> None:
        """Take in what came, and append to `ready` what can be delivered now."""
        number = message.sequence
        if number <= self._complete or number in self._beyond or number in self._held:
            return
        if message.after > self._complete:
            self._held.add(number)
            self._waiting.setdefault(message.after, []).append(message)
            return
        self._deliver(message, ready)
        self._advance(ready)

    def settle(self, ready: list[Message]) -> None:
        """Deliver all that waits, in the order of its numbers."""
        waiting = sorted((m for messages in self._waiting.values() for m in messages), key=lambda m: m.sequence)
        self._waiting.clear()
        for message in waiting:
            self._deliver(message, ready)

    def missing(self) -> list[range]:
        """The numbers that have not come, although a later one has."""
        gaps = []
        expected = self._complete + 1
        for number in sorted(self._beyond | self._held):
            if number > expected:
                gaps.append(range(expected, number))
            expected = number + 1
        return gaps

    def _deliver(self, message: Message, ready: list[Message]) -> None:
        self._held.discard(message.sequence)
        self._beyond.add(message.sequence)
        if message.signal not in (vocabulary.VOID, vocabulary.END):
            ready.append(message)

    def _advance(self, ready: list[Message]) -> None:
        while self._complete + 1 in self._beyond:
            self._complete += 1
            self._beyond.discard(self._complete)
            for message in self._waiting.pop(self._complete, ()):
                self._deliver(message, ready)


def _fits(member: Member, size: int) -> bool:
    limit = member.communicator.capabilities.max_message
    return limit is None or size <= limit


def _zero_copy(member: Member) -> bool:
    return member.communicator.capabilities.zero_copy


def _rest(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - monotonic())


def _wait_for_one(members: list[Member], deadline: float | None) -> list[Member]:
    poll = select.poll()
    by_descriptor = {member.communicator.fileno(): member for member in members}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    rest = _rest(deadline)
    ready = poll.poll(None if rest is None else rest * 1000)
    if not ready:
        raise TimeoutError("no message came in time")
    return [by_descriptor[descriptor] for descriptor, _ in ready]
