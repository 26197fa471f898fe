"""The writing half of a ring.

To write a record: wait for room for it and the word behind it, copy it, put 0 into the word behind it (nothing is there
yet), and publish it by one store of its own word. A record never goes round the end of the ring; where it would not
fit, a SKIP is put instead, for which there is always room.

The writer knows up to where it may write without asking; only when that is used up it looks how far the reader has
come. The common case, a small message with room for it, calls nothing but C.

A signal handler may raise between any two bytecodes. A record is published or it is not, by one store; whether the
position was moved on as well is found out afterwards by looking at the word.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

from _thread import RLock
from struct import Struct

from tasklink.errors import CommunicatorError, ProtocolError
from tasklink.turn import busy, deadline_of, is_mine, rest_of, take
from tasklink_shm.layout import LINE, MESSAGE, NOTHING, PARTS, SKIP, WEAKLY_ORDERED, new_fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Union

    from tasklink_shm.bell import Bell
    from tasklink_shm.layout import Lane, Memory

    Buffer = Union[bytes, bytearray, memoryview]

# A larger message would keep others waiting while it is copied, and the ring small.
MOST = 64 << 10


class Outgoing:
    """Writes records, from any number of threads.

    Attributes:
        most: bytes of the largest record.
        position: where the next record will begin.

    Args:
        memory: both sides'.
        lane: the direction to write to.
        bell: rung when the reader is asleep.
        gate: rung by the reader when there is room.
        check: raises ClosedError when this side was closed.
    """

    __slots__ = (
        "_asleep", "_begin", "_bell", "_check", "_end", "_fence", "_gate", "_give", "_is_mine", "_limit", "_line",
        "_lock", "_mapping", "_read", "_take", "_upcoming", "_words", "most", "position",
    )  # fmt: skip

    def __init__(self, memory: Memory, lane: Lane, bell: Bell, gate: Bell, check: Callable[[], None]) -> None:
        self._mapping: Any = memory.mapping
        self._words = memory.words
        self._begin = lane.begin
        self._end = lane.end
        self._asleep = lane.asleep
        self._read = lane.read
        self._bell = bell
        self._gate = gate
        self._check = check
        self._fence = new_fence()
        # A quarter: wherever the reader is, that much fits when it has read everything.
        self.most = min(MOST, memory.ring // 4 - LINE)
        self.position = self._upcoming = lane.begin
        self._limit = 0  # where a record may end at most, as far as is known
        self._line = RLock()  # those who wait for their turn stand here, in front of who has just had one
        self._lock = RLock()
        # Bound once: these are called for every message.
        self._take = self._lock.acquire
        self._give = self._lock.release
        self._is_mine = self._lock._is_owned  # type: ignore[attr-defined]

    def send(self, buffers: list[Buffer], timeout: float | None) -> bool:
        """Write a message as one record; False when it is too large for one.

        Raises:
            TimeoutError, BrokenError, ClosedError, ProtocolError, BusyError: as `Communicator.write`.
        """
        if len(buffers) > 2:
            return self._send_parts(buffers, timeout)
        frame = b"".join(buffers)
        if len(frame) > self.most:
            return False
        self.send_small(frame, timeout)
        return True

    def send_small(self, frame: bytes, timeout: float | None) -> None:
        """Write a message of `most` bytes at most as one record; see `FramedCommunicator.send_small`.

        Raises:
            TimeoutError, BrokenError, ClosedError, ProtocolError, BusyError: as `Communicator.write`.
        """
        if self._is_mine():
            raise busy()
        size = len(frame)
        try:
            if not self._take(False):
                self._queue(deadline_of(timeout))
            begin = self.position
            end = begin + 8 + size
            after = end + 63 & -64
            if after > self._limit:
                begin = self._make_room(size, deadline_of(timeout))
                end = begin + 8 + size
                after = end + 63 & -64
            self._mapping[begin + 8 : end] = frame
            words = self._words
            words[after >> 3] = 0
            if WEAKLY_ORDERED:
                self._fence()
            self._upcoming = after
            words[begin >> 3] = size << 32 | MESSAGE
            self.position = after
            self._give()  # orders memory as well: the reader's flag is looked at after this
            if words[self._asleep]:
                self._bell.ring()
        except BaseException:
            try:
                self._clean_up()
            finally:
                if self._is_mine():  # a signal handler has raised in there
                    self._give()
            raise

    def _send_parts(self, buffers: list[Buffer], timeout: float | None) -> bool:
        lengths = [len(buffer) for buffer in buffers]
        if 8 * len(lengths) + sum(lengths) > self.most:
            return False
        table = Struct(f"<{len(lengths)}Q").pack(*lengths)
        self.put(PARTS, len(lengths), [table, *buffers], deadline_of(timeout))
        return True

    def put(
        self, kind: int, number: int, parts: Sequence[Buffer], deadline: float | None, *, last: bool = False,
        published: list[int] | None = None,
    ) -> None:  # fmt: skip
        """Write a record of `most` bytes at most.

        Args:
            kind: of the record.
            number: what stands beside the kind.
            parts: what it holds.
            deadline: until when to wait for the turn, and for room.
            last: when all who wait have had their turn.
            published: gets where the record begins when the reader can see it: also when something is raised then.

        Raises:
            TimeoutError, BrokenError, ClosedError, ProtocolError, BusyError: as `Communicator.write`.
        """
        if self._is_mine():
            raise busy()
        begin = -1
        published = [] if published is None else published
        before = len(published)
        try:
            if last or not self._take(False):
                self._queue(deadline)
            size = sum(map(len, parts))
            begin = self._make_room(size, deadline)
            place = begin + 8
            for part in parts:
                self._mapping[place : place + len(part)] = part
                place += len(part)
            self._publish(begin + size + 71 & -64, size << 32 | number << 8 | kind)
            published.append(begin)
            self._give()
            if self._words[self._asleep]:
                self._bell.ring()
        except BaseException:
            still_mine = self._is_mine()
            try:
                self._clean_up()
                if begin >= 0 and still_mine and self.position != begin and len(published) == before:
                    published.append(begin)
            finally:
                if self._is_mine():  # as above
                    self._give()
            raise

    def close(self) -> None:
        """Let nobody write any more. Called when nobody can be waiting for room."""
        self._limit = 0  # who comes has to ask for room, and is told
        if not is_mine(self._lock):
            with self._lock:
                self._limit = self.position = self._asleep = 0
                self._words = NOTHING
                self._mapping = None

    @property
    def in_use(self) -> bool:
        """Whether this thread is writing, and was interrupted by who asks."""
        return is_mine(self._lock)

    def _queue(self, deadline: float | None) -> None:
        """Wait for the turn: without a queue, who gives the lock back and takes it again keeps all others out."""
        try:
            take(self._line, deadline)
            take(self._lock, deadline)
        finally:
            if is_mine(self._line):
                self._line.release()

    def _publish(self, upcoming: int, word: int) -> None:
        words = self._words
        words[upcoming >> 3] = 0
        if WEAKLY_ORDERED:
            self._fence()
        self._upcoming = upcoming
        words[self.position >> 3] = word
        self.position = upcoming

    def _make_room(self, size: int, deadline: float | None) -> int:
        """Wait until a record of so many bytes fits; gives where it begins."""
        need = size + 71 & -64
        while True:
            self._check()
            if self._has_room(need):
                return self.position
            rest = rest_of(deadline)
            if rest is not None and rest <= 0:
                raise TimeoutError("the peer did not make room in time")
            self._gate.arm()
            self._fence()
            if not self._has_room(need):
                # Its reader may have read everything, and not said so, or look only now and then: see `incoming`.
                self._bell.ring()
                self._gate.sleep(rest)
            self._gate.disarm()

    def _has_room(self, need: int) -> bool:
        """Look how far the reader has come, and go round when only that helps."""
        read = self._words[self._read]
        if not self._begin <= read < self._end or read % LINE:
            raise ProtocolError(f"the peer has read up to {read} of a ring from {self._begin} to {self._end}")
        position = self.position
        # The last place of the ring is kept for a SKIP; the one before what is unread for the 0 behind a record.
        self._limit = (read if read > position else self._end) - LINE
        if position + need <= self._limit:
            return True
        if self._begin < read <= position:
            self._publish(self._begin, SKIP)
            self._limit = read - LINE
        return self.position + need <= self._limit

    def _clean_up(self) -> None:
        """After an exception: what was published is published, and nothing stays locked."""
        if self._is_mine():
            if self._words[self.position >> 3]:
                self.position = self._upcoming
            self._give()
        try:
            if self._words[self._asleep]:
                self._bell.ring()
        except CommunicatorError:
            pass  # there is an error under way already
