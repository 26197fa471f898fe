"""A communicator of a Link: under which name it goes, what it has brought, and whether it still serves.

This module does no I/O. It is part of the Task side.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.communicator import Communicator
    from tasklink.errors import CommunicatorError


class Member:
    """A communicator of a Link, under the name that the config gives it.

    Attributes:
        messages: how many messages it has brought.
        bytes: how many bytes of contents it has brought.
        readable: more may come from it.
        writable: messages may be written to it.
        rank: of its peer; None until that has said something.
        known: the peer has it.
        broken: its failure has been told.
        reason: why it is not written any more; None as long as it is.
        left: the peer writes to it no more, and has written again what had not come.
        resent: how many messages that was.
        underway: how many bytes of large messages are being written to it, by the thread that does so.
    """

    __slots__ = (
        "broken", "bytes", "carries_messages", "communicator", "descriptor", "known", "left", "messages", "name",
        "rank", "readable", "reason", "resent", "underway", "writable",
    )  # fmt: skip

    def __init__(self, name: str, communicator: Communicator, *, known: bool = True) -> None:
        self.name = name
        self.known = known
        self.communicator = communicator
        self.descriptor = communicator.fileno()
        self.messages = 0
        self.bytes = 0
        self.readable = True
        self.carries_messages = communicator.capabilities.carries_messages
        self.writable = self.carries_messages
        self.rank: int | None = None
        self.broken = False
        self.reason: CommunicatorError | None = None
        self.left = False
        self.resent = 0
        self.underway: dict[int, int] = {}

    @property
    def limit(self) -> int | None:
        """The largest message that it takes."""
        return self.communicator.capabilities.max_message

    def fits(self, size: int) -> bool:
        """Whether it takes a message of this size."""
        return self.limit is None or size <= self.limit

    @property
    def zero_copy(self) -> bool:
        """Whether large messages are not copied on their way."""
        return self.communicator.capabilities.zero_copy

    @property
    def prompt(self) -> bool:
        """Whether what was written can be read at once."""
        capabilities = self.communicator.capabilities
        return capabilities.delivery == "write" and not capabilities.crosses_hosts
