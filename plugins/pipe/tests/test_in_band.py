"""Taking messages out of a Task's output, byte by byte: without any process."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink import framing, vocabulary
from tasklink.codec import RAW
from tasklink.errors import BrokenError, ProtocolError
from tasklink_pipe.in_band import HEAD_BYTES, KEY_BYTES, OutputDecoder, Splitter, chunk, new_key

if TYPE_CHECKING:
    from tasklink.message import Message

KEY = bytes(range(0xF0, 0x100))
# Keys whose ends are like their beginnings: where a search that forgets what it has seen goes wrong.
AWKWARD = [KEY, b"a" * 16, b"ab" * 8, b"aab" * 5 + b"a", b"\x00" * 15 + b"\x01"]

keys = st.sampled_from(AWKWARD)


def texts(key: bytes) -> st.SearchStrategy[bytes]:
    """Output that is full of what looks like the key, but never is."""
    pieces = st.one_of(
        st.binary(max_size=30),
        st.integers(1, KEY_BYTES - 1).map(lambda size: key[:size]),
        st.integers(1, KEY_BYTES - 1).map(lambda size: key[size:]),
        st.just(key[:-1] + b"?"),
    )
    return st.lists(pieces, max_size=6).map(b"".join).filter(lambda text: key not in text)


def in_portions(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places."""
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


def is_whole(splitter: Splitter) -> bool:
    """Whether what came did not end within a chunk."""
    try:
        splitter.finish()
    except BrokenError:
        return False
    return True


def carry(key: bytes, data: bytes, limit: int) -> list[bytes]:
    """All chunks that carry some data."""
    chunks = []
    while data:
        size, parts = chunk(key, [data], limit)
        chunks.append(b"".join(parts))
        assert len(chunks[-1]) <= limit
        data = data[size:]
    return chunks


class TestSplitting:
    """Output and chunks in one stream of bytes."""

    @settings(deadline=None)
    @given(st.data())
    def test_every_byte_comes_out_where_it_belongs(self, data: st.DataObject) -> None:
        """However output and chunks are mixed, and wherever reads are cut: both come out whole and in order."""
        key = data.draw(keys)
        stream = printed = carried = b""
        for _ in range(data.draw(st.integers(0, 6))):
            text = data.draw(texts(key))
            message = data.draw(st.binary(min_size=1, max_size=60))
            chunks = b"".join(carry(key, message, data.draw(st.integers(HEAD_BYTES + 1, 100))))
            if (text + chunks).find(key) != len(text):
                text += b"?"  # the end of the text and the key together made the key earlier: with awkward keys only
            stream, printed, carried = stream + text + chunks, printed + text, carried + message
        text = data.draw(texts(key))
        stream, printed = stream + text, printed + text
        splitter = Splitter(key)
        parts = [splitter.feed(part) for part in in_portions(stream, data.draw(st.lists(st.integers(0), max_size=8)))]
        assert b"".join(part[0] for part in parts) + splitter.release() == printed
        assert b"".join(part[1] for part in parts) == carried
        splitter.finish()

    @settings(deadline=None)
    @given(st.binary(max_size=200), st.lists(st.integers(0), max_size=20), keys)
    def test_what_is_no_chunk_is_output(self, text: bytes, cuts: list[int], key: bytes) -> None:
        """Any bytes without the key come out as they went in."""
        if key in text:
            return
        splitter = Splitter(key)
        printed = b"".join(splitter.feed(part)[0] for part in in_portions(text, cuts))
        assert printed + splitter.release() == text

    @settings(deadline=None)
    @given(st.binary(max_size=400), st.lists(st.integers(0), max_size=20), keys)
    def test_the_portions_do_not_matter(self, stream: bytes, cuts: list[int], key: bytes) -> None:
        """Whatever comes, keys among it, in portions or at once: the outcome is the same."""
        stream = stream.replace(b"\x07", key)
        outcomes = []
        for portions in ([stream], in_portions(stream, cuts), [bytes([byte]) for byte in stream]):
            splitter = Splitter(key)
            parts = [splitter.feed(part) for part in portions]
            printed, carried = (b"".join(part[side] for part in parts) for side in (0, 1))
            outcomes.append((printed + splitter.release(), carried, is_whole(splitter)))
        assert outcomes[0] == outcomes[1] == outcomes[2]

    def test_a_key_may_begin_at_the_end(self) -> None:
        """What may become a key is held back, and given when it does not, or when the end has come."""
        splitter = Splitter(KEY)
        assert splitter.feed(b"text" + KEY[:5]) == (b"text", b"")
        assert splitter.feed(b"!") == (KEY[:5] + b"!", b"")
        assert splitter.feed(KEY[:-1]) == (b"", b"")
        assert (splitter.release(), splitter.release()) == (KEY[:-1], b"")
        splitter.finish()

    def test_text_is_never_held_back(self) -> None:
        """A key begins with a byte that no text has: a prompt without a newline is there at once."""
        for _ in range(100):
            key = new_key()
            assert len(key) == KEY_BYTES
            with pytest.raises(UnicodeDecodeError):
                key[:1].decode()
            splitter = Splitter(key)
            for text in ("name? ", "ä", "€", "𝄞", "\n", "\x00"):
                assert splitter.feed(text.encode()) == (text.encode(), b"")

    def test_no_two_keys_are_the_same(self) -> None:
        """Keys are drawn anew."""
        assert len({new_key() for _ in range(1000)}) == 1000

    @pytest.mark.parametrize("length", range(KEY_BYTES, HEAD_BYTES + 3))
    def test_the_end_within_a_chunk(self, length: int) -> None:
        """A chunk that is not whole is no output, and no message either."""
        splitter = Splitter(KEY)
        whole = carry(KEY, b"four", 100)[0]
        assert splitter.feed(whole[:length])[0] + splitter.release() == b""
        with pytest.raises(BrokenError, match="ended within a message"):
            splitter.finish()


class TestChunks:
    """What the Task writes in one go."""

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.integers(HEAD_BYTES + 1, 120))
    def test_it_takes_as_much_as_fits(self, buffers: list[bytes], limit: int) -> None:
        """A chunk has the first bytes of the buffers, and is as long as it may be."""
        size, parts = chunk(KEY, buffers, limit)
        data = b"".join(buffers)
        assert size == min(len(data), limit - HEAD_BYTES)
        assert b"".join(parts) == KEY + size.to_bytes(2, "little") + data[:size]

    def test_it_copies_nothing(self) -> None:
        """The parts are views of the caller's memory."""
        memory = bytearray(10)
        _, parts = chunk(KEY, [memory], 512)
        memory[0] = 7
        assert parts[1][0] == 7

    def test_a_limit_beyond_two_bytes_of_length(self) -> None:
        """Where PIPE_BUF is larger than the length can say, the chunk is as long as that."""
        size, parts = chunk(KEY, [bytes(1 << 17)], 1 << 20)
        assert (size, len(parts[1])) == (0xFFFF, 0xFFFF)


def frame(number: int, size: int) -> bytes:
    """A message on the wire."""
    return b"".join(framing.encode([bytes([number % 256]) * size], RAW, sequence=number))


def decode(decoder: OutputDecoder, stream: bytes, portion: int) -> list[Message]:
    """Feed a decoder as a read loop does."""
    messages: list[Message] = []
    while stream:
        size = min(portion, len(decoder.get_buffer()), len(stream))
        decoder.get_buffer()[:size] = stream[:size]
        stream = stream[size:]
        messages += decoder.received(size)
    return messages


def told(messages: list[Message]) -> tuple[bytes, list[tuple[int, int]]]:
    """The output, and number and size of each message."""
    printed = b"".join(bytes(message.encode()[1][0]) for message in messages if message.signal == vocabulary.STDOUT)
    return printed, [(message.sequence, message.nbytes) for message in messages if message.signal is None]


class TestDecoding:
    """From bytes to messages."""

    @settings(deadline=None)
    @given(st.integers(1, 5000), st.integers(HEAD_BYTES + 1, 4096), st.lists(st.integers(0, 3000), max_size=5))
    def test_output_and_messages(self, portion: int, limit: int, sizes: list[int]) -> None:
        """Both come out whole, whatever the portions and the chunks are."""
        key = new_key()
        stream = b""
        for number, size in enumerate(sizes, 1):
            stream += b"line %d\n" % number + b" + ".join(carry(key, frame(number, size), limit))
        decoder = OutputDecoder(key)
        messages = decode(decoder, stream, portion) + decoder.release()
        decoder.finish()
        chunks = [len(carry(key, frame(number, size), limit)) for number, size in enumerate(sizes, 1)]
        expected = b"".join(b"line %d\n" % number + b" + " * (count - 1) for number, count in enumerate(chunks, 1))
        assert told(messages) == (expected, list(enumerate(sizes, 1)))

    def test_output_has_no_number(self) -> None:
        """So the Link passes it on without putting it into order."""
        (printed,) = decode(OutputDecoder(KEY), b"text", 100)
        assert (printed.sequence, printed.after, printed.codec) == (0, 0, RAW)

    @pytest.mark.parametrize("fault", [b"no frame at all, but much longer than a head would be" * 3, b"TL\x63" * 40])
    def test_output_goes_on_when_messages_are_broken(self, fault: bytes) -> None:
        """A Task must not be stuck because nobody reads what it prints; the fault is told at the end."""
        decoder = OutputDecoder(KEY)
        whole = b"".join(carry(KEY, frame(1, 10), 100))
        wrong = b"".join(carry(KEY, fault, 100))
        messages = decode(decoder, whole + wrong + b"before " + whole + b"after", 7) + decoder.release()
        assert told(messages) == (b"before after", [(1, 10)])
        with pytest.raises(ProtocolError):
            decoder.finish()

    @pytest.mark.parametrize("portion", [1, 10_000])
    def test_a_fault_before_an_end_within_a_chunk(self, portion: int) -> None:
        """However the bytes came, it is the fault that is told: the peer is to blame, not its death."""
        decoder = OutputDecoder(KEY)
        chunk = b"".join(carry(KEY, frame(1, 10) + b"no frame at all, and longer than a prefix", 4096))[:-1]
        assert told(decode(decoder, chunk, portion) + decoder.release()) == (b"", [(1, 10)])
        with pytest.raises(ProtocolError):
            decoder.finish()

    def test_the_end_within_a_message(self) -> None:
        """The last message is not whole: that is told, after all that was printed."""
        decoder = OutputDecoder(KEY)
        messages = decode(decoder, carry(KEY, frame(1, 1000), 100)[0] + b"text" + KEY[:3], 50) + decoder.release()
        assert told(messages) == (b"text" + KEY[:3], [])
        with pytest.raises(BrokenError):
            decoder.finish()

    def test_the_end_within_a_chunk(self) -> None:
        """A launcher that was killed may cut a chunk off."""
        decoder = OutputDecoder(KEY)
        assert decode(decoder, carry(KEY, frame(1, 10), 100)[0][:-1], 50) + decoder.release() == []
        with pytest.raises(BrokenError, match="ended after 9 of the 10 bytes"):
            decoder.finish()

    @settings(deadline=None)
    @given(st.binary(max_size=3000), st.integers(1, 3000))
    def test_noise(self, noise: bytes, portion: int) -> None:
        """Whatever comes, chunks of nonsense among it, raises nothing until the end, and then one of two errors."""
        decoder = OutputDecoder(KEY)
        decode(decoder, noise.replace(b"\x00", KEY), portion)
        decoder.release()
        try:
            decoder.finish()
        except (BrokenError, ProtocolError):
            return
