"""What a run leaves: a TaskResult. Values only; `verdict` decides what stands in them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasklink.errors import CommunicatorError, TasklinkError
    from tasklink.message import Message


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    """The Task returned, and its receipt arrived; a command exited with 0."""
    FAILED = "failed"
    """The Task raised, its result cannot be read, or a command exited with another code."""
    CRASHED = "crashed"
    """The process was killed, or ended with a code and without a receipt."""
    CANCELLED = "cancelled"
    """It ended because it was told to."""
    TIMED_OUT = "timed out"
    """It ended because its time was up."""
    NO_RESULT = "no result"
    """It exited with 0, but gave no result."""
    NOT_STARTED = "not started"
    """The Task never began to run."""


@attrs.frozen
class Traffic:
    """What one communicator has brought from the Task.

    Attributes:
        messages: number of messages.
        bytes: bytes of contents.
        resent: how many more the Task had written to it, and wrote again to another one when this one broke; some of
            them may have come twice, and were given once.
    """

    messages: int = 0
    bytes: int = 0
    resent: int = 0


@attrs.frozen(kw_only=True, eq=False)
class TaskResult:
    """How a run ended, and what it gave.

    Attributes:
        name: what the Task is called.
        status: how it ended.
        value: what the Task returned; None without a result, and for commands.
        error: why there is no value; None when the status is COMPLETED. For FAILED a `TaskFailedError`, whose
            `exception` is the Task's own (with its cause), and whose `traceback` is the Task's as text.
        exit_code: of the process; None when a signal killed it, or it never was.
        signal_name: of the signal that killed the process, such as "SIGKILL"; None when none did.
        stdout: the end of the standard output.
        stderr: the end of the standard error.
        messages: what `report` and `signal` sent, in order; empty with `keep_messages = false`.
        missing: the numbers of messages that were sent and have not arrived.
        duration: seconds from the start of the process to its end.
        communicators: what each communicator has brought, by its name.
        broken: how a communicator failed, by its name; empty when none did. The others went on: see `missing` for
            what was lost all the same.
        pid: of the process; None if it never was.
    """

    name: str
    status: Status
    value: object = None
    error: TasklinkError | None = None
    exit_code: int | None = None
    signal_name: str | None = None
    stdout: bytes = attrs.field(default=b"", repr=False)
    stderr: bytes = attrs.field(default=b"", repr=False)
    messages: tuple[Message, ...] = attrs.field(default=(), repr=False)
    missing: tuple[range, ...] = ()
    duration: float = 0.0
    communicators: Mapping[str, Traffic] = attrs.field(factory=dict, repr=False)
    broken: Mapping[str, CommunicatorError] = attrs.field(factory=dict, repr=False)
    pid: int | None = None

    @property
    def lost(self) -> int:
        """How many messages were sent and have not arrived; `missing` names them."""
        return sum(gap.stop - gap.start for gap in self.missing)  # not len(), which does not count beyond 2**63

    def value_or_raise(self) -> object:
        """Give the value of a run that completed.

        Raises:
            TaskFailedError, TaskCrashedError, TaskCancelledError, TaskTimedOutError, NoResultError,
            TaskNotStartedError: by the status of the run. `result` of the error is this object.
        """
        if self.error is not None:
            raise self.error
        return self.value
