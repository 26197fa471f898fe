"""Looking again before going to sleep: only where that pays."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tasklink import spin
from tasklink.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def alone_on_two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with one thread: the workers of a test run have more."""
    monkeypatch.setattr(spin, "other_threads", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def nothing_in(glances: list[float]) -> Callable[[], object]:
    """A glance that finds nothing, and notes when it was."""

    def glance() -> None:
        glances.append(time.monotonic())

    return glance


class TestLooking:
    """One time."""

    def test_something_comes(self) -> None:
        """It looks until there is something."""
        answers = iter([0, 0, 0, 1])
        assert Spin(60.0).look(lambda: next(answers)) is True
        assert next(answers, "used up") == "used up"

    def test_nothing_comes(self) -> None:
        """It stops when its time is up, and not before."""
        glances: list[float] = []
        start = time.monotonic()
        assert Spin(0.01).look(nothing_in(glances)) is False
        assert time.monotonic() - start >= 0.01
        assert len(glances) > 1

    def test_a_deadline(self) -> None:
        """It stops there, if that is sooner."""
        start = time.monotonic()
        assert Spin(60.0).look(lambda: None, start + 0.01) is False
        assert 0.01 <= time.monotonic() - start < 30

    @pytest.mark.parametrize("why", ["no time", "one processor"])
    def test_never(self, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a time, or a processor to spare, it does not look at all."""
        if why == "one processor":
            monkeypatch.setattr("os.cpu_count", lambda: 1)
        assert Spin(0.0 if why == "no time" else 60.0).look(lambda: pytest.fail("it looked")) is False

    def test_beside_other_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who looks again keeps Python's other threads from running."""
        monkeypatch.undo()
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stop.wait, 20)
            assert Spin(60.0).look(lambda: pytest.fail("it looked")) is False
            stop.set()
            assert waiting.result()


class TestLearning:
    """What came of it decides about the next time."""

    def test_in_vain(self) -> None:
        """After some failures it is tried now and then, and then hardly ever."""
        spinner = Spin(1e-9)
        tried = []
        for number in range(1000):
            glances: list[float] = []
            spinner.look(nothing_in(glances))
            if glances:
                tried.append(number)
        assert tried == [0, 1, 2, 3, 4, 5, 6, 7, 39, 103, 231, 487, 999]

    def test_until_it_succeeds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then it is tried every time again."""
        clock = Clock(monkeypatch)
        spinner = Spin(1.0)
        while clock.looks(spinner, after=2.0):
            pass
        while not clock.looks(spinner, after=1e-6):
            pass
        assert all(clock.looks(spinner, after=1e-6) for _ in range(100))

    def test_what_is_there_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """That says nothing about how long the next one takes, and changes nothing."""
        clock = Clock(monkeypatch)
        spinner = Spin(1.0)
        for _ in range(50):
            clock.looks(spinner, after=2.0)
        tried = [spinner.look(lambda: True) for _ in range(200)]
        assert 0 < tried.count(True) < 5

    def test_on_the_processor_of_the_peer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system took the processor away between two looks, to have looked again did not pay."""
        clock = Clock(monkeypatch)
        spinner = Spin(1.0)
        tried = [clock.looks(spinner, after=20e-6) for _ in range(100)]
        assert tried[:8] == [True] * 8
        assert tried.count(True) < 12


class Clock:
    """A clock that is set by hand, for a Spin to look at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 0.0
        monkeypatch.setattr(spin, "monotonic", lambda: self._now)

    def looks(self, spinner: Spin, after: float) -> bool:
        """Have a Spin find something with its second look, so many seconds after the first; False if it never looks."""
        looks = 0

        def glance() -> bool:
            nonlocal looks
            looks += 1
            self._now += after
            return looks == 2 and after < 1

        spinner.look(glance)
        return looks > 0
