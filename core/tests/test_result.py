"""What a run leaves."""

from __future__ import annotations

import pytest

from tasklink import Status, TaskResult
from tasklink.errors import NoResultError


class TestResult:
    """A TaskResult."""

    def test_value_or_raise(self) -> None:
        """A value is given, also one that is None; an error is raised itself."""
        assert TaskResult(name="count", status=Status.COMPLETED).value_or_raise() is None
        error = NoResultError("nothing")
        with pytest.raises(NoResultError) as caught:
            TaskResult(name="count", status=Status.NO_RESULT, value=5, error=error).value_or_raise()
        assert caught.value is error

    @pytest.mark.parametrize(
        ("missing", "lost"),
        [((), 0), ((range(3, 4),), 1), ((range(1, 3), range(7, 10)), 5), ((range(4, 2**64 - 1),), 2**64 - 5)],
        ids=repr,
    )
    def test_lost(self, missing: tuple[range, ...], lost: int) -> None:
        """What is missing is counted, however much it is."""
        assert TaskResult(name="count", status=Status.COMPLETED, missing=missing).lost == lost

    def test_large_things_are_not_shown(self) -> None:
        """A result of a long run can be printed."""
        result = TaskResult(name="count", status=Status.COMPLETED, stdout=b"x" * 10_000, messages=(None,) * 9999)  # type: ignore[arg-type]
        assert len(repr(result)) < 300

    def test_status(self) -> None:
        """A status is its text: in a table, in JSON, in a comparison."""
        assert f"{Status.TIMED_OUT}" == Status.TIMED_OUT == "timed out"
        assert repr(Status.NO_RESULT) == "<Status.NO_RESULT: 'no result'>"
