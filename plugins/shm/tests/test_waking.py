"""Who wakes whom, and what waiting costs."""

from __future__ import annotations

import os
import select
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tasklink.message import Message
from tasklink_shm.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklink_shm import SharedMemoryCommunicator


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Bell]]:
    """The bells that were rung, in their order."""
    bells: list[Bell] = []
    ring = Bell.ring

    def note(bell: Bell) -> None:
        bells.append(bell)
        ring(bell)

    monkeypatch.setattr(Bell, "ring", note)
    return bells


def find_nothing(end: SharedMemoryCommunicator) -> None:
    """Look once."""
    with pytest.raises(TimeoutError):
        end.read(0)


class TestRinging:
    """A bell costs its writer 20 us: it is rung for who sleeps, and for nobody else."""

    def test_a_sleeper_is_woken_once(self, both_ends: Callable[..., Any], rung: list[Bell]) -> None:
        """The first message of many rings."""
        with both_ends(quiet=0.0) as (executor, task):
            find_nothing(executor)
            for number in range(5):
                task.write(Message(number))
            assert rung == [task._bell]
            assert [executor.read(0).contents for _ in range(5)] == list(range(5))
            find_nothing(executor)
            task.write(Message("again"))
            assert rung == [task._bell] * 2

    def test_an_attentive_reader_is_not_woken(self, both_ends: Callable[..., Any], rung: list[Bell]) -> None:
        """After a message it looks by itself for a while: its descriptor tells half a millisecond late, unasked."""
        with both_ends(quiet=1.0) as (executor, task):
            task.write(Message(0))
            executor.read(0)
            rung.clear()
            poll = select.poll()
            poll.register(executor, select.POLLIN)
            for number in range(20):
                find_nothing(executor)
                task.write(Message(number))
                start = time.monotonic()
                assert poll.poll(1000)
                assert time.monotonic() - start < 0.1
                assert executor.read(0).contents == number
            assert rung == []

    def test_an_attentive_reader_that_blocks(self, both_ends: Callable[..., Any], rung: list[Bell]) -> None:
        """The same for one that waits in `read`."""
        with both_ends(quiet=1.0) as (executor, task), ThreadPoolExecutor(1) as pool:
            for number in range(20):
                waiting = pool.submit(executor.read, 5)
                if number:
                    rung.clear()
                with pytest.raises(TimeoutError):
                    waiting.result(0.003)
                task.write(Message(number))
                assert waiting.result(5).contents == number
            assert rung == []

    def test_the_quiet_window(self, both_ends: Callable[..., Any], rung: list[Bell]) -> None:
        """When nothing came for a while it sleeps, its descriptor is still, and the next message rings."""
        with both_ends(quiet=0.01) as (executor, task):
            task.write(Message(0))
            executor.read(0)
            find_nothing(executor)
            rung.clear()
            poll = select.poll()
            poll.register(executor, select.POLLIN)
            wakes = 0
            while poll.poll(100):  # the timer of the attentive, and then nothing
                find_nothing(executor)
                wakes += 1
            assert 1 <= wakes <= 25
            assert not poll.poll(50)
            task.write(Message(1))
            assert rung == [task._bell]
            assert poll.poll(0)
            assert executor.read(0).contents == 1

    def test_who_waits_for_an_answer_is_woken(self, both_ends: Callable[..., Any], rung: list[Bell]) -> None:
        """Who has written itself wants to know at once."""
        with both_ends(quiet=1.0, spin=0.0) as (executor, task):
            task.write(Message("question"))
            executor.read(0)
            executor.write(Message("to you"))
            rung.clear()
            find_nothing(executor)
            task.write(Message("answer"))
            assert rung == [task._bell]

    def test_a_writer_that_waits_for_room(self, both_ends: Callable[..., Any]) -> None:
        """It is woken when there is room, not a tenth of a second later."""
        with both_ends(ring=64 << 10) as (executor, task), ThreadPoolExecutor(1) as pool:
            delays = []
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    while True:
                        task.write(Message(bytes(1000)), timeout=0)
                waiting = pool.submit(task.write, Message(bytes(1100)))
                with pytest.raises(TimeoutError):
                    waiting.result(0.005)
                start = time.monotonic()
                while len(executor.read(1).contents) != 1100:
                    pass
                waiting.result(5)
                delays.append(time.monotonic() - start)
            assert sorted(delays)[10] < 0.05

    def test_no_wake_up_is_lost(self, both_ends: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Two sides that sleep after every message, with nothing to wake them but the bell."""
        monkeypatch.setattr("tasklink_shm.bell.LONGEST_SLEEP", 100.0)
        with both_ends(quiet=0.0, spin=0.0) as (executor, task), ThreadPoolExecutor(1) as pool:

            def echo() -> None:
                for _ in range(3000):
                    task.write(task.read(20))

            echoing = pool.submit(echo)
            start = time.monotonic()
            for number in range(3000):
                executor.write(Message(number))
                assert executor.read(20).contents == number
            echoing.result(5)
            assert time.monotonic() - start < 15, "who is not woken looks once more after 20 seconds"


class TestIdling:
    """Waiting costs nothing."""

    def test_an_idle_second(self, peer: Callable[..., Any]) -> None:
        """Neither a reader that blocks, nor one that waits for its descriptor, uses a CPU."""
        code = """
            end.write(Message("ready"))
            before = time.process_time()
            end.read()
            end.write(Message(time.process_time() - before))
            end.read()
        """
        with peer(code) as (end, _):
            assert end.read(10).contents == "ready"
            poll = select.poll()
            poll.register(end, select.POLLIN)
            before = time.process_time()
            deadline = time.monotonic() + 1
            while (rest := deadline - time.monotonic()) > 0:
                if poll.poll(rest * 1000):
                    find_nothing(end)
            assert time.process_time() - before < 0.02
            end.write(Message("how much?"))
            assert end.read(10).contents < 0.02
            end.write(Message("end"))

    def test_a_task_that_reports_every_millisecond(self, peer: Callable[..., Any], rung: list[Bell]) -> None:
        """It wakes nobody once its reader is attentive; what it says is there within milliseconds."""
        code = """
            from tasklink_shm.bell import Bell
            rung = []
            ring = Bell.ring
            Bell.ring = lambda bell: (rung.append(bell), ring(bell))
            for n in range(300):
                until = time.monotonic() + 0.001
                while time.monotonic() < until: pass
                end.write(Message(time.monotonic()))
            end.write(Message(len(rung)))
            end.read()
        """
        with peer(code) as (end, _):
            delays = []
            for _ in range(300):
                said = end.read(10).contents
                delays.append(time.monotonic() - said)
            rings = end.read(10).contents
            end.write(Message("end"))
        assert rings < 60
        assert sorted(delays)[150] < 0.005


def test_where_select_cannot_look(both_ends: Callable[..., Any]) -> None:
    """Descriptors beyond those that select(2) takes are waited for as well."""
    import fcntl

    with both_ends(quiet=1.0) as (executor, task), ThreadPoolExecutor(1) as pool:
        line = executor._bell.line
        high = fcntl.fcntl(line.fileno(), fcntl.F_DUPFD_CLOEXEC, 1030)
        low = line.detach()
        executor._bell.line = type(line)(fileno=high)
        executor._bell._poll.register(high, select.POLLIN)
        try:
            for number in range(10):
                waiting = pool.submit(executor.read, 5)
                task.write(Message(number))
                assert waiting.result(5).contents == number
        finally:
            os.close(low)
