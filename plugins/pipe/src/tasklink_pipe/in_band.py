"""Messages between the lines of what a Task prints: for launchers that pass on nothing but 0, 1 and 2.

What the Task writes to the Executor goes out on its standard output in chunks:

    key        16 bytes, drawn for this run
    length     2 bytes, little-endian: how many bytes follow
    bytes      the next bytes of the stream of frames

A chunk is not longer than PIPE_BUF, so the kernel puts it into the pipe in one go: whatever else the Task, its threads,
C libraries and descendants print stands before it or behind it, never within. All that is not a chunk is output.

What looks like a key is a key only if all of it does, and nobody but the Task knows it. It begins with a byte that no
UTF-8 text has, so that the end of a text is never held back because a key might begin there.

Rules of this file: it does no I/O; bytes may come in any portions. It is part of the Task side.
"""

from __future__ import annotations

import os

from tasklink import framing
from tasklink.codec import RAW
from tasklink.errors import BrokenError, CommunicatorError
from tasklink.message import Message
from tasklink.vocabulary import STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklink.framing import Buffer

KEY_BYTES = 16
HEAD_BYTES = KEY_BYTES + 2
_MOST_BYTES = 0xFFFF
_READ_BYTES = 256 << 10


def new_key() -> bytes:
    """Draw a key."""
    first, rest = os.urandom(1), os.urandom(KEY_BYTES - 1)
    return bytes([0xF8 | first[0]]) + rest


def chunk(key: bytes, buffers: Sequence[Buffer], limit: int) -> tuple[int, list[Buffer]]:
    """Make a chunk of the first bytes of some buffers.

    Args:
        key: of this run.
        buffers: what is to be sent; the first one is not empty.
        limit: how long the chunk may be (bytes).

    Returns:
        how many bytes it takes out of the buffers, and the buffers of the chunk, its head first.
    """
    room = min(limit - HEAD_BYTES, _MOST_BYTES)
    size = 0
    parts: list[Buffer] = []
    for buffer in buffers:
        part = memoryview(buffer)[: room - size]
        size += len(part)
        parts.append(part)
        if size == room:
            break
    return size, [key + size.to_bytes(2, "little"), *parts]


class Splitter:
    """Bytes in; output and the bytes of chunks out.

    Args:
        key: what each chunk begins with.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._held = b""  # it may be the beginning of a head
        self._missing = 0  # in the chunk that has begun

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take in what was read; give what of it was printed, and what was carried in chunks."""
        data, self._held = self._held + data, b""
        printed: list[bytes] = []
        carried: list[bytes] = []
        position = 0
        while position < len(data):
            if self._missing:
                part = data[position : position + self._missing]
                carried.append(part)
                self._missing -= len(part)
                position += len(part)
                continue
            begin = self._find_head(data, position)
            printed.append(data[position:begin])
            position = begin + HEAD_BYTES
            if position > len(data):
                self._held = data[begin:]
            else:
                self._missing = int.from_bytes(data[begin + KEY_BYTES : position], "little")
        return b"".join(printed), b"".join(carried)

    def release(self) -> bytes:
        """Take note that nothing more will come; give what was held back and is output after all."""
        if self._held.startswith(self._key):
            return b""
        held, self._held = self._held, b""
        return held

    def finish(self) -> None:
        """Say whether what came was whole.

        Raises:
            BrokenError: it ended within a chunk.
        """
        if self._missing or self._held.startswith(self._key):
            raise BrokenError("the Task's standard output ended within a message")

    def _find_head(self, data: bytes, start: int) -> int:
        """Where the next head begins, whole or cut off at the end of the data; the length of the data if none does."""
        begin = data.find(self._key, start)
        if begin >= 0:
            return begin
        for size in range(min(KEY_BYTES - 1, len(data) - start), 0, -1):
            if data.endswith(self._key[:size]):
                return len(data) - size
        return len(data)


class OutputDecoder:
    """Takes the place of a `framing.FrameDecoder`: the output of a Task in, its messages out.

    What was printed comes as messages too, with the signal `vocabulary.STDOUT` and no number. If the frames of the Task
    are not what they should be, that is told when the output has ended: until then somebody has to take it in.

    Args:
        key: what each chunk begins with.
    """

    def __init__(self, key: bytes) -> None:
        self._splitter = Splitter(key)
        self._frames = framing.FrameDecoder()
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def refuse_larger(self, max_message: int) -> None:
        """As `framing.FrameDecoder.refuse_larger`, for the Task's messages."""
        self._frames.refuse_larger(max_message)

    def get_buffer(self) -> memoryview:
        """The memory that the next bytes are to be read into."""
        return self._buffer

    def received(self, count: int) -> list[Message]:
        """Take note of `count` bytes in the buffer, and give the messages that are whole now."""
        printed, carried = self._splitter.feed(bytes(self._buffer[:count]))
        messages = self._decode(carried)
        if printed:
            messages.append(_output(printed))
        return messages

    def release(self) -> list[Message]:
        """Take note that nothing more will come; give what was held back."""
        held = self._splitter.release()
        return [_output(held)] if held else []

    def finish(self) -> None:
        """Say whether all was well in the end.

        Raises:
            ProtocolError: the frames were not what the wire allows.
            BrokenError: the last one is not whole.
        """
        self._frames.finish()  # first: it is the one that may have found the peer at fault
        self._splitter.finish()

    def _decode(self, carried: bytes) -> list[Message]:
        try:
            return self._frames.feed(carried)
        except CommunicatorError:
            return []  # it is told again by `finish`


def _output(data: bytes) -> Message:
    return Message.encoded(RAW, [data], STDOUT)
