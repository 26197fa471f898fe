"""One ZeroMQ socket, which carries one direction, and what libzmq tells of its connection.

A socket is used by one thread at a time: whoever uses a line has the lock of its direction, and nobody uses two.

ZMQ_FD, the descriptor of a socket, is not readable "when there is a message". It is readable from the moment when the
I/O thread has sent the socket a command until anybody makes the socket look at its commands, which every call does,
sending too. Hence the rule of this package: who is going to wait on the descriptor first receives until nothing is
left, and sends nothing in between.

libzmq does not raise when it is out of descriptors: it aborts the process. So `check_descriptors` looks first.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

import os
from _signal import (  # type: ignore[import-not-found]  # `signal` makes enums of it
    SIG_BLOCK,
    SIG_SETMASK,
    pthread_sigmask,
    valid_signals,
)
from struct import Struct
from time import monotonic

import zmq
from zmq.backend import (
    Context,
    Socket,
    zmq_poll,
)  # below the conveniences of zmq.Socket, which take a microsecond a call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# As plain numbers: an enum costs a tenth of a microsecond wherever it is used.
NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
POLLIN = int(zmq.POLLIN)
Again = zmq.Again
# What is still on its way out when a socket is closed may take so long.
LINGER_MILLISECONDS = 1000
_MOST_PROBES = 4
# A connection that is lost comes back soon or never: its peer tries again every 0.1 s.
LOST_SECONDS = 2.0
# What a channel takes at most, with its context: 5 for that, 6 for each line, and who waits.
DESCRIPTORS = 32
_SRCFD = 2
_OPENED = int(zmq.EVENT_CONNECTED | zmq.EVENT_ACCEPTED)
_MADE = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_CLOSED = int(zmq.EVENT_DISCONNECTED)
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_EVENT = Struct("=HI")


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


def end(context: Context) -> None:
    """End a context whose sockets are closed: wait for what they still send, for as long as they linger.

    A signal would interrupt the waiting, and pyzmq then takes the context for ended, which keeps its threads and its
    descriptors for good. So signals wait, here, and their handlers run afterwards.
    """
    before = pthread_sigmask(SIG_BLOCK, valid_signals())
    try:
        context.term()
    finally:
        pthread_sigmask(SIG_SETMASK, before)


def open_socket(context: Context, kind: int) -> Socket:
    """Make a socket that keeps nobody from ending."""
    socket = Socket(context, kind)
    # Now, not when it is closed: the parts of a socket take what holds when it is bound, or connects. One whose
    # connection broke would linger for ever, which is the default, and with it whoever ends the context.
    socket.set(zmq.LINGER, LINGER_MILLISECONDS)
    return socket


def descriptor_of(socket: Socket) -> int:
    """ZMQ_FD."""
    descriptor = socket.get(zmq.FD)
    assert isinstance(descriptor, int)
    return descriptor


def _silence(patience: float) -> dict[int, int]:
    """Options by which the system ends a connection whose other host has said nothing for so many seconds.

    Not heartbeats of libzmq: they end the connection of a peer that is there, and only did not get to say so, and where
    one ends while its input is held up libzmq aborts the process (its issues 3937 and 4364, "!_io_error").
    """
    probes = max(1, min(_MOST_PROBES, int(patience) - 1))
    between = max(1, int(patience) // (probes + 1))
    return {
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: between,
        zmq.TCP_KEEPALIVE_INTVL: between,
        zmq.TCP_KEEPALIVE_CNT: probes,
        zmq.TCP_MAXRT: max(1, int(patience * 1000)),  # what was sent and not taken in
    }


class Line:
    """A socket, and how its connection is.

    Args:
        context: in which it is made.
        kind: zmq.PAIR, or zmq.DEALER where a connection may be lost and made again.
        patience: after how long silence a connection is lost (seconds). It may then come back, and has as long for that
            as well, but no longer than LOST_SECONDS; 0: a connection is lost only when the peer is gone.

    Attributes:
        socket: the socket.
        descriptor: readable when something may have come.
        news: readable when something may have become of the connection.
        made: how many connections there have been.
        refused: the other side does not know our key, or we not theirs.
        lost_until: the connection is lost, and may come back until then.
    """

    def __init__(self, context: Context, kind: int, patience: float) -> None:
        self.socket = open_socket(context, kind)
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            self.socket.set(option, 0)  # what waits is bounded by its bytes
        if patience:
            for name, value in _silence(patience).items():
                self.socket.set(name, value)
            self.socket.set(zmq.HANDSHAKE_IVL, 2000)
            self.socket.set(zmq.IPV6, 1)
        else:
            self.socket.set(zmq.RECONNECT_IVL, -1)
        self._time_to_return = min(patience, LOST_SECONDS)
        place = f"inproc://{id(self)}"
        self.socket.monitor(place, _OPENED | _MADE | _CLOSED | _REFUSED)
        self._monitor = open_socket(context, zmq.PAIR)
        self._monitor.connect(place)
        self.descriptor = descriptor_of(self.socket)
        self.news = descriptor_of(self._monitor)
        self.made = 0
        self.refused = False
        self.lost_until: float | None = None
        self._open: set[int] = set()  # connections, an old one and the one that replaces it among them
        self._poll = [(self._monitor, POLLIN)]

    @property
    def is_gone(self) -> bool:
        """The connection is lost for good."""
        until = self.lost_until
        return until is not None and monotonic() >= until

    def look(self) -> bool:
        """Take note of what has become of the connection; gives whether there is a new one."""
        made = self.made
        if not zmq_poll(self._poll, 0):  # quicker than to be refused
            return False
        try:
            while True:
                event, value = _EVENT.unpack(self._monitor.recv(NOBLOCK))
                self._monitor.recv(NOBLOCK)  # the address
                if event == _MADE:
                    self.made += 1
                    self.lost_until = None
                elif event & _OPENED:
                    self._open.add(value)
                elif event == _CLOSED:
                    self._open.discard(value)
                    if not self._open and self.lost_until is None:
                        self.lost_until = monotonic() + self._time_to_return
                elif event & _REFUSED:
                    self.refused = True
        except Again:
            return self.made > made

    def say(self, *parts: Any) -> bool:
        """Send parts, each of which is bytes or a frame; False when there is no connection.

        After an exception of a signal handler some of them may have been sent.
        """
        send = self.socket.send
        try:
            for part in parts[:-1]:
                send(part, MORE, False)
            send(parts[-1], NOBLOCK, False)  # the memory of a frame is shared, bytes are copied
        except zmq.Again:
            return False
        return True

    def hear(self) -> bytes:
        """Receive one part, or nothing."""
        try:
            return self.socket.recv(NOBLOCK)
        except Again:
            return b""

    def close(self, linger: int) -> None:
        """Close the socket; what is still on its way out may take so many milliseconds."""
        # Before its reader is closed: libzmq's own thread waits for ever to tell of an event that nobody can read.
        self.socket.monitor(None, 0)
        self._monitor.close(0)
        self.socket.close(linger)
