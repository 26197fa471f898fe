"""What travels: a Message.

A Message is a value: nothing changes it after it was made. It is the hottest class of tasklink, made once for
every write and every read, so it is a plain class with slots: an attrs class of the same fields costs a Task
the import of attrs, and a dataclass that of `inspect`.

This module does no I/O and imports nothing: it is part of the Task side.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.codec import Payload


class Message:
    """Any object, with a signal or without one.

    Attributes:
        signal: a name that says what the message is for; None for plain contents. At most 255 bytes of UTF-8.
        payload: the contents as bytes, when they came from, or are on their way to, a communicator; else None.
        sequence: its number among all messages of its sender, from 1; 0 until it is sent, and for captured output.
        after: it is delivered when every message of its sender up to this number was; 0: at once.
        sent_at: when its sender wrote it, seconds since the epoch; 0.0 until it is sent.
        rank: which of several parallel processes of one Task sent it; 0 where there is one.
        communicator: the name of the communicator that carried it here; empty until it has arrived.
    """

    __slots__ = ("_contents", "after", "communicator", "payload", "rank", "sent_at", "sequence", "signal")

    def __init__(self, contents: object = None, signal: str | None = None) -> None:
        self._contents = contents
        self.signal = signal
        self.payload: Payload | None = None
        self.sequence = 0
        self.after = 0
        self.sent_at = 0.0
        self.rank = 0
        self.communicator = ""

    @classmethod
    def encoded(cls, payload: Payload, signal: str | None, sequence: int = 0, after: int = 0) -> Message:
        """Make a message of contents that are bytes already."""
        message = cls(None, signal)
        message.payload = payload
        message.sequence = sequence
        message.after = after
        return message

    @property
    def contents(self) -> object:
        """The object that was sent; decoded when it is first asked for, and kept.

        Raises:
            DecodeError: the bytes cannot be turned into the object here. The error says what is missing and holds
                the bytes; every other message is unharmed.
        """
        payload = self.payload  # once: another thread may be at the same
        if payload is not None:
            self._contents = payload.decode()
            self.payload = None
        return self._contents

    def __repr__(self) -> str:
        # Contents are never shown: they may come from a peer that is not trusted, and printing a small pickle can
        # take for ever.
        what = "contents" if self.payload is None else f"{self.payload.nbytes} bytes"
        signal = "" if self.signal is None else f", signal={self.signal!r}"
        return f"<Message {self.sequence}: {what}{signal}>"
