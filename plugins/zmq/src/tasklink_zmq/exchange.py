"""One ZeroMQ socket, and the communicators that share it: a Task's one, or those of all its ranks in the Executor.

ZeroMQ sockets are not thread-safe, so each is used under one lock, which nobody holds while waiting. Who has the lock
and finds that something has come takes it in for all (`pump`), and rings for those whose turn it is: a message that a
writer came upon must wake the reader.

ZMQ_FD, the descriptor of a socket, is not readable "when there is a message". It is readable from the moment when the
I/O thread has sent the socket a command until anybody makes the socket look at its commands, which every call does.
So a thread that sends may swallow the news of a message that a reader is waiting for. Hence the rule of this file: who
has used the socket reads ZMQ_EVENTS before the lock is released, and pumps until nothing is left. Then all that there
was is in the inboxes, whose readers are rung for, and whatever comes later is a new command: the descriptor shows it.

Sending copies. libzmq can also send from our memory, but then it tells a thread of pyzmq, with a context and
descriptors of its own that stay to the end of the process, when it has done; and the memory would have to stay as it is
until then, where `write` promises the opposite for the moment at which it returns, be it with a TimeoutError. So a
large buffer is copied into a frame that libzmq owns, and frames are used again: warm memory costs a sixth of fresh.

libzmq does not raise when it is out of descriptors: it aborts the process. So `check_descriptors` looks first.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

import os
from _thread import RLock
from errno import EAGAIN, EHOSTUNREACH

import zmq
from zmq.backend import (
    Context,
    Frame,
    Socket,
    zmq_poll,
)  # below the conveniences of zmq.Socket, which take a microsecond a call

from tasklink.errors import BusyError
from tasklink_zmq.unit import Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Callable

    from tasklink_zmq.communicator import ZmqCommunicator

# As plain numbers: an enum costs a tenth of a microsecond wherever it is used.
_POLLIN, _SNDMORE, _NOBLOCK = int(zmq.POLLIN), int(zmq.SNDMORE), int(zmq.NOBLOCK)
_SRCFD = 2
INTERRUPTED = "a signal handler or a finalizer interrupted this thread in the same call; use another thread"
# A context takes 9 descriptors for itself and its first socket; listening, a monitor and a connection take the rest.
DESCRIPTORS = 20
# What is still on its way out when a socket is closed may take so long.
LINGER_MILLISECONDS = 1000
# Frames of one size that wait to be used again, and how many bytes of them at most.
_SPARE_BYTES = 34 << 20


def check_descriptors(count: int = DESCRIPTORS) -> None:
    """See that so many descriptors are free.

    Raises:
        OSError: they are not.
    """
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.dup(taken[0]) if taken else os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in taken:
            os.close(descriptor)


class Exchange:
    """A socket with its context, of which this process has one for each end of a run.

    Attributes:
        lock: held while anything here is used.
        socket: the socket.
        descriptors: readable when there may be something to pump.
        meet: is told of a unit of a peer that nobody knows, with its name and descriptor.
        look_around: is called by every `pump`: whoever has other sockets in the context serves them here.

    Args:
        kind: zmq.DEALER or zmq.ROUTER.

    Raises:
        OSError: there are not enough descriptors.
    """

    def __init__(self, kind: int) -> None:
        check_descriptors()
        self.lock = RLock()
        self.context = Context(1)
        self.socket = Socket(self.context, kind)
        self._others: list[Socket] = []
        self._poll = [(self.socket, _POLLIN)]  # quicker to ask than ZMQ_EVENTS, and the same
        self._routed = kind == zmq.ROUTER
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            self.socket.set(option, 0)  # what waits is bounded by its bytes: see Outbox
        # Now, not when it is closed: the parts of a socket take what holds when it is bound, or connects. One whose
        # connection broke would linger for ever, which is the default, and with it whoever ends the context.
        self.socket.set(zmq.LINGER, LINGER_MILLISECONDS)
        if self._routed:
            self.socket.set(zmq.ROUTER_MANDATORY, 1)
        self.descriptors = [_descriptor(self.socket)]
        self.members: dict[bytes, ZmqCommunicator] = {}
        self.meet: Callable[[bytes, Unit, int], None] = lambda *_: None
        self.look_around: Callable[[], None] | None = None
        self._users = 0
        self._pumping = False
        self._halfway = False  # in a message of several parts, when an exception of a signal handler came
        self._spare: dict[int, list[Frame]] = {}
        self._spare_bytes = 0

    def open(self, kind: int) -> Socket:
        """Make another socket in the same context, to be served by `look_around`."""
        socket = Socket(self.context, kind)
        self._others.append(socket)
        return socket

    def watch(self, socket: Socket) -> None:
        """Have `descriptors` stand for this one, too."""
        self.descriptors.append(_descriptor(socket))

    def check_thread(self) -> None:
        """Refuse a call that interrupts another one of the same thread.

        Raises:
            BusyError: this is one.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined]  # what threading.Condition asks, too
            raise BusyError(INTERRUPTED)

    # Sending

    def frame(self, buffer: bytes | bytearray | memoryview) -> Frame:
        """Copy a buffer into memory of libzmq's."""
        size = len(buffer)
        spare = self._spare.get(size)
        if not spare:
            return Frame(buffer, copy=True)
        frame = spare.pop()
        self._spare_bytes -= size
        frame.buffer[:] = buffer
        return frame

    def recycle(self, frames: Sequence[Frame]) -> None:
        """Take back frames that the peer has."""
        for frame in frames:
            size = len(frame)
            if self._spare_bytes + size > _SPARE_BYTES:
                self._spare.clear()
                self._spare_bytes = 0
            if size <= _SPARE_BYTES:
                self._spare.setdefault(size, []).append(frame)
                self._spare_bytes += size

    def transmit(self, peer: bytes, first: bytes, parts: Sequence[Frame] = ()) -> bool:
        """Send a unit; False when there is no connection to the peer.

        After an exception of a signal handler it may have been sent, or not.
        """
        if self._halfway:
            self._make_whole()
        self._halfway = True
        sent = self._send_to(peer, first, parts)
        self._halfway = False
        if not self._pumping and zmq_poll(self._poll, 0):
            self.pump()  # sending may have swallowed the news
        return sent

    def _send_to(self, peer: bytes, first: bytes, parts: Sequence[Frame]) -> bool:
        send = self.socket.send
        try:
            if self._routed:
                send(peer, _SNDMORE | _NOBLOCK)
            send(first, _SNDMORE | _NOBLOCK if parts else _NOBLOCK)
            for part in parts[:-1]:
                send(part, _SNDMORE | _NOBLOCK, copy=False)  # shares the memory of the frame
            for part in parts[-1:]:
                send(part, _NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (EHOSTUNREACH, EAGAIN):
                raise
            return False
        return True

    def _make_whole(self) -> None:
        """End a message that may have been begun, with an empty part, which no unit has: see `Unit.broken_off`."""
        try:
            self.socket.send(b"", _NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (EHOSTUNREACH, EAGAIN):
                raise
        self._halfway = False

    # Receiving

    def pump(self) -> None:
        """Take in all that has come, for everybody."""
        self._pumping = True
        try:
            if self.look_around is not None:
                self.look_around()
            self._receive_all()
        finally:
            self._pumping = False

    def _receive_all(self) -> None:
        """Receive until nothing is left.

        To ask costs as much as to receive, and to be refused twice that: so in a burst it is not asked.
        """
        count = 0
        try:
            while count > 1 or zmq_poll(self._poll, 0):
                self._receive_one()
                count += 1
        except zmq.Again:
            return

    def _receive_one(self) -> None:
        receive = self.socket.recv
        peer = receive(_NOBLOCK) if self._routed else b""
        frame = receive(_NOBLOCK, copy=False)
        if not frame.more:
            self._deliver(peer, frame, ())
            return
        parts = [receive(_NOBLOCK, copy=False)]
        while parts[-1].more:
            parts.append(receive(_NOBLOCK, copy=False))
        self._deliver(peer, frame, parts)

    def _deliver(self, peer: bytes, frame: Frame, parts: Sequence[Frame]) -> None:
        if not len(frame):
            return  # see _make_whole
        member = self.members.get(peer)
        if member is None:
            if not parts:
                self.meet(peer, Unit(frame.bytes), frame.get(_SRCFD))
            return
        member.arrived(frame.bytes, [part.buffer for part in parts])

    # Its life

    def join(self, peer: bytes, member: ZmqCommunicator) -> None:
        """Give this communicator what comes from the peer."""
        self.members[peer] = member
        self.hold()

    def leave(self, peer: bytes) -> None:
        """Drop what comes from the peer from now on."""
        with self.lock:
            self.members.pop(peer, None)

    def hold(self) -> None:
        """Live until one more `release`."""
        self._users += 1

    def release(self, linger: float) -> None:
        """Close when nobody uses this any more.

        Args:
            linger: what is still on its way out may take so long (seconds).
        """
        self._users -= 1
        if self._users:
            return
        self.look_around = None
        with self.lock:
            # Before its reader is closed: libzmq's own thread waits for ever to tell of an event that nobody can read.
            self.socket.monitor(None, 0)
            for socket in self._others:
                socket.close(0)
            self.socket.close(int(linger * 1000))
            self._spare.clear()
        self.context.term()  # waits for the linger at most, as every socket is closed and nothing is told any more


def _descriptor(socket: Socket) -> int:
    descriptor = socket.get(zmq.FD)
    assert isinstance(descriptor, int)
    return descriptor
