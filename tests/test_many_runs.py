"""Thousands of runs leave an Executor as it was."""

import time
from contextlib import ExitStack
from itertools import cycle

import pytest

from tasklink import Executor, Status, TaskSpec
from tasklink.testing.growth import Growth, resident_bytes
from tasklink.testing.holdings import holdings, settled

OVER = [["unix"], ["pipe"], ["shm"], ["zmq"], ["pty", "unix"]]
AT_ONCE = 4
# Three of ten are killed.
ENDINGS = {"return": Status.COMPLETED, "os._exit(5)": Status.CRASHED, "kill": Status.CRASHED}
HOW = ["return"] * 6 + ["os._exit(5)"] + ["kill"] * 3


def run_some(executor):
    """Run as many as there are in HOW; they end as they should."""
    spec = TaskSpec(run="sample_tasks:end_by", keep_messages=False)
    futures = [executor.submit(spec, how=how) for how in HOW]
    assert [future.result().status for future in futures] == [ENDINGS[how] for how in HOW]


@pytest.mark.parametrize("runs", [50, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_nothing_is_left_of_many_runs(temporary_folder, record_property, runs):
    """Descriptors, threads, children and files are exactly as before, and memory has no trend; 30 of 100 are killed."""
    growth = Growth()
    begun = time.monotonic()
    with ExitStack() as stack:
        executors = [stack.enter_context(Executor(names, parallel=AT_ONCE)) for names in OVER]
        for executor in executors:  # all that is made once
            run_some(executor)
        before = holdings(temporary_folder)
        turns = cycle(executors)
        for number in range(0, runs, len(HOW)):
            run_some(next(turns))
            if number % (len(HOW) * len(OVER)) == 0:
                growth.note(number, resident_bytes())
        assert settled(before, lambda: holdings(temporary_folder), 5) == ""
        assert holdings(temporary_folder) == before
    assert growth.fault == ""
    grown = growth.per_thousand
    first, last = growth.samples[0][1] / 1e6, growth.samples[-1][1] / 1e6
    trend = f"{0 if grown is None else max(0.0, grown):.2f} MB more memory in 1 000 runs"
    record_property("seen", trend)
    record_property("runs", runs)
    print(f"{runs} runs in {time.monotonic() - begun:.0f} s: from {first:.1f} to {last:.1f} MB, {trend}")
    assert grown is None or abs(grown) < 1  # no trend
