"""The Executor's side of the pipe communicator until the Task has started."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from tasklink.communicator import Address, Listener
from tasklink.output import OutputListener
from tasklink_pipe.communicator import PipeCommunicator

if TYPE_CHECKING:
    from tasklink_pipe.settings import PipeSettings

_SMALLEST = 4096


class PipeListener(Listener):
    """Makes four pipes: messages there and back, and the Task's output and error."""

    def __init__(self, settings: PipeSettings) -> None:
        self._descriptors: list[int] = []
        try:
            task_reader, writer = self._pipe(settings.capacity)
            reader, task_writer = self._pipe(settings.capacity)
            self.output = OutputListener(prepare=lambda pipe: set_capacity(pipe, settings.capacity))
        except OSError:
            self.close()
            raise
        self._ours = (reader, writer)
        self.address = Address(descriptors=(task_reader, task_writer))

    def accept(self, timeout: float | None = None) -> PipeCommunicator:
        """Give our ends away and close the Task's; see `Listener.accept`."""
        self._descriptors = []
        for descriptor in self.address.descriptors:
            os.close(descriptor)
        return PipeCommunicator(*self._ours)

    def close(self) -> None:
        """Close what was not given away."""
        while self._descriptors:
            os.close(self._descriptors.pop())
        if self.output is not None:
            self.output.close()

    def _pipe(self, capacity: int) -> tuple[int, int]:
        ends = os.pipe()
        self._descriptors += ends
        set_capacity(ends[0], capacity)
        return ends


def set_capacity(pipe: int, capacity: int) -> None:
    """Let a pipe hold as much as the system allows, up to `capacity` bytes.

    A user past /proc/sys/fs/pipe-user-pages-soft, or asking for more than pipe-max-size, is refused with EPERM.
    """
    command = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux only
    while command is not None and capacity >= _SMALLEST:
        try:
            fcntl.fcntl(pipe, command, capacity)
        except PermissionError:
            capacity //= 2
        else:
            return
