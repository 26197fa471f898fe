"""What is said beside frames."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink import framing
from tasklink.errors import ProtocolError
from tasklink_zmq.control import HELLO, LAST_POSITION, PARTS, TAKEN, WELCOME, control, credential, read_control


@settings(deadline=None)
@given(st.integers(PARTS, WELCOME), st.integers(0, LAST_POSITION), st.integers(0, (1 << 32) - 1), st.binary())
def test_there_and_back(kind: int, position: int, count: int, rest: bytes) -> None:
    """What was said is heard, whatever follows; and it is less than any frame, so that nobody takes it for one."""
    part = control(kind, position, count)
    assert read_control(part + rest) == (kind, position, count)
    assert credential(part + rest) == rest
    assert part < b"T" < framing.MAGIC


@settings(deadline=None)
@given(st.binary())
def test_anything(part: bytes) -> None:
    """Whatever comes is a control part, or refused."""
    try:
        kind, _, _ = read_control(part)
    except ProtocolError:
        return
    assert PARTS <= kind <= WELCOME


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"\1",
        control(HELLO)[:-1],
        b"\0" + control(HELLO)[1:],
        b"\6\1" + control(HELLO)[2:],
        control(TAKEN, 1 << 63),
    ],
)
def test_what_is_refused(part: bytes) -> None:
    """Too short, of an unknown kind, of another version, or of a position that nobody gets to."""
    with pytest.raises(ProtocolError, match="control part"):
        read_control(part)
