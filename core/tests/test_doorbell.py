"""A descriptor that one thread makes readable to wake another one."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from tasklink.doorbell import Doorbell

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["eventfd", "pipe"])
def bell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorbell]:
    """A doorbell as this system makes it, and as one without eventfd does."""
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("this system has no eventfd")
    doorbell = Doorbell()
    yield doorbell
    doorbell.close()


def rings(bell: Doorbell, milliseconds: int = 0) -> bool:
    """Whether a poll says that it was rung."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    return bool(poll.poll(milliseconds))


def test_it_is_readable_from_ring_to_clear(bell: Doorbell) -> None:
    """However often it was rung."""
    assert not rings(bell)
    bell.clear()
    assert not rings(bell)
    for times in (1, 2, 1000):
        for _ in range(times):
            bell.ring()
        assert rings(bell)
        assert rings(bell)
        bell.clear()
        assert not rings(bell)


def test_it_never_fills_up(bell: Doorbell) -> None:
    """More rings than a pipe holds neither wait nor fail, and one `clear` takes all of them."""
    for _ in range(20_000):
        bell.ring()
    bell.clear()
    assert not rings(bell)


def test_it_wakes_a_thread(bell: Doorbell) -> None:
    """What it is for."""
    woken = threading.Event()
    thread = threading.Thread(target=lambda: rings(bell, 20_000) and woken.set())
    thread.start()
    bell.ring()
    thread.join(20)
    assert woken.is_set()


def test_its_descriptors_are_not_inherited(bell: Doorbell) -> None:
    """The programs that a Task starts see nothing of it."""
    assert not os.get_inheritable(bell.fileno())
    assert not os.get_inheritable(bell._writer)
