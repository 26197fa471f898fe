"""The reading half of a ring, and how its reader waits.

The word at the reader's position says whether a record is there. What is read is copied out once and then checked:
whatever the writer has put there, or changes meanwhile, is a message or a ProtocolError.

How far the reader has come is told to the writer when an eighth of the ring has been read, up to the record *before*
the last one, so that a message whose reading was interrupted can be read again; and when the writer asks for it: it
sets a flag, and wakes a reader that is asleep. So a reader that goes to sleep looks at that flag, too.

A reader that finds nothing

 1. looks again for some 150 us, if there is a CPU to spare (`tasklink.spin`): longer than to write a MiB takes;
 2. is *attentive*, as long as messages came within the last few milliseconds and it does not wait for an answer to
    what it has written itself: it looks twice in a millisecond, and its writer need not wake it. So to report every
    millisecond costs a Task microseconds, and what it reports is half a millisecond late;
 3. else says that it sleeps, looks once more, and sleeps until it is woken.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

import select
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_DONTWAIT
from _thread import RLock
from struct import Struct
from time import monotonic

from tasklink import framing
from tasklink.errors import BrokenError, CommunicatorError, EndOfMessages, ProtocolError
from tasklink.turn import busy, deadline_of, is_mine, rest_of, take
from tasklink_shm.layout import LINE, MESSAGE, NOTHING, PARTS, SKIP, WEAKLY_ORDERED, new_fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    from tasklink.spin import Spin
    from tasklink_shm.bell import Bell
    from tasklink_shm.layout import Lane, Memory
    from tasklink_shm.outgoing import Outgoing
    from tasklink_shm.watch import Watch

    class Others(Protocol):
        """Who understands the records that are more than one message in one place: the communicator."""

        def record(self, kind: int, number: int, data: bytes) -> Any:
            """Give the message that a record completes, or None."""

        def descriptors(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
            """Take in what came over the socket."""

        def finish(self) -> None:
            """Take note that nothing more will come."""


GLANCE = 0.0005  # between two looks of an attentive reader
_PACKET = 64
_DESCRIPTORS = CMSG_SPACE(16 * 4)
# After so many records that gave no message, whoever has a deadline comes to its right.
_AT_ONCE = 16
_FD_SETSIZE = 1024


class Incoming:
    """Reads messages, from one thread at a time.

    Attributes:
        position: where the next record begins.

    Args:
        memory: both sides'.
        lane: the direction to read from.
        bell: rung by the writer when this side is asleep.
        gate: rung when there is room.
        outgoing: what this side writes: who has written waits for an answer.
        spin: looks again before this side sleeps.
        quiet: for how many seconds without messages a reader stays attentive.
        others: who understands the other records.
        check: raises ClosedError when this side was closed.
    """

    def __init__(
        self, memory: Memory, lane: Lane, bell: Bell, gate: Bell, *, outgoing: Outgoing,
        spin: Spin, quiet: float, others: Others, check: Callable[[], None],
    ) -> None:  # fmt: skip
        self._mapping: Any = memory.mapping
        self._whole = memoryview(memory.mapping)
        self._words = memory.words
        self._begin = lane.begin
        self._last = lane.end - LINE  # where a record may end at most
        self._read = lane.read
        self._eighth = memory.ring // 8
        self._bell = bell
        self._gate = gate
        self._full = lane.full
        self._outgoing = outgoing
        self._spin = spin
        self._quiet = quiet
        self._others = others
        self._check = check
        self._fence = new_fence()
        self.watch: Watch | None = None
        self.position = lane.begin
        self._tell_at = lane.begin + self._eighth
        self._failure: CommunicatorError | None = None
        self._midway = False
        self._hearing = False  # within, or interrupted within, the taking of something from the socket
        self._missed = False  # what was taken then may be lost
        self._gone = False  # the peer; what it has left is read to its end
        # As they were when nothing was found for the last time.
        self._seen = self.position
        self._written = outgoing.position
        self._awaiting = False  # an answer
        self._came = -1e9  # when messages were there for the last time
        self._lock = RLock()
        self._take = self._lock.acquire
        self._give = self._lock.release
        self._is_mine = self._lock._is_owned  # type: ignore[attr-defined]

    def receive(self, timeout: float | None) -> Any:
        """Wait for a message; see `FramedCommunicator.receive`."""
        if self._is_mine():
            raise busy()
        message = None
        begin = 0
        try:
            if not self._take(False):
                take(self._lock, deadline_of(timeout))
            begin = self.position
            word = self._words[begin >> 3]
            if word & 0xFF == MESSAGE:
                if WEAKLY_ORDERED:
                    self._fence()
                end = begin + 8 + (word >> 32)
                after = end + 63 & -64
                if after > self._last:
                    self._refuse(word)
                message = framing.decode_joined(self._mapping[begin + 8 : end])
                if after >= self._tell_at:
                    self._tell(begin)
                self.position = after
            else:
                message, begin = self._next(deadline_of(timeout))
            self._give()
        except BaseException as error:
            try:
                self._clean_up(error, message, begin)
            finally:
                if self._is_mine():  # a signal handler has raised in there
                    self._give()
            raise
        return message

    def stop(self) -> None:
        """Let nobody read any more. Called when nobody can be waiting."""
        with self._lock:  # the next one finds nothing and asks why
            self.position = 0
            self._words = NOTHING
            self._whole.release()
            self._mapping = None

    @property
    def in_use(self) -> bool:
        """Whether this thread is reading, and was interrupted by who asks."""
        return is_mine(self._lock)

    # Records

    def _next(self, deadline: float | None) -> tuple[Any, int]:
        """Wait for a message of any kind; gives it, and where its record begins, or -1: it cannot be read again."""
        idle = 0
        laps = -1  # since a ringing was asked for; -1: it was not
        while True:
            self._check()
            if self._failure is not None:
                raise type(self._failure)(*self._failure.args)
            begin = self.position
            word = self._words[begin >> 3]
            if not word:
                self._wait(deadline)
                continue
            if WEAKLY_ORDERED:
                self._fence()
            kind = word & 0xFF
            after = begin + 8 + (word >> 32) + 63 & -64
            if after > self._last + (LINE if kind == SKIP else 0):
                self._refuse(word)
            if kind == SKIP:
                self._go_round(word)
                laps += laps >= 0
                continue
            again = kind in (MESSAGE, PARTS)
            self._midway = not again
            message = self._message(kind, word >> 8 & 0xFFFFFF, begin + 8, begin + 8 + (word >> 32))
            if after >= self._tell_at:
                self._tell(begin)
            self.position = after
            self._midway = False
            if message is not None:
                return message, begin if again else -1
            idle += 1
            if idle >= _AT_ONCE and deadline is not None and monotonic() >= deadline:
                laps = self._come_to_an_end(laps)

    def _come_to_an_end(self, laps: int) -> int:
        """Let the reading end, though there may be more to read, when the descriptor of this side will show that.

        A Task has no watch: it asks for a ringing. Until the ring was gone through once more, what is read may have
        been written before that; then the writer, which has written since, has rung.
        """
        if self.watch is not None:
            self.watch.set(0)
        elif laps < 0:
            self._bell.arm()
            self._fence()
            return 0
        elif laps < 2:
            return laps
        raise TimeoutError("no whole message has come in time")

    def _message(self, kind: int, number: int, begin: int, end: int) -> Any:
        if kind == MESSAGE:
            return framing.decode_joined(self._mapping[begin:end])
        if kind == PARTS:
            return framing.decode(self._parts(number, begin, end))
        try:
            return self._others.record(kind, number, self._mapping[begin:end])
        except ProtocolError as error:
            if self._missed:
                raise BrokenError(f"a signal handler has interrupted the hearing of a segment: {error}") from error
            raise

    def _parts(self, count: int, begin: int, end: int) -> list[Any]:
        place = begin + 8 * count
        if place > end:
            raise ProtocolError(f"a record of {end - begin} bytes has no room for {count} lengths")
        lengths = Struct(f"<{count}Q").unpack(self._mapping[begin:place])
        if sum(lengths) != end - place:
            raise ProtocolError(f"the parts of a record of {end - place} bytes have {sum(lengths)}")
        buffers: list[Any] = []
        for index, length in enumerate(lengths):
            # Head and body are only read; what follows becomes the memory of arrays, which shall be writable.
            copy = bytes if index < 2 else bytearray
            buffers.append(copy(self._whole[place : place + length]))
            place += length
        return buffers

    def _go_round(self, word: int) -> None:
        if word != SKIP or self.position == self._begin:
            self._refuse(word)
        self.position = self._begin  # first: what was told will be written to
        self._tell(self._begin)

    def _refuse(self, word: int) -> NoReturn:
        raise ProtocolError(
            f"a record at {self.position} of a ring from {self._begin} to {self._last + LINE} has kind {word & 0xFF}, "
            f"number {word >> 8 & 0xFFFFFF} and {word >> 32} bytes: there is no such record"
        )

    def _tell(self, position: int) -> None:
        """Tell the writer that it may write up to here, and wake it if it waits for that."""
        self._words[self._read] = position
        self._tell_at = position + self._eighth
        self._fence()
        if self._words[self._full]:
            try:
                self._gate.ring()
            except BrokenError:
                pass  # the bell will say so as well, behind all that the peer has written

    # Waiting

    def _wait(self, deadline: float | None) -> None:
        """Return when there may be something to read, or news of the peer.

        Raises:
            TimeoutError: there is nothing, and the time is up.
            EndOfMessages, BrokenError: the peer is gone, and there is nothing any more.
        """
        if self._gone:
            self._midway = False
            self._others.finish()
            raise EndOfMessages
        now = monotonic()
        self._take_note(now)
        if deadline is not None and now >= deadline:
            self._find_nothing(now)
            return
        lately = now - self._came < self._quiet
        words, place = self._words, self.position >> 3
        if lately and self._spin.look(lambda: words[place], deadline):
            return
        if self._words[self._full]:
            self._tell(self.position)
        if lately and not self._awaiting:
            rest = rest_of(deadline)
            self._glance(GLANCE if rest is None or rest > GLANCE else max(0.0, rest))
        elif not self._arm():
            self._sleep(rest_of(deadline))
            self._bell.disarm()

    def _take_note(self, now: float) -> None:
        """See what has happened since nothing was found for the last time."""
        if self._written != self._outgoing.position:
            self._written = self._outgoing.position
            self._awaiting = True
        elif self._seen != self.position:
            self._awaiting = False
        if self._seen != self.position:
            self._seen = self.position
            self._came = now

    def _find_nothing(self, now: float) -> None:
        """Have the descriptor of this side tell when there is something. Returns if there is."""
        if self._words[self._full]:
            self._tell(self.position)
        for _ in range(_AT_ONCE):  # what is left, if somebody floods us, shows in the descriptor
            if not self._hear(MSG_DONTWAIT):
                break
            if self._gone:
                return
        watch = self.watch
        if watch is not None and now - self._came < self._quiet and not self._awaiting:
            watch.set(GLANCE)
        else:
            if self._arm():
                return
            if watch is not None:
                watch.clear()
        raise TimeoutError("no message came in time")

    def _arm(self) -> bool:
        """Ask to be woken; True when there is something to do already."""
        self._bell.arm()
        self._fence()
        if self._words[self.position >> 3] or self._words[self._full]:
            self._bell.disarm()
            return True
        return False

    def _glance(self, seconds: float) -> None:
        line = self._bell.line
        # select(2) counts microseconds, and poll(2), for descriptors beyond what select takes, milliseconds.
        if line.fileno() < _FD_SETSIZE:
            ready: Any = select.select((line,), (), (), seconds)[0]
        else:
            ready = self._bell.how_to_wait(seconds)
        if ready:
            self._hear(MSG_DONTWAIT)

    def _sleep(self, rest: float | None) -> None:
        self._hear(self._bell.how_to_wait(rest))

    def _hear(self, how: int) -> bool:
        """Take one thing that the peer has sent over the socket; False when there was none."""
        self._missed = self._missed or self._hearing
        self._hearing = True
        try:
            data, ancillary, _flags, _ = self._bell.line.recvmsg(_PACKET, _DESCRIPTORS, how | MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            self._hearing = False
            return False
        except ConnectionResetError:
            # It closed or died with something unread. The system says so once, and before what it had sent.
            self._hearing = False
            return True
        except OSError as error:
            if error.errno is None:
                raise  # by a signal handler, not by the system
            data, ancillary = b"", []
        if not data:
            self._check()  # or it was we who hung up
            self._gone = True
            self._bell.note_gone()
        elif len(data) > 1 or ancillary:
            self._others.descriptors(data, ancillary)
        self._hearing = False
        return True

    def hear_all(self) -> None:
        """Take all that has been sent over the socket; for who misses a descriptor. Called within `receive`."""
        while self._hear(MSG_DONTWAIT):
            if self._gone:
                return

    # Exceptions

    def _clean_up(self, error: BaseException, message: Any, begin: int) -> None:
        """After an exception: nothing is lost or given twice, and nothing stays locked."""
        if not self._is_mine() and (message is None or not self._take(False)):
            return
            # It came between the giving back of the lock and the return.
        if isinstance(error, (BrokenError, ProtocolError)):
            self._failure = type(error)(*error.args)  # a twin, which holds no buffers
        elif message is not None and begin >= 0:
            self.position = begin
        elif message is not None or self._midway:
            self._failure = BrokenError(
                "an exception, probably of a signal handler, interrupted the reading of a message"
            )
        self._give()
