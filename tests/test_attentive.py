"""A reader that is not woken for every message: late by a millisecond at most, and idle when there is nothing."""

import time

import pytest

from tasklink import Executor
from tasklink.hooks import hookimpl

# Over zmq a thread of its own carries what is sent: it promises neither.
pytestmark = pytest.mark.parametrize("protocol", [["unix"], ["pipe"], ["shm"]], ids=["unix", "pipe", "shm"])


class Lateness:
    """Notes how long each message took to an observer, in seconds."""

    def __init__(self):
        self.seconds = []

    @hookimpl
    def tasklink_message_received(self, message):
        """Note it."""
        self.seconds.append(time.time() - message.sent_at)


@pytest.mark.timed
def test_nothing_is_late(protocol):
    """Of a Task that reports every millisecond, nine of ten messages are there within one."""
    lateness = Lateness()
    with Executor(protocol, observers=[lateness]) as executor:
        executor.run("sample_tasks:report_every_millisecond", count=500).value_or_raise()
    assert len(lateness.seconds) == 500
    assert sorted(lateness.seconds)[450] < 1e-3


def test_an_idle_executor_costs_no_processor(executor):
    """A Task that sleeps for a second costs its Executor no more than one that does nothing."""
    executor.run("time:monotonic").value_or_raise()  # what is done once, by the first
    nothing = processor_seconds(executor, "time:monotonic")
    assert processor_seconds(executor, nap) < nothing + 0.01


def processor_seconds(executor, work):
    """What a run costs this process."""
    before = time.process_time()
    executor.run(work).value_or_raise()
    return time.process_time() - before


def nap():
    """Sleep for a second."""
    time.sleep(1)
