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
        nbytes: how much is kept, with `MESSAGE_BYTES` for each message.
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
        self._gates: list[LockType] = []  # each is held by a thread that waits
        self._abandoned = False

    def __contains__(self, number: int) -> bool:
        return number in self._messages

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message, way: Way) -> int:
        """Keep a message that is about to be written; gives the bytes of its contents."""
        buffers = message.buffers
        assert buffers is not None
        if len(buffers) == 1 and type(buffers[0]) is bytes:
            size = len(buffers[0])
        else:
            message = self._copied(message, buffers)
            size = message.nbytes
        cost = size + MESSAGE_BYTES
        self._messages[message.sequence] = way, message, cost  # without the lock: others copy before they iterate
        self.nbytes += cost  # as well: it is counted anew with each acknowledgement
        return size

    @property
    def oldest(self) -> int:
        """The lowest number; 0 when nothing is kept."""
        return min(list(self._messages), default=0)

    def way_of(self, number: int) -> Way:
        """Which way a message was written; None when it is not kept any more."""
        return self._messages.get(number, (None,))[0]

    def of(self, way: Way) -> list[Message]:
        """The messages that were written this way, in the order of their numbers."""
        found = [message for taken, message, _ in list(self._messages.values()) if taken is way]
        return sorted(found, key=lambda message: message.sequence)

    def let_go_of(self, way: Way) -> list[range]:
        """The numbers of those that were written this way and cannot be written again, and may not have come."""
        with self._lock:
            return list(self._let_go.get(way, ()))

    def move(self, number: int, way: Way) -> bool:
        """Take note that a message is about to be written again, another way; False when it is not kept any more."""
        with self._lock:
            if number not in self._messages:
                return False
            self._messages[number] = way, *self._messages[number][1:]
            return True

    def forget(self, number: int) -> None:
        """Keep a message no longer that was not written."""
        with self._lock:
            self._messages.pop(number, None)
            self._copies.pop(number, None)

    def acknowledge(self, highest: int, missing: Sequence[range]) -> None:
        """Keep no longer what has come: all up to the highest number but what is missing."""
        with self._lock:
            self.answers += 1
            if highest >= self._highest:  # else it was sent again, and says less than is known
                self._highest = highest
                for number in [number for number in list(self._messages) if number <= highest]:
                    if missing and any(number in gap for gap in missing):
                        continue
                    self._messages.pop(number, None)
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
                self.nbytes -= self._drop(oldest)

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

    def _drop(self, number: int) -> int:
        """Take note that a message was let go; gives what it counted."""
        way, _, size = self._messages.pop(number, (None, None, 0))
        self._copies.pop(number, None)
        if size:
            ranges = self._let_go.setdefault(way, [])
            if ranges and ranges[-1].stop == number:
                ranges[-1] = range(ranges[-1].start, number + 1)
            else:
                ranges.append(range(number, number + 1))
            if len(ranges) > _MOST_RANGES:
                ranges.sort(key=lambda one: one.start)
                ranges[:2] = [range(ranges[0].start, ranges[1].stop)]
        return size

    def _changed(self) -> None:
        """Count anew, since other threads may have counted at once; and wake who waits."""
        self.nbytes = sum([size for _, _, size in list(self._messages.values())])
        for gate in self._gates:
            gate.release()
        self._gates.clear()

    def _copied(self, message: Message, buffers: list[Buffer]) -> Message:
        """Copy what the caller may change, unless it is too large."""
        if is_borrowed(message) or all(type(buffer) is bytes for buffer in buffers):
            return message
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


def is_borrowed(message: Message) -> bool:
    """Whether the contents that are kept are the caller's memory, since they are too large to be copied."""
    if message.nbytes <= ACKNOWLEDGED_BYTES:
        return False
    return not all(type(buffer) is bytes for buffer in message.buffers or ())
