"""News for observers: what a run tells whoever wants to know.

An observer is any object with methods that are marked as implementations of the hooks below. It is told, and that is
all: what it returns is ignored, and what it raises never reaches the run. Rules of this file:

* Only this file imports pluggy. Each observer has a pluggy manager of its own: a call of one manager would end at the
  first observer that raises, begin with the one registered last, and take two observers that are equal for one.
* Observers are called in the order in which they were registered, in the thread of the run. Several runs may call one
  observer at once. A slow observer slows its runs down.
* An observer that raises is logged once and never called again.
* News that nobody asked for cost well under a microsecond: output and messages pass here.

A new hook, and a new argument of a hook, breaks no observer: each implements the hooks it likes, with the arguments
it likes.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

import attrs
import pluggy

from tasklink.errors import PluginError
from tasklink.registry import OBSERVERS, Registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from tasklink.errors import TasklinkError
    from tasklink.message import Message
    from tasklink.result import TaskResult

hookspec = pluggy.HookspecMarker("tasklink")
hookimpl = pluggy.HookimplMarker("tasklink")
"""Marks a method of an observer, or a function of an observer module, as the implementation of the hook of its name."""

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class TaskInfo:
    """Which run some news is about.

    Attributes:
        run_id: unique to the run.
        name: the Task's name.
        pid: its process; None as long as there is none.
        communicators: the names of the communicators that serve the run, in order of preference.
    """

    run_id: str
    name: str
    pid: int | None = None
    communicators: tuple[str, ...] = ()


@hookspec
def tasklink_task_started(task: TaskInfo) -> None:
    """The process of a Task was started.

    Args:
        task: the run, with its pid.
    """


@hookspec
def tasklink_message_received(task: TaskInfo, message: Message) -> None:
    """A message arrived that the Task sent by `report` or `signal`.

    Args:
        task: the run.
        message: the message. Its contents are decoded when an observer asks for them, and can raise `DecodeError`.
    """


@hookspec
def tasklink_output_received(task: TaskInfo, stream: str, data: bytes) -> None:
    """The Task wrote to its standard output or standard error.

    Args:
        task: the run.
        stream: `"stdout"` or `"stderr"`.
        data: what arrived, as it came: any bytes, cut anywhere.
    """


@hookspec
def tasklink_progress(task: TaskInfo, done: float, total: float | None, note: str) -> None:
    """The Task said how far it is.

    Args:
        task: the run.
        done: how much is done, in the unit that the Task chose.
        total: how much there is to do; None where the Task does not know.
        note: what it is about; may be empty.
    """


@hookspec
def tasklink_log(task: TaskInfo, level: str, logger: str, text: str) -> None:
    """The Task logged something: by its `log`, by the standard library's logging, or as a warning.

    Args:
        task: the run.
        level: `"debug"`, `"info"`, `"warning"`, `"error"` or `"critical"`.
        logger: the name of the logger.
        text: the formatted text; it may have several lines.
    """


@hookspec
def tasklink_communicator_broken(task: TaskInfo, communicator: str, error: TasklinkError) -> None:
    """A communicator broke. The run goes on where another one serves it.

    Args:
        task: the run.
        communicator: the name of the communicator.
        error: how it broke.
    """


@hookspec
def tasklink_task_ended(task: TaskInfo, result: TaskResult) -> None:
    """A run is over. Also told for a Task that never came to run.

    Args:
        task: the run.
        result: how it ended.
    """


HOOKS = tuple(name for name in globals() if name.startswith("tasklink_"))
"""The names of the hooks."""


@attrs.define(eq=False)
class _Observer:
    """Somebody who is told."""

    name: str
    implementer: object
    calls: dict[str, pluggy.HookCaller]
    muted: bool = False


class Observers:
    """The observers of one Executor. To call the method of a hook is to tell each of them, and it never raises.

    Args:
        observers: who is to be told; see `register`.
        registry: where observers are looked up by name.

    Raises:
        PluginError: as `register`.
    """

    def __init__(self, observers: Iterable[object] = (), *, registry: Registry[object] | None = None) -> None:
        self._registry = registry or Registry(OBSERVERS)
        self._lock = threading.Lock()
        self._observers: list[_Observer] = []
        # Who implements which hook. It is never changed but replaced, so it is read without the lock.
        self._listeners: dict[str, list[_Observer]] = {hook: [] for hook in HOOKS}
        for observer in observers:
            self.register(observer)

    def register(self, observer: object) -> None:
        """Add an observer, behind those that are there.

        Args:
            observer: the name of an installed one, or an object, a module, or a class that needs no arguments.

        Raises:
            PluginError: it implements a hook that does not exist, or none at all; or it wants an argument that the
                hook does not have; or it is registered already. For a name, also as `Registry.get`.
        """
        if isinstance(observer, str):
            added = _examined(observer, self._registry.instance(observer))
        elif isinstance(observer, type):
            added = _examined(observer.__name__, observer())
        else:
            added = _examined(getattr(observer, "__name__", type(observer).__name__), observer)
        with self._lock:
            self._add(added)

    def task_started(self, task: TaskInfo) -> None:
        """Tell that the process of a Task was started; see `tasklink_task_started`."""
        self._tell("tasklink_task_started", task=task)

    def message_received(self, task: TaskInfo, message: Message) -> None:
        """Tell that a message arrived; see `tasklink_message_received`."""
        self._tell("tasklink_message_received", task=task, message=message)

    def output_received(self, task: TaskInfo, stream: str, data: bytes) -> None:
        """Tell that the Task wrote to a standard stream; see `tasklink_output_received`."""
        self._tell("tasklink_output_received", task=task, stream=stream, data=data)

    def progress(self, task: TaskInfo, done: float, total: float | None = None, note: str = "") -> None:
        """Tell how far the Task is; see `tasklink_progress`."""
        self._tell("tasklink_progress", task=task, done=done, total=total, note=note)

    def log(self, task: TaskInfo, level: str, logger: str, text: str) -> None:
        """Tell that the Task logged something; see `tasklink_log`."""
        self._tell("tasklink_log", task=task, level=level, logger=logger, text=text)

    def communicator_broken(self, task: TaskInfo, communicator: str, error: TasklinkError) -> None:
        """Tell that a communicator broke; see `tasklink_communicator_broken`."""
        self._tell("tasklink_communicator_broken", task=task, communicator=communicator, error=error)

    def task_ended(self, task: TaskInfo, result: TaskResult) -> None:
        """Tell that a run is over; see `tasklink_task_ended`."""
        self._tell("tasklink_task_ended", task=task, result=result)

    def _add(self, added: _Observer) -> None:
        if any(added.implementer is known.implementer for known in self._observers):
            raise PluginError(f"observer {added.name!r} is registered already")
        self._observers.append(added)
        self._listeners = {hook: [observer for observer in self._observers if hook in observer.calls] for hook in HOOKS}

    def _tell(self, hook: str, **news: object) -> None:
        for observer in self._listeners[hook]:
            if observer.muted:
                continue
            try:
                observer.calls[hook](**news)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - SystemExit too: whatever an observer does, the run goes on
                self._mute(observer, hook, error)

    def _mute(self, observer: _Observer, hook: str, error: BaseException) -> None:
        with self._lock:  # two threads may have seen it raise
            muted_before, observer.muted = observer.muted, True
        if not muted_before:
            _log.error(
                "observer %r raised in %s, and is told nothing more: %s: %s",
                observer.name, hook, type(error).__name__, error, exc_info=error,
            )  # fmt: skip


def _examined(name: str, implementer: object) -> _Observer:
    manager = pluggy.PluginManager("tasklink")
    manager.add_hookspecs(sys.modules[__name__])
    try:
        manager.register(implementer, name)
        manager.check_pending()  # without it, a misspelt hook is accepted and never called
    except pluggy.PluginValidationError as error:
        raise PluginError(f"observer {name!r} is refused: {_fault(manager, error)}") from error
    calls = {hook: getattr(manager.hook, hook) for hook in HOOKS}
    implemented = {hook: call for hook, call in calls.items() if call.get_hookimpls()}
    _check_marks(name, implementer, implemented)
    return _Observer(name, implementer, implemented)


def _check_marks(name: str, implementer: object, implemented: Collection[str]) -> None:
    for hook in HOOKS:
        if hook not in implemented and callable(getattr(implementer, hook, None)):
            raise PluginError(f"observer {name!r} is refused: {hook} lacks the mark @tasklink.hooks.hookimpl")
    if not implemented:
        raise PluginError(f"observer {name!r} is refused: it implements no hook; there are {', '.join(HOOKS)}")


def _fault(manager: pluggy.PluginManager, error: pluggy.PluginValidationError) -> str:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    for unknown in [hook for hook in vars(manager.hook) if hook not in HOOKS]:
        near = difflib.get_close_matches(unknown, HOOKS, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(HOOKS)}"
        return f"there is no hook {unknown}; {meant}"
    return "; ".join(str(error).splitlines())
