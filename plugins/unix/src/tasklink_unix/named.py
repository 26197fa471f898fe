"""The Executor's side in the named mode: what a rendezvous gives becomes a communicator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklink.communicator import Address, Listener
from tasklink.rendezvous.executor_side import Rendezvous
from tasklink_unix.communicator import SocketCommunicator, reserve

if TYPE_CHECKING:
    from tasklink_unix.settings import UnixSettings


class NamedListener(Listener):
    """Listens at a socket in a private directory, and lets the one in who holds the key.

    Args:
        settings: of the unix communicator.

    Raises:
        ConfigError: the directory cannot be used.
        OSError: there is no descriptor left.
    """

    def __init__(self, settings: UnixSettings) -> None:
        self._buffer = settings.buffer
        self._rendezvous = Rendezvous(settings.directory, table="communicators.unix", timeout=settings.connect_timeout)
        self.directories = self._rendezvous.directories
        self.address = Address({**self._rendezvous.details, "buffer": settings.buffer}, key=self._rendezvous.key)

    def accept(self, timeout: float | None = None) -> SocketCommunicator:
        """Wait for the peer that holds the key; see `Listener.accept`."""
        descriptor = self._rendezvous.accept(timeout).detach()
        self._forget_key()
        reserve(descriptor, self._buffer)
        return SocketCommunicator(descriptor, descriptor)

    def fileno(self) -> int:
        """Readable when somebody knocks, answers, or has taken too long; see `Listener.fileno`."""
        return self._rendezvous.fileno()

    def close(self) -> None:
        """Send everybody away and remove the socket and its directory."""
        self._rendezvous.close()
        self._forget_key()

    def _forget_key(self) -> None:
        self.address = Address(self.address.details)
