"""Every error of tasklink, in one place.

    TasklinkError
    ├── ConfigError                what a config file, variable or option says cannot be used
    ├── PluginError                a plugin asked for by name cannot serve
    │   ├── PluginNotFoundError        nothing installed has that name
    │   ├── PluginConflictError        two distributions claim the name
    │   ├── BrokenPluginError          it is installed, and fails when loaded
    │   ├── IncompatiblePluginError    it was written for another plugin API
    │   └── PluginUnavailableError     it works, but not on this machine
    ├── MessageError               one message cannot pass; the channel goes on
    │   ├── EncodeError                its contents cannot be turned into bytes
    │   ├── DecodeError                its bytes cannot be turned into contents
    │   ├── MessageTooLargeError       it is larger than the limit in force
    │   └── BusyError                  it was written by a signal handler that interrupted a write
    ├── CommunicatorError          a channel is of no more use
    │   ├── ClosedError                by us: it was closed here
    │   ├── BrokenError                by the world: the peer or the kernel ended it
    │   ├── ProtocolError              by the peer: it said something the protocol does not allow
    │   │   ├── AuthenticationError        it could not prove who it is
    │   │   └── LimitExceededError         it sent more than is taken from it
    │   └── ForkedError                by fork: the channel belongs to the parent process
    ├── SignalNotDeliveredError    the Task can no longer, or not yet, be reached
    └── TaskError                  a run did not give a value
        ├── TaskFailedError            the Task raised, or a command exited with a code
        ├── TaskCrashedError           its process died
        ├── TaskCancelledError         it was cancelled
        ├── TaskTimedOutError          its time was up
        ├── NoResultError              it ended in good order and gave no result
        └── TaskNotStartedError        it never came to run

    EndOfMessages                  not an error: the peer has finished
    TaskInterrupt                  not an error: raised in a Task's main thread to end it, like KeyboardInterrupt

A wait that reaches its deadline raises the built-in TimeoutError. This module imports nothing: it is part of the
Task side.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklink.result import TaskResult


class TasklinkError(Exception):
    """What every error of tasklink is."""


class ConfigError(TasklinkError):
    """A config file, an environment variable or an option says something that cannot be used."""


class PluginError(TasklinkError):
    """A plugin that was asked for by name cannot serve."""


class PluginNotFoundError(PluginError):
    """No installed distribution offers a plugin of that name."""


class PluginConflictError(PluginError):
    """Several installed distributions offer a plugin of that name."""


class BrokenPluginError(PluginError):
    """The plugin is installed, and fails when it is loaded. The cause is chained."""


class IncompatiblePluginError(PluginError):
    """The plugin was written for another version of the plugin API."""


class PluginUnavailableError(PluginError):
    """The plugin is installed and sound, but cannot be used on this machine."""


class MessageError(TasklinkError):
    """One message cannot pass. Its channel, and every other message, is unharmed."""


class EncodeError(MessageError):
    """The contents of a message cannot be turned into bytes. Nothing of it was sent."""


class DecodeError(MessageError):
    """The bytes of a message cannot be turned into its contents.

    Attributes:
        buffers: what arrived: the body, then the out-of-band buffers; all of it is kept.
    """

    def __init__(self, text: str, buffers: Sequence[bytes | bytearray | memoryview] = ()) -> None:
        super().__init__(text)
        self.buffers = buffers


class MessageTooLargeError(MessageError):
    """A message is larger than the limit in force."""


class BusyError(MessageError):
    """A signal handler interrupted a `write` (or `read`) and called it again in the same thread. Nothing was sent."""


class CommunicatorError(TasklinkError):
    """A channel is of no more use. The other channels of the run go on."""


class ClosedError(CommunicatorError):
    """The communicator was closed on this side."""


class BrokenError(CommunicatorError):
    """The peer, or the kernel, ended the channel; what was not read before is lost."""


class ProtocolError(CommunicatorError):
    """The peer said something that the protocol does not allow."""


class AuthenticationError(ProtocolError):
    """The peer could not prove that it holds the key."""


class LimitExceededError(ProtocolError):
    """The peer sent more than is taken from it: a message that is too large, too many of them, or too much output."""


class ForkedError(CommunicatorError):
    """The channel was opened before this process was forked, and belongs to its parent."""


class SignalNotDeliveredError(TasklinkError):
    """The Task cannot be reached: it has not started, or it has ended."""


class TaskError(TasklinkError):
    """A run did not give a value.

    Attributes:
        result: the `TaskResult` of the run, once there is one.
    """

    result: TaskResult | None = None


class TaskFailedError(TaskError):
    """The Task raised an exception (chained as the cause), or a command exited with a code that is not 0.

    Attributes:
        exception: the exception itself, as far as it could be carried over; None for a command.
        traceback: the traceback as text, as it was in the Task; empty for a command.
    """

    def __init__(self, text: str, exception: BaseException | None = None, traceback: str = "") -> None:
        super().__init__(text)
        self.exception = exception
        self.traceback = traceback
        self.__cause__ = exception


class TaskCrashedError(TaskError):
    """The process of the Task died before it gave a receipt."""


class TaskCancelledError(TaskError):
    """The Task was cancelled."""


class TaskTimedOutError(TaskError):
    """The Task ran out of its time."""


class NoResultError(TaskError):
    """The Task ended in good order but gave no result: `sys.exit(0)`, or `os._exit(0)`."""


class TaskNotStartedError(TaskError):
    """The Task never came to run. The cause is chained where there is one."""


class EndOfMessages(Exception):  # noqa: N818 - it is the peer's orderly finish, not an error
    """The peer has finished: nothing more will come."""


class TaskInterrupt(BaseException):
    """The Task did not end after a cancel, and was sent SIGTERM: raised in its main thread, so that it cleans up."""
