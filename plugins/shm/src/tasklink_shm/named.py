"""The Executor's side in the named mode: who proves the key at the rendezvous is handed the memory."""

from __future__ import annotations

import os
from _socket import SCM_RIGHTS, SOL_SOCKET
from struct import pack
from typing import TYPE_CHECKING

from tasklink.communicator import Address, Listener
from tasklink.errors import BrokenError
from tasklink.rendezvous.executor_side import Rendezvous
from tasklink_shm.communicator import SharedMemoryCommunicator, open_pair
from tasklink_shm.handing import HERE_YOU_ARE
from tasklink_shm.listener import executor_side

if TYPE_CHECKING:
    from tasklink_shm.settings import SharedMemorySettings


class NamedListener(Listener):
    """Listens at a socket in a private directory, and hands the memory to the one who holds the key.

    Args:
        settings: of the shm communicator.

    Raises:
        ConfigError: the directory cannot be used.
        OSError: there is no memory or no descriptor left.
    """

    def __init__(self, settings: SharedMemorySettings) -> None:
        self._options = settings.options()
        self._ring = settings.ring
        self._rendezvous = Rendezvous(settings.directory, table="communicators.shm", timeout=settings.connect_timeout)
        self.directories = self._rendezvous.directories
        self.address = Address({**self._rendezvous.details, **self._options}, key=self._rendezvous.key)

    def accept(self, timeout: float | None = None) -> SharedMemoryCommunicator:
        """Wait for the peer that holds the key, and hand the memory over; see `Listener.accept`."""
        with self._rendezvous.accept(timeout) as connection:
            self._forget_key()
            ours, theirs = open_pair(self._ring)
            try:
                rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(theirs)}i", *theirs))]
                connection.sendmsg([HERE_YOU_ARE], rights)  # an empty buffer has room for so little
            except OSError as error:
                for descriptor in ours:
                    os.close(descriptor)
                raise BrokenError(f"the Task is gone before it was handed the memory: {error}") from error
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
        return executor_side(ours, self._options)

    def fileno(self) -> int:
        """Readable when somebody knocks, answers, or has taken too long; see `Listener.fileno`."""
        return self._rendezvous.fileno()

    def close(self) -> None:
        """Send everybody away and remove the socket and its directory."""
        self._rendezvous.close()
        self._forget_key()

    def _forget_key(self) -> None:
        self.address = Address(self.address.details)
