"""The Task's side of a rendezvous: reach it in time, prove the key, have the Executor prove it too.

Part of the Task side: standard library, Python 3.9. `_socket` is what `socket` wraps, which costs 7 ms.
"""

from __future__ import annotations

import select
from _socket import AF_UNIX, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket
from struct import pack
from time import monotonic

from tasklink.errors import AuthenticationError, BrokenError
from tasklink.rendezvous import handshake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.communicator import Address


def reach(address: Address) -> int:
    """Connect to the Executor; its descriptor, non-blocking, once both sides have proved that they hold the key.

    Args:
        address: with the details and the key of a `Rendezvous`.

    Raises:
        BrokenError: nobody listens there.
        AuthenticationError: one of the two sides could not prove that it holds the key.
        TimeoutError: the Executor did not answer in time.
    """
    details = address.details
    path, timeout = details["path"], details["timeout"]
    assert isinstance(path, str)
    assert isinstance(timeout, (int, float))
    deadline = monotonic() + timeout
    session = bytes.fromhex(str(details["session"]))
    while True:
        connection = _connected(path, deadline)
        try:
            if _proven(_Line(connection, path, deadline), handshake.TaskSide(address.key, session)):
                return connection.detach()
        finally:
            connection.close()  # of what was detached nothing is left to close


def _connected(path: str, deadline: float) -> socket:
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        # A connect(2) that finds the queue of the listener full waits as long as this says. A non-blocking one would
        # fail at once, and poll(2) could not wait for it.
        connection.setsockopt(SOL_SOCKET, SO_SNDTIMEO, pack("ll", *_parts(deadline)))
        connection.connect(path)
        connection.setblocking(False)
    except BlockingIOError:
        connection.close()
        raise _late(path) from None
    except OSError as error:
        connection.close()
        raise BrokenError(f"nobody listens at {path} (any more): {error.strerror}") from error
    return connection


def _parts(deadline: float) -> tuple[int, int]:
    """What is left, in whole seconds and microseconds; never 0, which means without limit."""
    rest = max(0.001, deadline - monotonic())
    return int(rest), int(rest % 1 * 1e6)


def _proven(line: _Line, us: handshake.TaskSide) -> bool:
    """Go through the handshake; False when the Executor hung up before it had heard us.

    It does so when too many others connect at the same time, and the next try may be lucky. Once it has our answer,
    that it hangs up is its answer.
    """
    challenge = line.receive(handshake.CHALLENGE_BYTES)
    if not (challenge and line.send(us.answer(challenge))):
        return False
    confirmation = line.receive(handshake.CONFIRMATION_BYTES)
    if not confirmation:
        raise AuthenticationError("the Executor refused the key: another process has used it, or it is of another run")
    us.check(confirmation)
    return True


class _Line:
    """A connection that is read with a deadline."""

    def __init__(self, connection: socket, path: str, deadline: float) -> None:
        self._connection = connection
        self._path = path
        self._deadline = deadline

    def send(self, data: bytes) -> bool:
        """Send a little; False when the other side has hung up."""
        try:
            return self._connection.send(data) == len(data)  # an empty buffer has room for so little
        except OSError:
            return False

    def receive(self, count: int) -> bytes:
        """Receive exactly so many bytes; none when the other side has hung up."""
        data = b""
        while len(data) < count:
            self._wait()
            try:
                more = self._connection.recv(count - len(data))
            except OSError:
                more = b""
            if not more:
                return b""
            data += more
        return data

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        if not poll.poll(max(0.0, self._deadline - monotonic()) * 1000):
            raise _late(self._path)


def _late(path: str) -> TimeoutError:
    return TimeoutError(f"the Executor, which listens at {path}, did not answer in time")
