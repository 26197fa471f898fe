"""What a Task is to the code that runs in it.

A Task says `report`, `log`, `progress` and `signal`, hears `received`, `on` and `cancelled`, and returns its result. It
never sees a Communicator. Without an Executor (run by hand, in a notebook, in a test) the same calls work: logs and
progress go to stderr, the rest vanishes, nobody answers.

This module is part of the Task side: `logging`, `json` and their like stay outside.
"""

from __future__ import annotations

import sys
from _operator import index
from _queue import Empty, SimpleQueue
from _thread import TIMEOUT_MAX, allocate_lock, get_ident

from tasklink import vocabulary
from tasklink.errors import EndOfMessages, TaskInterrupt, TasklinkError
from tasklink.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, SupportsFloat

LEVELS = ("debug", "info", "warning", "error", "critical")

# What `Task.on` calls them; the wire has them under the prefix.
_CONTROL = {"cancel": vocabulary.CANCEL, "pause": vocabulary.PAUSE, "resume": vocabulary.RESUME}


class Task:
    """Code that an Executor runs in a process of its own. Derive from it and define `run`.

    >>> class Double(Task):
    ...     def run(self, number):
    ...         self.progress(1, 1)
    ...         return 2 * number
    >>> Double().run(21)
    42
    """

    _conversation: Conversation | None = None

    # With *args beside **parameters, type checkers take it for any signature at all: a Task has its own.
    def run(self, *args: Any, **parameters: Any) -> Any:
        """Do the work. What this returns is the result of the run; any object will do.

        Raises:
            NotImplementedError: a derived class has not defined it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run(); define it, with the parameters it takes")

    def report(self, contents: object) -> None:
        """Send an object while running: a partial result, a measurement. It arrives in `TaskResult.messages`.

        Raises:
            EncodeError: the object cannot be sent; nothing else is harmed.
            BrokenError: the Executor is gone.
            ForkedError: this process is a fork of the Task's.
        """
        self._talk().say(Message(contents))

    def empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> Any:
        """Make a numpy array, uninitialised like `numpy.empty`, in memory that can be sent without a copy.

        Over a communicator with shared memory, to report or return it, or a part of it, costs the same whatever its
        size. From then on it is the Executor's, and is not to be changed; call `empty` again for the next one.

        Args:
            shape: as for `numpy.empty`.
            dtype: as for `numpy.empty`; no objects.

        Raises:
            ImportError: there is no numpy.
            ValueError: the type holds Python objects.
            OSError, MemoryError: there is no memory.
            BrokenError, ForkedError: as `report`.
        """
        from numpy import dtype as as_dtype  # noqa: PLC0415 - who has no arrays need not have numpy
        from numpy import ndarray  # noqa: PLC0415 - as above

        kind = as_dtype(dtype)
        if kind.hasobject:
            raise ValueError(f"an array of {kind} holds Python objects, which mean nothing in another process")
        nbytes = kind.itemsize
        for length in shape if isinstance(shape, tuple) else (shape,):
            nbytes *= length
        return ndarray(shape, kind, self.buffer(nbytes))

    def buffer(self, nbytes: int) -> memoryview:
        """Give memory that can be sent without a copy: `empty` without numpy.

        Fill it, and report or return it as `pickle.PickleBuffer(memory)`; it arrives as a `memoryview`.

        Args:
            nbytes: how many bytes; their values are not defined.

        Raises:
            OSError, MemoryError, BrokenError, ForkedError: as `empty`.
        """
        return self._talk().allocate(nbytes)

    def log(self, text: str, level: str = "info") -> None:
        """Send a line for the log.

        Args:
            text: what happened.
            level: debug, info, warning, error or critical.

        Raises:
            ValueError: the level is none of these.
            BrokenError, ForkedError: as `report`.
        """
        if level not in LEVELS:
            raise ValueError(f"the level of a log is one of {', '.join(LEVELS)}; not {level!r}")
        self._talk().say(vocabulary.record(vocabulary.LOG, level, "task", str(text)))

    def progress(self, done: SupportsFloat, total: SupportsFloat | None = None, note: str = "") -> None:
        """Say how far the work is.

        Args:
            done: how much is done, in any unit: a number of any kind.
            total: how much there is to do, in the same unit; None when that is not known.
            note: what is being done.

        Raises:
            TypeError, ValueError: `done` or `total` is not a number.
            BrokenError, ForkedError: as `report`.
        """
        texts = (_digits(done), "" if total is None else _digits(total), str(note))
        self._talk().say(vocabulary.record(vocabulary.PROGRESS, *texts))

    def signal(self, name: str, contents: object = None) -> None:
        """Send a signal, with an object or without one. It arrives in `TaskResult.messages`.

        Raises:
            ValueError: the name is empty, longer than 255 bytes, or reserved.
            EncodeError, BrokenError, ForkedError: as `report`.
        """
        check_name(name)
        self._talk().say(Message(contents, name))

    def received(self, timeout: float | None = None) -> Message:
        """Wait for the next signal from the Executor that `on` does not handle.

        Args:
            timeout: seconds to wait; 0: take what is there; None: as long as it takes.

        Raises:
            TimeoutError: none came in time.
            EndOfMessages: none will come: there is no Executor.
        """
        return self._talk().received(timeout)

    def on(self, signal: str, handler: Callable[[Message], object]) -> None:
        """Have a function called for every signal of that name, `"cancel"`, `"pause"` and `"resume"` among them.

        It is called in tasklink's own thread, as soon as the signal comes, whatever the Task is doing; it should be
        short. Signals that came before are handed to it at once, in the caller's thread. What it raises is sent as an
        error to the log.
        """
        self._talk().on(_CONTROL.get(signal, signal), handler)

    @property
    def cancelled(self) -> bool:
        """Whether the Executor wants the Task to end. A Task that looks at it may end in good order."""
        return self._talk().cancel_reason is not None

    @property
    def cancel_reason(self) -> str:
        """Why the Executor wants the Task to end; empty when it does not, or did not say."""
        return self._talk().cancel_reason or ""

    def _talk(self) -> Conversation:
        return self._conversation or _detached


def current_task() -> Task:
    """The Task that this process runs: for functions, and for code that is far from the Task's own.

    Without an Executor it is a Task whose messages go to stderr or vanish.
    """
    return _current or _nobody


def begin(task: Task, conversation: Conversation) -> None:
    """Make a Task the one that this process runs. For the worker only."""
    global _current  # noqa: PLW0603 - a process runs one Task
    task._conversation = conversation
    _current = task


def end() -> None:
    """Take back `begin`. For the worker only."""
    global _current  # noqa: PLW0603 - as above
    _current = None


def check_name(name: str) -> None:
    """See that a user may send a signal of this name.

    Raises:
        ValueError: it is empty, longer than 255 bytes of UTF-8, or reserved.
    """
    if name in _CONTROL or name.startswith(vocabulary.PREFIX):
        reserved = ", ".join(_CONTROL)
        raise ValueError(
            f"the signal {name!r} is reserved: {reserved} and all that begins with {vocabulary.PREFIX!r} have meanings "
            "of their own; an Executor's future has methods for them"
        )
    length = len(name.encode("utf-8", "surrogatepass"))
    if not 0 < length <= 255:
        raise ValueError(f"the name of a signal has 1 to 255 bytes of UTF-8; {name[:40]!r} has {length}")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(f"the name of a signal is Unicode, which {name[:40]!r} is not: it has a lone surrogate")


def _digits(number: SupportsFloat) -> str:
    """Write a number so that every reader understands it: not as numpy shows its own, and integers without loss."""
    try:
        return str(int(index(number)))  # type: ignore[arg-type]
    except TypeError:
        return repr(float(number))


class Conversation:
    """A Task's talk with its Executor; the worker feeds it with what comes.

    Attributes:
        cancel_reason: why the Task shall end; None while it need not.

        allocate: gives memory of so many bytes that can be sent without a copy.

    Args:
        write: sends one message.
        allocate: see above.
    """

    def __init__(
        self,
        write: Callable[[Message], None],
        allocate: Callable[[int], memoryview] = lambda nbytes: memoryview(bytearray(nbytes)),
    ) -> None:
        self.cancel_reason: str | None = None
        self.allocate = allocate
        self._write = write
        self._handlers: dict[str | None, Callable[[Message], object]] = {}
        self._inbox: SimpleQueue[Message | None] = SimpleQueue()  # None: no more will come
        self._sorting = allocate_lock()  # between a handler and the inbox no signal is lost
        self._cancel: Message | None = None
        self._main = get_ident()
        self._listener = 0  # the thread that hears
        self._main_writes = False
        self._interrupted = False
        self._paused = False
        self._gate = allocate_lock()  # held while the Task is paused

    # The Task speaks

    def say(self, message: Message) -> None:
        """Send a message; rest first if the Task is paused."""
        if self._paused:
            self._rest()
        self._send(message)

    def received(self, timeout: float | None) -> Message:
        """Wait for a signal that no handler takes; see `Task.received`."""
        if self._paused:
            self._rest()
        try:
            message = self._inbox.get(True, None if timeout is None else min(max(timeout, 0), TIMEOUT_MAX))
        except Empty:
            raise TimeoutError(f"no signal came within {timeout} s") from None
        if message is None:
            self._inbox.put(None)  # for whoever asks next
            raise EndOfMessages("the Executor will send no more signals")
        return message

    def interrupt(self) -> None:
        """End the Task's main thread by an exception, as soon as no message would be torn by that.

        Called by the handler of SIGTERM, in the main thread: what it raises strikes between any two instructions.
        """
        if self._main_writes:
            self._interrupted = True
        else:
            raise TaskInterrupt(self.cancel_reason or "")

    def on(self, signal: str, handler: Callable[[Message], object]) -> None:
        """Have a handler called for a signal, and for those of that name that came before; see `Task.on`."""
        with self._sorting:
            self._handlers[signal] = handler
            came_before = self._take_out(signal)
        for message in came_before:
            self._handle(handler, message)

    def _send(self, message: Message) -> None:
        if get_ident() != self._main:
            self._write(message)
            return
        outer = self._main_writes  # a signal handler may write while it interrupts a write
        self._main_writes = True
        try:
            self._write(message)
        finally:
            self._main_writes = outer
            if self._interrupted and not outer:
                self._interrupted = False
                raise TaskInterrupt(self.cancel_reason or "")

    def _rest(self) -> None:
        if get_ident() == self._listener:  # a handler: if it rested, nobody would hear that the Task may go on
            return
        self._send(vocabulary.record(vocabulary.PAUSED))
        with self._gate:
            pass

    def _take_out(self, signal: str) -> list[Message]:
        """Take what came under a signal out of the inbox; the rest stays in its order."""
        if signal == vocabulary.CANCEL:
            return [] if self._cancel is None else [self._cancel]
        taken: list[Message] = []
        others: list[Message | None] = []
        try:
            while True:
                message = self._inbox.get(False)
                if message is not None and message.signal == signal:
                    taken.append(message)
                else:
                    others.append(message)
        except Empty:
            for message in others:
                self._inbox.put(message)
        return taken

    # The Executor speaks; called in the worker's reading thread

    def hear(self, message: Message) -> None:
        """Act on a message of the Executor."""
        signal = message.signal
        if signal == vocabulary.CANCEL:
            self.cancel_reason = vocabulary.texts(message)[0]
            self._resume()
        elif signal == vocabulary.PAUSE:
            self._pause()
        elif signal == vocabulary.RESUME:
            self._resume()
        with self._sorting:
            if signal == vocabulary.CANCEL:
                self._cancel = message
            handler = self._handlers.get(signal)
            if handler is None and not (signal or "").startswith(vocabulary.PREFIX):
                self._inbox.put(message)
        if handler is not None:
            self._listener = get_ident()
            self._handle(handler, message)

    def hang_up(self) -> None:
        """Take note that the Executor will say no more."""
        self._inbox.put(None)

    def _handle(self, handler: Callable[[Message], object], message: Message) -> None:
        try:
            handler(message)
        # The handler is the user's, and the thread is the only one that hears a cancel: it must go on.
        except (Exception, SystemExit):  # noqa: BLE001
            import traceback  # noqa: PLC0415 - only for those who need it

            text = f"the handler of {message.signal!r} raised:\n{traceback.format_exc()}"
            log = vocabulary.record(vocabulary.LOG, "error", "tasklink", text)
            try:
                self._write(log)
            except TasklinkError:
                _print(log)

    def _pause(self) -> None:
        if not self._paused:
            self._gate.acquire()
            self._paused = True

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._gate.release()


class _Detached(Conversation):
    """The conversation of a Task that nobody runs."""

    def __init__(self) -> None:
        super().__init__(_print)

    def received(self, timeout: float | None) -> Message:
        raise EndOfMessages("there is no Executor that could send a signal")


def _print(message: Message) -> None:
    """Show on stderr what a person at a terminal wants to see; the rest is for an Executor."""
    if sys.stderr is None:  # as under pythonw, and where descriptor 2 is closed
        return
    if message.signal == vocabulary.LOG:
        level, _, text = vocabulary.texts(message, 3)
        sys.stderr.write(f"{level}: {text}\n")
    elif message.signal == vocabulary.PROGRESS and sys.stderr.isatty():
        done, total, note = vocabulary.texts(message, 3)
        sys.stderr.write(f"{done}{'/' if total else ''}{total} {note}".rstrip() + "\n")


_detached = _Detached()
_nobody = Task()
_current: Task | None = None
