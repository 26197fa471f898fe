"""A Communicator over byte streams: pipes, sockets, terminals, whatever has readv and writev.

Rules of this file: descriptors are non-blocking, and every wait is a poll(2) of the descriptor *and* of a doorbell that
`close` rings. Nothing else wakes a thread that waits on a pipe: closing its descriptor does not.

Three locks order the writers. `_large` lets one message at a time be in pieces. Each frame, a whole message or one
piece, is written under `_frame`; and who wants `_frame` waits for it holding `_next`. So after each piece of a large
message its writer finds `_next` taken by whoever came meanwhile, and is second: without it, a thread that releases
a lock and takes it again at once keeps all others out for seconds.

writev(2) on a socket is sendmsg(2), and readv(2) is recvmsg(2), each without flags, so a Task that talks over an
inherited socket needs no `socket` module (5 ms of its start). Python ignores SIGPIPE, so MSG_NOSIGNAL is not missed.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock, get_ident
from time import monotonic

from tasklink import framing
from tasklink.communicator import FramedCommunicator
from tasklink.doorbell import Doorbell
from tasklink.errors import BrokenError, BusyError, ClosedError, CommunicatorError, EndOfMessages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]

_MOST_BUFFERS = 1024  # IOV_MAX of Linux and macOS


class StreamCommunicator(FramedCommunicator):
    """Messages as frames over a pair of descriptors, which it owns from now on.

    What `write` has handed to the kernel is delivered although this process is killed the next moment.

    Args:
        reader: the descriptor to read from.
        writer: the descriptor to write to; may be the same one.
        max_message: refuse larger messages of the peer (bytes of payload); None for no limit.
    """

    def __init__(self, reader: int, writer: int, *, max_message: int | None = None) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
        self._decoder = framing.FrameDecoder(max_message)
        self._arrived: Iterator[framing.Frame] = iter(())
        self._failure: CommunicatorError | None = None
        self._reading = _Turn()
        self._large = _Turn()
        self._next = _Turn()
        self._frame = _Turn()
        self._tail = b""  # what is left of a frame whose writer was interrupted; goes out before anything else
        self._bell: Doorbell | None = None
        self._bell_made = allocate_lock()

    def fileno(self) -> int:
        """The descriptor that is read from; see `Communicator.fileno`."""
        self.check_usable()
        return self._reader

    # Reading

    def receive(self, timeout: float | None) -> framing.Frame:
        """Wait for one frame; see `FramedCommunicator.receive`."""
        deadline = _deadline(timeout)
        with self._reading.taken(deadline):
            while True:
                frame = next(self._arrived, None)
                if frame is not None:
                    return frame
                self._arrived = iter(self._read(deadline))

    def _read(self, deadline: float | None) -> list[framing.Frame]:
        """Read once, waiting until there is something to read."""
        if self._failure is not None:
            raise self._failure
        try:
            count = self._read_into(self._decoder.get_buffer(), deadline)
            if count == 0:
                self._decoder.finish()
                raise EndOfMessages
            frames = self._decoder.received(count)
        except CommunicatorError as error:
            if not self._closed:
                self._failure = error  # where the next frame begins is not known any more
            raise
        if not frames and deadline is not None and monotonic() >= deadline:
            # In a large message: the caller has other things to do, and the descriptor says when to come back.
            raise TimeoutError("no whole message has come in time")
        return frames

    def _read_into(self, buffer: memoryview, deadline: float | None) -> int:
        while True:
            try:
                return os.readv(self._reader, [buffer])
            except BlockingIOError:
                self._wait(self._reader, select.POLLIN, deadline)
            except ConnectionResetError:
                # A Unix socket says this instead of its end when the peer died with something unread. All that the
                # peer wrote has been given before.
                return 0
            except OSError as error:
                raise BrokenError(f"reading failed: {error}") from error

    # Writing

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Send one frame, a large one in pieces; see `FramedCommunicator.send`."""
        deadline = _deadline(timeout)
        size = sum(map(len, buffers))
        if size <= framing.PIECE_BYTES:
            self._send_frame(buffers, deadline)
            return
        with self._large.taken(deadline):
            for frame in framing.split(buffers):
                self._send_frame(frame, deadline)

    def _send_frame(self, frame: list[Buffer], deadline: float | None) -> None:
        with self._next.taken(deadline):
            self._frame.take(deadline)
        try:
            self.check_usable()
            if self._tail:
                self._write_all([self._tail], deadline)
            self._write_all(frame, deadline)
        finally:
            self._frame.give()

    def _write_all(self, buffers: list[Buffer], deadline: float | None) -> None:
        pending = buffers
        try:
            while pending:
                pending = _after(pending, self._write_some(pending, deadline))
            self._tail = b""
        finally:
            # Out of time, or a signal handler raised: a frame that was begun must be ended before the next one.
            if pending and pending is not buffers:
                self._tail = b"".join(pending)

    def _write_some(self, buffers: list[Buffer], deadline: float | None) -> int:
        while True:
            try:
                return os.writev(self._writer, buffers[:_MOST_BUFFERS])
            except BlockingIOError:
                self._wait(self._writer, select.POLLOUT, deadline)
            except OSError as error:
                raise BrokenError(f"the peer is gone: {error}") from error

    # Waiting and closing

    def _wait(self, descriptor: int, event: int, deadline: float | None) -> None:
        if deadline is not None and monotonic() >= deadline:
            raise TimeoutError("the peer was not ready in time")
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._doorbell(), select.POLLIN)
        ready = poll.poll(None if deadline is None else max(0, deadline - monotonic()) * 1000)
        if self._closed:
            raise ClosedError(f"this {type(self).__name__} was closed")
        if not ready:
            raise TimeoutError("the peer was not ready in time")

    def _doorbell(self) -> Doorbell:
        """The doorbell, made when a thread first has to wait: most Tasks of a moment never do."""
        with self._bell_made:
            if self._bell is None:
                self._bell = Doorbell()
                if self._closed:
                    self._bell.ring()
            return self._bell

    def shut(self) -> None:
        """Wake and wait out every thread, then release the descriptors; see `FramedCommunicator.shut`."""
        if not self.forked:  # in a fork the threads that hold the locks do not exist
            with self._bell_made:
                if self._bell is not None:
                    self._bell.ring()
            self._reading.take(None)
            self._next.take(None)
            self._frame.take(None)
        for descriptor in {self._reader, self._writer}:
            os.close(descriptor)
        if self._bell is not None:
            self._bell.close()
        if not self.forked:
            self._frame.give()
            self._next.give()
            self._reading.give()


class _Turn:
    """A lock that is waited for with a deadline, and refuses a signal handler that would wait for its own thread."""

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._owner = 0

    def taken(self, deadline: float | None) -> _Turn:
        """Take it for a with statement.

        Raises:
            TimeoutError, BusyError: as `take`.
        """
        self.take(deadline)
        return self

    def take(self, deadline: float | None) -> None:
        """Wait for it.

        Raises:
            TimeoutError: others kept it until the deadline.
            BusyError: this thread has it; only a signal handler gets here.
        """
        me = get_ident()
        if self._owner == me:
            raise BusyError("a signal handler interrupted this thread in the same call; send from another thread")
        wait = -1.0 if deadline is None else max(0.0, deadline - monotonic())
        if not self._lock.acquire(True, wait):
            raise TimeoutError("other threads kept the communicator busy")
        self._owner = me

    def give(self) -> None:
        """Let the next one have it."""
        self._owner = 0
        self._lock.release()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout


def _after(buffers: list[Buffer], count: int) -> list[Buffer]:
    """What is left of the buffers when their first `count` bytes are gone."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []
