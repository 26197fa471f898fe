"""A message: any object with a signal, opaque until its contents are asked for."""

from __future__ import annotations

import sys
import threading
from typing import NoReturn

import numpy as np
import pytest

from tasklink import codec, vocabulary
from tasklink.errors import DecodeError
from tasklink.message import Message


class Explosive:
    """Harmless until it is unpickled, or shown."""

    def __reduce__(self) -> tuple[object, ...]:
        return sys.exit, ("decoded",)

    def __repr__(self) -> NoReturn:
        raise AssertionError("shown")


def arrived(contents: object, signal: str | None = None) -> Message:
    """A message that came with contents as bytes."""
    message = Message.encoded(*codec.encode(contents), signal)
    message.sequence, message.after = 7, 3
    return message


class TestMessage:
    """What a message holds."""

    def test_a_new_message(self) -> None:
        """It has contents and a signal; the rest is filled in on its way."""
        contents = object()
        message = Message(contents, "stop")
        assert message.contents is contents
        assert message.signal == "stop"
        assert (message.buffers, message.nbytes) == (None, 0)
        assert (message.sequence, message.after, message.sent_ns, message.rank) == (0, 0, 0, 0)
        assert not message.communicator

    def test_an_empty_message(self) -> None:
        """Both may be left out."""
        assert (Message().contents, Message().signal) == (None, None)

    def test_the_time_in_seconds(self) -> None:
        """It is kept in whole nanoseconds, and given in seconds too."""
        message = Message()
        assert message.sent_at == 0.0
        message.sent_ns = 1_704_067_200_500_000_000
        assert message.sent_at == 1_704_067_200.5

    def test_nbytes_counts_every_buffer(self) -> None:
        """A message that came as bytes says how large it is, until its contents are asked for."""
        message = arrived([np.zeros(1000), np.zeros(2000)])
        assert message.buffers is not None
        assert len(message.buffers) == 3
        assert message.nbytes == sum(len(buffer) for buffer in message.buffers) > 24_000
        assert message.contents
        assert message.nbytes == 0

    def test_contents_are_encoded_when_they_are_an_object(self) -> None:
        """With the codec that is preferred; the message stays as it is."""
        message = Message({"a": [1]})
        assert message.encode(codec.JSON) == (codec.JSON, [b'{"a":[1]}'])
        assert message.encode() == codec.encode({"a": [1]})
        assert message.buffers is None

    def test_bytes_that_came_are_passed_on_as_they_are(self) -> None:
        """Nothing is decoded for it, whatever is preferred."""
        message = arrived(Explosive())
        number, buffers = message.encode(codec.JSON)
        assert number == codec.PICKLE
        assert buffers is message.buffers

    def test_what_was_decoded_is_encoded_anew(self) -> None:
        """The bytes are gone by then."""
        message = arrived({"a": [1]})
        assert message.contents == {"a": [1]}
        assert message.encode(codec.JSON) == (codec.JSON, [b'{"a":[1]}'])

    def test_contents_that_are_withheld(self) -> None:
        """They are never decoded, and the bytes are kept."""
        message = arrived(Explosive(), "bang")
        message.codec += codec.WITHHELD
        for _ in range(2):
            with pytest.raises(DecodeError, match="data only") as caught:
                _ = message.contents
        assert caught.value.buffers is message.buffers

    def test_contents_are_decoded_once_and_kept(self) -> None:
        """Asking twice gives the same object, and the bytes are let go."""
        message = arrived(np.arange(10_000))
        assert message.buffers is not None
        first = message.contents
        assert message.contents is first
        assert message.buffers is None
        assert (message.sequence, message.after) == (7, 3)

    def test_what_cannot_be_decoded_stays_a_message(self) -> None:
        """The error comes each time the contents are asked for; signal, number and bytes are unharmed."""
        message = arrived(Explosive(), "bang")
        for _ in range(2):
            with pytest.raises(DecodeError, match="SystemExit") as caught:
                _ = message.contents
        assert message.buffers is not None
        assert caught.value.buffers is message.buffers
        assert (message.signal, message.sequence) == ("bang", 7)

    def test_showing_a_message_decodes_and_shows_nothing(self) -> None:
        """`repr` gives the number, the size and the signal; the contents stay shut."""
        assert repr(arrived(b"12345", "go")) == "<Message 7: 5 bytes, signal='go'>"
        assert repr(Message(Explosive())) == "<Message 0: contents>"
        assert "bytes" in repr(arrived(Explosive()))

    def test_there_is_no_room_for_misspelt_attributes(self) -> None:
        """A message has slots: a typing error is an error."""
        with pytest.raises(AttributeError):
            Message().signl = "stop"  # type: ignore[attr-defined]


class TestRecords:
    """tasklink's own messages: texts that are read without a pickle."""

    @pytest.mark.parametrize("texts", [(), ("",), ("one",), ("info", "root", "größer ☃"), ("", "", "")], ids=repr)
    def test_texts_arrive(self, texts: tuple[str, ...]) -> None:
        """A record carries texts in raw buffers; one of no text has one empty buffer."""
        message = vocabulary.record(vocabulary.LOG, *texts)
        assert message.signal == "tasklink.log"
        assert message.buffers is not None
        assert message.codec == codec.RAW
        assert vocabulary.texts(message) == list(texts or [""])

    def test_bytes_that_are_no_text_are_escaped(self) -> None:
        """A peer that does not keep to UTF-8 is still shown."""
        message = Message.encoded(codec.RAW, [b"caf\xe9"], vocabulary.LOG)
        assert vocabulary.texts(message) == ["caf\\xe9"]

    def test_lone_surrogates_are_escaped(self) -> None:
        """File names that are not UTF-8 hold them; a record takes any text, and is UTF-8 on the wire."""
        message = vocabulary.record(vocabulary.LOG, "a\udcffb")
        assert vocabulary.texts(message) == ["a\\udcffb"]

    @pytest.mark.parametrize("texts", [(), ("one",), ("one", "two"), ("one", "two", "three")], ids=len)
    def test_as_many_texts_as_the_reader_knows(self, texts: tuple[str, ...]) -> None:
        """What a later version adds is left out, what a careless one leaves out is empty."""
        message = vocabulary.record(vocabulary.LOG, *texts)
        assert vocabulary.texts(message, 2) == [*texts, "", ""][:2]

    def test_records_can_be_read_by_many_threads(self) -> None:
        """Reading a record changes nothing in it."""
        message = vocabulary.record(vocabulary.PROGRESS, "1", "2", "note")
        seen: list[list[str]] = []
        threads = [threading.Thread(target=lambda: seen.append(vocabulary.texts(message))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [["1", "2", "note"]] * 8
