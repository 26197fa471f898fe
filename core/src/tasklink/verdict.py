"""From the evidence of a run to its status: what the Task said, how its process ended, what we asked of it.

Rules of this file: it does no I/O. It fails closed: COMPLETED needs a receipt of the Task (of a command: exit code 0),
and silence is never success. What the Task says of itself in its receipt counts before what happened afterwards: an
interpreter that crashes in some library's exit handler has done its work before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from tasklink import codec, vocabulary
from tasklink.errors import (
    DecodeError,
    NoResultError,
    TaskCancelledError,
    TaskCrashedError,
    TaskError,
    TaskFailedError,
    TaskNotStartedError,
    TaskTimedOutError,
)
from tasklink.result import Status

if TYPE_CHECKING:
    from tasklink.errors import CommunicatorError, LimitExceededError
    from tasklink.message import Message
    from tasklink.process import ExitStatus

_LINES_SHOWN = 5
_CHARACTERS_SHOWN = 300  # of each line: a progress bar may be one line of a megabyte
_BYTES_SEARCHED = 64 << 10


@attrs.frozen
class Ending:
    """That we ended the run, and why.

    Attributes:
        status: CANCELLED, TIMED_OUT, NOT_STARTED or CRASHED.
        reason: in words.
        cause: what else says it.
        stopped: its process was stopped then.
    """

    status: Status
    reason: str
    cause: BaseException | None = None
    stopped: bool = False


@attrs.define
class Evidence:
    """All that is known of a run when it has ended.

    Attributes:
        label: what the Task is called.
        command: it is a program that knows nothing of tasklink.
        data_only: no code of its may run here: no pickle that it has made is decoded.
        hello: its process has spoken.
        receipt: the message that says how it ended, if one came.
        exit: how the process ended; None if it never was.
        ending: our own part in that, if any.
        excess: it sent more than is taken from it, and the rest was thrown away.
        not_started: why there was no process.
        broken: by the name of each communicator that failed: how.
        stderr: the end of its standard error.
        messages: how many messages it had sent.
    """

    label: str
    command: bool
    data_only: bool = False
    hello: bool = False
    receipt: Message | None = None
    exit: ExitStatus | None = None
    ending: Ending | None = None
    excess: LimitExceededError | None = None
    not_started: TaskNotStartedError | None = None
    broken: dict[str, CommunicatorError] = attrs.field(factory=dict)
    stderr: bytes = b""
    messages: int = 0


@attrs.frozen
class Verdict:
    """How a run ended.

    Attributes:
        status: in one word.
        value: what the Task returned.
        error: what to raise in place of a value; None when the status is COMPLETED.
    """

    status: Status
    value: object = None
    error: TaskError | None = None


def judge(evidence: Evidence) -> Verdict:
    """Decide how a run ended. Decodes the Task's result, or its exception."""
    if evidence.not_started is not None:
        return Verdict(Status.NOT_STARTED, error=evidence.not_started)
    if evidence.excess is not None:  # so what there is of it is not all
        return _ended_by_us(evidence, Ending(Status.CRASHED, str(evidence.excess), evidence.excess))
    receipt = evidence.receipt
    if receipt is None:
        return _judge_silence(evidence)
    if receipt.signal == vocabulary.RESULT:
        return _judge_result(evidence, receipt)
    if receipt.signal == vocabulary.CANCELLED:
        return _ended_by_us(evidence, evidence.ending or Ending(Status.CANCELLED, ""), receipt)
    refused = receipt.signal == vocabulary.REFUSED
    error = _not_started(evidence, receipt) if refused else _failure(evidence, receipt)
    if evidence.ending is not None:
        return _ended_by_us(evidence, attrs.evolve(evidence.ending, cause=error))
    return Verdict(Status.NOT_STARTED if refused else Status.FAILED, error=error)


def _judge_result(evidence: Evidence, receipt: Message) -> Verdict:
    try:
        return Verdict(Status.COMPLETED, receipt.contents)
    except DecodeError as error:
        text = f"the result of {evidence.label} arrived, but cannot be read: {error}"
        return Verdict(Status.FAILED, error=TaskFailedError(text, error))


def _judge_silence(evidence: Evidence) -> Verdict:
    """Decide without a receipt."""
    exit_ = evidence.exit
    assert exit_ is not None
    if evidence.ending is not None:
        return _ended_by_us(evidence, evidence.ending)
    if evidence.command and exit_.code is not None:
        if exit_.code == 0:
            return Verdict(Status.COMPLETED)
        return Verdict(Status.FAILED, error=TaskFailedError(_story(evidence, exit_.description)))
    if not evidence.hello and not evidence.command:
        text = f"{exit_.description} before it could talk to the Executor"
        return Verdict(Status.NOT_STARTED, error=TaskNotStartedError(_story(evidence, text)))
    if exit_.code == 0:
        text = "exited with code 0 without giving a result (sys.exit or os._exit in the Task?)"
        return Verdict(Status.NO_RESULT, error=NoResultError(_story(evidence, text)))
    text = exit_.description
    if not evidence.command:
        text += f" after {evidence.messages} messages, without a receipt"
    if exit_.signal_name == "SIGKILL" and not evidence.broken:
        text += "; if nobody killed it, the system ran out of memory"
    return Verdict(Status.CRASHED, error=TaskCrashedError(_story(evidence, text)))


def _ended_by_us(evidence: Evidence, ending: Ending, receipt: Message | None = None) -> Verdict:
    value = None
    cause = ending.cause
    if receipt is not None:
        try:
            value = receipt.contents
        except DecodeError as error:
            cause = TaskFailedError(f"what {evidence.label} returned when it was told to end cannot be read", error)
    text = evidence.label + _ENDED_BY_US[ending.status][1] + (f": {ending.reason}" if ending.reason else "")
    if ending.stopped:
        text += "; its process was stopped then (by pause, SIGSTOP, Ctrl-Z or a debugger)"
    ended = _ENDED_BY_US[ending.status][0](text)
    ended.__cause__ = cause
    return Verdict(ending.status, value, ended)


_ENDED_BY_US: dict[Status, tuple[type[TaskError], str]] = {
    Status.CANCELLED: (TaskCancelledError, " was cancelled"),
    Status.TIMED_OUT: (TaskTimedOutError, " was ended"),
    Status.NOT_STARTED: (TaskNotStartedError, " was ended"),
    Status.CRASHED: (TaskCrashedError, " was ended"),
}


# Failure records


def _failure(evidence: Evidence, receipt: Message) -> TaskFailedError:
    kind, text, traceback = vocabulary.texts(receipt, 3)
    exception = _exception(evidence, receipt, traceback)
    return TaskFailedError(f"{evidence.label} raised {kind}: {text}", exception, traceback)


def _not_started(evidence: Evidence, receipt: Message) -> TaskNotStartedError:
    kind, text, traceback = vocabulary.texts(receipt, 3)
    error = TaskNotStartedError(f"{evidence.label} could not begin: {kind}: {text}")
    error.__cause__ = _exception(evidence, receipt, traceback)
    return error


def _exception(evidence: Evidence, receipt: Message, traceback: str) -> BaseException | None:
    """Rebuild the Task's exception with its causes, as far as they could be carried over."""
    assert receipt.buffers is not None
    buffers = receipt.buffers
    if evidence.data_only or len(buffers) < 4:
        return None
    try:
        return _rebuilt(codec.decode(codec.PICKLE, [buffers[3]]), "in the Task:\n" + traceback.rstrip())
    # The record and the exceptions in it are of the Task's making. What they should say came as text.
    except Exception:  # noqa: BLE001
        return None


def _rebuilt(chain: Any, note: str) -> BaseException | None:
    first: BaseException | None = None
    for number, parts in reversed(chain):
        exception = _one_exception(number, parts)
        if exception is not None:
            exception.__cause__ = first
            first = exception
    if first is not None:
        first.add_note(note)
    return first


def _one_exception(number: int, parts: list[bytes]) -> BaseException | None:
    if not parts:
        return None
    try:
        exception = codec.decode(number, list(parts))
    except DecodeError:
        return None  # its text and its traceback came as text
    return exception if isinstance(exception, BaseException) else None


def _story(evidence: Evidence, text: str) -> str:
    """Tell what happened, and the last that the Task said on its standard error."""
    broken = "".join(f"; communicator {name!r} broke: {error}" for name, error in evidence.broken.items())
    lines = evidence.stderr[-_BYTES_SEARCHED:].decode("utf-8", "backslashreplace").splitlines()
    last = "".join(f"\n  {_shortened(line)}" for line in lines[-_LINES_SHOWN:])
    return f"{evidence.label} {text}{broken}" + (f"\nThe end of its stderr:{last}" if last else "")


def _shortened(line: str) -> str:
    return line if len(line) <= _CHARACTERS_SHOWN else f"{line[:_CHARACTERS_SHOWN]} …"
