"""The wire, without any I/O: whatever the bytes and wherever they are cut, the messages are the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink import framing
from tasklink.errors import BrokenError, ProtocolError, TasklinkError
from tasklink.framing import HEAD, MAGIC, MESSAGE, PIECE, PREFIX, START, VERSION, FrameDecoder
from tasklink.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tasklink.framing import Buffer

MIB = 1 << 20

# A message as a value that can be compared, and how the bytes ended: None in good order, else the error.
Fields = tuple[object, ...]
Outcome = tuple[list[Fields], str | None]


def fields(message: Message) -> Fields:
    """What a message says, as a value."""
    assert message.buffers is not None
    buffers = tuple(bytes(buffer) for buffer in message.buffers)
    return (message.rank, message.sequence, message.after, message.sent_ns, message.codec, message.signal, buffers)


def encoded(message: Message) -> list[Buffer]:
    """A message as the buffers of one MESSAGE."""
    assert message.buffers is not None
    return framing.encode(
        message.buffers,
        message.codec,
        message.signal,
        message.sequence,
        message.after,
        message.sent_ns,
        message.rank,
    )


def on_wire(message: Message) -> bytes:
    """A message as the bytes of one MESSAGE."""
    return b"".join(encoded(message))


def in_pieces(message: Message, piece_bytes: int) -> list[bytes]:
    """A message as the bytes of a START and of each PIECE."""
    return [b"".join(buffers) for buffers in framing.split(encoded(message), piece_bytes)]


def chunks(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut data into chunks of these sizes, over and over."""
    begin = number = 0
    while begin < len(data):
        size = sizes[number % len(sizes)]
        yield data[begin : begin + size]
        begin, number = begin + size, number + 1


def fed(parts: Iterator[bytes], max_message: int | None = None) -> Outcome:
    """What a decoder makes of bytes that are in memory."""
    decoder = FrameDecoder(max_message)
    messages: list[Message] = []
    error = None
    try:
        for part in parts:
            messages += decoder.feed(part)
        decoder.finish()
    except (BrokenError, ProtocolError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    return [fields(message) for message in messages], error


def read(data: bytes, sizes: Sequence[int]) -> Outcome:
    """What a decoder makes of bytes that short reads put into its own buffer."""
    decoder = FrameDecoder()
    messages: list[Message] = []
    begin = number = 0
    error = None
    try:
        while begin < len(data):
            buffer = decoder.get_buffer()
            count = min(len(buffer), sizes[number % len(sizes)], len(data) - begin)
            assert count > 0, "an empty buffer would look like the end of the stream"
            buffer[:count] = data[begin : begin + count]
            begin, number = begin + count, number + 1
            messages += decoder.received(count)
        decoder.finish()
    except (BrokenError, ProtocolError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    return [fields(message) for message in messages], error


def a_message(*buffers: bytes, signal: str | None = None, sequence: int = 1) -> Message:
    """A message of which only this matters."""
    return made(0, sequence, 0, 0, 1, signal, list(buffers) or [b""])


def made(  # noqa: PLR0917 - in the order of `fields`
    rank: int, sequence: int, after: int, sent_ns: int, codec: int, signal: str | None, buffers: list[Buffer]
) -> Message:
    """A message with all that the wire carries."""
    message = Message.encoded(codec, buffers, signal)
    message.rank, message.sequence, message.after, message.sent_ns = rank, sequence, after, sent_ns
    return message


u64 = st.integers(0, 2**64 - 1)
# The bytes of the protocol itself are what a parser that looks for them would trip over.
contents = st.binary(max_size=300) | st.builds(
    b"".join, st.lists(st.sampled_from([MAGIC, b"TL\x01", PREFIX.pack(MAGIC, VERSION, PIECE, 0, 4), b";;;", b"\n"]))
)
messages_of_any_kind = st.builds(
    made,
    st.integers(0, 2**32 - 1),
    u64,
    u64,
    u64,
    st.integers(0, 255),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=63),
    st.lists(contents, min_size=1, max_size=5),
)
plain_messages = st.builds(
    made,
    st.integers(0, 2**32 - 1),
    u64,
    u64,
    u64,
    st.integers(0, 255),
    st.none(),
    st.lists(contents, min_size=1, max_size=1),
)
sizes_of_chunks = st.lists(st.integers(1, 2000), min_size=1, max_size=20)


FLAGS = PREFIX.size + 25  # where the flags are, which mean nothing yet


def replaced(data: bytes, position: int, value: bytes) -> bytes:
    """Some bytes with others in their place."""
    return data[:position] + value + data[position + len(value) :]


def with_flags(data: bytes) -> bytes:
    """A message with all flags."""
    return replaced(data, FLAGS, b"\xff")


# Fields of a plain message that are not what they should be; and what is told of them.
SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "magic": lambda data: replaced(data, 0, b"X"),
    "version": lambda data: replaced(data, 2, b"\x02"),
    "kind": lambda data: replaced(data, 3, b"\x00"),
    "piece": lambda data: replaced(data, 3, bytes([PIECE])),
    "short": lambda data: replaced(data, 8, (39).to_bytes(8, "little")),
    "long": lambda data: replaced(data, 8, (len(data) - PREFIX.size + 1).to_bytes(8, "little")),
    "longest": lambda data: replaced(data, 8, b"\xff" * 8),
    "no buffers": lambda data: replaced(data, 44, bytes(4)),
    "buffers": lambda data: replaced(data, 44, b"\xff" * 4),
    "table": lambda data: replaced(data, 48, (len(data) - 56 + 1).to_bytes(8, "little")),
    "huge table": lambda data: replaced(data, 48, b"\xff" * 8),
    "flags and table": lambda data: replaced(with_flags(data), 48, b"\xff" * 8),
}
ERRORS = {
    "magic": "begins with b'TL'; here is b'XL'",
    "version": "wire version 2; this side speaks 1",
    "kind": "kind 0; known are 1, 2 and 3",
    "piece": "a piece came although no message was started",
    "short": "a frame says it has 39 bytes; its head alone has 40",
    "long": "a frame says it has .* bytes; its parts have",
    "longest": f"a frame says it has {2**64 - 1} bytes; its parts have",
    "no buffers": "0 buffers; allowed are 1 to",
    "buffers": f"{2**32 - 1} buffers; allowed are 1 to",
    "table": "a frame says it has .* bytes; its parts have",
    "huge table": "a frame says it has .* bytes; its parts have",
    "flags and table": "a frame says it has .* bytes; its parts have",
}


class Conversation:
    """Bytes on a wire, the messages that a reader must make of them, and how they end."""

    def __init__(self) -> None:
        self.data = b""
        self.expected: list[Fields] = []
        self.ends_well = True

    def small(self, message: Message) -> None:
        """Send a message whole."""
        self.data += on_wire(message)
        self.expected.append(fields(message))

    def large(self, message: Message, piece_bytes: int, between: list[Message], pieces_sent: int) -> None:
        """Send a message in pieces with small ones between them; give up after some pieces."""
        parts = in_pieces(message, piece_bytes)
        sent = parts[: 1 + pieces_sent]
        for number, part in enumerate(sent):
            self.data += part
            if number < len(between) and number < len(sent) - 1:
                self.small(between[number])
        self.ends_well = len(sent) == len(parts)
        if self.ends_well:
            self.expected.append(fields(message))

    def say_given_up(self) -> None:
        """Tell the peer to forget a message in pieces, if there is one."""
        self.data += framing.GIVEN_UP
        self.ends_well = True


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Small and large messages, small ones between the pieces of large ones, and large ones that are given up."""
    conversation = Conversation()
    for message in draw(st.lists(messages_of_any_kind, max_size=6)):
        if draw(st.booleans()):
            conversation.small(message)
        else:
            between = draw(st.lists(messages_of_any_kind, max_size=4))
            given_up_after = draw(st.just(10**6) | st.integers(0, 5))
            conversation.large(message, draw(st.integers(1, 200)), between, given_up_after)
        if draw(st.integers(0, 3)) == 0:
            conversation.say_given_up()
    return conversation


def arrives(conversation: Conversation, sizes: list[int]) -> None:
    """See that what was sent is what is read, in chunks of these sizes."""
    messages, error = fed(chunks(conversation.data, sizes))

    assert messages == conversation.expected
    assert (error is None) == conversation.ends_well
    assert error is None or error.startswith("BrokenError")


class TestRoundTrips:
    """What is sent arrives."""

    @given(conversations(), sizes_of_chunks)
    @settings(max_examples=200)
    def test_whatever_is_written_is_read_wherever_it_is_cut(self, conversation: Conversation, sizes: list[int]) -> None:
        """Messages whole or in pieces, overtaken or given up, arrive as they were sent, in chunks of any size."""
        arrives(conversation, sizes)

    @pytest.mark.soak
    @pytest.mark.timeout(1800)
    def test_a_hundred_thousand_of_them(self, record_property: Callable[[str, object], None]) -> None:
        """F20: the same for very many."""
        settings(max_examples=100_000)(given(conversations(), sizes_of_chunks)(arrives))()
        record_property("runs", 100_000)

    @given(conversations(), sizes_of_chunks)
    @settings(max_examples=200)
    def test_short_reads_into_the_decoders_own_buffer_give_the_same(
        self, conversation: Conversation, sizes: list[int]
    ) -> None:
        """A transport that reads into `get_buffer` gets what one that feeds gets."""
        assert read(conversation.data, sizes) == fed(iter([conversation.data]))

    @given(messages_of_any_kind)
    def test_a_transport_that_keeps_buffers_apart_round_trips(self, message: Message) -> None:
        """`decode` undoes `encode` for transports that move lists of buffers."""
        assert fields(framing.decode(encoded(message))) == fields(message)

    # Around the scratch space, the size from which a buffer is mapped, what is reserved at once, and its doublings.
    @pytest.mark.parametrize(
        "size", [0, 1, 4096, 64 << 10, (64 << 10) - 64, MIB - 1, MIB, MIB + 1, 8 * MIB, 8 * MIB + 1, 17 * MIB, 33 * MIB]
    )
    @pytest.mark.parametrize("whole", [True, False], ids=["whole", "in pieces"])
    def test_buffers_of_every_size_class_arrive(self, size: int, whole: bool) -> None:
        """A buffer arrives equal whether it is copied, filled in place, mapped, or grown."""
        body = bytes(range(256)) * (size // 256 + 1)
        message = a_message(b"first", body[:size], b"", body[:size], b"last")
        data = on_wire(message) if whole else b"".join(in_pieces(message, framing.PIECE_BYTES))

        assert fed(chunks(data, [200_000, 1, 3 * MIB])) == ([fields(message)], None)

    def test_one_piece_is_never_larger_than_promised(self) -> None:
        """`split` keeps PIECE_BYTES, so a small message waits for no more than one piece."""
        head, *pieces = framing.split(encoded(a_message(bytes(3 * MIB + 5), bytes(MIB))))

        assert sum(map(len, head)) < 100
        assert [sum(map(len, piece)) - PREFIX.size for piece in pieces] == [MIB, MIB, MIB, MIB, 5]

    def test_what_was_received_can_be_written_to(self) -> None:
        """Every buffer, the empty one too, is memory of the reader's own: arrays over it are writable."""
        for message in (a_message(b"small", b"", bytes(2 * MIB), b""), a_message(b"", b""), a_message(b"plain")):
            for data in (on_wire(message), b"".join(in_pieces(message, MIB))):
                (received,) = FrameDecoder().feed(data)
                assert received.buffers
                assert not any(memoryview(buffer).readonly for buffer in received.buffers)

    @pytest.mark.parametrize("buffers", [(b"first", b"buffer"), (b"plain",)], ids=len)
    def test_a_message_lives_on_when_the_decoder_reads_the_next_one(self, buffers: tuple[bytes, ...]) -> None:
        """Small messages are copied out of the scratch space, which the next read overwrites."""
        decoder = FrameDecoder()
        (first,) = decoder.feed(on_wire(a_message(*buffers)))
        decoder.feed(on_wire(a_message(*[buffer.upper() for buffer in buffers])))

        assert fields(first) == fields(a_message(*buffers))

    def test_an_empty_message_gives_up_on_the_one_in_pieces_too(self) -> None:
        """A START is a START, although the message is complete with it."""
        start, piece, *_ = in_pieces(a_message(b"never completed"), 5)
        (empty,) = in_pieces(a_message(b"", b""), 5)
        assert fed(iter([start + piece + empty])) == ([fields(a_message(b"", b""))], None)

    def test_an_unknown_extension_and_unknown_flags_are_skipped(self) -> None:
        """A later version may add to the head; this one goes on reading."""
        head = HEAD.pack(7, 0, 0, 1, 0xFF, 3, 5, 1) + b"sig" + b"later" + (4).to_bytes(8, "little")
        data = PREFIX.pack(MAGIC, VERSION, MESSAGE, 0, len(head) + 4) + head + b"body"

        (message,) = FrameDecoder().feed(data)
        assert (message.sequence, message.signal, message.buffers) == (7, "sig", [b"body"])


class TestPlainMessages:
    """Messages of one buffer and no signal have a short way through the decoder; nothing else about them is special."""

    @given(st.lists(plain_messages, min_size=1, max_size=5), sizes_of_chunks)
    @settings(max_examples=200)
    def test_the_short_way_gives_what_the_long_one_gives(self, messages: list[Message], sizes: list[int]) -> None:
        """The flags mean nothing yet, so messages that have some are equal; but they go the long way."""
        data = b"".join(map(on_wire, messages))
        long_way = b"".join(with_flags(on_wire(message)) for message in messages)
        assert fed(iter([data])) == (list(map(fields, messages)), None)
        assert fed(iter([long_way])) == fed(chunks(data, sizes)) == read(data, sizes) == fed(iter([data]))

    @given(plain_messages)
    def test_the_short_way_makes_what_the_long_one_makes(self, message: Message) -> None:
        """In one piece; and `decode` takes it as it takes the buffers of the long way."""
        assert message.buffers is not None
        plain = framing.encode_plain(
            message.buffers[0], message.codec, message.sequence, message.after, message.sent_ns, message.rank
        )
        assert plain == on_wire(message)
        assert fields(framing.decode([plain])) == fields(message)

    @given(st.lists(plain_messages, max_size=3), plain_messages, st.sampled_from(sorted(SPOILT)))
    @settings(max_examples=200)
    def test_good_ones_come_before_a_spoilt_one(self, before: list[Message], last: Message, field: str) -> None:
        """In one feed those before it are given, then the error of its field is raised, now and ever after."""
        decoder = FrameDecoder()
        data = b"".join(map(on_wire, before)) + SPOILT[field](on_wire(last))
        if before:
            assert list(map(fields, decoder.feed(data))) == list(map(fields, before))
        for call in (lambda: decoder.feed(data), decoder.get_buffer, decoder.finish):
            with pytest.raises(ProtocolError, match=ERRORS[field]):
                call()

    @given(st.lists(plain_messages, max_size=3), plain_messages, st.integers(1, 100))
    def test_good_ones_come_before_one_that_is_too_large(
        self, before: list[Message], last: Message, beyond: int
    ) -> None:
        """In one feed those of the limit are given, then the one beyond it is refused."""
        limit = max((message.nbytes for message in before), default=0)
        last.buffers = [bytes(limit + beyond)]
        decoder = FrameDecoder(max_message=limit)
        data = b"".join(map(on_wire, [*before, last]))
        if before:
            assert list(map(fields, decoder.feed(data))) == list(map(fields, before))
        with pytest.raises(ProtocolError, match=f"a message has {limit + beyond} bytes; the limit is {limit}"):
            decoder.feed(data)

    @given(st.lists(plain_messages | messages_of_any_kind, min_size=1, max_size=6), st.data())
    @settings(max_examples=200)
    def test_good_ones_come_before_one_that_is_not_whole(self, messages: list[Message], data: st.DataObject) -> None:
        """In one feed the whole ones are given; the rest of the last one completes it."""
        *before, last = map(on_wire, messages)
        cut = data.draw(st.integers(0, len(last) - 1))
        decoder = FrameDecoder()
        given_at_once = decoder.feed(b"".join(before) + last[:cut])
        assert list(map(fields, given_at_once)) == list(map(fields, messages[:-1]))
        assert list(map(fields, decoder.feed(last[cut:]))) == [fields(messages[-1])]
        decoder.finish()

    @given(st.lists(plain_messages | messages_of_any_kind, min_size=2, max_size=8))
    @settings(max_examples=200)
    def test_they_keep_their_order_among_others(self, messages: list[Message]) -> None:
        """The short way and the long one take turns as the messages do."""
        assert fed(iter([b"".join(map(on_wire, messages))])) == (list(map(fields, messages)), None)

    # Around what is left of the scratch space, and the size from which a buffer is mapped.
    @pytest.mark.parametrize("size", [65_000, 65_423, 65_424, 65_425, 65_480, 65_536, MIB - 1, MIB])
    def test_every_size_between_others(self, size: int) -> None:
        """One that the scratch space does not hold whole is filled in place; those around it are unharmed."""
        body = (bytes(range(256)) * (size // 256 + 1))[:size]
        messages = [a_message(b"before"), a_message(body, sequence=2), a_message(b"behind", sequence=3)]
        assert fed(iter([b"".join(map(on_wire, messages))])) == (list(map(fields, messages)), None)

    def test_between_the_pieces_of_a_large_one(self) -> None:
        """The bytes of a piece are never taken for a message, although they are those of one."""
        inner = a_message(b"inner", sequence=2)
        large = a_message(on_wire(a_message(b"no message")) * 3)
        start, *pieces = in_pieces(large, len(on_wire(a_message(b"no message"))))
        data = start + on_wire(inner).join(pieces) + on_wire(inner)
        expected = [fields(inner), fields(inner), fields(large), fields(inner)]
        assert fed(iter([data])) == (expected, None)


class TestJoined:
    """`decode_joined`, for transports that keep small messages apart, as one piece of bytes."""

    @given(plain_messages | messages_of_any_kind)
    @settings(max_examples=200)
    def test_it_undoes_encode(self, message: Message) -> None:
        """Any signal, buffers and numbers round trip."""
        assert fields(framing.decode_joined(on_wire(message))) == fields(message)

    @given(plain_messages | messages_of_any_kind)
    def test_a_message_that_is_cut_off(self, message: Message) -> None:
        """Cut after any byte of its head, or a byte short, it is a ProtocolError."""
        data = on_wire(message)
        for cut in {*range(min(len(data), 100)), len(data) - 1}:
            with pytest.raises(ProtocolError):
                framing.decode_joined(data[:cut])

    @given(plain_messages | messages_of_any_kind, st.integers(0), st.integers(1, 255))
    @settings(max_examples=300)
    def test_a_byte_that_flips(self, message: Message, position: int, flip: int) -> None:
        """It brings a ProtocolError, or the message with another number or other contents; nothing else."""
        data = bytearray(on_wire(message))
        data[position % len(data)] ^= flip
        try:
            flipped = framing.decode_joined(bytes(data))
        except ProtocolError:
            return
        assert fields(flipped) != fields(message) or position % len(data) == FLAGS
        assert len(on_wire(flipped)) == len(data)

    @given(st.binary(max_size=200))
    def test_garbage(self, garbage: bytes) -> None:
        """What no tasklink wrote is a ProtocolError."""
        with pytest.raises(ProtocolError):
            framing.decode_joined(garbage)

    @given(plain_messages | messages_of_any_kind, plain_messages | messages_of_any_kind)
    def test_one_message_and_no_more(self, message: Message, further: Message) -> None:
        """Bytes behind it are refused, a second message too: it would be lost."""
        for behind in (b"\0", on_wire(further)):
            with pytest.raises(ProtocolError):
                framing.decode_joined(on_wire(message) + behind)

    @pytest.mark.parametrize("kind", [START, PIECE])
    def test_other_kinds(self, kind: int) -> None:
        """Only whole messages come so."""
        for message in (a_message(b"plain"), a_message(b"two", b"buffers", signal="signal")):
            data = bytearray(on_wire(message))
            data[3] = kind
            with pytest.raises(ProtocolError, match=f"of kind {kind}"):
                framing.decode_joined(bytes(data))


class TestEncode:
    """What `encode` refuses."""

    @pytest.mark.parametrize("signal", ["", "x" * 256, "é" * 128])
    def test_a_signal_that_does_not_fit_is_refused(self, signal: str) -> None:
        """A signal has 1 to 255 bytes of UTF-8; the error says how many this one has."""
        with pytest.raises(ValueError, match=f"1 to 255 bytes of UTF-8; .* has {len(signal.encode())}"):
            framing.encode([b""], 0, signal)

    @pytest.mark.parametrize("count", [0, framing.MAX_BUFFERS + 1])
    def test_a_number_of_buffers_that_the_peer_would_refuse_is_refused_here(self, count: int) -> None:
        """The writer hears of it, rather than the channel dying at the reader's."""
        with pytest.raises(ValueError, match=f"{count} buffers; allowed are 1 to {framing.MAX_BUFFERS}"):
            framing.encode([b""] * count, 0)

    def test_the_largest_number_of_buffers_passes(self) -> None:
        """MAX_BUFFERS is what is allowed, not one less."""
        message = a_message(*[b"x"] * framing.MAX_BUFFERS)
        assert fed(iter([on_wire(message)])) == ([fields(message)], None)


class TestEnds:
    """Bytes that end."""

    def test_the_bytes_end_anywhere(self) -> None:
        """Cut after any byte: earlier messages are given, and the end is in good order only between two messages."""
        first, large, inner, last = (
            a_message(b"first", signal="one"),
            a_message(b"body" * 10, b"", b"out of band" * 9, sequence=2),
            a_message(b"inner", sequence=3),
            a_message(b"", sequence=4),
        )
        start, *pieces = in_pieces(large, 50)
        data, ends = b"", []
        for part, completes in [
            (on_wire(first), first), (start, None), (pieces[0], None), (on_wire(inner), inner),
            *[(piece, None) for piece in pieces[1:-1]], (pieces[-1], large), (on_wire(last), last),
        ]:  # fmt: skip
            data += part
            if completes:
                ends.append((len(data), fields(completes)))
        good_ends = {0, ends[0][0], ends[2][0], ends[3][0]}

        for cut in range(len(data) + 1):
            messages, error = fed(iter([data[:cut]]))
            assert messages == [message for end, message in ends if end <= cut]
            assert (error is None) == (cut in good_ends)
            assert error is None or error.startswith("BrokenError: the peer ended")

    def test_the_error_says_how_much_came(self) -> None:
        """A truncated message is told with what came and what was to come."""
        decoder = FrameDecoder()
        decoder.feed(on_wire(a_message(bytes(1000)))[:-300])
        with pytest.raises(BrokenError, match="after 700 of the 1000 bytes of a message"):
            decoder.finish()


class TestWhatIsRefused:
    """Bytes that no tasklink wrote."""

    @given(st.binary(max_size=400), sizes_of_chunks)
    @settings(max_examples=300)
    def test_random_bytes(self, garbage: bytes, sizes: list[int]) -> None:
        """Garbage brings a ProtocolError or a BrokenError, never anything else, and the same however it is cut."""
        whole = fed(iter([garbage]))
        assert whole == fed(chunks(garbage, sizes)) == read(garbage, sizes)

    @given(conversations(), st.lists(st.tuples(st.integers(0), st.integers(0, 7)), max_size=4), sizes_of_chunks)
    @settings(max_examples=200)
    def test_bits_that_flip(self, conversation: Conversation, flips: list[tuple[int, int]], sizes: list[int]) -> None:
        """The same for messages of which some bits have flipped."""
        data = bytearray(conversation.data)
        for position, bit in flips:
            if data:
                data[position % len(data)] ^= 1 << bit
        whole = fed(iter([bytes(data)]))
        assert whole == fed(chunks(bytes(data), sizes)) == read(bytes(data), sizes)

    @given(
        st.lists(st.binary(max_size=200) | messages_of_any_kind.map(lambda message: encoded(message)[0]), max_size=4)
    )
    @settings(max_examples=300)
    def test_random_lists_of_buffers(self, buffers: list[bytes]) -> None:
        """`decode` raises nothing but ProtocolError."""
        try:
            framing.decode(buffers)
        except ProtocolError:
            pass

    @given(st.data())
    @settings(max_examples=200)
    def test_heads_of_random_numbers(self, data: st.DataObject) -> None:
        """Heads whose every field is random, with a bias to what is nearly right."""
        interesting = st.sampled_from([0, 1, 8, 31, 32, 40, 41, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
        number = interesting | u64
        wire = b""
        for kind in data.draw(st.lists(st.sampled_from([0, MESSAGE, START, PIECE, 4]), min_size=1, max_size=4)):
            count = data.draw(st.integers(0, 3) | st.integers(0, 2**32 - 1))
            wire += PREFIX.pack(MAGIC, VERSION, kind, 0, data.draw(number))
            wire += HEAD.pack(1, 0, 0, 1, 0, data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3)), count)
            wire += data.draw(st.binary(max_size=8)) + data.draw(number).to_bytes(8, "little")
        assert fed(iter([wire])) == fed(chunks(wire, [7]))

    @pytest.mark.parametrize(
        ("position", "value", "text"),
        [
            (0, b"X", r"begins with b'TL'; here is b'XL'"),
            (2, b"\x02", "wire version 2; this side speaks 1"),
            (3, b"\x09", "kind 9; known are 1, 2 and 3"),
            (8, b"\x00", "a frame says it has 0 bytes; its head alone has 40"),
            (8, b"\x27", "a frame says it has 39 bytes; its head alone has 40"),
            (8, b"\x30", "a frame says it has 48 bytes; its parts have 44"),
            (44, bytes(4), "0 buffers; allowed are 1 to"),
            (44, b"\xff\xff\xff\xff", "4294967295 buffers; allowed are 1 to"),
        ],
    )
    def test_the_error_names_the_field_and_its_value(self, position: int, value: bytes, text: str) -> None:
        """Each field that can be wrong has a text of its own."""
        data = bytearray(on_wire(a_message(b"body")))
        data[position : position + len(value)] = value
        with pytest.raises(ProtocolError, match=text):
            FrameDecoder().feed(data)
        start, *_ = in_pieces(a_message(b"large"), 1)
        _, error = read(start + data, [1000])
        assert error is not None
        assert re.search(text, error)

    def test_a_signal_that_is_not_utf8(self) -> None:
        """It is named as what it is."""
        data = on_wire(a_message(signal="abc")).replace(b"abc", b"\xff\xfe\xfd")
        with pytest.raises(ProtocolError, match="name of a signal is not UTF-8"):
            FrameDecoder().feed(data)

    @pytest.mark.parametrize("length", [5, 2**64 - 1])
    def test_a_piece_that_does_not_fit(self, length: int) -> None:
        """A piece has at most what is missing."""
        start, *_ = in_pieces(a_message(b"body"), 100)
        with pytest.raises(ProtocolError, match=f"a piece has {length} bytes where 4 are missing"):
            FrameDecoder().feed(start + PREFIX.pack(MAGIC, VERSION, PIECE, 0, length))

    def test_a_piece_of_nothing(self) -> None:
        """A piece needs a START before it."""
        with pytest.raises(ProtocolError, match="no message was started"):
            FrameDecoder().feed(PREFIX.pack(MAGIC, VERSION, PIECE, 0, 1) + b"x")

    def test_decode_of_nothing(self) -> None:
        """A transport that gives no buffer at all is told so."""
        with pytest.raises(ProtocolError, match="no head"):
            framing.decode([])

    @pytest.mark.parametrize("garbage_after", [0, 1000, 300_000])
    def test_what_came_before_garbage_is_given_first(self, garbage_after: int) -> None:
        """Good messages in the same chunk are given; the error comes with the next call, and stays."""
        good = a_message(bytes(garbage_after))
        decoder = FrameDecoder()

        assert [fields(message) for message in decoder.feed(on_wire(good) + b"garbage" * 10)] == [fields(good)]
        for call in (decoder.get_buffer, decoder.finish, lambda: decoder.feed(on_wire(good)), decoder.get_buffer):
            with pytest.raises(ProtocolError, match="begins with"):
                call()

    def test_a_decoder_that_has_raised_goes_on_raising(self) -> None:
        """Where the next frame begins is not known any more, so nothing is ever given again."""
        decoder = FrameDecoder()
        for _ in range(2):
            with pytest.raises(ProtocolError, match="begins with"):
                decoder.feed(b"garbage" * 10)
        with pytest.raises(ProtocolError):
            decoder.finish()


class TestLimits:
    """What a peer can cost."""

    @pytest.mark.parametrize("apart", [(40,), ()], ids=["two buffers", "plain"])
    @pytest.mark.parametrize("whole", [True, False], ids=["whole", "in pieces"])
    def test_a_message_of_the_limit_passes_and_one_byte_more_does_not(
        self, whole: bool, apart: tuple[int, ...]
    ) -> None:
        """`max_message` counts the payload over all buffers, and refuses it when its head has come."""
        head_bytes = PREFIX.size + HEAD.size + 8 * (1 + len(apart))

        def data(size: int) -> bytes:
            message = a_message(bytes(size - sum(apart)), *map(bytes, apart))
            return on_wire(message) if whole else b"".join(in_pieces(message, 30))

        messages, error = fed(iter([data(100)]), max_message=100)
        assert (len(messages), error) == (1, None)
        with pytest.raises(ProtocolError, match="a message has 101 bytes; the limit is 100"):
            FrameDecoder(max_message=100).feed(data(101)[:head_bytes])

    def test_claimed_lengths_reserve_nothing(self) -> None:
        """Heads that claim up to 2^64 bytes, and full tables of them, cost less than 32 MiB of memory and addresses."""
        grown = measured(CLAIMS)
        assert grown["address space"] <= 32 << 10
        assert grown["memory"] <= 32 << 10

    def test_memory_follows_the_bytes_that_came(self) -> None:
        """64 MiB of a message that claims 2^40 bytes cost 64 MiB of memory, and at most twice of address space."""
        grown = measured(PART_OF_A_CLAIM)
        assert 64 << 10 <= grown["memory"] <= (64 + 16) << 10
        assert grown["address space"] <= (128 + 16) << 10

    def test_memory_that_the_system_refuses_breaks_the_channel_by_name(self) -> None:
        """A message that really is too large for the machine raises BrokenError, not an OSError, now and ever after."""
        first, again = run(NO_MEMORY).splitlines()
        assert first.startswith(f"there is no memory for the {2**40} bytes of a buffer")
        assert again == first


MEASURED = """
import json, mmap, resource
from tasklink.errors import BrokenError, ProtocolError
from tasklink.framing import HEAD, MAGIC, MAX_BUFFERS, MESSAGE, PIECE, PREFIX, START, VERSION, FrameDecoder

def status():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return {name: int(lines[name].split()[0]) for name in ("VmPeak", "VmSize", "VmHWM", "VmRSS")}

def grown():
    after = status()
    print(json.dumps({"address space": after["VmPeak"] - before["VmSize"], "memory": after["VmHWM"] - before["VmRSS"]}))

def head(kind, *lengths, count=1):
    table = b"".join(length.to_bytes(8, "little") for length in lengths) * count
    rest = HEAD.pack(1, 0, 0, 1, 0, 0, 0, len(lengths) * count) + table
    length = len(rest) + (sum(lengths) * count if kind == MESSAGE else 0)
    return PREFIX.pack(MAGIC, VERSION, kind, 0, min(length, 2**64 - 1)) + rest

def feed(decoder, data):
    try:
        decoder.feed(data)
    except (ProtocolError, BrokenError):
        pass

block = bytes(1 << 20)
before = status()
"""
CLAIMS = """
for power in range(40, 65):
    for length in (2**power - 1, 2**power - 100):
        for kind in (MESSAGE, START):
            feed(FrameDecoder(), head(kind, length) + bytes(1000))
            feed(FrameDecoder(), head(kind, 100, length, length) + bytes(1000))
            feed(FrameDecoder(max_message=2**30), head(kind, length) + bytes(1000))
            feed(FrameDecoder(), head(kind, length, count=MAX_BUFFERS) + bytes(1000))
            feed(FrameDecoder(), head(kind, 2**40, count=MAX_BUFFERS) + bytes(1000))
            feed(FrameDecoder(), head(kind, 0, count=MAX_BUFFERS))
# A message in pieces and a whole one between them, both claiming.
decoder = FrameDecoder()
feed(decoder, head(START, 2**62) + PREFIX.pack(MAGIC, VERSION, PIECE, 0, 1) + b"x" + head(MESSAGE, 2**61) + b"x")
assert decoder.get_buffer()
grown()
"""
PART_OF_A_CLAIM = """
decoder = FrameDecoder()
decoder.feed(head(MESSAGE, 2**40))
for _ in range(64):
    decoder.feed(block)
grown()
"""
NO_MEMORY = """
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (before["VmPeak"] * 1024 + (40 << 20), unlimited[1]))
decoder = FrameDecoder()
decoder.feed(head(MESSAGE, 2**40))
for call in (lambda: [decoder.feed(block) for _ in range(200)], decoder.get_buffer):
    try:
        call()
    except BrokenError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, unlimited)
"""


def run(script: str) -> str:
    """Run a script in an interpreter of its own, and give what it prints."""
    return subprocess.run(
        [sys.executable, "-c", MEASURED + script], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def measured(script: str) -> dict[str, int]:
    """Run a script that prints by how many KiB its memory grew."""
    grown: dict[str, int] = json.loads(run(script))
    return grown


class TestTheBuffer:
    """The memory that a transport reads into."""

    def test_asking_twice_gives_the_same_memory(self) -> None:
        """A caller that had nothing to read asks again; whoever still holds the first view hinders nothing."""
        decoder = FrameDecoder()
        held = []
        data = memoryview(on_wire(a_message(bytes(20 * MIB))))
        messages: list[Message] = []
        while data:
            held.append(decoder.get_buffer())
            buffer = decoder.get_buffer()
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            data = data[count:]
            messages += decoder.received(count)
        assert fields(messages[0]) == fields(a_message(bytes(20 * MIB)))

    def test_the_bytes_of_a_piece_are_read_to_where_they_belong(self) -> None:
        """Between two pieces only a prefix is asked for: what follows it needs no copy from the scratch space."""
        start, *pieces = in_pieces(a_message(bytes(3 * MIB)), MIB)
        decoder = FrameDecoder()
        decoder.feed(start)
        for piece in pieces:
            assert len(decoder.get_buffer()) == PREFIX.size
            decoder.feed(piece[: PREFIX.size])
            assert len(decoder.get_buffer()) == MIB
            messages = decoder.feed(piece[PREFIX.size :])
        assert len(messages) == 1

    def test_a_table_larger_than_the_scratch_space_arrives(self) -> None:
        """The scratch space grows for a head that does not fit, although views on it were given away."""
        message = a_message(*[b"x"] * 20_000)
        data = on_wire(message)
        decoder = FrameDecoder()
        held, messages, begin = [], [], 0
        while begin < len(data):
            held.append(decoder.get_buffer())
            buffer = decoder.get_buffer()
            count = min(len(buffer), len(data) - begin)
            buffer[:count] = data[begin : begin + count]
            begin += count
            messages += decoder.received(count)
        assert [fields(message) for message in messages] == [fields(message)]

    def test_every_error_is_one_of_tasklink(self) -> None:
        """Both kinds that a decoder raises share the root that a caller may catch."""
        assert issubclass(ProtocolError, TasklinkError)
        assert issubclass(BrokenError, TasklinkError)
