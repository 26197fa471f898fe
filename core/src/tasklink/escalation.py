"""How a run that shall end is ended: asked, then told, then killed, with a grace between."""

from __future__ import annotations

from enum import Enum

import attrs


class Step(Enum):
    """One means of ending a Task."""

    ASK = "ask"
    """A cancel message, with the reason: the Task may end in good order."""
    TERMINATE = "terminate"
    """SIGTERM to the process group: a Task written with tasklink gets an exception in its main thread."""
    KILL = "kill"
    """SIGKILL to the process group."""


@attrs.define
class Escalation:
    """The steps that are still to be taken. It knows no clock: the caller says what time it is.

    Attributes:
        grace: seconds between two steps.
        deadline: when the next step is due, on the caller's clock; None when there is none.

    >>> escalation = Escalation(grace=2.0)
    >>> escalation.begin([Step.TERMINATE, Step.KILL], now=100.0)
    >>> escalation.due(100.0), escalation.due(101.9), escalation.due(102.0)
    (<Step.TERMINATE: 'terminate'>, None, <Step.KILL: 'kill'>)
    """

    grace: float
    deadline: float | None = attrs.field(default=None, init=False)
    _steps: list[Step] = attrs.field(factory=list, init=False)

    def begin(self, steps: list[Step], now: float) -> None:
        """Have these steps taken, the first of them at once, in place of what was planned before."""
        self._steps = list(steps)
        self.deadline = now

    def due(self, now: float) -> Step | None:
        """Give the step that is to be taken now, if one is."""
        if self.deadline is None or now < self.deadline:
            return None
        step = self._steps.pop(0)
        self.deadline = now + self.grace if self._steps else None
        return step
