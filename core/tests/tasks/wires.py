"""A protocol as small as one can be, and one that no Task can connect."""

from __future__ import annotations

import socket

from tasklink.communicator import Address, Capabilities, Listener
from tasklink.errors import BrokenError
from tasklink.stream import StreamCommunicator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from tasklink.message import Message


class Wire(StreamCommunicator):
    """Messages over a socket pair."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    settings: ClassVar[str] = ""
    description: ClassVar[str] = "a wire"

    @classmethod
    def listen(cls, settings: object) -> Waiting:
        """Make the pair."""
        return Waiting(cls)

    @classmethod
    def connect(cls, address: Address) -> Wire:
        """Take over the inherited end."""
        (descriptor,) = address.descriptors
        return cls(descriptor, descriptor)


class CutWire(Wire):
    """A wire that works on the Executor's side only."""

    @classmethod
    def connect(cls, address: Address) -> Wire:
        """Fail."""
        raise OSError("the wire is cut")


class TornWire(Wire):
    """A wire whose peer is gone by the time that it is accepted."""

    @classmethod
    def listen(cls, settings: object) -> Waiting:
        """Make the pair."""
        return Torn(cls)


class LazyWire(Wire):
    """A wire whose Task side sends nothing before it is closed."""

    capabilities: ClassVar[Capabilities] = Capabilities(delivery="flush")
    queued: list[Message] | None = None

    @classmethod
    def connect(cls, address: Address) -> Wire:
        """Take over the inherited end."""
        wire = super().connect(address)
        wire.queued = []
        return wire

    def write(self, message: Message, timeout: float | None = None) -> None:
        """Queue a message on the Task's side."""
        if self.queued is None:
            super().write(message, timeout)
        else:
            self.queued.append(message)

    def close(self) -> None:
        """Send what was queued."""
        queued, self.queued = self.queued, None
        for message in queued or ():
            self.write(message)
        super().close()


class NarrowWire(Wire):
    """A wire for small messages."""

    capabilities: ClassVar[Capabilities] = Capabilities(max_message=2000)


class WordyWire(Wire):
    """A wire whose address is longer than a pipe holds."""

    description = "a wire " * 30_000


class Waiting(Listener):
    """Both ends, until the Task has started."""

    def __init__(self, kind: type[Wire]) -> None:
        self._kind = kind
        self._ours, self._theirs = socket.socketpair()
        self.address = Address({"what": kind.description}, (self._theirs.fileno(),), b"the key of this wire")

    def accept(self, timeout: float | None = None) -> Wire:
        """Give our end away, and close the Task's."""
        self._theirs.close()
        descriptor = self._ours.detach()
        return self._kind(descriptor, descriptor)

    def close(self) -> None:
        """Close what was not given away."""
        self._ours.close()
        self._theirs.close()


class Torn(Waiting):
    """Finds nobody."""

    def accept(self, timeout: float | None = None) -> Wire:
        """Fail."""
        super().accept(timeout).close()
        raise BrokenError("the Task was there, and is gone")
