"""Two processes that write to each other as fast as they can, and pause now and then so that both fall asleep.

For a while everyday; for ten minutes with `pytest -m soak`, or for TASKLINK_HAMMER_SECONDS.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tasklink.errors import EndOfMessages
from tasklink.message import Message
from tasklink.spin import Spin
from tasklink_shm import bell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CPUS = sorted(os.sched_getaffinity(0))
PLACES = {"one CPU": (CPUS[:1], CPUS[:1]), "split": (CPUS[:1], CPUS[-1:]), "free": (CPUS, CPUS)}
SOAK_SECONDS = float(os.environ.get("TASKLINK_HAMMER_SECONDS", "600"))

# No sleeper wakes up by itself: a wake-up that is lost is a time-out.
PEER = """
    import json, threading
    sys.path.insert(0, {folder!r})
    import test_hammer
    os.sched_setaffinity(0, {cpus})
    test_hammer.bell.LONGEST_SLEEP = 1000.0
    print(json.dumps(test_hammer.hammer(end, {seconds}, 2)), flush=True)
"""


def hammer(end: Any, seconds: float, seed: int) -> dict[str, int]:
    """Write and read at the same time; give how many messages were written, read, and torn."""
    written = 0

    def write() -> None:
        nonlocal written
        chance = random.Random(seed)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(chance.choice([1, 1, 1, 2, 10, 300])):
                end.write(Message(content(written)), timeout=30)
                written += 1
            time.sleep(chance.choice([0, 0, 0, 1e-6, 1e-5, 1e-5, 1e-4, 5e-4, 2e-3]))
        end.write(Message(None, "end"), timeout=30)

    writer = threading.Thread(target=write)
    writer.start()
    read = torn = 0
    with contextlib.suppress(EndOfMessages):
        while (message := end.read(30)).signal != "end":
            torn += message.contents != content(read)
            read += 1
    writer.join()
    return {"written": written, "read": read, "torn": torn}


def content(number: int) -> list[object]:
    """What the message of a number says: most are small, a few fill the ring, a few go into segments."""
    size = number * 7919 % 300
    if number % 97 == 0:
        size = number * 31 % 60_000
    if number % 1009 == 0:
        size = 100_000
    return [number, bytes([number % 251]) * size]


@pytest.fixture
def unaided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No sleeper of this process wakes up by itself; the process may be pinned."""
    monkeypatch.setattr(bell, "LONGEST_SLEEP", 1000.0)
    yield
    os.sched_setaffinity(0, CPUS)


@pytest.mark.usefixtures("unaided")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("settings", [{}, {"quiet": 0.0, "spin": 0.0}], ids=["attentive", "asleep"])
@pytest.mark.parametrize(
    "seconds",
    [0.5, pytest.param(SOAK_SECONDS, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK_SECONDS + 60)], id="soak")],
)
def test_both_ways(peer: Callable[..., Any], place: str, settings: dict[str, float], seconds: float) -> None:
    """Nothing is torn, nothing is lost, and nobody is left asleep."""
    ours, theirs = PLACES[place]
    code = PEER.format(folder=os.path.dirname(__file__), cpus=theirs, seconds=seconds)
    with peer(code, ring=64 << 10, **settings) as (end, process):
        os.sched_setaffinity(0, ours)
        here = hammer(end, seconds, 1)
        there = json.loads(process.stdout.readline())
    assert (here["torn"], there["torn"]) == (0, 0)
    assert (here["read"], there["read"]) == (there["written"], here["written"])
    assert here["read"] > 100 * seconds


@pytest.mark.usefixtures("unaided")
def test_threads_of_a_process_sleep_and_wake(both_ends: Callable[..., Any]) -> None:
    """The same with both ends in one process, where the interpreter switches threads between any two bytecodes."""
    with both_ends(ring=64 << 10) as (executor, task):
        there: dict[str, int] = {}
        thread = threading.Thread(target=lambda: there.update(hammer(task, 0.5, 4)))
        thread.start()
        here = hammer(executor, 0.5, 3)
        thread.join()
    assert (here["read"], there["read"], here["torn"], there["torn"]) == (there["written"], here["written"], 0, 0)


ANSWERS = """
    import random
    chance = random.Random(5)
    try:
        while True:
            message = end.read()
            until = time.perf_counter() + chance.uniform(0, 20e-6)
            while time.perf_counter() < until: pass
            end.write(message)
    except EndOfMessages:
        pass
"""


@pytest.mark.usefixtures("unaided")
@pytest.mark.parametrize(
    "seconds",
    [1.0, pytest.param(SOAK_SECONDS, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK_SECONDS + 60)], id="soak")],
)
def test_an_answer_that_comes_while_one_falls_asleep(peer: Callable[..., Any], seconds: float) -> None:
    """There is no other message to wake who missed it: a lost wake-up is the end."""
    with peer(ANSWERS) as (end, _):
        end._incoming._spin = Spin(0.0)
        end._incoming._quiet = 0.0
        until = time.monotonic() + seconds
        count = 0
        while (now := time.monotonic()) < until:
            end.write(Message(count), timeout=5)
            assert end.read(5).contents == count
            assert time.monotonic() - now < 4, "who is not woken looks once more when the time is up"
            count += 1
    assert count > 100 * seconds
