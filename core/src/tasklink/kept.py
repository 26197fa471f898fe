"""What was written and may still be lost with the communicator that took it.

What is kept is bounded in bytes. It is the encoded message. Contents that the caller may change are copied, unless they
are so large that to wait for the acknowledgement is quicker, as whoever wrote them has to then (see `failover`). What
had to be let go before it was acknowledged is remembered by its number, so that its loss can be told.

Copies are made in memory that was used for copies before: new memory would cost ten times as much, for its page faults.
It is used again as soon as its message has come, even if somebody is still writing that again: the reader drops it.

This module does no I/O. It is part of the Task side.
"""

from __future__ import annotations

from _thread import RLock, allocate_lock
from time import monotonic

from tasklink.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Hashable, Sequence

    from tasklink.codec import Buffer

    Way = Hashable

# What is kept at most, unless the peer is slow to acknowledge it; with the memory that is put by for copies.
KEPT_BYTES = 16 << 20
# The reader acknowledges whenever so much has come, and no message that is larger is copied.
ACKNOWLEDGED_BYTES = 4 << 20
# What each message counts beside its contents. Many small ones shall be acknowledged before they have left the cache.
MESSAGE_BYTES = 4 << 10
# From this size on, copies are made in memory that is used again.
_LARGE = 32 << 10
# Beyond so many ranges for one way, what was let go is known less exactly.
_MOST_RANGES = 100


class Kept:
    """The messages of one sender that are not acknowledged. For any number of threads.

    Attributes:
        nbytes: how much is kept, counted by `cost`.
        answers: how many acknowledgements have come. A peer that has given none may be one that never does.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self.answers = 0
        self._messages: dict[int, tuple[Way, Message, int]] = {}  # with what it counts
        self._copies: dict[int, list[bytearray]] = {}
        self._spare: list[bytearray] = []
        self._let_go: dict[Way, list[range]] = {}
        self._lock = RLock()  # a signal handler that writes may interrupt whoever has it
        self._highest = 0  # as the peer has said last
        self._missing: Sequence[range] = ()
        self._gates: list[LockType] = []  # each is held by a thread that waits
        self._abandoned = False

    def __contains__(self, number: int) -> bool:
        return number in self._messages

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message, way: Way) -> bool:
        """Keep a message that was written; False when its contents are still the caller's memory."""
        number, buffers = message.sequence, message.buffers
        assert buffers is not None
        own = len(buffers) == 1 and type(buffers[0]) is bytes
        if not own:
            own = all(type(buffer) is bytes for buffer in buffers)
            if not own and message.nbytes <= ACKNOWLEDGED_BYTES:
                message = self._copied(message, buffers)
                own = True
        size = cost(message)
        with self._lock:
            # It may have been acknowledged before its `write` has returned.
            if number > self._highest or not self._has_come(number):
                self._messages[number] = way, message, size
                self.nbytes += size
        return own

    @property
    def oldest(self) -> int:
        """The lowest number; 0 when nothing is kept."""
        with self._lock:
            return min(self._messages, default=0)

    def way_of(self, number: int) -> Way:
        """Which way a message was written; None when it is not kept any more."""
        with self._lock:
            return self._messages[number][0] if number in self._messages else None

    def of(self, way: Way) -> list[Message]:
        """The messages that were written this way, in the order of their numbers."""
        with self._lock:
            found = [message for taken, message, _ in self._messages.values() if taken is way]
        return sorted(found, key=lambda message: message.sequence)

    def let_go_of(self, way: Way) -> list[range]:
        """The numbers of those that were written this way and cannot be written again, and may not have come."""
        with self._lock:
            return list(self._let_go.get(way, ()))

    def moved(self, number: int, way: Way) -> None:
        """Take note that a message was written again, another way."""
        with self._lock:
            if number in self._messages:
                self._messages[number] = way, *self._messages[number][1:]

    def acknowledge(self, highest: int, missing: Sequence[range]) -> None:
        """Keep no longer what has come: all up to the highest number but what is missing."""
        with self._lock:
            self.answers += 1
            if highest >= self._highest:  # else it was sent again, and says less than is known
                self._highest, self._missing = highest, missing
                come = self._has_come if missing else highest.__ge__
                for number in list(filter(come, self._messages)):
                    del self._messages[number]
                    if number in self._copies:
                        self._put_by(self._copies.pop(number))
                complete = missing[0].start if missing else highest + 1
                for way, ranges in self._let_go.items():
                    self._let_go[way] = [one for one in ranges if one.stop > complete]
            self._changed()

    def let_go(self, number: int | None = None) -> None:
        """Keep no longer one message, or of all of them the oldest that are too many."""
        with self._lock:
            if number is not None:
                self._drop(number)
            self._changed()
            for oldest in sorted(self._messages) if self.nbytes > KEPT_BYTES else ():
                if self.nbytes <= KEPT_BYTES:
                    break
                self.nbytes -= self._messages[oldest][2]
                self._drop(oldest)

    def abandon(self) -> None:
        """Wake who waits: nothing will be acknowledged any more."""
        with self._lock:
            self._abandoned = True
            self._changed()

    def wait_for(self, done: Callable[[], bool], timeout: float) -> bool:
        """Wait until something has come true by an acknowledgement; False when it has not in time, or never will."""
        deadline = monotonic() + timeout
        while True:
            gate = allocate_lock()
            gate.acquire()
            with self._lock:
                if done() or self._abandoned:
                    return done()
                self._gates.append(gate)
            if not gate.acquire(True, max(0.0, deadline - monotonic())):
                return done()

    def _drop(self, number: int) -> None:
        if number in self._messages:
            way, *_ = self._messages.pop(number)
            self._copies.pop(number, None)
            ranges = self._let_go.setdefault(way, [])
            if ranges and ranges[-1].stop == number:
                ranges[-1] = range(ranges[-1].start, number + 1)
            else:
                ranges.append(range(number, number + 1))
            if len(ranges) > _MOST_RANGES:
                ranges.sort(key=lambda one: one.start)
                ranges[:2] = [range(ranges[0].start, ranges[1].stop)]

    def _has_come(self, number: int) -> bool:
        return number <= self._highest and not any(number in gap for gap in self._missing)

    def _changed(self) -> None:
        """Count anew, since a signal handler may have interrupted the counting; and wake who waits."""
        self.nbytes = sum([size for _, _, size in self._messages.values()])
        for gate in self._gates:
            gate.release()
        self._gates.clear()

    def _copied(self, message: Message, buffers: list[Buffer]) -> Message:
        copies: list[Buffer] = []
        used: list[bytearray] = []
        for buffer in buffers:
            if len(buffer) < _LARGE or type(buffer) is bytes:
                copies.append(bytes(buffer))
                continue
            memory = self._memory(len(buffer))
            used.append(memory)
            copy = memoryview(memory)[: len(buffer)]
            copy[:] = buffer
            copies.append(copy)
        if used:
            self._copies[message.sequence] = used
        return Message(
            None, message.signal, message.codec, copies,
            message.sequence, message.after, message.sent_ns, message.rank,
        )  # fmt: skip

    def _memory(self, nbytes: int) -> bytearray:
        with self._lock:
            for index, spare in enumerate(self._spare):
                if nbytes <= len(spare) <= 2 * nbytes:
                    return self._spare.pop(index)
        return bytearray(nbytes)

    def _put_by(self, memory: list[bytearray]) -> None:
        self._spare = memory + self._spare
        while self._spare and self.nbytes + sum(map(len, self._spare)) > KEPT_BYTES:
            self._spare.pop()


def cost(message: Message) -> int:
    """What a message counts."""
    return message.nbytes + MESSAGE_BYTES
