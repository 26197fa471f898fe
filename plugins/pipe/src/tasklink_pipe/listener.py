"""The Executor's side of the pipe communicator until the Task has started."""

from __future__ import annotations

import os
import selectors
from time import monotonic
from typing import TYPE_CHECKING

from tasklink.communicator import Address, Listener
from tasklink.errors import ClosedError
from tasklink.output import OutputListener, set_capacity
from tasklink_pipe import in_band
from tasklink_pipe.communicator import PipeCommunicator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasklink_pipe.executor_side import InBandExecutorSide
    from tasklink_pipe.settings import PipeSettings


class _TwoPipes(Listener):
    """A pipe there and one back, and the capture of some streams of the Task's output."""

    def __init__(self, settings: PipeSettings, streams: tuple[int, ...]) -> None:
        self._descriptors: list[int] = []
        self._capacity = settings.capacity
        try:
            task_reader, writer = self._pipe()
            reader, task_writer = self._pipe()
            self.output = OutputListener(streams)
        except OSError:
            self.close()
            raise
        self._ours = (reader, writer)
        self._theirs = (task_reader, task_writer)

    def close(self) -> None:
        """Close what was not given away."""
        while self._descriptors:
            os.close(self._descriptors.pop())
        if self.output is not None:
            self.output.close()

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._descriptors += ends
        set_capacity(ends[0], self._capacity)
        return ends

    def _check_open(self) -> None:
        """Refuse to give away twice what may be another's descriptor by now."""
        if not self._descriptors:
            raise ClosedError("this Listener was closed, or its one peer has been accepted")

    def _close_theirs(self) -> None:
        for descriptor in self._theirs:
            if descriptor in self._descriptors:
                self._descriptors.remove(descriptor)
                os.close(descriptor)


class PipeListener(_TwoPipes):
    """Makes four pipes: messages there and back, and the Task's output and error."""

    without_descriptors = "in_band = true"

    def __init__(self, settings: PipeSettings) -> None:
        super().__init__(settings, (1, 2))
        self.address = Address(descriptors=self._theirs)

    def accept(self, timeout: float | None = None) -> PipeCommunicator:
        """Give our ends away and close the Task's; see `Listener.accept`."""
        self._check_open()
        self._close_theirs()
        self._descriptors = []
        return PipeCommunicator(*self._ours)


class InBandListener(_TwoPipes):
    """Makes three pipes: the Task's standard input, its output with messages in it, and its error."""

    def __init__(self, settings: PipeSettings) -> None:
        self._selector: selectors.DefaultSelector | None = None
        super().__init__(settings, (2,))
        self._key = in_band.new_key()
        os.set_blocking(self._ours[1], False)
        self.address = Address({"in_band": True}, key=self._key)

    @property
    def standard_descriptors(self) -> Mapping[int, int]:
        """The Task's ends, by the descriptor that each becomes."""
        return dict(enumerate(self._theirs))

    def accept(self, timeout: float | None = None) -> InBandExecutorSide:
        """Write the preamble, and give our ends away when the pipe has taken it; see `Listener.accept`."""
        from tasklink_pipe.executor_side import InBandExecutorSide  # noqa: PLC0415 - not for those who have pipes

        self._check_open()
        self._close_theirs()
        deadline = None if timeout is None else monotonic() + timeout
        while self.preamble and not self._write_preamble():
            if not self._room().select(None if deadline is None else max(0.0, deadline - monotonic())):
                raise TimeoutError("the Task has not read the beginning of its standard input in time")
        self._descriptors = []
        return InBandExecutorSide(*self._ours, self._key)

    def fileno(self) -> int | None:
        """Readable when the pipe has room for more of the preamble; None when there is nothing to write."""
        return self._room().fileno() if self.preamble else None

    def close(self) -> None:
        """Close what was not given away; see `Listener.close`."""
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        super().close()

    def _write_preamble(self) -> bool:
        """Write what the pipe takes; True when that was all."""
        try:
            self.preamble = self.preamble[os.write(self._ours[1], self.preamble) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            # Nobody will read it: the process has ended, and whoever supervises it finds out how.
            self.preamble = b""
        return not self.preamble

    def _room(self) -> selectors.DefaultSelector:
        """Ready when the pipe has room; made when a preamble does not go in at once."""
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._ours[1], selectors.EVENT_WRITE)
        return self._selector
