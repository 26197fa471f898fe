"""The tables of faults in core/docs/guarantees.md: complete, true to what was measured, and of tests that there are."""

from pathlib import Path

import pytest

from tasklink.testing.suite import CommunicatorSoak
from tests import faults

REPORT = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite>
<testcase classname="tests.test_death" name="test_killed_at_a_random_moment[small-unix]"><properties>
<property name="runs" value="30" /><property name="seen" value="17.5 ms at worst" />
<property name="seen" value="0 lost" /></properties></testcase>
<testcase classname="tests.test_death" name="test_killed_at_a_random_moment[large-unix]"><properties>
<property name="runs" value="20" /><property name="seen" value="9 ms at worst" /></properties></testcase>
<testcase classname="tests.test_run.TestHowItEnds" name="test_not_started[one]" />
<testcase classname="tests.test_run.TestHowItEnds" name="test_not_started[two]"><skipped message="no" /></testcase>
<testcase classname="tests.test_run.TestHowItEnds" name="test_that_proves_nothing"><skipped message="no" /></testcase>
<testcase time="0.090" /></testsuite></testsuites>"""
KILLS = "tests/test_death.py::test_killed_at_a_random_moment"


def test_every_fault_has_its_row():
    """Each number once, in order; each with a test, or with the reason why nothing is promised."""
    numbers = [*range(1, 19), *range(20, 39), *range(40, 44), *range(50, 57), *range(60, 69), *range(70, 79)]
    listed = [fault for section in faults.SECTIONS for fault in section.faults]
    assert [fault.id for fault in listed] == [f"F{number:02}" for number in numbers]
    for fault in listed:
        assert fault.tests or fault.promise.startswith(faults.NOT_PROMISED), fault.id
        assert not fault.promise.endswith("."), fault.id


def test_every_test_is_there():
    """What is named as a proof can be looked at."""
    missing = []
    for fault in faults.FAULTS.values():
        for name in fault.tests:
            path, _, test = name.partition("::")
            source = (faults.ROOT / path).read_text()
            is_of_the_kit = path == "tests/test_conformance.py" and hasattr(CommunicatorSoak, test)
            if test and f"def {test}(" not in source and not is_of_the_kit:
                missing.append(name)
    assert missing == []


def test_the_document_holds_the_tables():
    """The page says what is promised and what was measured; `python -m tests.faults` writes it."""
    page = faults.DOCUMENT.read_text()
    assert page.count("<!-- faults -->") == 1
    assert page == faults.write(page, faults.measured())


def test_reports_are_taken_in(tmp_path):
    """Runs are added up, of what was seen the largest counts; who says nothing has run once, if it was not skipped."""
    (tmp_path / "day.xml").write_text(REPORT)
    (tmp_path / "fuzz.log").write_text(
        "== ring, 60 s ==\n#2 INITED\nstat::number_of_executed_units: 1234\nstat::x: 1\n"
    )
    assert faults.take_in({}, [tmp_path / "day.xml", tmp_path / "fuzz.log"]) == {
        KILLS: {"runs": 50, "seen": {"ms at worst": 17.5, "lost": 0.0}},
        "tests/fuzz/ring.py": {"runs": 1234, "seen": {}},
        "tests/test_run.py::test_not_started": {"runs": 1, "seen": {}},
    }


def test_what_ran_more_often_stays(tmp_path):
    """A report of an everyday run does not undo that of a long one; what is named no more is forgotten."""
    (tmp_path / "day.xml").write_text(REPORT)
    long = {"runs": 1000, "seen": {"ms at worst": 20.0}}
    assert faults.take_in({KILLS: long, "tests/x.py::test_of_old": long}, [tmp_path / "day.xml"])[KILLS] == long
    assert "tests/x.py::test_of_old" not in faults.take_in({"tests/x.py::test_of_old": long}, [])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (REPORT.replace('[one]" />', '[one]"><failure message="no" /></testcase>'), "test_not_started has failed"),
        (REPORT.replace("17.5 ms", "some ms"), "not 'some ms at worst'"),
    ],
)
def test_reports_that_are_refused(tmp_path, wrong, words):
    """What has failed proves nothing, and what is no number has no largest."""
    (tmp_path / "day.xml").write_text(wrong)
    with pytest.raises(ValueError, match=words):
        faults.take_in({}, [Path(tmp_path / "day.xml")])
