"""The Executor's side until the Task has come: both ends of a pair of sockets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from acme_connection.communicator import ConnectionCommunicator
from tasklink.communicator import Address, Listener
from tasklink.errors import ClosedError

if TYPE_CHECKING:
    from acme_connection.settings import ConnectionSettings


class ConnectionListener(Listener):
    """Has a peer as soon as the Task has started, so `accept` never waits."""

    without_descriptors = "named = true"

    def __init__(self, settings: ConnectionSettings) -> None:
        self._room, self._linger = int(settings.room), float(settings.linger)
        self._ours, self._theirs = socket.socketpair()
        self._open = True
        self.address = Address({"room": self._room, "linger": self._linger}, [self._theirs.fileno()])

    def accept(self, timeout: float | None = None) -> ConnectionCommunicator:
        """Give our end to the one peer, and close the Task's; see `Listener.accept`."""
        if not self._open:
            raise ClosedError("this ConnectionListener was closed, or its one peer was accepted")
        self._open = False
        self._theirs.close()
        return ConnectionCommunicator(self._ours, self._room, self._linger)

    def close(self) -> None:
        """Close what was not given away."""
        if self._open:
            self._open = False
            self._ours.close()
            self._theirs.close()
