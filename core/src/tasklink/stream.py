"""A Communicator over byte streams: pipes, sockets, terminals, whatever has readv and writev.

Rules of this file: descriptors are non-blocking, and every wait is a poll(2) of the descriptor *and* of a doorbell that
`close` rings. Nothing else wakes a thread that waits on a pipe: closing its descriptor does not.

Three locks order the writers. `_large` lets one message at a time be in pieces. Each frame, a whole message or one
piece, is written under `_frame`; and who has a whole message holds `_small` while it waits for `_frame`. So after each
piece its writer finds `_small` taken by whoever came meanwhile, and is second: without it, a thread that gives a lock
back and takes it again at once keeps all others out for seconds. Who finds `_frame` free need not wait, and takes it.

A signal handler may raise between any two bytecodes (a user's Control-C, the time-out of a framework). It must not
leave a lock taken, nor lose count of the bytes that the kernel has taken: `alone` and `_Outgoing` are written for
that. On the reading side it may cost the channel, but never gives wrong messages: `_midway`.

writev(2) on a socket is sendmsg(2), and readv(2) is recvmsg(2), each without flags, so a Task that talks over an
inherited socket needs no `socket` module (5 ms of its start). Python ignores SIGPIPE, so MSG_NOSIGNAL is not missed.
"""

from __future__ import annotations

import os
import select
from _thread import RLock
from time import monotonic

from tasklink import framing
from tasklink.communicator import FramedCommunicator
from tasklink.doorbell import Doorbell
from tasklink.errors import BrokenError, EndOfMessages, ProtocolError
from tasklink.spin import Spin
from tasklink.turn import alone, deadline_of, is_mine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from tasklink.errors import CommunicatorError
    from tasklink.message import Message

    Buffer = Union[bytes, bytearray, memoryview]

# So much is written whole or not at all: see `framing.SMALL_BYTES`.
_AT_ONCE = 4096
_MOST_BUFFERS = 1024  # IOV_MAX of Linux and macOS
_LONGEST_POLL = 1_000_000.0  # seconds; poll(2) counts milliseconds in a C int


class StreamCommunicator(FramedCommunicator):
    """Messages as frames over a pair of descriptors, which it owns from now on.

    What `write` has handed to the kernel is delivered although this process is killed the next moment.

    Args:
        reader: the descriptor to read from.
        writer: the descriptor to write to; may be the same one.
        max_message: refuse larger messages of the peer (bytes of payload); None for no limit.
    """

    def __init__(self, reader: int, writer: int, *, max_message: int | None = None) -> None:
        # First what may fail: an object that was never whole has nothing to close.
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
        self._bell = Doorbell()
        super().__init__()
        self._reader = reader
        self._writer = writer
        self._decoder = framing.FrameDecoder(max_message)
        self._failure: CommunicatorError | None = None
        self._midway = False  # bytes have been read that the decoder may not know of
        self._outgoing: _Outgoing | None = None
        self._given_up = False  # on a message in pieces, and the peer has not been told yet
        self._rung = False  # by `shut`, which does not need the bell any more
        self._released = False
        self._drained = True  # what had come was read
        self._arrival = select.poll()
        self._arrival.register(reader, select.POLLIN)
        self._arrival.register(self._bell, select.POLLIN)
        self._spin = Spin()
        poll = self._arrival.poll
        self._look = lambda: poll(0)
        self._reading = RLock()
        self._large = RLock()
        self._small = RLock()
        self._frame = RLock()

    def fileno(self) -> int:
        """The descriptor that is read from; see `Communicator.fileno`."""
        self.check_usable()
        return self._reader

    # Reading

    def refuse_larger(self, nbytes: int) -> None:
        """Refuse it by what its head says; see `Communicator.refuse_larger`."""
        self._decoder.refuse_larger(nbytes)

    def receive(self, timeout: float | None) -> Message:
        """Wait for one frame; see `FramedCommunicator.receive`."""
        deadline = deadline_of(timeout)
        return alone(self._reading, deadline, self._next_message, deadline)

    def _next_message(self, deadline: float | None) -> Message:
        while True:
            self.check_usable()
            try:
                return self.arrived.popleft()
            except IndexError:
                pass  # there is none, or another thread was faster
            if self._failure is not None:
                raise self._failure
            if self._midway:
                raise BrokenError("an exception, probably of a signal handler, interrupted the reading of a message")
            try:
                self._read(deadline)
            except (BrokenError, ProtocolError) as error:
                # Where the next frame begins is not known any more. A twin of the error, which holds no messages.
                self._failure = type(error)(*error.args)
                raise

    def _read(self, deadline: float | None) -> None:
        """Read once, waiting until there is something to read."""
        decoder = self._decoder
        self._midway = True
        buffer = decoder.get_buffer()
        if self._drained:  # to read would most likely fail, which costs more than to ask
            self._midway = False
            self._wait_for_work(deadline)
            self._midway = True
        try:
            count = os.readv(self._reader, [buffer])
        except BlockingIOError:
            self._midway = False
            self._drained = True
            return
        except ConnectionResetError:
            # A Unix socket says this instead of its end when the peer died with something unread. All that the peer
            # wrote has been given before.
            count = 0
        except OSError as error:
            if error.errno is None:
                raise  # by a signal handler, not by the system
            raise BrokenError(f"reading failed: {error}") from error
        self._drained = count < len(buffer)
        if count == 0:
            self._midway = False
            decoder.finish()
            raise EndOfMessages
        messages = decoder.received(count)
        self.arrived.extend(messages)
        self._midway = False
        if not messages and deadline is not None and monotonic() >= deadline:
            # In a large message: the caller has other things to do, and the descriptor says when to come back.
            raise TimeoutError("no whole message has come in time")

    def _wait_for_work(self, deadline: float | None) -> None:
        """Wait until there may be something to read: first by looking again, then asleep."""
        poll = self._arrival.poll
        rest = None if deadline is None else min(max(0.0, deadline - monotonic()), _LONGEST_POLL)
        if rest != 0 and self._spin.look(self._look, deadline):
            return
        if not poll(None if rest is None else rest * 1000) and rest != _LONGEST_POLL:
            raise TimeoutError("no message has come in time")
        self.check_usable()

    # Writing

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Send one frame, a large one in pieces; see `FramedCommunicator.send`."""
        deadline = deadline_of(timeout)
        size = sum(map(len, buffers))
        if size <= _AT_ONCE and self._sent_at_once(b"".join(buffers), deadline):
            return
        if size <= framing.PIECE_BYTES:
            alone(self._small, deadline, self._send_frame, buffers, deadline)
        else:
            alone(self._large, deadline, self._send_pieces, buffers, deadline)

    def send_small(self, frame: bytes, timeout: float | None) -> None:
        """Send one small frame; see `FramedCommunicator.send_small`."""
        deadline = None if timeout is None else deadline_of(timeout)
        if not self._sent_at_once(frame, deadline):
            alone(self._small, deadline, self._send_frame, [frame], deadline)

    def _sent_at_once(self, frame: bytes, deadline: float | None) -> bool:
        """Send a small frame, if nobody else is writing and there is room; False if it is still to be sent.

        Most frames go this way, which is short: 1 us instead of 4.
        """
        lock = self._frame
        if is_mine(lock):
            return False
        try:
            if not lock.acquire(False):
                return False
            try:
                if self._outgoing is not None or self._given_up or self._closed:
                    return False
                # Where all or nothing is taken of so little, there is no count to lose (see _Outgoing).
                count = os.write(self._writer, frame)
                if count < len(frame):
                    self._write_all(_Outgoing([frame], [count]), deadline)
                    self._outgoing = None
            except OSError as error:
                if error.errno is None:
                    raise  # by a signal handler, not by the system
                if isinstance(error, BlockingIOError):
                    return False
                raise BrokenError(f"the peer is gone: {error}") from error
            else:
                return True
            finally:
                lock.release()
        except BaseException:
            if is_mine(lock):  # it was raised between acquire and try
                lock.release()
            raise

    def _send_pieces(self, buffers: list[Buffer], deadline: float | None) -> None:
        try:
            for frame in framing.split(buffers):
                alone(self._small, deadline, _let_others_go_first)
                self._send_frame(frame, deadline)
        except BaseException:
            self._given_up = True
            raise

    def _send_frame(self, frame: list[Buffer], deadline: float | None) -> None:
        alone(self._frame, deadline, self._write_frame, frame, deadline)

    def _write_frame(self, frame: list[Buffer], deadline: float | None) -> None:
        self.check_usable()
        if self._outgoing is not None and self._outgoing.taken:
            self._write_all(self._outgoing, deadline)  # a frame that was begun must be ended before the next one
        if self._given_up:
            self._write_all(_Outgoing([framing.GIVEN_UP]), deadline)
            self._given_up = False
        self._write_all(_Outgoing(frame), deadline)
        self._outgoing = None

    def _write_all(self, outgoing: _Outgoing, deadline: float | None) -> None:
        self._outgoing = outgoing
        try:
            rest = outgoing.rest()
            while rest:
                self._write_some(outgoing.taken, rest[:_MOST_BUFFERS], deadline)
                rest = outgoing.rest()
        except BaseException:
            if outgoing.taken:  # the rest goes out before the next frame, but its memory is the caller's again
                outgoing.buffers = [bytes(buffer) for buffer in outgoing.buffers]
            raise

    def _write_some(self, taken: list[int], buffers: list[Buffer], deadline: float | None) -> None:
        try:
            taken.extend(map(os.writev, (self._writer,), (buffers,)))  # one call: see _Outgoing
        except BlockingIOError:
            self._wait(self._writer, select.POLLOUT, deadline)
        except OSError as error:
            if error.errno is None:
                raise  # by a signal handler, not by the system
            raise BrokenError(f"the peer is gone: {error}") from error

    # Waiting and closing

    def _wait(self, descriptor: int, event: int, deadline: float | None) -> None:
        """Wait until the descriptor may be ready; whoever calls tries again.

        Raises:
            TimeoutError, ClosedError: as `Communicator.read`.
        """
        rest = None if deadline is None else deadline - monotonic()
        if rest is not None and rest <= 0:
            raise TimeoutError("the peer was not ready in time")
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._bell, select.POLLIN)
        poll.poll(None if rest is None else min(rest, _LONGEST_POLL) * 1000)
        self.check_usable()

    def shut(self) -> None:
        """Wake and wait out every thread, then release the descriptors; see `FramedCommunicator.shut`."""
        if self.forked:  # the threads that hold the locks do not exist here
            self._close_descriptors()
            return
        self._bell.ring()
        self._rung = True
        self.leave()

    def leave(self) -> None:
        """Close the descriptors when no thread uses them any more; see `FramedCommunicator.leave`."""
        if self._rung and not (is_mine(self._reading) or is_mine(self._frame)):
            alone(self._reading, None, alone, self._frame, None, self._close_descriptors)

    def _close_descriptors(self) -> None:
        if self._released:
            return
        self._released = True
        for descriptor in {self._reader, self._writer}:
            os.close(descriptor)
        self._bell.close()


class _Outgoing:
    """A frame, and how many of its bytes the kernel took with each call.

    `taken` is a list that C code fills within the call that writes: a signal handler raises before it or after it, but
    never between what was written and the note of it.
    """

    __slots__ = ("buffers", "taken")

    def __init__(self, buffers: list[Buffer], taken: list[int] | None = None) -> None:
        self.buffers = buffers
        self.taken = taken or []

    def rest(self) -> list[Buffer]:
        """What the kernel has not taken yet."""
        count = sum(self.taken)
        for index, buffer in enumerate(self.buffers):
            if count < len(buffer):
                return [memoryview(buffer)[count:], *self.buffers[index + 1 :]]
            count -= len(buffer)
        return []


def _let_others_go_first() -> None:
    pass
