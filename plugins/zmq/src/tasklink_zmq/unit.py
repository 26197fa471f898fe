"""What stands in a ZeroMQ message: a unit, which is the frame of a message, a piece of one, or a word of our own.

    part 0    header, and all the rest where that is small
    part 1…   the large buffers, one a part: so each arrives in memory of its own

The header says the kind, how many parts follow, how long the head of a message is, the number of the unit, and how many
units of the other direction were taken: every unit confirms on its way. Units with messages are numbered from 1 in
each direction. Who gets a number again drops it; so whoever is in doubt whether a unit has gone out sends it again.

This file does no I/O. Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

from struct import Struct

from tasklink.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]

HEADER = Struct("<BBHIIQQ")

MESSAGE = 1  # a whole message
FRAMES = 2  # bytes of a stream of frames: of small buffers, and of messages in pieces; see tasklink.framing
TAKEN = 3  # nothing but the confirmation
ASK = 4  # confirm as soon as the unit of this number is taken
HELLO = 5  # the Task's first word, on every connection
WELCOME = 6  # the Executor's answer
END = 7  # no unit follows the one of this number

ASKING = 1  # flag: as ASK, for this unit itself

VERSION = 1


class Unit:
    """One unit, as it came.

    Attributes:
        kind: one of the constants above.
        asking: it is to be confirmed once it was taken.
        cut: where in `rest` the head of a message ends.
        number: its own; of ASK and END: the one that they speak of.
        taken: how many units its sender has taken.
        rest: what follows the header in part 0.
        parts: the further parts.
        broken_off: its sender was interrupted, and will send it again.
    """

    __slots__ = ("asking", "broken_off", "cut", "kind", "number", "parts", "rest", "taken")

    def __init__(self, first: bytes, parts: Sequence[Buffer] = ()) -> None:
        try:
            self.kind, flags, version, self.cut, count, self.number, self.taken = HEADER.unpack_from(first)
        except Exception as error:
            raise ProtocolError(f"a unit begins with a header of {HEADER.size} bytes; here are {len(first)}") from error
        if version != VERSION or not MESSAGE <= self.kind <= END:
            raise ProtocolError(f"a unit has kind {self.kind} of version {version}; this side speaks {VERSION}")
        self.asking = bool(flags & ASKING)
        self.rest = first[HEADER.size :]
        self.parts = parts
        # What was broken off is ended with an empty part, and no other part is empty: see Exchange.transmit.
        self.broken_off = bool(parts) and not len(parts[-1])
        if len(parts) != count and not self.broken_off:
            raise ProtocolError(f"a unit says it has {count} parts; it has {len(parts)}")

    def buffers(self) -> list[Buffer]:
        """The buffers of a whole message, as `framing.encode` made them."""
        if self.parts:
            return [self.rest, *self.parts]
        if self.cut == len(self.rest):
            return [self.rest]
        return [self.rest[: self.cut], self.rest[self.cut :]]


def header(kind: int, number: int, taken: int, *, cut: int = 0, count: int = 0, asking: bool = False) -> bytes:
    """Make a header."""
    return HEADER.pack(kind, ASKING if asking else 0, VERSION, cut, count, number, taken)
