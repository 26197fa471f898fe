"""The Executor's end of the in-band mode: writes frames to the Task's standard input, takes its output apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklink.errors import BrokenError, EndOfMessages, ProtocolError
from tasklink_pipe.communicator import PipeCommunicator
from tasklink_pipe.in_band import OutputDecoder

if TYPE_CHECKING:
    from typing import Any


class InBandExecutorSide(PipeCommunicator):
    """Messages, and what the Task prints on its standard output.

    Args:
        reader: the reading end of the Task's standard output.
        writer: the writing end of its standard input.
        key: what each chunk begins with.
    """

    _decoder: Any

    def __init__(self, reader: int, writer: int, key: bytes) -> None:
        super().__init__(reader, writer)
        self._decoder = OutputDecoder(key)

    def _read(self, deadline: float | None) -> None:
        try:
            super()._read(deadline)
        except (EndOfMessages, BrokenError, ProtocolError):
            # What was held back because a key might have begun there is output after all.
            held = self._decoder.release()
            if not held:
                raise
            self.arrived.extend(held)
