"""The model: a complete communicator in few lines, which passes every check that applies to it.

It is the smallest thing that a plugin can be: a pair of sockets that the Task inherits one of, and the rest from
StreamCommunicator. Read it before you write your own. The kit is proved on it: each mutant of it, with one fault, fails
the checks of one clause.

Part of the Task side, as every module of a plugin that defines the class: standard library only.
"""

from __future__ import annotations

import os

from tasklink.communicator import Address, Capabilities, Listener
from tasklink.errors import ClosedError
from tasklink.stream import StreamCommunicator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class ModelCommunicator(StreamCommunicator):
    """Messages over a pair of sockets."""

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities()
    settings: ClassVar[str] = ""

    @classmethod
    def listen(cls, settings: object = None) -> Listener:
        """Make the pair; see `Communicator.listen`."""
        return ModelListener(cls)

    @classmethod
    def connect(cls, address: Address) -> ModelCommunicator:
        """Take over the inherited end; see `Communicator.connect`."""
        (descriptor,) = address.descriptors
        return cls(descriptor, descriptor)


class ModelListener(Listener):
    """Holds both ends until the Task has started.

    Args:
        kind: what `accept` gives.
    """

    def __init__(self, kind: type[ModelCommunicator]) -> None:
        from socket import socketpair  # noqa: PLC0415 - the Executor's side only

        self._kind = kind
        self._ours, self._theirs = (end.detach() for end in socketpair())
        self.address = Address(descriptors=[self._theirs])

    def accept(self, timeout: float | None = None) -> ModelCommunicator:
        """Give our end away, and close the Task's; see `Listener.accept`."""
        if self._ours < 0:
            raise ClosedError("this Listener was closed, or its one peer has been accepted")
        ours, self._ours = self._ours, -1
        self.close()
        return self._kind(ours, ours)

    def close(self) -> None:
        """Close what was not given away."""
        for descriptor in (self._ours, self._theirs):
            if descriptor >= 0:
                os.close(descriptor)
        self._ours = self._theirs = -1
