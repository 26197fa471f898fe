"""Signals: at the start by the thousand, and at any moment of a Task's life."""

import random

import pytest
import sample_tasks

from tasklink import Executor, Status
from tasklink.errors import SignalNotDeliveredError


@pytest.mark.parametrize("starts", [5, pytest.param(2500, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_every_start_gets_through(alone, record_property, starts):
    """F40: of Tasks that start four at a time, none hangs, and each hears the signal that was waiting for it."""
    with Executor(alone, parallel=4) as executor:
        futures = [executor.submit(sample_tasks.hear_one) for _ in range(starts)]
        for number, future in enumerate(futures):
            future.signal("number", number)
        assert [future.result(timeout=60).value for future in futures] == list(range(starts))
    record_property("runs", starts)


@pytest.mark.parametrize("runs", [3, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_signalled_at_a_random_moment(alone, record_property, runs):
    """F42: a Task that may end at any moment is signalled until that is refused: it has heard them from the first on.

    One that was accepted in the moment in which the Task returns may be one that nobody looks at any more. That the
    last one could not be written is no fault of a communicator.
    """
    chance = random.Random(20261123)
    heard = 0
    with Executor(alone) as executor:
        for _ in range(runs):
            future = executor.submit(sample_tasks.hear_for, seconds=chance.uniform(0, 0.03))
            accepted = 0
            with pytest.raises(SignalNotDeliveredError, match="has ended"):
                while True:
                    future.signal("number", accepted)
                    accepted += 1
            result = future.result(timeout=30)
            assert (result.status, result.broken) == (Status.COMPLETED, {})
            assert result.value == list(range(len(result.value)))
            assert len(result.value) <= accepted
            heard += len(result.value)
    assert heard > 0
    record_property("runs", runs)
