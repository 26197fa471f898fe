"""The Executor's side of the unix communicator until the Task has started: a socket pair, or a socket with a name."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tasklink.communicator import Address, Listener
from tasklink.errors import ClosedError
from tasklink_unix.communicator import SocketCommunicator

if TYPE_CHECKING:
    from tasklink_unix.settings import UnixSettings


def open_listener(settings: UnixSettings) -> Listener:
    """Open what the settings ask for.

    Raises:
        OSError: as `Communicator.listen`.
        ConfigError: the directory for the named mode cannot be used.
    """
    if settings.named:
        from tasklink_unix.named import NamedListener  # noqa: PLC0415 - with hmac, ctypes and tempfile behind it

        return NamedListener(settings)
    return SocketListener(settings)


class SocketListener(Listener):
    """Makes a socket pair without a name: holding its other end is the proof of being the Task."""

    without_descriptors = "named = true"

    def __init__(self, settings: UnixSettings) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (self._ours, self._theirs):
            # The kernel cuts it down to what it allows.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.buffer)
        self.address = Address(descriptors=(self._theirs.fileno(),))

    def accept(self, timeout: float | None = None) -> SocketCommunicator:
        """Give our end away and close the Task's; see `Listener.accept`."""
        if self._ours.fileno() < 0:
            raise ClosedError("this Listener was closed, or its one peer has been accepted")
        self._theirs.close()
        descriptor = self._ours.detach()
        return SocketCommunicator(descriptor, descriptor)

    def close(self) -> None:
        """Close what was not given away."""
        self._ours.close()
        self._theirs.close()
