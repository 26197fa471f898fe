"""The reader's account of numbers, against sets that say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import codec, ledger
from tasklink.ledger import Ledger, numbers_in, spell
from tasklink.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBERS = st.integers(1, 20)
RANGES = st.builds(lambda first, count: range(first, first + count), NUMBERS, st.integers(1, 5))


def numbered(number: int, after: int = 0) -> Message:
    """A message as it is on its way."""
    message = Message.encoded(*codec.encode(number))
    message.sequence, message.after = number, after
    return message


def all_in(ranges: Iterable[range]) -> set[int]:
    """Every number."""
    return {number for one in ranges for number in one}


@given(st.lists(st.one_of(NUMBERS, st.lists(RANGES, max_size=3)), max_size=20))
def test_what_has_come_and_what_will_not(steps: list[int | list[range]]) -> None:
    """Numbers come, some twice; others are said to be lost, some of which come all the same."""
    account = Ledger()
    came: set[int] = set()
    lost: set[int] = set()
    for step in steps:
        if isinstance(step, int):
            assert account.enter(numbered(step)) == (step not in came)
            came.add(step)
            lost.discard(step)
        else:
            account.give_up(step)
            lost |= all_in(step) - came
        known = came | lost
        assert account.complete == next(number for number in range(1, 30) if number not in known) - 1
        assert all_in(account.missing()) == set(range(1, max(known, default=0) + 1)) - came
        highest, gaps = account.came(100)
        assert all_in(gaps) == set(range(1, highest + 1)) - known


def test_what_waits_for_a_message_that_is_lost() -> None:
    """It is given when that is said, in order; what waits for another one is not."""
    account = Ledger()
    for number, after in ((3, 2), (5, 3), (9, 8)):
        message = numbered(number, after)
        assert account.enter(message)
        assert account.hold(message) == []
    assert [message.sequence for message in account.give_up([range(1, 3)])] == [3, 5]
    assert account.holds
    assert account.missing() == [range(1, 3), range(4, 5), range(6, 9)]


def test_nothing_is_missing_after_the_last_message() -> None:
    """What the Links say to each other after it need not come."""
    account = Ledger()
    for number in (1, 3, 6):
        account.enter(numbered(number))
    account.last = 5
    assert account.missing() == [range(2, 3), range(4, 5)]


def test_more_losses_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that says number after number is lost does not fill the memory."""
    monkeypatch.setattr(ledger, "MOST_GAPS", 3)
    account = Ledger()
    account.give_up(range(number, number + 1) for number in range(2, 100, 2))
    assert len(account.missing()) < 10


@given(st.lists(RANGES, max_size=10))
def test_numbers_as_text(ranges: list[range]) -> None:
    """They are read as they were written, and so many at most."""
    assert numbers_in(spell(ranges), 100) == ranges
    assert numbers_in(spell(ranges), 2) == ranges[:2]


@pytest.mark.parametrize("text", ["x", "1", "1-", "-", "1-x", "-5-3", "1-2-3", "9" * 21 + "-1", "²-3"])
def test_texts_that_are_no_numbers(text: str) -> None:
    """They are refused, before a long one costs time."""
    with pytest.raises(ValueError, match="is not the number of a message"):
        numbers_in(text, 10)
