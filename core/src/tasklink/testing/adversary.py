"""A transport that is in the hands of an adversary: it decides when bytes arrive, and how many, and who dies.

Two ends of a byte stream are connected through it. What one end writes is taken only when the adversary wants, so that
the end's system calls take a part of what they are given, or nothing; and it is passed on in whatever portions the
adversary chooses. It loses nothing and changes nothing: no stream of the kernel does.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.communicator import Communicator

_ROOM = 4 << 10  # bytes, which the kernel makes a little more of
_AT_ONCE = 1 << 16


class Adversary:
    """Holds what two ends write to each other.

    Args:
        make: makes an end of a connected socket: `make(reader, writer)`, both of them the same descriptor.

    Attributes:
        ends: the two ends.
    """

    def __init__(self, make: Callable[[int, int], Communicator]) -> None:
        self._sides: list[socket.socket] = []
        self._held = [bytearray(), bytearray()]  # by who wrote them
        self._ended = [False, False]  # nothing more comes of this end
        self._gone = [False, False]  # nobody reads at this end any more
        ends = []
        for _ in range(2):
            mine, theirs = socket.socketpair()
            for one in (mine, theirs):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
            mine.setblocking(False)
            self._sides.append(mine)
            descriptor = theirs.detach()
            ends.append(make(descriptor, descriptor))
        self.ends: tuple[Communicator, Communicator] = (ends[0], ends[1])

    def deliver(self, writer: int, count: int) -> int:
        """Pass on up to so many bytes of what an end has written; how many were passed on."""
        held = self._held[writer]
        reader = self._sides[1 - writer]
        self._take(writer, count)
        try:
            moved = 0 if self._gone[1 - writer] else reader.send(held[:count])
        except BlockingIOError:
            moved = 0
        except OSError:
            self._gone[1 - writer] = True
            moved = 0
        if self._gone[1 - writer]:
            moved = len(held)
            self._refuse(writer)
        del held[:moved]
        if self._ended[writer] and not held and not self._gone[1 - writer]:
            reader.shutdown(socket.SHUT_WR)
        return moved

    def deliver_all(self, writer: int) -> bool:
        """Pass on everything that goes; whether there was anything."""
        moved = False
        while self.deliver(writer, _AT_ONCE):
            moved = True
        return moved

    def end(self, end: int) -> None:
        """Take note that an end is closed, or dead: what it wrote can still be passed on, and nobody reads there."""
        while not self._ended[end] and self._take(end, len(self._held[end]) + _AT_ONCE):
            pass
        self._ended[end] = self._gone[end] = True
        self._held[1 - end].clear()
        self._refuse(1 - end)
        self.deliver(end, 0)

    def close(self) -> None:
        """Release what is in between."""
        for side in self._sides:
            side.close()

    def _take(self, writer: int, wanted: int) -> bool:
        """Take what an end has written, until so many bytes are held."""
        held = self._held[writer]
        if self._ended[writer] or len(held) >= wanted:
            return False
        try:
            data = self._sides[writer].recv(wanted - len(held))
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        held += data
        self._ended[writer] = not data
        return bool(data)

    def _refuse(self, writer: int) -> None:
        """Have the system refuse what an end writes."""
        try:
            self._sides[writer].shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it has ended itself
