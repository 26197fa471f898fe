"""What a channel is made of: a context, a line for each direction, and over tcp who guards the door.

Over tcp libzmq itself encrypts and proves, both ways (CURVE). Whom a context lets in it asks over ZAP: requests come
over a socket of ours, and are answered by whoever finds that one has come. No thread is needed.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

from _thread import RLock

import zmq
from zmq.backend import Context, zmq_poll

from tasklink.turn import alone, is_mine
from tasklink_zmq.line import (
    LINGER_MILLISECONDS,
    MORE,
    NOBLOCK,
    POLLIN,
    Line,
    check_descriptors,
    descriptor_of,
    end,
    open_socket,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from zmq.backend import Socket


class Wiring:
    """The lines of one end.

    Args:
        patience: as of a `Line`.
        allowed: the public key of who may connect, in Z85's 32 bytes; None: this side connects, or is not on tcp.

    Attributes:
        incoming, outgoing: the lines.
        door: the descriptors that `answer` serves.

    Raises:
        OSError: there are not enough descriptors.
    """

    def __init__(self, patience: float = 0.0, allowed: bytes | None = None) -> None:
        check_descriptors()
        self._context = Context(1)
        self._doorman = None if allowed is None else Doorman(self._context, allowed)
        self.door = [] if self._doorman is None else [self._doorman.descriptor]
        # One who was not let in shall not be heard: a PAIR has one connection. A DEALER may have another one later.
        kind = int(zmq.DEALER if patience else zmq.PAIR)
        self.incoming = Line(self._context, kind, patience)
        self.outgoing = Line(self._context, kind, patience)

    def set_up(self, work: Callable[[Socket], None]) -> None:
        """Set options of both sockets, before they are bound or connected."""
        work(self.incoming.socket)
        work(self.outgoing.socket)

    def answer(self, ready: set[int]) -> None:
        """Serve the door, if it is among the descriptors that are ready."""
        if self._doorman is not None and self._doorman.descriptor in ready:
            self._doorman.answer()

    def close(self) -> None:
        """Close everything; what is still on its way out may take `line.LINGER_MILLISECONDS`."""
        # A peer that is gone from one line takes nothing on the other either, where libzmq may not have seen it yet: it
        # would then wait out the whole time.
        linger = 0 if self.incoming.is_gone or self.outgoing.is_gone else LINGER_MILLISECONDS
        self.incoming.close(linger)
        self.outgoing.close(linger)
        if self._doorman is not None:
            self._doorman.close()
        end(self._context)


class Doorman:
    """Lets one key in; for all sockets of a context that are servers of CURVE, and have a ZAP domain.

    Args:
        context: the context; without somebody who answers, libzmq would let everybody in.
        allowed: the public key.
    """

    def __init__(self, context: Context, allowed: bytes) -> None:
        self._allowed = allowed
        self._lock = RLock()
        self._socket = open_socket(context, int(zmq.REP))
        self._socket.bind("inproc://zeromq.zap.01")
        self._poll = [(self._socket, POLLIN)]
        self.descriptor = descriptor_of(self._socket)

    def answer(self) -> None:
        """Answer who has asked."""
        if not is_mine(self._lock):
            try:
                alone(self._lock, 0.0, self._answer_all)
            except TimeoutError:
                pass  # another thread is at it

    def _answer_all(self) -> None:
        while zmq_poll(self._poll, 0):
            self._answer_one()

    def _answer_one(self) -> None:
        """Answer a request: version, request, domain, address, identity, mechanism, credentials."""
        request = [self._socket.recv(NOBLOCK)]
        while self._socket.get(zmq.RCVMORE):
            request.append(self._socket.recv(NOBLOCK))
        known = request[5:] == [b"CURVE", self._allowed]
        verdict = [b"200", b"OK"] if known else [b"400", b"not the key of this run"]
        for part in (b"1.0", request[1], *verdict, b""):
            self._socket.send(part, MORE)
        self._socket.send(b"", NOBLOCK)

    def close(self) -> None:
        """Close it."""
        self._socket.close(0)
