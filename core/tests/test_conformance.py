"""The conformance kit is itself proved: the model passes, and each mutant fails the checks that name its fault."""

from __future__ import annotations

import importlib
import re
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tasklink.errors import BrokenError, CommunicatorError, EndOfMessages
from tasklink.message import Message
from tasklink.testing import CHECKS, CommunicatorConformance, ConformanceError, Skipped, Subject
from tasklink.testing.adversary import Adversary
from tasklink.testing.catalogue import GROUPS
from tasklink.testing.check import Check, clause
from tasklink.testing.contract import CLAUSES
from tasklink.testing.errand import obey
from tasklink.testing.machine import adversary_machine
from tasklink.testing.memory import MemorySubject
from tasklink.testing.model import ModelCommunicator
from tasklink.testing.suite import CommunicatorSoak
from tasklink.testing.verification import run
from tasklink.testing.work import waited

if TYPE_CHECKING:
    from types import ModuleType

TASKS = Path(__file__).parent / "tasks"
DOCUMENT = Path(__file__).parent.parent / "docs" / "conformance.md"


def load_mutants() -> ModuleType:
    """Import the mutants as other processes do."""
    if str(TASKS) not in sys.path:
        sys.path.append(str(TASKS))
    importlib.import_module("heavy_mutant")
    return importlib.import_module("mutants")


MUTANTS: list[Any] = load_mutants().MUTANTS
BY_NAME = {check.name: check for check in CHECKS}
# Seconds of patience where a check is to fail, and so waits for all of them. What is to pass has as many as anybody's:
# to need longer than this is no fault where others want the processor, too.
IMPATIENT = 1.5


class TestModel(CommunicatorConformance):
    """The model keeps every clause."""

    def subject(self) -> Subject:
        """Two sockets."""
        return Subject(ModelCommunicator)


class TestMemory(CommunicatorConformance):
    """So does the pair within one process, where there is neither a kernel nor a frame below."""

    def subject(self) -> Subject:
        """Two deques."""
        return MemorySubject()


@pytest.mark.soak
class TestModelForLong(CommunicatorSoak):
    """What takes long."""

    def subject(self) -> Subject:
        """Two sockets."""
        return Subject(ModelCommunicator)


class TestMutants:
    """A check that finds nothing where there is something proves nothing."""

    @pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
    def test_its_fault_is_named(self, mutant: Any) -> None:
        """The check that names the fault fails, with the clause, what was seen, and how to mend it."""
        check = BY_NAME[mutant.fails[0]]
        finding = run(check, Subject(mutant, patience=IMPATIENT))
        assert finding.outcome == "fail"
        assert finding.reason.startswith(f"clause {check.clause}: {CLAUSES[check.clause]}")
        assert "\n  seen: " in finding.reason
        assert f"\n  usually mended by: {check.remedy}" in finding.reason

    @pytest.mark.soak
    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
    def test_nothing_else_fails(self, mutant: Any) -> None:
        """Of all checks just those fail that the table says."""
        impatient, patient = Subject(mutant, patience=IMPATIENT), Subject(mutant)
        findings = [
            run(check, impatient if check.name in mutant.fails else patient) for check in CHECKS if not check.soak
        ]
        assert [finding.check.name for finding in findings if finding.outcome == "fail"] == sorted(
            mutant.fails, key=[check.name for check in CHECKS].index
        )

    def test_there_are_enough(self) -> None:
        """Whatever the issue of the kit asks for is among them, and most clauses have a mutant."""
        assert len(MUTANTS) >= 14
        assert len({BY_NAME[mutant.fails[0]].clause for mutant in MUTANTS}) >= 25


class DropsEveryFifth(ModelCommunicator):
    """Loses messages."""

    def send(self, buffers: Any, timeout: float | None) -> None:
        """Send, or not."""
        self.count = getattr(self, "count", 0) + 1
        if self.count % 5:
            super().send(buffers, timeout)


class RepeatsAfterATimeOut(ModelCommunicator):
    """Gives the last message again when a read has run out of time."""

    last: Message | None = None
    late = False

    def receive(self, timeout: float | None) -> Message:
        """Read, or not."""
        if self.late and self.last is not None:
            self.late = False
            return self.last
        try:
            self.last = super().receive(timeout)
        except TimeoutError:
            self.late = True
            raise
        return self.last


class ForgetsWhatItBegan(ModelCommunicator):
    """Begins a message anew where a part of another one has gone out."""

    def send(self, buffers: Any, timeout: float | None) -> None:
        """Send as if nothing were under way."""
        self._outgoing = None
        self._given_up = False
        super().send(buffers, timeout)


class TestMachines:
    """A machine that finds nothing where there is something proves nothing, either."""

    @pytest.mark.parametrize("kind", [DropsEveryFifth, RepeatsAfterATimeOut, ForgetsWhatItBegan])
    def test_a_fault_is_found(self, kind: type[ModelCommunicator]) -> None:
        """A conversation that shows it is in the notes of the error."""
        quickly = settings(
            max_examples=300, stateful_step_count=30, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        with pytest.raises(Exception, match=r".") as caught:
            run_state_machine_as_test(adversary_machine(kind), settings=quickly)
        assert isinstance(caught.value, ConformanceError | CommunicatorError)
        assert any("state = OverAnAdversary()" in note for note in caught.value.__notes__)

    def test_an_adversary_loses_nothing(self) -> None:
        """What it holds arrives, byte by byte, and after it the end."""
        adversary = Adversary(ModelCommunicator)
        one, other = adversary.ends
        try:
            one.write(Message("first"))
            arrived: list[Message] = []
            passed = 0
            while not arrived:
                with suppress(TimeoutError):
                    arrived.append(other.read(0))
                passed += adversary.deliver(0, 1)
            assert arrived[0].contents == "first"
            assert passed > 50
            one.write(Message("last"))
            one.close()
            adversary.end(0)
            adversary.deliver_all(0)
            assert other.read(0).contents == "last"
            with pytest.raises(EndOfMessages):
                other.read(0)
            with pytest.raises(BrokenError):
                other.write(Message("nobody reads it"))
        finally:
            one.close()
            other.close()
            adversary.close()


class TestCatalogue:
    """Clauses, checks and the document are of one piece."""

    def test_every_clause_is_proved(self) -> None:
        """The contract has no clause without a check, and no check is of a clause that there is not."""
        assert len(CLAUSES) > 40
        assert {check.clause for check in CHECKS} == set(CLAUSES)

    def test_every_check_says_what_it_does(self) -> None:
        """Its title, and how what it finds is mended; its name is its own."""
        assert len(BY_NAME) == len(CHECKS)
        for check in CHECKS:
            assert check.name.startswith("check_")
            assert len(check.title) > 20, check.name
            assert len(check.remedy) > 20, check.name
        assert set(GROUPS) >= {"api", "smoke", "framing", "ordering", "sizes", "leaks", "death", "security", "launcher"}

    def test_the_document_holds_the_tables(self) -> None:
        """The tables in core/docs/conformance.md are the ones of the code; when they are not, here is what they are."""
        text = DOCUMENT.read_text()
        for name, rows in (("checks", checks_table()), ("mutants", mutants_table())):
            found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
            assert found, f"core/docs/conformance.md has no table of {name}"
            assert found[1] == rows


def checks_table() -> str:
    """Each clause with its checks."""
    rows = ["| clause | check | group | what it does |", "| --- | --- | --- | --- |"]
    ordered = sorted(CHECKS, key=lambda check: [int(part) for part in check.clause.split(".")])
    rows += [f"| {check.clause} | `{check.name}` | {check.group} | {check.title} |" for check in ordered]
    return "\n".join(rows) + "\n"


def mutants_table() -> str:
    """Each mutant with the clauses that it breaks."""
    rows = ["| mutant | clause | found by |", "| --- | --- | --- |"]
    for mutant in MUTANTS:
        clauses = ", ".join(dict.fromkeys(BY_NAME[name].clause for name in mutant.fails))
        names = ", ".join(f"`{name}`" for name in mutant.fails)
        rows.append(f"| {mutant.__doc__.strip()} | {clauses} | {names} |")
    return "\n".join(rows) + "\n"


@clause("6.4", group="close")
def check_that_hangs(subject: Subject) -> None:
    """Hang, with another process that hangs, too.

    Mended: not at all.
    """
    with subject.peer(obey):
        threading.Event().wait()


@clause("6.4", group="close")
def check_that_stumbles(subject: Subject) -> None:
    """Raise something that no check raises.

    Mended: not at all.
    """
    raise LookupError("nothing there")


class TestChecks:
    """How a check ends."""

    def test_a_hang_is_found_and_told(self) -> None:
        """After its deadline, with the stacks of both processes, which does not outlive it."""
        with pytest.raises(ConformanceError) as caught:
            check_that_hangs(Subject(ModelCommunicator, patience=0.6))
        text = str(caught.value)
        assert "it hangs: it has not ended after 2.4 s" in text
        assert "in check_that_hangs" in text
        assert "(obey):" in text
        assert "in obey" in text

    def test_whatever_comes_out_is_told(self) -> None:
        """An error that nobody asked for is a failure, with where it came from."""
        with pytest.raises(
            ConformanceError, match=r"seen: LookupError: nothing there \(at .*check_that_stumbles"
        ) as caught:
            check_that_stumbles(Subject(ModelCommunicator))
        assert isinstance(caught.value.__cause__, LookupError)

    def test_what_does_not_apply_says_why(self) -> None:
        """With a reason, never without a word."""
        with pytest.raises(Skipped, match="it lives within one process"):
            BY_NAME["check_another_process"](MemorySubject())

    def test_a_process_that_cannot_begin_is_told(self) -> None:
        """What it said on its way out is in the text."""

        class Nowhere(ModelCommunicator):
            """Not to be found by its name."""

        Nowhere.__module__ = "tasklink_nowhere"
        sys.modules["tasklink_nowhere"] = type(sys)("tasklink_nowhere")
        sys.modules["tasklink_nowhere"].Nowhere = Nowhere  # type: ignore[attr-defined]
        Nowhere.__qualname__ = "Nowhere"
        try:
            finding = run(BY_NAME["check_another_process"], Subject(Nowhere, patience=2))
        finally:
            del sys.modules["tasklink_nowhere"]
        assert finding.outcome == "fail"
        assert "No module named 'tasklink_nowhere'" in finding.reason

    def test_a_finding_as_data(self) -> None:
        """For programs."""
        finding = run(BY_NAME["check_the_class"], Subject(ModelCommunicator)).as_dict()
        assert (finding["check"], finding["clause"], finding["outcome"]) == ("check_the_class", "13.1", "pass")
        assert finding["clause_text"] == CLAUSES["13.1"]


class TestWaiting:
    """What takes long is told from what hangs by the work that is done."""

    @pytest.mark.parametrize(
        ("each", "comes_after", "came", "seconds"),
        [
            (0.0, 1, True, 3.0),  # in time
            (0.0, 99, False, 4.0),  # nobody works on it
            (0.1, 12, True, 14.0),  # it is worked on, and comes late
            (1.0, 99, False, 5.0),  # it has had all that it may take
            (0.003, 99, False, 43.0),  # it is worked on for ever
        ],
    )
    def test_how_long(self, each: float, comes_after: int, came: bool, seconds: float) -> None:
        """Of a wait for 4 s, where each second of it has so much work."""
        waits: list[float] = []

        def wait(length: float) -> bool:
            waits.append(length)
            return len(waits) == comes_after

        assert waited(wait, 4.0, lambda: each * sum(waits)) is came
        assert sum(waits) == seconds

    def test_work_of_another_process(self) -> None:
        """It is counted while it runs."""
        subject = Subject(ModelCommunicator).fresh()
        try:
            child = subject.apart(work_and_wait)
            child.answer()
            assert child.worked() >= 0.2
            assert subject.worked() > child.worked()
        finally:
            subject.end_children()


def work_and_wait(peer: Any, _: Subject) -> None:
    """Use the processor, say so, and wait to be killed."""
    while time.process_time() < 0.3:
        pass
    peer.say("value", "done")
    threading.Event().wait()


class TestSuite:
    """The class for pytest."""

    def test_no_check_can_be_replaced(self) -> None:
        """Neither by another test nor by nothing."""
        for value in (None, lambda self: None):
            with pytest.raises(TypeError, match=r"replaces test_both_ways.*xfail = \{\"check_both_ways\""):
                type("TestOther", (CommunicatorConformance,), {"test_both_ways": value})

    @pytest.mark.parametrize(
        ("xfail", "words"),
        [
            ({"check_both_ways": " "}, "has no reason"),
            ({"check_both_ways": None}, "has no reason"),
            ({"check_nothing": "because"}, "'check_nothing', which is no check"),
        ],
    )
    def test_what_fails_needs_a_reason(self, xfail: dict[str, str], words: str) -> None:
        """And has to be a check."""
        with pytest.raises(TypeError, match=words):
            type("TestOther", (CommunicatorConformance,), {"xfail": xfail})

    def test_what_is_known_to_fail(self) -> None:
        """Counts as such while it fails, and is told as soon as it passes."""

        class Other(CommunicatorConformance):
            xfail: ClassVar[dict[str, str]] = {
                "check_the_methods": "a time-out is wanted", "check_the_class": "in version 2",
            }  # fmt: skip

            def subject(self) -> Subject:
                """Not with the defaults of the interface."""
                return Subject(load_mutants().HasOtherDefaults)

        tests: Any = Other()
        with pytest.raises(pytest.xfail.Exception, match="a time-out is wanted"):
            tests.test_the_methods()
        with pytest.raises(pytest.fail.Exception, match="check_the_class passes now"):
            tests.test_the_class()
        with pytest.raises(pytest.skip.Exception, match="max_message"):
            tests.test_the_largest_message()

    def test_who_says_nothing_is_told(self) -> None:
        """A class without a subject."""
        with pytest.raises(NotImplementedError, match="subject"):
            CommunicatorConformance().subject()

    def test_a_failure_is_the_text_of_the_check(self) -> None:
        """Clause, what was seen and how to mend it; no traceback of the kit."""

        class Other(CommunicatorConformance):
            def subject(self) -> Subject:
                """Not with the defaults of the interface."""
                return Subject(load_mutants().HasOtherDefaults)

        tests: Any = Other()
        with pytest.raises(pytest.fail.Exception, match=r"clause 13\.1: .*\n  seen: .*timeout=60\.0") as caught:
            tests.test_the_methods()
        assert caught.value.pytrace is False


def test_checks_are_values() -> None:
    """A check tells what it is."""
    assert isinstance(check_that_hangs, Check)
    assert check_that_hangs.title == "Hang, with another process that hangs, too."
    assert check_that_hangs.remedy == "not at all."
