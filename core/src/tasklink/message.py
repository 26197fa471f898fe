"""What travels: a Message.

A Message is a value: nothing changes it after it was made. It is the hottest class of tasklink, made once for
every write and every read, so it is a plain class with slots: an attrs class of the same fields costs a Task
the import of attrs, and a dataclass that of `inspect`.

This module does no I/O. It is part of the Task side.
"""

from __future__ import annotations

from tasklink import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.codec import Buffer


class Message:
    """Any object, with a signal or without one.

    Attributes:
        signal: a name that says what the message is for; None for plain contents. At most 255 bytes of UTF-8.
        buffers: the contents as bytes, when they came from, or are on their way to, a communicator: the body, then
            what it refers to out of band; else None.
        codec: the number of the codec that made the buffers.
        sequence: its number among all messages of its sender, from 1; 0 until it is sent, and for captured output.
        after: it is delivered when every message of its sender up to this number was; 0: at once.
        sent_ns: when its sender wrote it, nanoseconds since the epoch; 0 until it is sent.
        rank: which of several parallel processes of one Task sent it; 0 where there is one.
        communicator: the name of the communicator that carried it here; empty until it has arrived.
    """

    __slots__ = ("_contents", "after", "buffers", "codec", "communicator", "rank", "sent_ns", "sequence", "signal")
    buffers: list[Buffer] | None

    def __init__(  # noqa: PLR0917 - in the order of importance; keywords cost time in the hottest place there is
        self,
        contents: object = None,
        signal: str | None = None,
        codec: int = 0,
        buffers: list[Buffer] | None = None,
        sequence: int = 0,
        after: int = 0,
        sent_ns: int = 0,
        rank: int = 0,
    ) -> None:
        self._contents = contents
        self.signal = signal
        self.codec = codec
        self.buffers = buffers
        self.sequence = sequence
        self.after = after
        self.sent_ns = sent_ns
        self.rank = rank
        self.communicator = ""

    @classmethod
    def encoded(cls, codec: int, buffers: list[Buffer], signal: str | None = None) -> Message:
        """Make a message of contents that are bytes already."""
        return cls(None, signal, codec, buffers)

    def encode(self, preferred: int = codec.PICKLE) -> tuple[int, list[Buffer]]:
        """The contents as buffers, and the number of their codec: as they came, or made now.

        Args:
            preferred: the codec to make them with.

        Raises:
            EncodeError: the codec cannot express the contents.
        """
        buffers = self.buffers  # once: another thread may decode it
        if buffers is None:
            return codec.encode(self._contents, preferred)
        return self.codec % codec.WITHHELD, buffers

    @property
    def contents(self) -> object:
        """The object that was sent; decoded when it is first asked for, and kept.

        Raises:
            DecodeError: the bytes cannot be turned into the object here. The error says what is missing and holds
                the bytes; every other message is unharmed.
        """
        buffers = self.buffers  # once: another thread may be at the same
        if buffers is not None:
            self._contents = codec.decode(self.codec, buffers)
            self.buffers = None
        return self._contents

    @property
    def nbytes(self) -> int:
        """Bytes in all buffers; 0 when the contents are an object."""
        buffers = self.buffers
        if buffers is None:
            return 0
        return len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))

    @property
    def sent_at(self) -> float:
        """When its sender wrote it, seconds since the epoch; 0.0 until it is sent."""
        return self.sent_ns / 1e9

    def __repr__(self) -> str:
        # Contents are never shown: they may come from a peer that is not trusted, and printing a small pickle can
        # take for ever.
        what = "contents" if self.buffers is None else f"{self.nbytes} bytes"
        signal = "" if self.signal is None else f", signal={self.signal!r}"
        return f"<Message {self.sequence}: {what}{signal}>"
