"""A communicator breaks in mid-run while both ends live: the run goes on over the next one, and nothing is lost."""

import threading

import failover_tasks
import pytest

from tasklink import Executor, Status, hookimpl

# Each kind is broken once while a stream, and once while shared memory or a stream, takes over.
PAIRS = [["unix", "pipe"], ["shm", "unix"], ["pipe", "shm"], ["zmq", "unix"]]
MESSAGES = 10_000
# Seconds: the cut falls before a large result, into it, or behind it.
DELAYS = (0.0, 0.01, 0.03)


class Heard:
    """What observers are told; cuts a communicator on this side when so many messages have come."""

    def __init__(self, name="", cut_at=None):
        self.broken = []
        self.name = name
        self.cut_at = cut_at
        self.count = 0
        self.future = None
        self.ready = threading.Event()

    @hookimpl
    def tasklink_message_received(self, message):
        """Count, and cut."""
        self.count += 1
        if self.count == self.cut_at:
            self.ready.wait(10)
            failover_tasks.cut(failover_tasks.member(self.name, self.future._run._link))

    @hookimpl
    def tasklink_communicator_broken(self, communicator, error):
        """Remember."""
        self.broken.append((communicator, str(error)))


def check(result, heard, name):
    """All came once and in order, and the break was told once."""
    assert (result.status, result.missing) == (Status.COMPLETED, ())
    assert [broken for broken, _ in heard.broken] == [name]
    assert list(result.broken) == [name]
    assert str(result.broken[name]) == heard.broken[0][1]


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
@pytest.mark.parametrize("side", ["task", "executor"])
def test_in_the_middle_of_ten_thousand_messages(names, side):
    """Whichever side loses its first communicator, every message comes once and in order, and so does the result."""
    heard = Heard(names[0], MESSAGES // 3 if side == "executor" else None)
    parameters = {"count": MESSAGES, "size": 100_000, "name": names[0], "cut_at": MESSAGES // 3}
    if side == "executor":
        parameters["cut_at"] = None
    with Executor(names, observers=[heard]) as executor:
        future = heard.future = executor.submit(failover_tasks.talk, **parameters)
        heard.ready.set()
        result = future.result(timeout=60)
    assert [message.contents for message in result.messages] == list(range(MESSAGES))
    assert result.value == bytearray(100_000)
    check(result, heard, names[0])
    assert result.communicators[names[1]].messages > MESSAGES // 3


def large_result(names, size, delay):
    """Cut the first communicator so long after the Task has begun to return so many bytes."""
    heard = Heard()
    with Executor(names, observers=[heard]) as executor:
        future = executor.submit(failover_tasks.return_while_it_is_cut, size=size, name=names[0], delay=delay)
        result = future.result()
    assert (result.status, result.missing) == (Status.COMPLETED, ())
    assert len(result.value) == size
    assert result.value[-8:] == b"last one"
    assert {name for name, _ in heard.broken} <= {names[0]}  # the cut may come after all was acknowledged
    assert set(result.broken) == {name for name, _ in heard.broken}
    return result


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_in_the_middle_of_a_large_result(names):
    """64 MiB arrive whole, whether the cut comes before them, into them, or behind them."""
    results = [large_result(names, 64 << 20, delay) for delay in DELAYS]
    assert any(names[0] in result.broken for result in results)


@pytest.mark.soak
@pytest.mark.timeout(900)  # on a busy machine; idle, it takes seconds
@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_in_the_middle_of_a_gibibyte(names):
    """The same with 1 GiB."""
    large_result(names, 1 << 30, 0.2)


def test_one_that_stalls():
    """A communicator that takes nothing while the other one answers is left for that one."""
    heard = Heard()
    with Executor(["unix", "pipe"], observers=[heard]) as executor:
        result = executor.submit(failover_tasks.stall, count=1000, name="unix").result(timeout=60)
    assert [message.contents for message in result.messages] == list(range(1000))
    check(result, heard, "unix")
    assert "has taken no message for 0.2 s" in str(result.broken["unix"])
