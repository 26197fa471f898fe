"""What is said on the lines beside frames.

A small frame is a ZeroMQ message of its own, as it is. It begins with the "TL" of `framing`; all else begins with a
control part, whose first byte is less than that:

    PARTS   the parts that follow are a message: its buffers, or (one part) all of it joined
    STREAM  the parts that follow are bytes of a stream of frames: a message in pieces; see tasklink.framing
    SKIP    what was sent before `position` was sent or given up: a signal handler has interrupted its writer
    ASK     say TAKEN at once
    END     nothing follows
    HELLO   the Task's first word on each line, with what proves that it is the one who was let in
    TAKEN   all before `position` was taken
    GONE    nothing more will be taken
    WELCOME the Executor has heard HELLO on both lines

A position is a number of bytes since the beginning of a line, each unit (a frame, PARTS, STREAM) counted with OVERHEAD.
It says how much is under way, which unit is meant, and whether it came before. PARTS and STREAM say where they begin.

An empty part ends what an interrupted writer had begun, and means nothing; no other part is empty.

This file does no I/O. Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812 - it is an exception

from tasklink.errors import ProtocolError

PARTS, STREAM, SKIP, ASK, END, HELLO, TAKEN, GONE, WELCOME = range(1, 10)

VERSION = 2
OVERHEAD = 256  # what a unit costs beside its bytes, on both sides
LAST_POSITION = (1 << 63) - 1  # nobody gets there, and from there on it can still be counted

# kind, version, unused, number of parts that follow, position
_CONTROL = Struct("<BBHIQ")


def control(kind: int, position: int = 0, count: int = 0) -> bytes:
    """Make a control part."""
    return _CONTROL.pack(kind, VERSION, 0, count, position)


def read_control(part: bytes) -> tuple[int, int, int]:
    """Read a control part: kind, position, count; what follows it in the part is `credential`.

    Raises:
        ProtocolError: it is none.
    """
    try:
        kind, version, _, count, position = _CONTROL.unpack_from(part)
    except StructError as error:
        raise ProtocolError(f"a control part has {_CONTROL.size} bytes; here are {len(part)}") from error
    if version != VERSION or not PARTS <= kind <= WELCOME:
        raise ProtocolError(f"a control part has kind {kind} of version {version}; this side speaks {VERSION}")
    if position > LAST_POSITION:
        raise ProtocolError(f"a control part has position {position}; the last one is {LAST_POSITION}")
    return kind, position, count


def credential(part: bytes) -> bytes:
    """What follows a control part: the proof of a HELLO."""
    return part[_CONTROL.size :]
