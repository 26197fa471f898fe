"""What the program exits with: one table, for all of its commands.

core/docs/cli.md shows it to people. A Task's own exit code is in its result (`--json`), never here: it would be taken
for one of these.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from tasklink.errors import CommunicatorError, ConfigError, MessageError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasklink.result import TaskResult

# What a Task exits with that could not reach its Executor (see tasklink.worker).
_NOT_CONNECTED = 76


class Outcome(IntEnum):
    """An exit code; `meaning` says it in words."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Outcome:
        """Make a member of its code and its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "every Task completed"
    TASK = 1, "a Task failed, crashed, was cancelled, gave no result, or could not be started"
    USAGE = 2, "the command line is wrong"
    SETUP = 3, "a config or a plugin cannot be used; nothing was started"
    TIMEOUT = 4, "a Task ran out of its time"
    COMMUNICATION = 5, "a Task could not be talked with, or messages were lost"
    HANGUP = 129, "the terminal was closed (SIGHUP); the Tasks were ended"
    INTERRUPTED = 130, "interrupted by Ctrl-C (SIGINT); the Tasks were ended"
    TERMINATED = 143, "told to end (SIGTERM); the Tasks were ended"


def outcome_of(results: Iterable[TaskResult]) -> Outcome:
    """Sum up several runs: the first that did not go well decides."""
    outcomes = map(_outcome, results)
    return next((outcome for outcome in outcomes if outcome is not Outcome.OK), Outcome.OK)


def outcome_of_error(error: BaseException | None) -> Outcome:
    """Say what an error means that kept a Task from being started."""
    if isinstance(error, ConfigError | PluginError):
        return Outcome.SETUP
    if isinstance(error, CommunicatorError | MessageError):
        return Outcome.COMMUNICATION
    return Outcome.TASK


def _outcome(result: TaskResult) -> Outcome:
    from tasklink.result import Status  # noqa: PLC0415 - attrs is not needed to say that the command line is wrong

    if result.status is Status.NOT_STARTED:
        return _outcome_of_no_start(result)
    if result.status is Status.TIMED_OUT:
        return Outcome.TIMEOUT
    if result.status is not Status.COMPLETED:
        return Outcome.TASK
    return Outcome.COMMUNICATION if result.lost else Outcome.OK


def _outcome_of_no_start(result: TaskResult) -> Outcome:
    # A process that had to be killed before it ran its Task was one that never spoke.
    if result.exit_code == _NOT_CONNECTED or result.signal_name is not None:
        return Outcome.COMMUNICATION
    return outcome_of_error(result.error and result.error.__cause__)
