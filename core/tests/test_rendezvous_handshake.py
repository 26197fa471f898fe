"""The proof of the key: what convinces the other side, and that nothing else does."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.errors import AuthenticationError
from tasklink.rendezvous.handshake import (
    ANSWER_BYTES,
    BANNER,
    CHALLENGE_BYTES,
    CONFIRMATION_BYTES,
    ExecutorSide,
    TaskSide,
)

KEY = os.urandom(32)
SESSION = os.urandom(16)


def executor(key: bytes = KEY, session: bytes = SESSION) -> ExecutorSide:
    """A fresh Executor's side."""
    return ExecutorSide(key, session)


def task(key: bytes = KEY, session: bytes = SESSION) -> TaskSide:
    """A fresh Task's side."""
    return TaskSide(key, session)


class TestAgreement:
    """Two sides with the same key and session."""

    def test_both_are_convinced(self) -> None:
        """Each side accepts the other's proof, and the messages have the lengths that are told."""
        ours, theirs = executor(), task()
        answer = theirs.answer(ours.challenge)
        confirmation = ours.receive(answer)
        assert confirmation is not None
        theirs.check(confirmation)
        assert (len(ours.challenge), len(answer), len(confirmation)) == (
            CHALLENGE_BYTES,
            ANSWER_BYTES,
            CONFIRMATION_BYTES,
        )

    @given(st.lists(st.integers(1, ANSWER_BYTES), max_size=8))
    def test_the_answer_may_come_in_any_portions(self, sizes: list[int]) -> None:
        """Wherever the answer is cut, it convinces with its last byte, and not before."""
        ours, theirs = executor(), task()
        answer = theirs.answer(ours.challenge)
        for size in sizes:
            part, answer = answer[:size], answer[size:]
            if not answer:
                answer = part
                break
            assert ours.receive(part) is None
        assert ours.wanted == len(answer)
        confirmation = ours.receive(answer)
        assert confirmation is not None
        theirs.check(confirmation)

    def test_nothing_repeats(self) -> None:
        """Two handshakes with the same key have no bytes in common but the banner."""
        first, second = executor(), executor()
        one, two = task().answer(first.challenge), task().answer(second.challenge)
        assert first.challenge[: len(BANNER)] == BANNER
        assert first.challenge[len(BANNER) :] != second.challenge[len(BANNER) :]
        assert one[-32:] != two[-32:]


class TestRefusal:
    """Whoever lacks something is refused by the side that finds out first."""

    @pytest.mark.parametrize(
        "stranger", [task(key=os.urandom(32)), task(session=os.urandom(16)), task(key=b""), task(key=KEY[:31])]
    )
    def test_a_task_with_another_key_or_session(self, stranger: TaskSide) -> None:
        """The Executor refuses a proof by another key, or of another session."""
        ours = executor()
        with pytest.raises(AuthenticationError, match="could not prove"):
            ours.receive(stranger.answer(ours.challenge))

    def test_an_executor_with_another_key(self) -> None:
        """A Task does not believe who answers without the key."""
        theirs = task()
        theirs.answer(executor().challenge)
        with pytest.raises(AuthenticationError, match="could not prove"):
            theirs.check(os.urandom(32))

    def test_a_recorded_answer(self) -> None:
        """An answer that convinced once is worth nothing against another challenge."""
        first, second = executor(), executor()
        recorded = task().answer(first.challenge)
        assert first.receive(recorded) is not None
        with pytest.raises(AuthenticationError):
            second.receive(recorded)

    def test_a_recorded_confirmation(self) -> None:
        """A confirmation that convinced once does not convince another Task, nor the same one in another run."""
        ours, theirs = executor(), task()
        confirmation = ours.receive(theirs.answer(ours.challenge))
        assert confirmation is not None
        later = task()
        later.answer(ours.challenge)
        with pytest.raises(AuthenticationError):
            later.check(confirmation)

    def test_a_proof_sent_back_to_its_maker(self) -> None:
        """The Task's own proof is no proof of the Executor's."""
        theirs = task()
        answer = theirs.answer(executor().challenge)
        with pytest.raises(AuthenticationError):
            theirs.check(answer[-32:])

    def test_the_nonce_of_the_other_side_sent_back(self) -> None:
        """Who has no key gains nothing by taking over the nonce that it was given."""
        ours = executor()
        nonce = ours.challenge[len(BANNER) :]
        with pytest.raises(AuthenticationError):
            ours.receive(BANNER + nonce + nonce)

    @pytest.mark.parametrize("banner", [b"tasklink-meet 0\n", b"tasklink-meet 2\n", b"GET / HTTP/1.1\r\n"])
    def test_another_version(self, banner: bytes) -> None:
        """There is no agreeing on an older or weaker version, on either side."""
        ours, theirs = executor(), task()
        answer = theirs.answer(ours.challenge)
        with pytest.raises(AuthenticationError, match="version 1"):
            ours.receive(banner + answer[len(BANNER) :])
        with pytest.raises(AuthenticationError, match="version 1"):
            theirs.answer(banner + ours.challenge[len(BANNER) :])

    def test_a_stranger_is_refused_at_its_first_wrong_byte(self) -> None:
        """Whoever speaks something else is not waited for."""
        with pytest.raises(AuthenticationError):
            executor().receive(b"G")

    @given(st.binary(min_size=1, max_size=ANSWER_BYTES))
    def test_noise(self, data: bytes) -> None:
        """Whatever comes is refused or waited for, and never shown in the error."""
        ours = executor()
        for noise in (data, BANNER + data[: ANSWER_BYTES - len(BANNER)]):
            ours = executor()
            try:
                assert ours.receive(noise) is None
            except AuthenticationError as error:
                assert str(error) in {  # noqa: PT017 - either outcome is right
                    "it could not prove that it holds the key of this run",
                    "it does not speak version 1 of the handshake",
                }

    @given(st.integers(0, ANSWER_BYTES - 1), st.integers(0, 7))
    def test_one_bit_is_wrong(self, position: int, bit: int) -> None:
        """An answer with any bit changed is refused."""
        ours = executor()
        answer = bytearray(task().answer(ours.challenge))
        answer[position] ^= 1 << bit
        with pytest.raises(AuthenticationError):
            ours.receive(bytes(answer))


def test_the_key_is_not_shown() -> None:
    """Neither side shows the key in its repr."""
    assert repr(KEY)[2:10] not in repr(executor()) + repr(task())
    assert KEY.hex() not in repr(executor()) + repr(task())
