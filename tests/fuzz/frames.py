"""The frame decoder: an input is what a peer may write. The whole of it is worth what any cut of it is."""

import json  # noqa: F401 - the codec imports it late
import mmap  # noqa: F401 - as `landing` does

from tasklink import framing
from tasklink.codec import JSON, PICKLES, RAW, WITHHELD
from tasklink.errors import BrokenError, DecodeError, ProtocolError
from tasklink.framing import PREFIX, FrameDecoder
from tests.fuzz import wire
from tests.fuzz.cut import chance_of, cut
from tests.fuzz.oracle import HUGE_PAGE, harmless

TOKENS = (b"TL\x01\x01", b"TL\x01\x02", b"TL\x01\x03", framing.GIVEN_UP, b"\xff" * 8, (1 << 20).to_bytes(8, "little"))
mend = wire.mend

_LIMIT = 64 << 10


def check(data):
    """Give some bytes to decoders, whole and cut, and to those that take whole messages."""
    chance = chance_of(data)
    # Whoever has no limit is held to the memory of what has come.
    limit, most = chance.choice([(_LIMIT, _LIMIT), (None, HUGE_PAGE)])
    with harmless(most + 40 * len(data)):
        whole = _fed([data], limit)
        assert _fed(cut(data, chance), limit) == whole
        assert _read(cut(data, chance), limit) == whole
        if limit is None:
            _look_at_one_message(data, *whole)


def _fed(chunks, limit):
    """What a decoder makes of bytes that are in memory."""
    return _outcome(FrameDecoder(limit), chunks, lambda decoder, chunk: decoder.feed(chunk))


def _read(chunks, limit):
    """What a decoder makes of bytes that are read into its own memory."""
    return _outcome(FrameDecoder(limit), chunks, _read_into)


def _read_into(decoder, chunk):
    messages = []
    try:
        while chunk:
            buffer = decoder.get_buffer()
            assert len(buffer), "an empty buffer would look like the end of the stream"
            count = min(len(buffer), len(chunk))
            buffer[:count] = chunk[:count]
            chunk = chunk[count:]
            messages += decoder.received(count)
    except (BrokenError, ProtocolError):
        if not messages:
            raise
    return messages


def _outcome(decoder, chunks, take):
    messages, error = [], None
    try:
        for chunk in chunks:
            messages += take(decoder, chunk)
        decoder.finish()
    except BrokenError as problem:
        error = str(problem)
    except ProtocolError as problem:
        error = str(problem)
        _stays_so(decoder, error)
    return [_fields(message) for message in messages], error


def _stays_so(decoder, error):
    """The place of the next frame is not known: whatever is asked, the answer is the same error."""
    for call in (decoder.get_buffer, decoder.finish, lambda: decoder.feed(b"TL")):
        try:
            call()
        except ProtocolError as problem:
            again = str(problem)
        else:
            raise AssertionError("a decoder went on after an error")
        assert again == error


def _fields(message):
    buffers = tuple(map(bytes, message.buffers))
    fields = (message.rank, message.sequence, message.after, message.sent_ns, message.codec, message.signal, buffers)
    assert len(repr(message)) < 2000
    _decode(message)
    return fields


def _decode(message):
    """Data is data, whatever it is; and what would run code is refused to who allows data only."""
    if message.codec in PICKLES:
        message.codec += WITHHELD
    elif message.codec not in (RAW, JSON):
        return
    try:
        _ = message.contents
    except DecodeError as error:
        kept = error.buffers
    else:
        assert message.codec < WITHHELD
        return
    assert kept, "all of it is kept"


def _look_at_one_message(data, messages, error):
    """Transports that keep messages apart come to the same as a stream, where it is one whole message."""
    try:
        message = framing.decode_joined(data)
    except ProtocolError:
        assert not (len(messages) == 1 and error is None and _is_one_frame(data))
        return
    fields = _fields(message)
    assert (messages, error) == ([fields], None)
    rank, sequence, after, sent_ns, codec, signal, buffers = fields
    again = framing.encode(list(buffers), codec, signal, sequence, after, sent_ns, rank)
    assert _fields(framing.decode(again)) == fields


def _is_one_frame(data):
    *_, kind, _rank, length = PREFIX.unpack_from(data)
    return kind == framing.MESSAGE and PREFIX.size + length == len(data)
