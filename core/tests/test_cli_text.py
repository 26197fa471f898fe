"""What results become: exit codes, tables, and JSON."""

from __future__ import annotations

import decimal
import fractions
import json
import os
import re
import sys
from array import array
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.cli.document import dumps, plain, result_document
from tasklink.cli.outcome import Outcome, outcome_of, outcome_of_error
from tasklink.cli.progress import Activity, PlainReporter
from tasklink.cli.table import columns, fit, table
from tasklink.errors import (
    BrokenError,
    ConfigError,
    EncodeError,
    PluginNotFoundError,
    TaskFailedError,
    TaskNotStartedError,
)
from tasklink.result import Status, TaskResult, Traffic

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def result(status: Status = Status.COMPLETED, cause: BaseException | None = None, **fields: Any) -> TaskResult:
    """Make a result."""
    error = None
    if status is Status.NOT_STARTED:
        error = TaskNotStartedError("it could not begin")
        error.__cause__ = cause
    return TaskResult(name="count", status=status, error=error, **fields)


class TestOutcome:
    """From results to the exit code."""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (result(), Outcome.OK),
            (result(Status.FAILED), Outcome.TASK),
            (result(Status.CRASHED), Outcome.TASK),
            (result(Status.CANCELLED), Outcome.TASK),
            (result(Status.NO_RESULT), Outcome.TASK),
            (result(Status.TIMED_OUT), Outcome.TIMEOUT),
            (result(missing=(range(3, 5),)), Outcome.COMMUNICATION),
            (result(Status.NOT_STARTED), Outcome.TASK),
            (result(Status.NOT_STARTED, ConfigError("no such key")), Outcome.SETUP),
            (result(Status.NOT_STARTED, PluginNotFoundError("no such plugin")), Outcome.SETUP),
            (result(Status.NOT_STARTED, BrokenError("gone")), Outcome.COMMUNICATION),
            (result(Status.NOT_STARTED, exit_code=76), Outcome.COMMUNICATION),
            (result(Status.NOT_STARTED, signal_name="SIGKILL"), Outcome.COMMUNICATION),
        ],
    )
    def test_each_ending_has_one(self, given: TaskResult, expected: Outcome) -> None:
        """Every way in which a run ends has its exit code."""
        assert outcome_of([given]) is expected

    def test_the_first_that_did_not_go_well_decides(self) -> None:
        """Of several runs, those that completed do not count, and neither do those after the first that did not."""
        runs = [result(), result(Status.TIMED_OUT), result(Status.FAILED)]
        assert outcome_of(runs) is Outcome.TIMEOUT
        assert outcome_of([]) is Outcome.OK

    def test_errors(self) -> None:
        """An error that kept everything from starting has its exit code too."""
        assert outcome_of_error(ConfigError("?")) is Outcome.SETUP
        assert outcome_of_error(EncodeError("?")) is Outcome.COMMUNICATION
        assert outcome_of_error(OSError("?")) is Outcome.TASK

    def test_the_documentation_has_this_table(self) -> None:
        """docs/cli.md lists every exit code with its meaning, and no other."""
        text = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
        rows = re.findall(r"^\| (\d+) \| (.*?) \|$", text, re.MULTILINE)
        assert rows == [(str(int(outcome)), outcome.meaning) for outcome in Outcome]


class TestDocument:
    """Results as JSON."""

    @given(JSON)
    def test_plain_values_are_untouched(self, value: object) -> None:
        """What JSON has is given as it is."""
        assert json.loads(dumps(plain(value))) == value

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ((1, (2,)), [1, [2]]),
            ({1: "one"}, {"1": "one"}),
            ([float("nan"), float("inf")], [None, None]),
            (np.int32(7), 7),
            (np.float32(0.5), 0.5),
            (Path("/data/a.h5"), "/data/a.h5"),
            (date(2026, 11, 23), "2026-11-23"),
            ({"raw": b"\xff"}, {"raw": {"not_json": "bytes", "text": "b'\\xff'"}}),
            (array("I", range(100)), {"not_json": "array.array", "text": "array('I', [0, 1, 2, 3, 4, 5, 6, 7, ...])"}),
            (fractions.Fraction(10**400), {"not_json": "fractions.Fraction", "text": ANY}),
            (decimal.Decimal(1), {"not_json": "decimal.Decimal", "text": "Decimal('1')"}),
            ({(1, 2): 3}, {"not_json": "dict", "text": "{(1, 2): 3}"}),
        ],
    )
    def test_other_values_are_told(self, value: object, expected: object) -> None:
        """What JSON has not is turned into what is nearest, or else told by its type and its text."""
        assert json.loads(dumps(plain(value))) == expected

    def test_a_value_in_itself(self) -> None:
        """A list that contains itself, twice, ends where it begins anew."""
        value: list[object] = [1]
        value += [value, value]
        document = plain(value)
        assert isinstance(document, list)
        assert document[0] == 1
        assert [entry["not_json"] for entry in document[1:]] == ["list", "list"]

    def test_values_that_cannot_be_shown(self) -> None:
        """A number that Python does not write out, and an object whose repr raises, cost nothing else."""

        class Silent:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        document = plain([10**5000, Silent(), 3])
        assert isinstance(document, list)
        assert [entry["not_json"].rpartition(".")[2] for entry in document[:2]] == ["int", "Silent"]
        assert document[2] == 3
        dumps(document)

    def test_a_result(self) -> None:
        """Every attribute of a result is there."""
        error = TaskFailedError("count raised ValueError: bad", ValueError("bad"), "Traceback …")
        failed = TaskResult(
            name="count",
            status=Status.FAILED,
            error=error,
            exit_code=1,
            stdout=b"\xffprinted",
            missing=(range(3, 5), range(9, 10)),
            duration=1.5,
            communicators={"unix": Traffic(4, 831)},
            pid=4242,
        )
        assert json.loads(dumps(result_document(failed))) == {
            "name": "count",
            "status": "failed",
            "value": None,
            "error": {
                "type": "TaskFailedError",
                "text": "count raised ValueError: bad",
                "exception": {"type": "ValueError", "text": "bad"},
                "traceback": "Traceback …",
            },
            "exit_code": 1,
            "signal_name": None,
            "stdout": "\\xffprinted",
            "stderr": "",
            "messages": 0,
            "lost": 3,
            "missing": [[3, 4], [9, 9]],
            "duration": 1.5,
            "communicators": {"unix": {"messages": 4, "bytes": 831}},
            "pid": 4242,
        }


class TestTable:
    """Columns that stand under each other."""

    @given(st.lists(st.tuples(st.text("aß日é", max_size=9), st.text("aß日é", max_size=9)), min_size=1, max_size=5))
    def test_columns_are_aligned(self, rows: list[tuple[str, str]]) -> None:
        """The second column begins at the same place in every row, whatever the width of the characters."""
        width = max(columns(first) for first, _ in rows)
        for line, (first, second) in zip(table(rows), rows, strict=True):
            assert line == (first + " " * (width - columns(first) + 2) + second).rstrip()

    @given(st.text("a日", max_size=30), st.integers(min_value=1, max_value=40))
    def test_lines_fit(self, text: str, width: int) -> None:
        """No line is wider than asked for, and one that fits is untouched."""
        assert columns(fit(text, width)) <= width
        assert (fit(text, width) == text) is (columns(text) <= width)


class TestPlainReporter:
    """Lines one below the other."""

    def test_nobody_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Once nobody reads stderr any more, no more is written to it, and nothing is raised."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", buffering=1) as nobody:
            monkeypatch.setattr(sys, "stderr", nobody)
            with PlainReporter(["count"], heartbeat=0) as reporter:
                reporter.say("one")
                os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
                reporter.say("two")


class TestActivity:
    """How far a run is."""

    @given(st.floats(), st.none() | st.floats(), st.floats(), st.none() | st.floats())
    def test_any_number_can_be_described(
        self, first: float, first_total: float | None, second: float, second_total: float | None
    ) -> None:
        """A Task may say anything for progress: NaN, infinity, less than before, more than all."""
        activity = Activity("count")
        activity.advance(first, first_total, "")
        activity.advance(second, second_total, "note\x1b[2J")
        assert activity.describe().endswith(": note\\x1b[2J")
        assert activity.fraction is None or 0 <= activity.fraction <= 1
