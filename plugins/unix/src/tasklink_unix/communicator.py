"""Both ends of the unix communicator: frames over a Unix socket. Part of the Task side: standard library only."""

from __future__ import annotations

from tasklink.communicator import Address, Capabilities
from tasklink.stream import StreamCommunicator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from tasklink_unix.listener import SocketListener
    from tasklink_unix.settings import UnixSettings


class SocketCommunicator(StreamCommunicator):
    """Messages over one end of a Unix socket pair."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    settings: ClassVar[str] = "tasklink_unix.settings:UnixSettings"

    @classmethod
    def listen(cls, settings: UnixSettings) -> SocketListener:
        """Make the socket pair; see `Communicator.listen`."""
        from tasklink_unix.listener import SocketListener  # noqa: PLC0415 - the Executor's side only

        return SocketListener(settings)

    @classmethod
    def connect(cls, address: Address) -> SocketCommunicator:
        """Take over the inherited end; see `Communicator.connect`."""
        (descriptor,) = address.descriptors
        return cls(descriptor, descriptor)
