"""How a run is ended, step by step, on a clock that a test can set."""

from __future__ import annotations

import pytest

from tasklink.escalation import Escalation, Step


class TestEscalation:
    """The steps, and when they are due."""

    @pytest.mark.parametrize("grace", [0.0, 2.0])
    def test_steps(self, grace: float) -> None:
        """The first is due at once, each further one a grace after the one before was taken, late or not."""
        escalation = Escalation(grace)
        assert (escalation.due(0.0), escalation.deadline) == (None, None)
        escalation.begin(list(Step), now=100.0)
        assert escalation.deadline == 100.0
        assert escalation.due(99.9) is None
        assert escalation.due(103.0) is Step.ASK
        assert escalation.deadline == 103.0 + grace
        assert escalation.due(103.0 + grace) is Step.TERMINATE
        assert escalation.due(103.0 + 2 * grace) is Step.KILL
        assert (escalation.due(1000.0), escalation.deadline) == (None, None)

    def test_beginning_anew(self) -> None:
        """What was planned before is forgotten; the list that was given stays the caller's."""
        escalation = Escalation(2.0)
        steps = [Step.TERMINATE, Step.KILL]
        escalation.begin(list(Step), now=100.0)
        assert escalation.due(100.0) is Step.ASK
        escalation.begin(steps, now=101.0)
        assert [escalation.due(now) for now in (101.0, 102.0, 103.0, 104.0)] == [Step.TERMINATE, None, Step.KILL, None]
        assert steps == [Step.TERMINATE, Step.KILL]
