"""Both ends of the unix communicator: frames over a Unix socket. Part of the Task side: standard library only."""

from __future__ import annotations

from tasklink.communicator import Address, Capabilities
from tasklink.stream import StreamCommunicator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from tasklink.communicator import Listener
    from tasklink_unix.settings import UnixSettings


class SocketCommunicator(StreamCommunicator):
    """Messages over a Unix socket: one end of a pair that the Task inherits, or one that it connects by name."""

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(survives_launcher=True)
    settings: ClassVar[str] = "tasklink_unix.settings:UnixSettings"

    @classmethod
    def listen(cls, settings: UnixSettings) -> Listener:
        """Make the socket pair, or the socket with a name; see `Communicator.listen`."""
        from tasklink_unix.listener import open_listener  # noqa: PLC0415 - the Executor's side only

        return open_listener(settings)

    @classmethod
    def connect(cls, address: Address) -> SocketCommunicator:
        """Take over the inherited end, or connect and prove the key; see `Communicator.connect`."""
        if address.descriptors:
            (descriptor,) = address.descriptors
        else:
            from tasklink.rendezvous.task_side import reach  # noqa: PLC0415 - with hmac behind it

            descriptor = reach(address)
            reserve(descriptor, address.details["buffer"])
        return cls(descriptor, descriptor)


def reserve(descriptor: int, size: object) -> None:
    """Set how many bytes a socket holds that its peer has not read. The kernel cuts it down to what it allows."""
    # `socket`, which wraps it, costs a Task 7 ms.
    from _socket import SO_SNDBUF, SOL_SOCKET, socket  # noqa: PLC0415 - a Task that inherits its end has no need of it

    assert isinstance(size, int)
    borrowed = socket(fileno=descriptor)
    try:
        borrowed.setsockopt(SOL_SOCKET, SO_SNDBUF, size)
    finally:
        borrowed.detach()
