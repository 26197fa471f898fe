"""Where what a Task says goes: into the evidence, the result, the files, and to the observers.

Rules of this file: nothing that a Task made is decoded here, except records of text; and nothing that it says, however
odd, raises. Whoever reads messages in a loop for all must not stop for one.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import attrs

from tasklink import vocabulary
from tasklink.errors import LimitExceededError
from tasklink.inbox import Inbox
from tasklink.output import OutputKeeper
from tasklink.task import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.config import TaskSpec
    from tasklink.errors import CommunicatorError
    from tasklink.hooks import Observers, TaskInfo
    from tasklink.message import Message
    from tasklink.verdict import Evidence

RECEIPTS = frozenset({vocabulary.RESULT, vocabulary.FAILURE, vocabulary.CANCELLED, vocabulary.REFUSED})


class Reception:
    """Takes in the messages of one run. A context manager: the files of its output are open within it.

    Args:
        spec: says what is kept, and where.
        info: which run it is, for observers; its pid is set when there is one.
        evidence: is told what matters for the end.
        observers: are told everything.

    Attributes:
        info: as above.
        inbox: what `report` and `signal` sent.
        excess: the Task has sent more than is taken from it, and nothing more is; None while it has not.
        rests: the Task has said that it rests, since this was last set to False.
        connected: the names of the communicators that the Task says it has; None until it does.
    """

    def __init__(self, spec: TaskSpec, info: TaskInfo, evidence: Evidence, observers: Observers) -> None:
        self.info = info
        self.inbox = Inbox(keep=spec.keep_messages, most=spec.limits.kept)
        self.excess: LimitExceededError | None = None
        self.rests = False
        self.connected: frozenset[str] | None = None
        self._evidence = evidence
        self._observers = observers
        self._printed = 0
        self._most_printed = spec.limits.output
        self._outputs = {vocabulary.STDOUT: OutputKeeper(spec.stdout), vocabulary.STDERR: OutputKeeper(spec.stderr)}
        self._takers: dict[str, Callable[[Message], None]] = {
            vocabulary.STDOUT: self._take_output,
            vocabulary.STDERR: self._take_output,
            vocabulary.PROGRESS: self._take_progress,
            vocabulary.LOG: self._take_log,
            vocabulary.HELLO: self._take_hello,
            vocabulary.PAUSED: self._take_paused,
            **dict.fromkeys(RECEIPTS, self._take_receipt),
        }

    def started(self, pid: int) -> None:
        """Take note of the process."""
        self.info = attrs.evolve(self.info, pid=pid)
        self._observers.task_started(self.info)

    def take(self, message: Message) -> None:
        """Take in a message of the Task.

        Raises:
            OSError: the file for the output cannot be written.
        """
        if self.excess is not None:
            return
        signal = message.signal
        try:
            if signal is None or not signal.startswith(vocabulary.PREFIX):
                self.inbox.put(message)
                self._observers.message_received(self.info, message)
            elif signal in self._takers:
                self._takers[signal](message)
            # Other reserved signals belong to later versions.
        except LimitExceededError as error:
            self.excess = error

    def broken(self, name: str, error: CommunicatorError) -> None:
        """Take note of a communicator that failed."""
        self._evidence.broken[name] = error
        self._observers.communicator_broken(self.info, name, error)

    @property
    def stdout(self) -> bytes:
        """The end of the standard output."""
        return self._outputs[vocabulary.STDOUT].tail

    @property
    def stderr(self) -> bytes:
        """The end of the standard error."""
        return self._outputs[vocabulary.STDERR].tail

    def __enter__(self) -> Reception:
        for output in self._outputs.values():
            output.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for output in self._outputs.values():
            output.__exit__()
        self.inbox.close()

    def _take_output(self, message: Message) -> None:
        assert message.buffers is not None
        assert message.signal is not None
        data = bytes(message.buffers[0])
        if self._most_printed is not None:
            self._printed += len(data)
            if self._printed > self._most_printed:
                raise LimitExceededError(
                    f"more than {self._most_printed} bytes were printed; the limit is `limits.output` of the Task"
                )
        self._outputs[message.signal].keep(data)
        self._observers.output_received(self.info, message.signal.removeprefix(vocabulary.PREFIX), data)

    def _take_progress(self, message: Message) -> None:
        done, total, note = vocabulary.texts(message, 3)
        try:
            numbers = _finite(done), _finite(total) if total else None
        except ValueError:
            text = f"progress that is no number: {done[:40]!r} of {total[:40]!r}"
            self._observers.log(self.info, "warning", "tasklink", text)
        else:
            self._observers.progress(self.info, *numbers, note)

    def _take_log(self, message: Message) -> None:
        level, logger, text = vocabulary.texts(message, 3)
        self._observers.log(self.info, level if level in LEVELS else "warning", logger, text)

    def _take_hello(self, message: Message) -> None:
        self._evidence.hello = True
        self.connected = frozenset(vocabulary.texts(message)[3:])

    def _take_paused(self, _: Message) -> None:
        self.rests = True

    def _take_receipt(self, message: Message) -> None:
        if self._evidence.receipt is None:  # the first word counts
            self._evidence.receipt = message


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("no bar is that long")
    return number
