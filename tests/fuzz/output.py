"""What a Task prints: an input is all of it. However it is cut, the lines are the same, and they are only text.

The same bytes are read in the in-band mode of pipe, where frames stand in chunks between what is printed; its key is
`KEY`, so an input can hold chunks.
"""

import json  # noqa: F401 - the codec imports it late
import mmap  # noqa: F401 - as `landing` does

from tasklink.cli.lines import LineSplitter, abridge, escape
from tasklink.codec import RAW
from tasklink.errors import BrokenError, ProtocolError
from tasklink.message import Message
from tasklink.output import TAIL_BYTES, OutputKeeper
from tasklink.vocabulary import STDERR, STDOUT, texts
from tasklink_pipe.in_band import OutputDecoder
from tests.fuzz import wire
from tests.fuzz.cut import chance_of, cut
from tests.fuzz.oracle import HUGE_PAGE, harmless

KEY = b"\xf8in-band-mode-16"
TOKENS = (
    KEY, KEY + b"\x40\x00TL\x01\x01", b"TL\x01\x01", b"\r\n", b"\x1b[31m", b"\x1b[2J", b"\xe2\x80\xae",
    b"\xf0\x9f\x8e\x89", b"\x80\x05\x95", b"cos\nsystem\n(S'true'\ntR.",
)  # fmt: skip

_LIMIT = 40  # characters of a line: the shorter, the more often it is reached


def mend(data, chance):
    """Make chunks of what begins with the key: their lengths right, the frames in them as well."""
    first, *chunks = data.split(KEY)
    mended = [first]
    for piece in chunks:
        size = chance.randrange(len(piece) + 1)
        frames = wire.mend(piece[2 : 2 + size], chance)
        mended.append(len(frames).to_bytes(2, "little") + frames + piece[2 + size :])
    return KEY.join(mended)


def check(data):
    """Take some bytes for what a Task has printed."""
    chance = chance_of(data)
    with harmless(HUGE_PAGE + 100 * len(data)):
        _look_at_lines(data, chance)
        _look_at_bytes(data, chance)
        _look_at_chunks(data, chance)


def _look_at_lines(data, chance):
    lines = _lines([data])
    assert _lines(cut(data, chance)) == lines
    for line in lines:
        # A character is at most ten when it is escaped, and what is cut off is told in some thirty.
        assert len(line) <= 10 * _LIMIT + 40
        assert all(character == "\t" or character.isprintable() or character >= "\xa0" for character in line)
        assert escape(line) == line
        line.encode()
    assert len(lines) <= data.count(b"\n") + 1
    assert "\n" not in abridge(data.decode("utf-8", "backslashreplace"), _LIMIT)


def _lines(chunks):
    splitter = LineSplitter(_LIMIT)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.end()


def _look_at_bytes(data, chance):
    with OutputKeeper(None) as keeper:
        for chunk in cut(data, chance):
            message = Message.encoded(RAW, [chunk], STDERR)
            assert texts(message) == [chunk.decode("utf-8", "backslashreplace")]
            assert message.contents == chunk
            keeper.keep(chunk)
        assert keeper.tail == data[-TAIL_BYTES:]


def _look_at_chunks(data, chance):
    whole = _taken_apart([data])
    assert _taken_apart(cut(data, chance)) == whole
    if KEY not in data:
        assert whole == (data, [], None)


def _taken_apart(chunks):
    decoder = OutputDecoder(KEY)
    messages = []
    for chunk in chunks:
        rest = chunk
        while rest:
            buffer = decoder.get_buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            rest = rest[count:]
            messages += decoder.received(count)
    messages += decoder.release()
    error = None
    try:
        decoder.finish()
    except (BrokenError, ProtocolError) as problem:
        error = str(problem)
    printed = b"".join(bytes(message.buffers[0]) for message in messages if _is_printed(message))
    return printed, [_fields(message) for message in messages if not _is_printed(message)], error


def _fields(message):
    return message.sequence, message.codec, message.signal, [*map(bytes, message.buffers)]


def _is_printed(message):
    return message.signal == STDOUT and message.sequence == 0
