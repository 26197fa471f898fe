"""From evidence to status: every combination, the words, and records that are made to hurt."""

from __future__ import annotations

import itertools
import pickle
import signal
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import Status, codec, vocabulary
from tasklink.errors import (
    BrokenError,
    DecodeError,
    NoResultError,
    ProtocolError,
    TaskCancelledError,
    TaskCrashedError,
    TaskError,
    TaskFailedError,
    TaskNotStartedError,
    TaskTimedOutError,
)
from tasklink.message import Message
from tasklink.process import ExitStatus
from tasklink.verdict import Ending, Evidence, Verdict, judge

ERRORS: dict[Status, type[TaskError]] = {
    Status.FAILED: TaskFailedError,
    Status.CRASHED: TaskCrashedError,
    Status.CANCELLED: TaskCancelledError,
    Status.TIMED_OUT: TaskTimedOutError,
    Status.NO_RESULT: NoResultError,
    Status.NOT_STARTED: TaskNotStartedError,
}


def failure(signal_: str, *texts: str, chain: Any = None) -> Message:
    """A failure record as the worker makes it, with any object in the place of the exceptions."""
    message = vocabulary.record(signal_, *texts)
    assert message.buffers is not None
    message.buffers.append(pickle.dumps(chain, 5))
    return message


def chain_of(*errors: object) -> list[tuple[int, list[bytes]]]:
    """Exceptions, each after the one that it has caused."""
    return [(codec.PICKLE, [pickle.dumps(error, 5)]) for error in errors]


def result(value: object, signal_: str = vocabulary.RESULT) -> Message:
    """A receipt with a value."""
    return Message.encoded(*codec.encode(value), signal_)


TEXTS = ("KeyError", "'x'", "Traceback")

# Made anew for each test: a message keeps what was decoded.
RECEIPTS = {
    "none": lambda: None,
    "result": lambda: result(5),
    "unreadable result": lambda: Message.encoded(99, [b"?"], vocabulary.RESULT),
    "failure": lambda: failure(vocabulary.FAILURE, *TEXTS, chain=chain_of(KeyError("x"))),
    "cancelled": lambda: result(6, vocabulary.CANCELLED),
    "unreadable cancelled": lambda: Message.encoded(99, [b"?"], vocabulary.CANCELLED),
    "refused": lambda: failure(vocabulary.REFUSED, *TEXTS, chain=chain_of(KeyError("x"))),
}
EXITS = {
    "0": ExitStatus(code=0),
    "3": ExitStatus(code=3),
    "SIGKILL": ExitStatus(signal=signal.SIGKILL),
    "SIGSEGV": ExitStatus(signal=signal.SIGSEGV),
    "unknown": ExitStatus(),
}
ENDINGS = {
    "none": None,
    **{
        status.name: Ending(status, "so it was")
        for status in (Status.CANCELLED, Status.TIMED_OUT, Status.NOT_STARTED, Status.CRASHED)
    },
}
# The first line that fits says what the status is. None: whatever it is.
RULES: list[tuple[str | None, str | None, str | None, str | None, Status | str]] = [
    # receipt, exit, ending, who, status
    ("result", None, None, None, Status.COMPLETED),
    ("unreadable result", None, None, None, Status.FAILED),
    ("cancelled", None, "none", None, Status.CANCELLED),
    ("unreadable cancelled", None, "none", None, Status.CANCELLED),
    ("failure", None, "none", None, Status.FAILED),
    ("refused", None, "none", None, Status.NOT_STARTED),
    (None, None, "CANCELLED", None, Status.CANCELLED),
    (None, None, "TIMED_OUT", None, Status.TIMED_OUT),
    (None, None, "NOT_STARTED", None, Status.NOT_STARTED),
    (None, None, "CRASHED", None, Status.CRASHED),
    ("none", "0", None, "command", Status.COMPLETED),
    ("none", "3", None, "command", Status.FAILED),
    ("none", None, None, "command", Status.CRASHED),
    ("none", None, None, "silent task", Status.NOT_STARTED),
    ("none", "0", None, "task", Status.NO_RESULT),
    ("none", None, None, "task", Status.CRASHED),
]
WHO = {"task": (False, True), "silent task": (False, False), "command": (True, False)}


def evidence(**known: Any) -> Evidence:
    """What is known of a run of `count`."""
    return Evidence(**{"label": "count", "command": False, "hello": True, "exit": ExitStatus(code=0), **known})


class TestStatus:
    """Every combination of evidence has one outcome."""

    @pytest.mark.parametrize("who", WHO)
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_every_combination(self, ending: str, who: str) -> None:
        """The status is what the table says, the error is of its kind, and both name the Task."""
        command, hello = WHO[who]
        for receipt, exit_ in itertools.product(RECEIPTS, EXITS):
            verdict = judge(
                evidence(
                    command=command,
                    hello=hello,
                    receipt=RECEIPTS[receipt](),
                    exit=EXITS[exit_],
                    ending=ENDINGS[ending],
                )
            )
            combination = (receipt, exit_, ending, who)
            expected = next(
                rule[4]
                for rule in RULES
                if all(wanted in {None, given} for wanted, given in zip(rule, combination, strict=False))
            )
            assert verdict.status is expected, combination
            if expected is Status.COMPLETED:
                assert verdict.error is None, combination
            else:
                assert type(verdict.error) is ERRORS[verdict.status], combination
                assert "count" in str(verdict.error), combination

    @pytest.mark.parametrize(
        ("receipt", "ending", "value"),
        [
            ("result", "none", 5),
            ("result", "CANCELLED", 5),
            ("cancelled", "none", 6),
            ("cancelled", "TIMED_OUT", 6),
            ("unreadable cancelled", "CANCELLED", None),
            ("failure", "CANCELLED", None),
            ("none", "CANCELLED", None),
        ],
    )
    def test_values(self, receipt: str, ending: str, value: object) -> None:
        """What a Task returned is there, however it came to its end."""
        assert judge(evidence(receipt=RECEIPTS[receipt](), ending=ENDINGS[ending])).value == value

    def test_a_command_that_did_its_work(self) -> None:
        """It has no value, and no error."""
        assert judge(evidence(command=True, hello=False)) == Verdict(Status.COMPLETED)

    def test_no_process(self) -> None:
        """Why there was none is the error itself, whatever else is known."""
        error = TaskNotStartedError("cannot start 'count'")
        assert judge(evidence(not_started=error, exit=None)) == Verdict(Status.NOT_STARTED, error=error)


def words_of(**known: Any) -> str:
    """What the error says."""
    return str(judge(evidence(**known)).error)


class TestWords:
    """An error says what happened, and to whom."""

    def test_failure(self) -> None:
        """Kind and text of the exception; the exception itself, with its cause and a note; the traceback as text."""
        chain = chain_of(ValueError("no peaks"), KeyError("x"))
        receipt = failure(vocabulary.FAILURE, "lab.Odd", "no peaks", "Traceback …\n", chain=chain)
        error = judge(evidence(receipt=receipt)).error
        assert isinstance(error, TaskFailedError)
        assert str(error) == "count raised lab.Odd: no peaks"
        assert error.traceback == "Traceback …\n"
        exception = error.exception
        assert error.__cause__ is exception
        assert isinstance(exception, ValueError)
        assert isinstance(exception.__cause__, KeyError)
        assert exception.__notes__ == ["in the Task:\nTraceback …"]

    def test_refused(self) -> None:
        """It could not begin, and why."""
        error = judge(evidence(receipt=RECEIPTS["refused"]())).error
        assert str(error) == "count could not begin: KeyError: 'x'"
        assert isinstance(error, TaskNotStartedError)
        assert isinstance(error.__cause__, KeyError)

    @pytest.mark.parametrize(
        ("ending", "words"),
        [
            (Ending(Status.CANCELLED, "beam dump"), "count was cancelled: beam dump"),
            (Ending(Status.CANCELLED, ""), "count was cancelled"),
            (
                Ending(Status.TIMED_OUT, "slow", stopped=True),
                "count was ended: slow; its process was stopped then (by pause, SIGSTOP, Ctrl-Z or a debugger)",
            ),
            (Ending(Status.TIMED_OUT, "its time of 2 s was up"), "count was ended: its time of 2 s was up"),
            (Ending(Status.NOT_STARTED, "it did not speak"), "count was ended: it did not speak"),
            (Ending(Status.CRASHED, "nobody can hear it"), "count was ended: nobody can hear it"),
        ],
    )
    def test_ended_by_us(self, ending: Ending, words: str) -> None:
        """What we did, and why."""
        assert words_of(ending=ending) == words

    def test_a_cause_that_we_know(self) -> None:
        """Why we ended it is chained; so is the failure of a Task that was told to end."""
        error = judge(evidence(ending=Ending(Status.CRASHED, "noise", ProtocolError("noise")))).error
        assert error is not None
        assert isinstance(error.__cause__, ProtocolError)
        for receipt, kind in (("failure", TaskFailedError), ("refused", TaskNotStartedError)):
            error = judge(evidence(receipt=RECEIPTS[receipt](), ending=ENDINGS["CANCELLED"])).error
            assert error is not None
            assert isinstance(error.__cause__, kind)
            assert isinstance(error.__cause__.__cause__, KeyError)

    def test_unreadable_values(self) -> None:
        """What arrived and cannot be read says what is missing."""
        error = judge(evidence(receipt=RECEIPTS["unreadable result"]())).error
        assert str(error).startswith("the result of count arrived, but cannot be read: codec 99 is not known here")
        assert isinstance(error, TaskFailedError)
        assert isinstance(error.exception, DecodeError)
        error = judge(evidence(receipt=RECEIPTS["unreadable cancelled"]())).error
        assert str(error) == "count was cancelled"
        assert error is not None
        assert "what count returned when it was told to end cannot be read" in str(error.__cause__)

    def test_silence(self) -> None:
        """Without a receipt, how the process ended and how much had come."""
        assert words_of(exit=ExitStatus(code=3), messages=7) == (
            "count exited with code 3 after 7 messages, without a receipt"
        )
        assert words_of(exit=ExitStatus(code=3), hello=False) == (
            "count exited with code 3 before it could talk to the Executor"
        )
        assert words_of().startswith("count exited with code 0 without giving a result")
        assert words_of(command=True, exit=ExitStatus(code=3)) == "count exited with code 3"
        assert "how is unknown" in words_of(command=True, exit=ExitStatus())

    def test_signals(self) -> None:
        """A killed process names its signal; SIGKILL without a killer means one thing."""
        segfault = ExitStatus(signal=signal.SIGSEGV)
        assert words_of(exit=segfault, command=True) == "count was killed by SIGSEGV (segmentation fault)"
        killed = ExitStatus(signal=signal.SIGKILL)
        assert words_of(exit=killed, command=True) == (
            "count was killed by SIGKILL; if nobody killed it, the system ran out of memory"
        )

    def test_broken_communicators(self) -> None:
        """Where there is no receipt, what broke says why; it needs no other guess."""
        broken = {"unix": ProtocolError("a frame begins with b'GE'"), "pipe": BrokenError("the peer ended")}
        assert words_of(exit=ExitStatus(signal=signal.SIGKILL), broken=broken, messages=2) == (
            "count was killed by SIGKILL after 2 messages, without a receipt; communicator 'unix' broke: "
            "a frame begins with b'GE'; communicator 'pipe' broke: the peer ended"
        )
        assert "communicator 'unix' broke" in words_of(broken=broken)

    def test_the_end_of_stderr(self) -> None:
        """The last lines are shown, whatever bytes they have, and however long they are."""
        assert words_of(exit=ExitStatus(code=3), command=True, stderr=b"one\ntwo\n3\n4\n5\ncaf\xe9 \x00\n") == (
            "count exited with code 3\nThe end of its stderr:\n  two\n  3\n  4\n  5\n  caf\\xe9 \x00"
        )
        bar = b"".join(b"\r%d %%" % number for number in range(1000))
        assert words_of(stderr=bar).endswith("  995 %\n  996 %\n  997 %\n  998 %\n  999 %")
        assert len(words_of(stderr=b"x" * (1 << 20) + b"\n")) < 1000
        assert "x …" in words_of(stderr=b"x" * 301)
        assert "x …" not in words_of(stderr=b"x" * 300)


class Bomb:
    """Raises what it is told to when it is unpickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        return explode, (self.error,)


def explode(error: BaseException) -> NoReturn:
    """Raise."""
    raise error


class Hostile(Exception):  # noqa: N818
    """Raises wherever it is touched."""

    @property
    def __cause__(self) -> NoReturn:  # type: ignore[override]
        raise ZeroDivisionError

    @__cause__.setter
    def __cause__(self, cause: object) -> NoReturn:
        raise ZeroDivisionError

    def add_note(self, note: str) -> NoReturn:
        """Raise."""
        raise ZeroDivisionError


BUFFERS = st.lists(st.binary(max_size=50) | st.just(pickle.dumps(chain_of(ValueError()), 5)), min_size=1, max_size=6)
CHAINS = st.recursive(
    st.none() | st.integers() | st.binary() | st.just((1, [pickle.dumps(ValueError(), 5)])),
    lambda parts: st.lists(parts, max_size=3) | st.tuples(parts, parts),
    max_leaves=8,
)


class TestHostileRecords:
    """A failure record is of the Task's making: whatever is in it, the run has an outcome."""

    @given(st.sampled_from([vocabulary.FAILURE, vocabulary.REFUSED]), BUFFERS)
    def test_any_buffers(self, signal_: str, buffers: list[Any]) -> None:
        """Missing parts, further parts, and bytes that are no UTF-8 and no pickles."""
        error = judge(evidence(receipt=Message.encoded(codec.RAW, buffers, signal_))).error
        assert type(error) is (TaskFailedError if signal_ == vocabulary.FAILURE else TaskNotStartedError)
        assert buffers[0].decode("utf-8", "backslashreplace") in str(error)

    @given(CHAINS)
    def test_any_chain(self, chain: object) -> None:
        """A pickle of anything in the place of the exceptions."""
        error = judge(evidence(receipt=failure(vocabulary.FAILURE, *TEXTS, chain=chain))).error
        assert isinstance(error, TaskFailedError)
        assert error.exception is None or isinstance(error.exception, ValueError)

    @pytest.mark.parametrize("error", [ValueError(), SystemExit(), RecursionError(), MemoryError()], ids=repr)
    def test_pickles_that_raise(self, error: BaseException) -> None:
        """One exception that raises is left out; a chain that does leaves none."""
        receipt = failure(
            vocabulary.FAILURE, *TEXTS, chain=chain_of(ValueError("first"), Bomb(error), KeyError("last"))
        )
        failed = judge(evidence(receipt=receipt)).error
        assert isinstance(failed, TaskFailedError)
        assert isinstance(failed.exception, ValueError)
        assert isinstance(failed.exception.__cause__, KeyError)
        failed = judge(evidence(receipt=failure(vocabulary.FAILURE, *TEXTS, chain=Bomb(error)))).error
        assert isinstance(failed, TaskFailedError)
        assert failed.exception is None
        assert str(failed) == "count raised KeyError: 'x'"

    def test_what_is_no_exception(self) -> None:
        """It is left out."""
        receipt = failure(vocabulary.FAILURE, *TEXTS, chain=chain_of("a text", Status.FAILED, ValueError()))
        failed = judge(evidence(receipt=receipt)).error
        assert isinstance(failed, TaskFailedError)
        assert isinstance(failed.exception, ValueError)

    def test_an_exception_that_raises_when_it_is_touched(self) -> None:
        """Its text is told."""
        failed = judge(evidence(receipt=failure(vocabulary.FAILURE, *TEXTS, chain=chain_of(Hostile())))).error
        assert isinstance(failed, TaskFailedError)
        assert failed.exception is None

    @pytest.mark.parametrize("signal_", [vocabulary.FAILURE, vocabulary.REFUSED])
    def test_data_only(self, signal_: str) -> None:
        """Where a Task may send data only, its exceptions are not unpickled: that would run its code."""
        ran: list[object] = []
        Witness.ran = ran
        for data_only in (True, False):
            judge(evidence(receipt=failure(signal_, *TEXTS, chain=chain_of(Witness())), data_only=data_only))
            assert bool(ran) is not data_only


class Witness(Exception):  # noqa: N818
    """Takes note of being unpickled."""

    ran: list[object]

    def __reduce__(self) -> tuple[object, ...]:
        return bear_witness, ()


def bear_witness() -> Witness:
    """Take note."""
    witness = Witness()
    witness.ran.append(witness)
    return witness
