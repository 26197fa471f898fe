"""Several communicators used as one.

What is written gets a number, and goes over the communicator that suits it; what is read is given in the order of the
numbers, whichever way it came. How that works, and what is missing, is the matter of `ledger`: it is the reader's
account, and the last message says how many there were.

When one communicator breaks while the peer lives, the others go on, and nothing is lost: see `failover`.

This module is part of the Task side. One thread reads a Link at a time; any number write.
"""

from __future__ import annotations

import os
import select
from _thread import RLock, get_ident
from errno import EBADF
from time import monotonic

from tasklink import codec, fork, vocabulary
from tasklink.doorbell import Doorbell
from tasklink.errors import (
    BrokenError,
    ClosedError,
    CommunicatorError,
    EndOfMessages,
    ForkedError,
    LimitExceededError,
    MessageTooLargeError,
    ProtocolError,
)
from tasklink.failover import FailOver
from tasklink.kept import ACKNOWLEDGED_BYTES, MESSAGE_BYTES
from tasklink.ledger import Before, Ledger, Numbers
from tasklink.member import Member
from tasklink.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tasklink.communicator import Communicator

# From this size on, a payload prefers a communicator that does not copy it. Below, all of them are equally fast.
LARGE = 64 << 10

# While one member has work all the time, the others are asked every so many messages whether they have.
_TURNS = 64
_LONGEST_POLL = 1_000_000.0  # seconds; poll(2) counts milliseconds in a C int


class Link:
    """Communicators in order of preference, written and read as one.

    Attributes:
        members: the communicators, with what they have brought.
        encoding: the number of the codec for contents. With JSON, nothing that comes is decoded as a pickle.
        reading_failed: a communicator could not be read; if false, those that have ended were ended by the peer.

    Args:
        members: name and communicator of each; owned by the Link from now on.
        routes: which communicator carries what: kind of message (`vocabulary.KINDS`) to name.
        encoding: the number of the codec for contents.
        rank: the number of this process among several of one Task.
        largest: the largest message of the peer that is taken (bytes of contents); None for any.
        deepest: how deep lists and dicts of the peer that come as JSON may lie in one another; None for any depth.
        on_broken: is told the name of a communicator that failed while the peer lives, and why, by the thread that
            finds out; the others go on.
    """

    def __init__(
        self,
        members: Sequence[tuple[str, Communicator]],
        *,
        routes: Mapping[str, str] | None = None,
        encoding: int = codec.PICKLE,
        rank: int = 0,
        largest: int | None = None,
        deepest: int | None = None,
        on_broken: Callable[[str, CommunicatorError], object] = lambda *_: None,
    ) -> None:
        self.members = [Member(name, communicator) for name, communicator in members]
        self._routes = dict(routes or {})
        self.encoding = encoding
        self._rank = rank
        self._largest = largest
        # By the number of a codec: what is added to it, so that the contents are decoded with care, or not at all.
        self._care = dict.fromkeys(codec.PICKLES, codec.WITHHELD) if encoding == codec.JSON else {}
        if deepest is not None:
            self._care[codec.JSON] = deepest * codec.PER_LEVEL
        self._on_broken = on_broken
        self._process = os.getpid()
        self._generation = fork.generation
        self.reading_failed = False
        self._closed = False
        self._peer_has: Collection[str] | None = None
        self._numbers = Numbers()
        self._ways: dict[tuple[str, bool], list[Member]] = {}  # by kind and whether it is large; until members change
        self._limited = any(member.limit is not None for member in self.members)
        self._ledgers: dict[int, Ledger] = {}
        self._over = FailOver(
            self.members, self._numbers, self._ledgers, rank,
            candidates=self._candidates, forget_ways=self._ways_changed, tell=self._tell_of_broken,
        )  # fmt: skip
        self._ready: list[Message] = []  # can be given now, the next one last
        self._with_work: list[Member] = []
        self._turns = 0
        self._some_ended = False
        self._selector: selectors.BaseSelector | None = None
        self._bell: Doorbell | None = None  # wakes the thread that waits for several members
        self._waiting = RLock()  # which has this lock meanwhile
        self._bound(self.members)

    def add(self, name: str, communicator: Communicator) -> None:
        """Take in a communicator whose peer came late."""
        member = Member(name, communicator, known=self._peer_has is not None)
        member.writable = member.writable and self._reaches_peer(name)
        self.members.append(member)
        self._bound([member])
        self._ways_changed()
        self._over.count_ways()
        self._limited = self._limited or member.limit is not None
        self.look_everywhere()  # what was read alone until now may have work that does not show in its descriptor
        if self._selector is not None:
            self._selector.register(member.descriptor, 1)

    def limit_writing(self, names: Collection[str]) -> None:
        """Write to no other members than these: the peer has said that it has no others."""
        self._peer_has = names
        for member in self.members:
            member.writable = member.writable and self._reaches_peer(member.name)
            member.known = True
        self._ways_changed()
        self._over.count_ways()

    def _ways_changed(self) -> None:
        self._ways = {}

    def _bound(self, members: list[Member]) -> None:
        if self._largest is not None:
            for member in members:
                member.communicator.refuse_larger(self._largest)

    def _reaches_peer(self, name: str) -> bool:
        return self._peer_has is None or name in self._peer_has

    # Writing

    def write(self, message: Message, timeout: float | None = None) -> None:
        """Send a message over the communicator that suits it; over the next one when that is broken.

        Args:
            message: what to send; it is not changed.
            timeout: seconds to wait for a slow peer; None: as long as it takes.

        Raises:
            EncodeError, MessageTooLargeError, TimeoutError, ClosedError: as `Communicator.write`.
            BrokenError: no communicator is left.
            BusyError: a signal handler has interrupted this thread in `write`.
            ForkedError: this process is a fork of the one that opened the Link.
        """
        if self._generation != fork.generation:  # before any lock: in a fork its holder may not exist
            raise self._forked()
        outgoing = Message.encoded(*message.encode(self.encoding), message.signal)
        members = self._candidates(message.signal, outgoing.nbytes)
        deadline = None if timeout is None else monotonic() + timeout
        if self._over.failing and message.signal not in vocabulary.URGENT:
            self._over.go_over(deadline)
            members = self._candidates(message.signal, outgoing.nbytes)
        if self._numbers.gaps:
            self._fill_gaps(deadline)
        try:
            before = self._numbers.draw(outgoing)
            self._write_numbered(outgoing, members, 0 if message.signal in vocabulary.URGENT else before, deadline)
        except BaseException:
            self._numbers.give_up(outgoing)
            raise

    def allocate(self, nbytes: int) -> memoryview:
        """Give new memory for a buffer that is to be written; see `Communicator.allocate`."""
        if self._generation != fork.generation:
            raise self._forked()
        return self._candidates(None, max(nbytes, LARGE))[0].communicator.allocate(nbytes)

    def finish(self, timeout: float | None = None) -> None:
        """Send the last message, which tells the reader how many there were; wait until all was acknowledged.

        Raises:
            TimeoutError, BrokenError: as `write`.
        """
        self.write(vocabulary.record(vocabulary.END), timeout)
        self._over.confirm(None if timeout is None else monotonic() + timeout)

    def flush(self) -> None:
        """Wait until what was written is delivered; see `Communicator.flush`.

        Raises:
            TimeoutError: a peer did not confirm it.
            ForkedError: as `write`.
        """
        while True:
            for member in self.members:
                if member.writable:
                    try:
                        member.communicator.flush()
                    except CommunicatorError as error:
                        if self._closed:
                            raise
                        self._over.give_up(member, error)
            if not self._over.failing:
                return
            self._over.go_over(None)  # and what it took is flushed with the others

    def _fill_gaps(self, deadline: float | None) -> None:
        """Tell the reader of numbers that nobody will use, or it would wait for them."""
        void = vocabulary.record(vocabulary.VOID)
        try:
            while self._numbers.take_gap(void):
                self._write_numbered(void, self._candidates(void.signal, 0), 0, deadline)
                void = vocabulary.record(vocabulary.VOID)
        except BaseException:
            self._numbers.give_up(void)
            raise

    def _write_numbered(
        self, message: Message, members: list[Member], before: int | Before, deadline: float | None
    ) -> None:
        """Write to the first member that takes the message."""
        message.rank = self._rank
        over, crowded = self._over, False
        for member in members:
            message.after = before if isinstance(before, int) else before.number_for(member)
            try:
                if over.keeps or not member.writable:  # in this order: it may break now, and be the last but one
                    crowded = over.write(member, message, deadline)
                else:
                    member.communicator.write(message, None if deadline is None else _rest(deadline))
            except CommunicatorError as error:
                if self._closed:
                    raise
                if member.writable:  # that the peer is gone is no news: see `FailOver.give_up`
                    over.give_up(member, error, told=not isinstance(error, BrokenError))
                if message.signal in vocabulary.URGENT:
                    over.go_over_aside()
                else:
                    over.go_over(deadline)
            else:
                break
        else:
            raise self._nobody_left()
        self._numbers.written(message, member)
        if crowded:
            over.wait_for_room(message, deadline)

    def _candidates(self, signal: str | None, size: int) -> list[Member]:
        """The members that can carry a message, the most suitable first."""
        kind, large = vocabulary.kind(signal), size >= LARGE
        members = self._ways.get((kind, large))
        if members is None:
            ways = self._ways  # another one as soon as this one is out of date
            route = self._routes.get(kind)
            members = [member for member in self.members if member.writable]
            members.sort(key=lambda member: (member.name != route, large and not member.zero_copy))
            ways[kind, large] = members
        if not members:
            raise self._nobody_left()
        if self._limited:
            able = [member for member in members if member.fits(size)]
            if not able:
                raise _too_large(size, members)
            return able
        return members

    def _nobody_left(self) -> CommunicatorError:
        if self._closed:
            return _closed()
        names = ", ".join(member.name for member in self.members) or "none"
        return BrokenError(f"no communicator is left that can carry a message (there were: {names})")

    # Reading

    def read(self, timeout: float | None = None) -> Message:
        """Wait for the next message in order.

        Args:
            timeout: seconds to wait; 0: take what is there; None: as long as it takes.

        Raises:
            EndOfMessages: every communicator has ended, and everything that came was given.
            TimeoutError: no message came in time.
            ClosedError: `close` was called on this side.
            ForkedError: as `write`.
        """
        if self._generation != fork.generation:
            raise self._forked()
        deadline = None if timeout is None else monotonic() + timeout
        while not self._ready:
            found = self._next_ones(deadline)
            self._ready = [message for message in found if message.signal not in vocabulary.UNHEARD]
            if len(self._ready) < len(found):
                self._ready += self._heed(found)
            self._ready.reverse()
        return self._ready.pop()

    def look_everywhere(self) -> None:
        """Have the next reads ask every member, whether its descriptor says that it has work or not.

        A descriptor may be late to tell, as that of an attentive reader of shared memory.
        """
        self._with_work = [member for member in self.members if member.readable]

    def peer_is_gone(self) -> None:
        """Take note that the peer is dead: what is there is all that there is, and nothing is waited for."""
        self._over.peer_gone = True
        self.look_everywhere()

    def fileno(self) -> int:
        """A descriptor that is readable when `read` has work; not when all that is left is to raise EndOfMessages."""
        if self._selector is None:
            import selectors  # noqa: PLC0415 - a Task, which has a thread to wait with, never gets here

            self._selector = selectors.DefaultSelector()
            for member in self.members:
                if member.readable:
                    self._selector.register(member.descriptor, selectors.EVENT_READ)
        descriptor = self._selector.fileno()  # type: ignore[attr-defined]
        assert isinstance(descriptor, int)
        return descriptor

    @property
    def hears(self) -> bool:
        """Whether messages may still come."""
        return any(member.readable and member.carries_messages for member in self.members)

    def stop_reading_output(self) -> None:
        """Read no more from the members that only capture output; the others go on."""
        for member in self.members:
            if member.readable and not member.carries_messages:
                self._stop_reading(member)

    @property
    def missing(self) -> list[range]:
        """The numbers of messages that were sent and have not come."""
        return [gap for _, ledger in sorted(self._ledgers.items()) for gap in ledger.missing()]

    def close(self) -> None:
        """Close every communicator. A thread that reads or writes is woken, and raises ClosedError."""
        self._closed = True
        self._over.close()
        if self._bell is not None:
            self._bell.ring()
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        for member in self.members:
            member.readable = member.writable = False
            member.communicator.close()
        self._ways = {}
        if self._generation == fork.generation:  # in a fork, the thread that has the lock does not exist
            with self._waiting:
                self._forget_bell()

    def _next_ones(self, deadline: float | None) -> list[Message]:
        """Read one message; gives those that can be delivered then, which may be none."""
        if self._closed:
            raise _closed()
        readable = [member for member in self.members if member.readable]
        if self._some_ended:
            found = self._look_for_lost([member for member in readable if member.carries_messages and not member.left])
            if found is not None:
                return found
        if not readable:
            raise EndOfMessages
        if len(readable) == 1:
            return self._read_member(readable[0], _rest(deadline))
        self._over.reader = get_ident()
        member = self._next_with_work(readable, deadline)
        if not member.readable:
            return []
        try:
            found = self._read_member(member, 0)
        except TimeoutError:
            if not self._with_work and _rest(deadline) == 0:
                self._with_work = _poll(readable, 0)
                if self._with_work == [member]:
                    raise  # a large message is on its way there, and the caller has other things to do meanwhile
            return []
        self._with_work.append(member)
        return found

    def _next_with_work(self, readable: list[Member], deadline: float | None) -> Member:
        """Choose each in turn, so that a flood from one does not keep the others waiting."""
        self._turns -= 1
        if not self._with_work:
            self._with_work = self._wait_for_one(readable, deadline)
            self._turns = _TURNS
        elif self._turns <= 0:
            self._with_work += [member for member in _poll(readable, 0) if member not in self._with_work]
            self._turns = _TURNS
        return self._with_work.pop(0)

    def _wait_for_one(self, members: list[Member], deadline: float | None) -> list[Member]:
        while True:
            rest = _rest(deadline)
            ready = self._wait(members, rest) if rest != 0 else _poll(members, 0)
            if ready:
                return ready
            if rest == 0:
                raise TimeoutError("no message came in time")

    def _wait(self, members: list[Member], timeout: float | None) -> list[Member]:
        """Wait as long as it takes, until the time is up, or until another thread calls `close`."""
        with self._waiting:
            if self._bell is None:
                self._bell = Doorbell()
            if self._closed:  # asked when there is a bell: from now on, `close` rings it
                self._forget_bell()
                raise _closed()
            ready = _poll(members, timeout, self._bell)
        if self._closed:
            raise _closed()
        return ready

    def _forget_bell(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def _read_member(self, member: Member, timeout: float | None) -> list[Message]:
        """Read one message; gives those that can be delivered then.

        Raises:
            TimeoutError: none came in time.
        """
        try:
            return self._take(member, member.communicator.read(timeout))
        except EndOfMessages:
            self._stop_reading(member)
            self._over.ask_for_rest(member)
        except CommunicatorError as error:
            if self._closed:
                raise
            self._stop_reading(member)
            self.reading_failed = True
            self._over.give_up(member, error)
            if getattr(error.__cause__, "errno", None) != EBADF:  # else the descriptor may be another's by now
                member.communicator.close()  # a peer that lives shall know that nobody listens any more
            self._over.ask_for_rest(member)
            self._over.go_over_aside()
        return []

    def _take(self, member: Member, message: Message) -> list[Message]:
        """Take note of a message; gives those that can be delivered now.

        Raises:
            ProtocolError: it is numbered as no Link numbers, or larger than what is taken.
        """
        message.communicator = member.name
        member.messages += 1
        size = message.nbytes
        member.bytes += size
        if self._largest is not None and size > self._largest:
            raise LimitExceededError(f"a message has {size} bytes; the limit is {self._largest}")
        if self._care:
            message.codec += self._care.get(message.codec, 0)
        if message.sequence == 0:
            return [message]
        ledger = self._ledger(member, message.rank)
        new = ledger.enter(message)
        if self._over.acknowledges:
            ledger.unacknowledged += size + MESSAGE_BYTES  # what comes twice counts, as it is kept
            if ledger.unacknowledged >= ACKNOWLEDGED_BYTES:
                self._over.acknowledge(message.rank, ledger)
        if not new:
            return []
        return ledger.hold(message) if message.after > ledger.complete else ledger.release(message)

    def _ledger(self, member: Member, rank: int) -> Ledger:
        if member.rank is None:
            member.rank = rank
        if rank != member.rank:
            raise ProtocolError(f"the peer of rank {member.rank} sent a message of rank {rank}")
        ledger = self._ledgers.get(rank)
        if ledger is None:
            ledger = self._ledgers[rank] = Ledger()
            ledger.unacknowledged = ACKNOWLEDGED_BYTES  # the first message is acknowledged at once
        return ledger

    def _look_for_lost(self, ways: list[Member]) -> list[Message] | None:
        """See whether something is waited for that was lost with a member that has ended, and wait no longer then.

        A peer that writes again what was lost also says what it cannot (see `failover`). Of another one we know that
        what a message waits for was written before it. So where writing is arriving, it can be read when the message
        has been; and if nothing can be read any more, it is not there.

        Args:
            ways: where messages may still come from.

        Returns:
            what can be delivered now; None when there is no reason to go on in another way than ever.
        """
        if not any(ledger.holds for ledger in self._ledgers.values()):
            return None
        if ways and self._over.all_comes:
            return None
        if len(ways) > 1 and any(member in ways for member in self._with_work):
            return None
        if not all(member.prompt for member in ways):
            return None
        for member in ways:  # a descriptor may be late to tell of what can be read already
            try:
                return self._read_member(member, 0)
            except TimeoutError:
                pass
        if _poll(ways, 0):
            return None  # a large message is on its way
        return [message for _, ledger in sorted(self._ledgers.items()) for message in ledger.settle()]

    def _stop_reading(self, member: Member) -> None:
        member.readable = False
        self._some_ended = self._some_ended or member.carries_messages
        if not self.hears:
            self._over.kept.abandon()
        if self._selector is not None:
            self._selector.unregister(member.descriptor)

    def _heed(self, messages: list[Message]) -> list[Message]:
        """Act on what the peer's Link says, which is never given; gives the messages that wait no longer."""
        notes = [message for message in messages if message.signal in vocabulary.UNHEARD]
        released = [message for note in notes for message in self._over.heed(note)]
        found = [message for message in released if message.signal not in vocabulary.UNHEARD]
        return found + self._heed(released) if len(found) < len(released) else found

    # Both

    def _forked(self) -> ForkedError:
        return ForkedError(
            f"this Task talks from process {self._process}, of which this process ({os.getpid()}) is a fork; "
            "send from the parent, or start the child as a Task of its own"
        )

    def _tell_of_broken(self, member: Member, error: CommunicatorError) -> None:
        if not member.broken:
            member.broken = True
            self._on_broken(member.name, error)


def _too_large(size: int, members: list[Member]) -> MessageTooLargeError:
    limits = ", ".join(f"{member.name} takes {member.limit}" for member in members)
    return MessageTooLargeError(f"a message of {size} bytes: {limits}; send it in parts, or add a communicator")


def _closed() -> ClosedError:
    return ClosedError("this Link was closed")


def _rest(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - monotonic())


def _poll(members: list[Member], timeout: float | None, bell: Doorbell | None = None) -> list[Member]:
    """Give the members that have work; waits for one until the time is up, the bell rings, or a million seconds."""
    poll = select.poll()
    for member in members:
        poll.register(member.descriptor, select.POLLIN)
    if bell is not None:
        poll.register(bell, select.POLLIN)
    events = poll.poll(None if timeout is None else min(timeout, _LONGEST_POLL) * 1000)
    ready = {descriptor for descriptor, _ in events}
    return [member for member in members if member.descriptor in ready]
