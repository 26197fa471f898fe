"""Both ends of the pipe communicator: frames over two one-way pipes. Part of the Task side: standard library only."""

from __future__ import annotations

from tasklink.communicator import Address, Capabilities
from tasklink.stream import StreamCommunicator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from tasklink_pipe.listener import PipeListener
    from tasklink_pipe.settings import PipeSettings


class PipeCommunicator(StreamCommunicator):
    """Messages over a pair of pipes that the Task inherits."""

    capabilities: ClassVar[Capabilities] = Capabilities(captures_output=True, survives_launcher=True)
    settings: ClassVar[str] = "tasklink_pipe.settings:PipeSettings"

    @classmethod
    def listen(cls, settings: PipeSettings) -> PipeListener:
        """Make the pipes; see `Communicator.listen`."""
        from tasklink_pipe.listener import PipeListener  # noqa: PLC0415 - the Executor's side only

        return PipeListener(settings)

    @classmethod
    def connect(cls, address: Address) -> PipeCommunicator:
        """Take over the inherited ends; see `Communicator.connect`."""
        reader, writer = address.descriptors
        return cls(reader, writer)
