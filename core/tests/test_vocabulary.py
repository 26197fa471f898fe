"""tasklink's own words: the names, the records of text, and which kind of message each is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import codec, vocabulary
from tasklink.message import Message

WORDS = {
    name: value
    for name, value in vars(vocabulary).items()
    if name.isupper() and isinstance(value, str) and name != "PREFIX"
}


class TestNames:
    """The reserved signals."""

    def test_all_begin_with_the_prefix(self) -> None:
        """Whoever sees the prefix knows that a signal is not the user's; and no two have one name."""
        assert len(WORDS) == 20
        assert all(value == f"{vocabulary.PREFIX}{name.lower()}" for name, value in WORDS.items())

    @pytest.mark.parametrize(
        ("signal", "kind"),
        [
            (None, "report"),
            ("step", "signal"),
            ("tasklink", "signal"),
            ("Tasklink.log", "signal"),
            (vocabulary.LOG, "log"),
            (vocabulary.PROGRESS, "progress"),
            (vocabulary.RESULT, "result"),
            (vocabulary.FAILURE, "result"),
            (vocabulary.CANCELLED, "result"),
            (vocabulary.START, "control"),
            (vocabulary.CANCEL, "control"),
            (vocabulary.END, "control"),
            ("tasklink.of-a-later-version", "control"),
        ],
    )
    def test_kinds(self, signal: str | None, kind: str) -> None:
        """Each message has one kind, and the config can name it."""
        assert vocabulary.kind(signal) == kind
        assert kind in vocabulary.KINDS

    def test_every_kind_has_a_message(self) -> None:
        """A route can be given for nothing that does not exist."""
        signals = [None, "step", *WORDS.values()]
        assert {vocabulary.kind(signal) for signal in signals} == set(vocabulary.KINDS)


class TestRecords:
    """Texts as raw buffers."""

    @given(st.lists(st.text(), min_size=1, max_size=5))
    def test_texts_arrive(self, texts: list[str]) -> None:
        """Every text arrives as it was, and needs no pickle."""
        message = vocabulary.record(vocabulary.LOG, *texts)
        assert message.buffers is not None
        assert message.codec == codec.RAW
        assert vocabulary.texts(message) == texts

    def test_no_texts(self) -> None:
        """A message has at least one buffer, so a record of nothing has an empty one."""
        message = vocabulary.record(vocabulary.PAUSE)
        assert message.buffers == [b""]

    @given(st.text(st.characters(categories=["Cs", "L"]), max_size=20))
    def test_lone_surrogates(self, text: str) -> None:
        """What is not Unicode is on the wire as UTF-8 that any peer reads, and can be printed anywhere on arrival."""
        message = vocabulary.record(vocabulary.LOG, text)
        assert message.buffers is not None
        (arrived,) = vocabulary.texts(message)
        assert bytes(message.buffers[0]).decode() == arrived
        assert arrived == text.encode(errors="backslashreplace").decode()

    @given(st.lists(st.binary(), min_size=1, max_size=5), st.none() | st.integers(0, 5))
    def test_records_of_others(self, buffers: list[bytes], count: int | None) -> None:
        """Whatever bytes, and however many, come from another peer: there are as many texts as are asked for."""
        message = Message.encoded(codec.RAW, [*buffers], vocabulary.LOG)
        texts = vocabulary.texts(message, count)
        assert len(texts) == (len(buffers) if count is None else count)
        for buffer, text in zip(buffers, texts, strict=False):
            assert text == buffer.decode("utf-8", "backslashreplace")
        assert all(text == "" for text in texts[len(buffers) :])
