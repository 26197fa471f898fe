"""The wire is what core/docs/wire.md says: its golden vectors hold in both directions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tasklink import codec, framing, vocabulary
from tasklink.errors import ProtocolError
from tasklink.framing import FrameDecoder
from tasklink.message import Message

DOCUMENT = (Path(__file__).parent.parent / "docs" / "wire.md").read_text(encoding="utf-8")
VECTOR = re.compile(
    r"^### (?P<name>[^\n]+)\n(?:(?!^###).)*?```hex\n(?P<wire>.*?)```\n\n```json\n(?P<means>.*?)```",
    re.MULTILINE | re.DOTALL,
)


def _vectors() -> dict[str, tuple[bytes, dict[str, Any]]]:
    vectors = {}
    for found in VECTOR.finditer(DOCUMENT):
        wire = re.sub(r"#.*", "", found["wire"])
        vectors[found["name"]] = bytes.fromhex(wire), json.loads(found["means"])
    return vectors


VECTORS = _vectors()
GOOD = {name: vector for name, vector in VECTORS.items() if "messages" in vector[1]}
REFUSED = {name: vector for name, vector in VECTORS.items() if "error" in vector[1]}
# Those that this version writes exactly so, as one frame.
WHOLE = ["Bytes", "JSON with a signal", "A pickle and a buffer out of band", "A record"]


def as_message(described: dict[str, Any]) -> Message:
    """The message that the document describes."""
    buffers: list[Any] = [bytes.fromhex(buffer) for buffer in described["buffers"]]
    message = Message.encoded(described["codec"], buffers, described["signal"])
    message.rank, message.sequence, message.after = described["rank"], described["sequence"], described["after"]
    message.sent_ns = described["sent_at"]
    return message


def described(message: Message) -> dict[str, Any]:
    """A message, as the document describes it."""
    assert message.buffers is not None
    return {
        "rank": message.rank,
        "sequence": message.sequence,
        "after": message.after,
        "sent_at": message.sent_ns,
        "codec": message.codec,
        "signal": message.signal,
        "buffers": [bytes(buffer).hex() for buffer in message.buffers],
    }


def encoded(message: Message) -> list[Any]:
    """A message as the buffers of one MESSAGE."""
    number, buffers = message.encode()
    return framing.encode(
        buffers, number, message.signal, message.sequence, message.after, message.sent_ns, message.rank
    )


def test_the_document_has_the_vectors() -> None:
    """None is skipped because its form is not what this test looks for."""
    assert DOCUMENT.count("```hex") == len(VECTORS) == len(GOOD) + len(REFUSED) == 13
    assert set(WHOLE) < set(GOOD)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_what_stands_there_is_read_so(name: str, chunk: int) -> None:
    """The bytes give the messages, in that order, and nothing is left over."""
    wire, means = GOOD[name]
    decoder = FrameDecoder()
    messages = []
    for begin in range(0, len(wire), chunk):
        messages += decoder.feed(wire[begin : begin + chunk])
    decoder.finish()
    assert [described(message) for message in messages] == means["messages"]


@pytest.mark.parametrize("name", WHOLE)
def test_what_stands_there_is_written_so(name: str) -> None:
    """The messages give the bytes, also for transports that keep buffers apart."""
    wire, means = GOOD[name]
    (message,) = means["messages"]
    buffers = encoded(as_message(message))
    assert b"".join(buffers) == wire
    assert described(framing.decode(buffers)) == described(framing.decode_joined(wire)) == message


def test_pieces_are_written_so() -> None:
    """START and PIECE frames, with a MESSAGE between them."""
    wire, means = GOOD["In pieces, and overtaken"]
    cancel, large = map(as_message, means["messages"])
    start, first, last = (b"".join(part) for part in framing.split(encoded(large), 4))
    assert start + first + b"".join(encoded(cancel)) + last == wire


def test_giving_up_is_written_so() -> None:
    """A PIECE of no bytes, and the void that fills the number."""
    wire, means = GOOD["Given up"]
    (void,) = map(as_message, means["messages"])
    (same,) = means["messages"]
    large = as_message({**same, "after": 6, "codec": codec.RAW, "signal": None, "buffers": [b"abcdefg".hex()]})
    start, first, _ = (b"".join(part) for part in framing.split(encoded(large), 4))
    assert start + first + framing.GIVEN_UP + b"".join(encoded(void)) == wire


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """The bytes raise a ProtocolError of that text."""
    wire, means = REFUSED[name]
    with pytest.raises(ProtocolError) as caught:
        FrameDecoder().feed(wire)
    assert str(caught.value) == means["error"]


def test_the_contents_of_the_vectors() -> None:
    """Codecs and records do in both directions what the document says."""
    _, means = GOOD["JSON with a signal"]
    message = as_message(means["messages"][0])
    assert codec.encode(means["contents"], codec.JSON) == message.encode()
    assert message.contents == means["contents"]

    _, means = GOOD["A record"]
    message = as_message(means["messages"][0])
    assert message.signal is not None
    assert vocabulary.record(message.signal, *means["texts"]).encode() == message.encode()
    assert vocabulary.texts(message) == means["texts"]

    message = as_message(GOOD["A pickle and a buffer out of band"][1]["messages"][0])
    assert message.buffers is not None
    assert codec.decode(message.codec, [bytearray(buffer) for buffer in message.buffers]) == bytes(range(8))


def test_the_document_names_every_reserved_signal_and_codec() -> None:
    """What is added to the vocabulary is added to the page."""
    reserved = {value for name, value in vars(vocabulary).items() if isinstance(value, str) and name.isupper()}
    reserved.discard(vocabulary.PREFIX)
    named = set(re.findall(r"`(tasklink\.[a-z]+)`", DOCUMENT))
    assert reserved <= named
    for number, name in codec.NAMES.items():
        assert f"| {number} | {name} |" in DOCUMENT


def test_the_document_states_the_limits_in_force() -> None:
    """Numbers that stand in the text are those of the code."""
    assert f"1 to {framing.MAX_BUFFERS}" in DOCUMENT
    assert f"1 to {framing.MAX_SIGNAL_BYTES}" in DOCUMENT
    assert framing.PIECE_BYTES == 1 << 20
    assert framing.PREFIX.size == 16
    assert framing.HEAD.size == 32
