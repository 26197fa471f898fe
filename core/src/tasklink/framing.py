"""Buffers to bytes and back: the wire. core/docs/wire.md describes it for people; this file is its only code.

Rules of this file: it does no I/O and knows no clock, so the same code serves pipes, sockets, files and fuzzers. It
trusts no number that it reads: a length is checked against its limit before anything is reserved, and memory for a
large buffer grows with the bytes that have come, never to what was claimed.

A frame is a prefix and `length` further bytes. There are three kinds:

    MESSAGE   head, body, out-of-band buffers: a whole message
    START     head only: the body and the buffers follow in pieces
    PIECE     the next bytes of the message that was started

One message at a time may be in pieces, and MESSAGE frames may stand between two pieces: so a cancel overtakes an array
of a gigabyte by waiting for one piece of it. A PIECE of no bytes, or a START, says that the writer has given up on the
message that is in pieces (a time-out, an exception in a signal handler): it is forgotten.
"""

from __future__ import annotations

from struct import Struct

from tasklink.errors import BrokenError, CommunicatorError, LimitExceededError, ProtocolError
from tasklink.landing import Landing
from tasklink.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]

MAGIC = b"TL"
VERSION = 1

MESSAGE = 1
START = 2
PIECE = 3

# magic, version, kind, rank, length of the rest of the frame in bytes
PREFIX = Struct("<2sBBIQ")
# sequence, after, time sent (ns since the epoch), codec, flags, bytes of signal, bytes of extension, number of buffers
HEAD = Struct("<QQQBBBBI")
_WHOLE_HEAD = Struct("<2sBBIQQQQBBBBI")
assert _WHOLE_HEAD.size == PREFIX.size + HEAD.size
# The head of a plain message, which has no signal and one buffer, with its table: the same bytes in fewer numbers.
# Magic, version and kind are one; so are codec, flags, bytes of signal and bytes of extension.
_PLAIN = Struct("<IIQQQQIIQ")
_PLAIN_TAG = int.from_bytes(MAGIC + bytes([VERSION, MESSAGE]), "little")
_PLAIN_BYTES = _PLAIN.size
_PLAIN_REST = _PLAIN.size - PREFIX.size
# A whole frame: forget the message that is in pieces, if there is one.
GIVEN_UP = PREFIX.pack(MAGIC, VERSION, PIECE, 0, 0)

# A plain message up to this size is one buffer. With its head a pipe takes it whole or not at all (PIPE_BUF is 4096),
# and a Unix socket of Linux makes one packet of it.
SMALL_BYTES = 3584
PIECE_BYTES = 1 << 20  # what a control message waits for at most
MAX_BUFFERS = 1 << 16  # bounds what a table costs its reader: 512 KiB on the wire, 3 MiB in Python
MAX_SIGNAL_BYTES = 255

_SCRATCH_BYTES = 64 << 10
_NO_LIMIT = 1 << 64  # more than a table can say
_READ_AT_MOST = 1 << 30  # a single read(2) of more than 2 GiB is refused by macOS and cut by Linux


def encode(  # noqa: PLR0917 - in the order of importance; keywords cost time in the hottest place there is
    buffers: list[Buffer],
    codec: int,
    signal: str | None = None,
    sequence: int = 0,
    after: int = 0,
    sent_ns: int = 0,
    rank: int = 0,
) -> list[Buffer]:
    """Make the buffers of a MESSAGE: prefix and head in the first one, then the buffers of its contents.

    Args:
        buffers: the body, then the out-of-band buffers.
        codec: the number of the codec that made them.
        signal: the name of the signal; None for plain contents.
        sequence: the number of the message; 0 for none.
        after: after which number it may be delivered.
        sent_ns: when it is sent, nanoseconds since the epoch.
        rank: of the sender.

    Raises:
        ValueError: the signal is empty, or longer than 255 bytes of UTF-8; or there is no buffer, or there are more
            than MAX_BUFFERS.
    """
    count = len(buffers)
    name = b"" if signal is None else _signal_bytes(signal)
    if not 0 < count <= MAX_BUFFERS:
        raise ValueError(f"a message has {count} buffers; allowed are 1 to {MAX_BUFFERS}")
    lengths = [len(buffer) for buffer in buffers]
    head = _WHOLE_HEAD.pack(
        MAGIC, VERSION, MESSAGE, rank, HEAD.size + len(name) + 8 * count + sum(lengths),
        sequence, after, sent_ns, codec, 0, len(name), 0, count,
    )  # fmt: skip
    return [b"".join((head, name, Struct(f"<{count}Q").pack(*lengths))), *buffers]


def encode_plain(  # noqa: PLR0917 - as `encode`
    body: Buffer, codec: int, sequence: int, after: int, sent_ns: int, rank: int
) -> bytes:
    """Make a MESSAGE without a signal, of one small buffer, in one piece: the bytes that `encode` makes, joined."""
    size = len(body)
    head = _PLAIN.pack(_PLAIN_TAG, rank, _PLAIN_REST + size, sequence, after, sent_ns, codec, 1, size)
    return head + body


def _signal_bytes(signal: str) -> bytes:
    name = signal.encode()
    if not 0 < len(name) <= MAX_SIGNAL_BYTES:
        raise ValueError(f"a signal has 1 to {MAX_SIGNAL_BYTES} bytes of UTF-8; {signal[:40]!r} has {len(name)}")
    return name


def decode(buffers: Sequence[Buffer]) -> Message:
    """Turn the buffers of a MESSAGE back into it; for transports that keep the buffers of a message apart.

    Args:
        buffers: what `encode` made; or one, of `bytes`: what `encode_plain` made.

    Raises:
        ProtocolError: the buffers are neither.
    """
    if not buffers:
        raise ProtocolError("a message has no head: there are no buffers at all")
    head, *rest = buffers
    if not rest:
        return decode_joined(bytes(head))
    rank, header, lengths = _decode_head(head)
    if len(head) != header.size:
        raise ProtocolError(f"the head of a message has {len(head)} bytes, and says {header.size}")
    if [len(buffer) for buffer in rest] != lengths:
        raise ProtocolError("the buffers of a message are not as long as its table says")
    return header.message(rank, rest)


def decode_joined(data: Buffer) -> Message:
    """Turn the joined buffers of a MESSAGE back into it; for transports that keep small messages apart.

    Raises:
        ProtocolError: the bytes are not what `encode` makes, joined.
    """
    size = len(data)
    if size >= _PLAIN_BYTES:
        tag, rank, length, sequence, after, sent_ns, codec, count, body = _PLAIN.unpack_from(data)
        plain = tag == _PLAIN_TAG and count == 1 and codec <= 0xFF
        if plain and body == size - _PLAIN_BYTES and length == body + _PLAIN_REST:
            return Message(None, None, codec, [data[_PLAIN_BYTES:]], sequence, after, sent_ns, rank)
    rank, header, lengths = _decode_head(data)
    if size != header.size + header.payload:
        raise ProtocolError(f"a message says it has {header.size + header.payload} bytes, and comes with {size}")
    buffers: list[Buffer] = []
    begin = header.size
    for length in lengths:
        buffers.append(data[begin : begin + length])
        begin += length
    return header.message(rank, buffers)


def _decode_head(head: Buffer) -> tuple[int, _Header, list[int]]:
    """Read the head of a MESSAGE: rank, head, lengths of the buffers."""
    if len(head) < _WHOLE_HEAD.size:
        raise ProtocolError(f"a message head has at least {_WHOLE_HEAD.size} bytes; this one has {len(head)}")
    kind, rank, length = _check_prefix(head, 0)
    header = _Header(head, 0)
    if kind != MESSAGE or len(head) < header.size:
        raise ProtocolError(f"the head of a message of kind {kind} has {len(head)} bytes, and says {header.size}")
    lengths = header.read_table(head, 0)
    header.check_length(kind, length)
    return rank, header, lengths


def _take_plain(data: Buffer, start: int, end: int, largest: int, messages: list[Message]) -> int:
    """Use the whole plain messages at the beginning of some bytes; most messages are plain, and this is their way.

    Whatever else there is, wrong numbers too, is left to those who look at it more closely.

    Args:
        data: what holds the bytes.
        start: where they begin.
        end: where they end.
        largest: the largest payload allowed.
        messages: where they are appended to.

    Returns:
        where the bytes begin that were not used.
    """
    while end - start >= _PLAIN_BYTES:
        tag, rank, length, sequence, after, sent_ns, codec, count, size = _PLAIN.unpack_from(data, start)
        body = start + _PLAIN_BYTES
        stop = body + size
        if tag != _PLAIN_TAG or count != 1 or length != _PLAIN_REST + size or codec > 0xFF or size > largest:
            break
        if stop > end:
            break
        messages.append(Message(None, None, codec, [data[body:stop]], sequence, after, sent_ns, rank))
        start = stop
    return start


def split(buffers: Sequence[Buffer], piece_bytes: int = PIECE_BYTES) -> Iterator[list[Buffer]]:
    """Cut the buffers of a large MESSAGE into a START and its PIECEs; each list is one frame."""
    head = buffers[0]
    rank = PREFIX.unpack_from(head)[3]
    start = PREFIX.pack(MAGIC, VERSION, START, rank, len(head) - PREFIX.size)
    yield [start, memoryview(head)[PREFIX.size :]]
    piece: list[Buffer] = []
    room = piece_bytes
    for buffer in buffers[1:]:
        rest = memoryview(buffer)
        while rest:
            piece.append(rest[:room])
            rest = rest[room:]
            room -= len(piece[-1])
            if room == 0:
                yield [PREFIX.pack(MAGIC, VERSION, PIECE, rank, piece_bytes), *piece]
                piece, room = [], piece_bytes
    if piece:
        yield [PREFIX.pack(MAGIC, VERSION, PIECE, rank, piece_bytes - room), *piece]


class FrameDecoder:
    """Bytes in, messages out. The bytes are read straight to where they belong.

    `get_buffer` says where the next bytes go; `received` says how many came, and gives the messages they completed.
    Between large messages the buffer is a scratch space, so one read takes many small messages; inside a large one it
    is the memory that its array will own.

    After an error the decoder is of no more use, and raises it again: the place of the next frame is not known. Frames
    that were whole before it are given first.

    Args:
        max_message: the largest payload allowed, in bytes; None for no limit.
    """

    def __init__(self, max_message: int | None = None) -> None:
        self._largest = _NO_LIMIT if max_message is None else max_message
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._start = 0  # the bytes of the scratch space that are not yet used: start to end
        self._end = 0
        self._filling: _Assembly | None = None  # the message whose memory the next bytes belong to,
        self._quota = 0  # and how many of them, before the next prefix
        self._in_pieces: _Assembly | None = None
        self._view: memoryview | None = None
        self._error: CommunicatorError | None = None

    def refuse_larger(self, max_message: int) -> None:
        """Refuse what is larger from the next message on, as if it had been said in the beginning."""
        self._largest = max_message

    def get_buffer(self) -> memoryview:
        """The memory that the next bytes are to be read into; the same until `received`.

        Raises:
            ProtocolError: as `received`, for bytes that came behind its last frame.
            BrokenError: as `received`.
        """
        if self._error is not None:
            self._raise_again()
        if self._view is None:
            try:
                self._view = self._free()
            except BrokenError as error:
                self._fail(error)
                raise
        return self._view

    def received(self, count: int) -> list[Message]:
        """Take note of `count` bytes in the buffer, and give the messages that are whole now.

        Raises:
            ProtocolError: the bytes are not what the wire allows, or a message is larger than `max_message`; the text
                names the field and its value.
            BrokenError: the system has no memory for the message.
        """
        if self._view is not None:
            self._view.release()  # memory with a view on it cannot grow, and an exception may hold the view
            self._view = None
        messages: list[Message] = []
        if self._filling is not None:
            self._filled(count, messages)
            return messages
        self._end += count
        try:
            self._take_plain(messages)
            while self._start < self._end and self._parse(messages):
                self._take_plain(messages)
        except CommunicatorError as error:
            self._fail(error)
            if not messages:
                raise
            return messages
        if self._start == self._end:
            self._start = self._end = 0
        else:
            self._make_room()
        return messages

    def feed(self, data: Buffer) -> list[Message]:
        """Take bytes that are in memory already.

        Raises:
            ProtocolError, BrokenError: as `received`.
        """
        messages: list[Message] = []
        rest = memoryview(data)
        try:
            while rest:
                buffer = self.get_buffer()
                count = min(len(buffer), len(rest))
                buffer[:count] = rest[:count]
                rest = rest[count:]
                messages += self.received(count)
        except CommunicatorError:
            if not messages:
                raise
        return messages

    def finish(self) -> None:
        """Take note that nothing more will come.

        Raises:
            ProtocolError: as `received`, for bytes that came behind its last frame.
            BrokenError: the bytes end in the middle of a message.
        """
        self._raise_again()
        message = self._filling or self._in_pieces
        if message is not None:
            raise BrokenError(f"the peer ended after {message.filled} of the {message.total} bytes of a message")
        if self._end > self._start:
            raise BrokenError(f"the peer ended {self._end - self._start} bytes after the beginning of a message")

    def _fail(self, error: CommunicatorError) -> None:
        # A twin of it: the error itself holds, by its traceback, this decoder and all that was being parsed.
        self._error = type(error)(*error.args)

    def _raise_again(self) -> None:
        if self._error is not None:
            raise type(self._error)(*self._error.args)

    def _free(self) -> memoryview:
        if self._filling is not None:
            return self._filling.free(min(self._quota, _READ_AT_MOST))
        if self._in_pieces is not None:
            # Reading on greedily would put the next piece where it has to be copied from.
            return memoryview(self._scratch)[self._end : self._start + self._needed()]
        return memoryview(self._scratch)[self._end :]

    # Parsing the scratch space

    def _needed(self) -> int:
        """How many bytes from the start of the next frame on must be there to go on with it."""
        available = self._end - self._start
        if available < PREFIX.size:
            return PREFIX.size
        if available < _WHOLE_HEAD.size:
            return _WHOLE_HEAD.size
        return PREFIX.size + _check_prefix(self._scratch, self._start)[2]

    def _take_plain(self, messages: list[Message]) -> None:
        self._start = _take_plain(self._scratch, self._start, self._end, self._largest, messages)

    def _parse(self, messages: list[Message]) -> bool:
        """Use one frame, or its beginning; False when more bytes are needed first."""
        available = self._end - self._start
        if available < PREFIX.size:
            return False
        kind, rank, length = _check_prefix(self._scratch, self._start)
        if kind == PIECE:
            return self._parse_piece(length, messages)
        if available < _WHOLE_HEAD.size:
            return False
        header = _Header(self._scratch, self._start)
        if length < header.size - PREFIX.size:
            raise ProtocolError(f"a frame says it has {length} bytes; its head alone has {header.size - PREFIX.size}")
        if available < header.size:
            return False
        lengths = header.read_table(self._scratch, self._start)
        header.check_length(kind, length)
        self._check_size(header.payload)
        self._start += header.size
        if kind == START:
            self._start_pieces(rank, header, lengths, messages)
        elif self._end - self._start >= header.payload:
            messages.append(header.message(rank, self._take(lengths)))
        else:
            self._fill(_Assembly(rank, header, lengths), header.payload, messages)
        return self._filling is None

    def _start_pieces(self, rank: int, header: _Header, lengths: list[int], messages: list[Message]) -> None:
        self._in_pieces = None
        if header.payload == 0:
            messages.append(header.message(rank, [bytearray() for _ in lengths]))
        else:
            self._in_pieces = _Assembly(rank, header, lengths)

    def _parse_piece(self, length: int, messages: list[Message]) -> bool:
        self._start += PREFIX.size
        if length == 0:
            self._in_pieces = None
            return True
        if self._in_pieces is None:
            raise ProtocolError("a piece came although no message was started")
        if length > self._in_pieces.missing:
            raise ProtocolError(f"a piece has {length} bytes where {self._in_pieces.missing} are missing")
        self._fill(self._in_pieces, length, messages)
        return self._filling is None

    def _check_size(self, payload: int) -> None:
        if payload > self._largest:
            raise LimitExceededError(f"a message has {payload} bytes; the limit is {self._largest}")

    def _take(self, lengths: list[int]) -> list[Buffer]:
        """Copy a small message out of the scratch space, which the next read overwrites."""
        buffers: list[Buffer] = []
        for length in lengths:
            begin, self._start = self._start, self._start + length
            buffers.append(self._scratch[begin : self._start])
        return buffers

    def _fill(self, message: _Assembly, quota: int, messages: list[Message]) -> None:
        """Send the next `quota` bytes to the message, those that are in the scratch space at once."""
        self._filling, self._quota = message, quota
        while self._quota and self._end > self._start:
            with message.free(min(self._quota, self._end - self._start)) as free:
                count = len(free)
                free[:] = memoryview(self._scratch)[self._start : self._start + count]
            self._start += count
            self._filled(count, messages)

    def _filled(self, count: int, messages: list[Message]) -> None:
        message = self._filling
        assert message is not None
        message.advance(count)
        self._quota -= count
        if self._quota:
            return
        self._filling = None
        if message.missing == 0:
            messages.append(message.message())
            if message is self._in_pieces:
                self._in_pieces = None

    def _make_room(self) -> None:
        """Move what is left to the front, and let the space grow for a head that does not fit."""
        if self._start:
            rest = self._scratch[self._start : self._end]
            self._scratch[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        if self._end == len(self._scratch):
            self._scratch.extend(bytes(len(self._scratch)))


def _check_prefix(data: Buffer, offset: int) -> tuple[int, int, int]:
    """Read a prefix: kind, rank, length."""
    magic, version, kind, rank, length = PREFIX.unpack_from(data, offset)
    if magic != MAGIC:
        raise ProtocolError(f"a frame begins with {MAGIC!r}; here is {magic!r}")
    if version != VERSION:
        raise ProtocolError(f"the peer speaks wire version {version}; this side speaks {VERSION}")
    if kind not in (MESSAGE, START, PIECE):
        raise ProtocolError(f"a frame has kind {kind}; known are {MESSAGE}, {START} and {PIECE}")
    return kind, rank, length


class _Header:
    """The fixed part of a message head, and what follows from it."""

    __slots__ = ("after", "codec", "count", "extension", "payload", "sent_ns", "sequence", "signal", "signal_bytes")
    sequence: int
    after: int
    sent_ns: int
    codec: int
    signal_bytes: int
    extension: int
    count: int

    def __init__(self, data: Buffer, offset: int) -> None:
        (self.sequence, self.after, self.sent_ns, self.codec, _flags, self.signal_bytes, self.extension, self.count) = (
            HEAD.unpack_from(data, offset + PREFIX.size)
        )
        self.signal: str | None = None
        self.payload = 0
        if not 0 < self.count <= MAX_BUFFERS:
            raise ProtocolError(f"a message has {self.count} buffers; allowed are 1 to {MAX_BUFFERS}")

    @property
    def size(self) -> int:
        """Bytes from the beginning of the frame to the body."""
        return _WHOLE_HEAD.size + self.signal_bytes + self.extension + 8 * self.count

    def read_table(self, data: Buffer, offset: int) -> list[int]:
        """Read the signal and the lengths of the buffers. The extension belongs to later versions: skipped."""
        begin = offset + _WHOLE_HEAD.size
        if self.signal_bytes:
            try:
                self.signal = bytes(data[begin : begin + self.signal_bytes]).decode()
            except UnicodeDecodeError as error:
                raise ProtocolError(f"the name of a signal is not UTF-8: {error}") from None
        table = begin + self.signal_bytes + self.extension
        if self.count == 1:
            self.payload = int.from_bytes(data[table : table + 8], "little")
            return [self.payload]
        lengths = list(Struct(f"<{self.count}Q").unpack_from(data, table))
        self.payload = sum(lengths)
        return lengths

    def check_length(self, kind: int, length: int) -> None:
        expected = self.size - PREFIX.size + (self.payload if kind == MESSAGE else 0)
        if length != expected:
            raise ProtocolError(f"a frame says it has {length} bytes; its parts have {expected}")

    def message(self, rank: int, buffers: list[Buffer]) -> Message:
        return Message(None, self.signal, self.codec, buffers, self.sequence, self.after, self.sent_ns, rank)


class _Assembly:
    """A message whose buffers are being filled, in their order."""

    __slots__ = ("_header", "_lengths", "_memories", "_rank", "_room", "filled", "total")

    def __init__(self, rank: int, header: _Header, lengths: list[int]) -> None:
        self._rank = rank
        self._header = header
        self._lengths = lengths
        self._memories: list[Landing] = []
        self._room = 0  # bytes still missing in the last memory
        self.total = header.payload
        self.filled = 0

    @property
    def missing(self) -> int:
        return self.total - self.filled

    def free(self, limit: int) -> memoryview:
        """Where the next bytes belong: at least one, at most `limit`."""
        while self._room == 0:
            self._room = self._lengths[len(self._memories)]
            self._memories.append(Landing(self._room))
        return self._memories[-1].free(min(limit, self._room))

    def advance(self, count: int) -> None:
        self._memories[-1].filled += count
        self._room -= count
        self.filled += count

    def message(self) -> Message:
        rest = self._lengths[len(self._memories) :]
        assert not any(rest)
        buffers: list[Buffer] = [memory.view() for memory in self._memories]
        return self._header.message(self._rank, buffers + [bytearray() for _ in rest])
