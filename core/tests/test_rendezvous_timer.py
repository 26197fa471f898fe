"""The timer: a descriptor that is readable when its time has come."""

from __future__ import annotations

import select
import time
from contextlib import closing

import pytest

from tasklink.rendezvous.timer import Timer


def waited(timer: Timer, seconds: float) -> float | None:
    """After how many seconds the timer was readable; None when it was not."""
    poll = select.poll()
    poll.register(timer, select.POLLIN)
    start = time.monotonic()
    return time.monotonic() - start if poll.poll(seconds * 1000) else None


def test_it_is_readable_at_its_time_and_stays_so() -> None:
    """A timer is not readable before it is set, nor before its time."""
    with closing(Timer()) as timer:
        assert waited(timer, 0) is None
        timer.set(0.1)
        after = waited(timer, 5)
        assert after is not None
        assert after >= 0.09
        assert waited(timer, 0) is not None


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9])
def test_a_time_that_is_past(seconds: float) -> None:
    """What was due before is due at once."""
    with closing(Timer()) as timer:
        timer.set(seconds)
        assert waited(timer, 5) is not None


def test_setting_it_again_forgets_that_it_was_due() -> None:
    """A timer that was due, and is set or cleared, waits again."""
    with closing(Timer()) as timer:
        timer.set(0)
        assert waited(timer, 5) is not None
        timer.set(60)
        assert waited(timer, 0) is None
        timer.set(0)
        assert waited(timer, 5) is not None
        timer.clear()
        assert waited(timer, 0) is None
