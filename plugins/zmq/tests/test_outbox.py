"""The account of what was sent, and the units that stand for it; for any order of events and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.errors import ProtocolError
from tasklink_zmq import unit as units
from tasklink_zmq.outbox import ASK_BYTES, ASK_UNITS, Outbox, Parcel
from tasklink_zmq.unit import HEADER, Unit, header


def parcel(size: int) -> Parcel:
    """A unit of so many bytes."""
    return Parcel(units.MESSAGE, 0, b"", (), size)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3 << 20)), max_size=60), st.integers(1 << 20, 8 << 20))
def test_the_account(events: list[tuple[bool, int]], high_water: int) -> None:
    """Whatever is sent and confirmed, the bytes under way stay below the mark, and each unit is confirmed once."""
    outbox = Outbox(high_water)
    waiting: list[Parcel] = []
    confirmed: list[int] = []
    for is_sent, amount in events:
        if is_sent:
            under_way = sum(parcel.size for parcel in waiting)
            assert outbox.has_room(amount) == (not waiting or under_way + amount <= high_water)
            if outbox.has_room(amount):
                waiting.append(parcel(amount))
                outbox.add(waiting[-1])
        else:
            taken = min(outbox.number, len(confirmed) + amount % 5)
            news = [one.number for one in outbox.confirm(taken)]
            assert news == list(range(len(confirmed) + 1, taken + 1))
            confirmed += news
            waiting = waiting[len(news) :]
        assert outbox.unconfirmed == len(waiting)
        assert outbox.after(len(confirmed)) == waiting


def test_confirmations_are_asked_for_seldom() -> None:
    """After so many units, or bytes, and not before."""
    outbox = Outbox(64 << 20)
    asked = [number for number in range(1, 3 * ASK_UNITS + 1) if outbox.add(parcel(1))]
    assert asked == [ASK_UNITS, 2 * ASK_UNITS, 3 * ASK_UNITS]
    assert outbox.add(parcel(ASK_BYTES))
    assert not outbox.add(parcel(ASK_BYTES // 2))


def test_a_confirmation_of_what_was_never_sent() -> None:
    """It is refused: the peer does not keep to the protocol."""
    with pytest.raises(ValueError, match="unit 1 is confirmed, and 0 were sent"):
        Outbox(1 << 20).confirm(1)


@given(st.binary(max_size=80), st.lists(st.binary(max_size=3), max_size=3))
def test_any_bytes_are_a_unit_or_refused(first: bytes, parts: list[bytes]) -> None:
    """Nothing else is raised."""
    try:
        unit = Unit(first, parts)
    except ProtocolError:
        return
    assert first[HEADER.size :] == unit.rest


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=3), st.integers(0, 4))
def test_what_was_broken_off_is_seen(parts: list[bytes], sent: int) -> None:
    """However many parts of a unit had gone out when its sender was interrupted."""
    whole = [header(units.MESSAGE, 1, 0, count=len(parts)), *parts]
    assert not Unit(whole[0], whole[1:]).broken_off
    begun = [*whole[: max(1, min(sent, len(whole)))], b""]
    assert Unit(begun[0], begun[1:]).broken_off
