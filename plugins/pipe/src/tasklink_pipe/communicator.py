"""Both ends of the pipe communicator: frames over two one-way pipes. Part of the Task side: standard library only."""

from __future__ import annotations

from tasklink.communicator import Address, Capabilities
from tasklink.stream import StreamCommunicator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from tasklink.communicator import Listener
    from tasklink_pipe.settings import PipeSettings


class PipeCommunicator(StreamCommunicator):
    """Messages over a pair of pipes that the Task inherits, or in band on its standard input and output."""

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(captures_output=True, survives_launcher=True)
    settings: ClassVar[str] = "tasklink_pipe.settings:PipeSettings"

    @classmethod
    def listen(cls, settings: PipeSettings) -> Listener:
        """Make the pipes; see `Communicator.listen`."""
        from tasklink_pipe.listener import InBandListener, PipeListener  # noqa: PLC0415 - the Executor's side only

        return InBandListener(settings) if settings.in_band else PipeListener(settings)

    @classmethod
    def connect(cls, address: Address) -> PipeCommunicator:
        """Take over the inherited ends, or standard input and output; see `Communicator.connect`."""
        if not address.descriptors:
            from tasklink_pipe.task_side import connect  # noqa: PLC0415 - not for a Task that has pipes

            return connect(address)
        reader, writer = address.descriptors
        return cls(reader, writer)
