"""How one side wakes the other: a flag in shared memory, and a socket that is only used when the flag is set.

To send a byte to a thread that sleeps costs its sender 20 us, to see that nobody sleeps a load. So who waits sets a
flag, looks once more whether there is anything, and sleeps; who has done something looks at the flag, takes it back,
and sends. In this order: were the flag taken back after the sending, it could be the flag of the next sleep.

The sockets are pairs of SOCK_SEQPACKET: what was sent together is received together, and the end of the peer, however
it ended, can be received as well. Whoever sleeps wakes up by itself after a tenth of a second: nothing depends on it.

Part of the Task side: standard library, Python 3.9. `_socket` is what `socket` wraps, which costs 7 ms.
"""

from __future__ import annotations

import select
from _socket import MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RDWR, SO_RCVTIMEO, SOL_SOCKET, socket
from struct import pack

from tasklink.errors import BrokenError, ClosedError
from tasklink_shm.layout import NOTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST_SLEEP = 0.1
GONE = "the peer is gone"

_RUNG = b"!"


class _Line(socket):
    """A socket that is closed without a word when it is forgotten: the communicator has its own."""

    def __del__(self) -> None:
        self.close()


class Bell:
    """One end: this side sleeps under one flag, and wakes the other side, which sleeps under another one.

    Attributes:
        line: the socket.

    Args:
        words: of the shared memory.
        descriptor: of the socket, which is owned from now on.
        ours: the index of the flag under which this side sleeps.
        theirs: that of the other side.
        check: raises ClosedError when this side was closed.
    """

    __slots__ = ("_check", "_ours", "_poll", "_theirs", "_words", "line")

    def __init__(self, words: memoryview, descriptor: int, ours: int, theirs: int, check: Callable[[], None]) -> None:
        self._words = words
        self._check = check
        self._ours = ours
        self._theirs = theirs
        self.line: Any = _Line(fileno=descriptor)
        self.line.setblocking(True)
        self.line.setsockopt(SOL_SOCKET, SO_RCVTIMEO, pack("ll", int(LONGEST_SLEEP), int(LONGEST_SLEEP % 1 * 1e6)))
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def ring(self) -> None:
        """Wake the other side, whose flag is set.

        Raises:
            BrokenError: it is gone.
        """
        self._words[self._theirs] = 0
        try:
            self.line.send(_RUNG, MSG_DONTWAIT | MSG_NOSIGNAL)
        except BlockingIOError:
            pass  # so much is waiting there that it is awake anyway
        except OSError as error:
            if error.errno is None:
                raise  # by a signal handler, not by the system
            try:
                self._check()
            except ClosedError:
                return  # what was written before is found by the peer, whom the closing has woken
            self._words[self._theirs] = 1  # the next one shall hear of it, too
            raise BrokenError(f"{GONE}: {error}") from error

    def arm(self) -> None:
        """Ask to be woken. What comes before this is only seen by looking once more, after a fence."""
        self._words[self._ours] = 1

    def disarm(self) -> None:
        """Take it back."""
        self._words[self._ours] = 0

    def sleep(self, rest: float | None) -> None:
        """Wait until woken, for so many seconds at most, or a tenth of one.

        Raises:
            BrokenError: the other side is gone.
            ClosedError: this side was closed.
        """
        try:
            data = self.line.recv(64, self.how_to_wait(rest))
        except BlockingIOError:
            return  # the time is up
        except OSError as error:
            if error.errno is None:
                raise  # by a signal handler, not by the system
            data = b""
        if not data:
            self._check()  # or it was we who hung up
            raise BrokenError(GONE)

    def how_to_wait(self, rest: float | None) -> int:
        """Wait for a short time here, and give the flag for a receiving that does not; for a longer one it waits."""
        if rest is None or rest >= LONGEST_SLEEP:
            return 0
        self._poll.poll(max(0.0, rest) * 1000)
        return int(MSG_DONTWAIT)

    def note_gone(self) -> None:
        """The other side is gone: have the next one who would wake it find out."""
        self._words[self._theirs] = 1

    def hang_up(self) -> None:
        """Wake whoever sleeps at either end, for good."""
        try:
            self.line.shutdown(SHUT_RDWR)
        except OSError:
            pass  # the peer was first

    def close(self) -> None:
        """Release the socket, and let go of the memory."""
        self._words = NOTHING
        self._ours = self._theirs = 0
        self.line.close()
