"""The Executor's side of the shm communicator until the Task has started: the memory, and who is to map it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tasklink.communicator import Address, Listener
from tasklink.errors import ClosedError
from tasklink_shm.communicator import SharedMemoryCommunicator, open_pair
from tasklink_shm.layout import EXECUTOR
from tasklink_shm.watch import Watch

if TYPE_CHECKING:
    from tasklink_shm.settings import SharedMemorySettings


def open_listener(settings: SharedMemorySettings) -> Listener:
    """Open what the settings ask for.

    Raises:
        OSError: as `Communicator.listen`.
        ConfigError: the directory for the named mode cannot be used.
    """
    if settings.named:
        from tasklink_shm.named import NamedListener  # noqa: PLC0415 - with hmac and tempfile behind it

        return NamedListener(settings)
    return MemoryListener(settings)


class MemoryListener(Listener):
    """Makes memory without a name: to have its descriptor is the proof of being the Task."""

    without_descriptors = "named = true"

    def __init__(self, settings: SharedMemorySettings) -> None:
        self._options = settings.options()
        self._ours, self._theirs = open_pair(settings.ring)
        self.address = Address(self._options, self._theirs)

    def accept(self, timeout: float | None = None) -> SharedMemoryCommunicator:
        """Give our end away and close the Task's; see `Listener.accept`."""
        ours, self._ours = self._ours, []
        if not ours:
            raise ClosedError("this Listener was closed, or its one peer has been accepted")
        self._close_theirs()
        return executor_side(ours, self._options)

    def close(self) -> None:
        """Close what was not given away."""
        for descriptor in self._ours:
            os.close(descriptor)
        self._ours = []
        self._close_theirs()

    def _close_theirs(self) -> None:
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs = []


def executor_side(descriptors: list[int], options: dict[str, object]) -> SharedMemoryCommunicator:
    """Make the Executor's end of descriptors, which it owns from now on.

    Raises:
        OSError: there is no descriptor left.
    """
    communicator = SharedMemoryCommunicator(EXECUTOR, descriptors, options)
    try:
        communicator.watch_with(Watch(communicator.fileno()))
    except BaseException:
        communicator.close()
        raise
    return communicator
