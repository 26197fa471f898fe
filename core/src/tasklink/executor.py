"""Runs Tasks: the public face of the Executor's side.

`run` works in the caller's thread, `submit` in a pool of threads. Nothing of a run is kept in this module or in the
environment, so any number of Executors work in one process, and in a Task.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from tasklink.bundle import write_bundle
from tasklink.config import Config, TaskSpec, parse_duration
from tasklink.errors import ClosedError, ConfigError, PluginNotFoundError, SignalNotDeliveredError, TaskCancelledError
from tasklink.guardian import Guardian
from tasklink.hooks import Observers
from tasklink.plan import Protocol, make_plan
from tasklink.registry import OBSERVERS, Registry
from tasklink.result import Status, TaskResult
from tasklink.supervision import INTERRUPT_GRACE, Run
from tasklink.task import Task, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    from tasklink.communicator import Communicator
    from tasklink.message import Message

    # A name from the config, "module:attribute", a Task class, a function, a command, or all there is to say.
    Runnable = str | type[Task] | Callable[..., object] | Sequence[str] | TaskSpec

# Taken in this order, those of them that are installed, where nobody says otherwise.
DEFAULT_COMMUNICATORS = ("unix", "pipe")


class Executor:
    """Runs Tasks in processes of their own, and talks with them.

    A context manager: at its end it waits for what was submitted, or ends it if there was an exception.

    Args:
        communicators: names, the preferred one first; None: what the environment or else the default says.
        config: a config that was loaded, in place of `communicators` and of what the environment says.
        settings: by the name of a communicator, its settings, as in a config file.
        observers: objects, or names of installed ones, that are told what happens; beside those of the config.
        timeout: seconds (or "10 min") after which a Task is ended, for those that say nothing else.
        grace: seconds (or "500 ms") between asking a Task to end and each harder means, likewise.
        parallel: how many submitted Tasks run at a time; None: one for each CPU that this process may use.
        strict: load only the plugins that are named in the config or here.

    Raises:
        ConfigError: a value cannot be used.
        PluginError: an observer cannot be used.

    >>> with Executor() as executor:
    ...     executor.run("os:path.basename", p="/data/run17.h5").value
    'run17.h5'
    """

    def __init__(
        self,
        communicators: str | Sequence[str] | None = None,
        *,
        config: Config | None = None,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        observers: Iterable[object] = (),
        timeout: float | str | None = None,
        grace: float | str | None = None,
        parallel: int | None = None,
        strict: bool | None = None,
    ) -> None:
        config = config or Config.load(communicators=communicators)
        self._config = attrs.evolve(
            config,
            settings=config.settings if settings is None else settings,
            timeout=config.timeout if timeout is None else parse_duration(timeout),
            grace=config.grace if grace is None else parse_duration(grace),
            parallel=config.parallel if parallel is None else parallel,
            strict=config.strict if strict is None else strict,
        )
        self._registry: Registry[type[Communicator]] = Registry(allowed=self._allowed())
        self._observers = Observers(
            (*self._config.observers, *observers),
            registry=Registry(OBSERVERS, allowed=self._config.observers if self._config.strict else None),
        )
        self._protocols: dict[str, Protocol] = {}
        self._guardian = Guardian()
        self._bundles = _Bundles(self._guardian)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._futures: set[TaskFuture] = set()
        self._closed = False

    @classmethod
    def from_config(
        cls,
        path: str | PathLike[str],
        *,
        communicators: str | Sequence[str] | None = None,
        overrides: Mapping[str, object] | None = None,
        observers: Iterable[object] = (),
    ) -> Self:
        """Make an Executor from a config file.

        Args:
            path: a TOML file, or a pyproject.toml with a table `[tool.tasklink]`.
            communicators: names for all tasks, whatever the file says.
            overrides: values by dotted key, such as `{"tasks.count.timeout": "5 min"}`.
            observers: beside those that the file names.

        Raises:
            ConfigError: something in it cannot be used; everything that is wrong is told, one a line.
            PluginError: an observer cannot be used.
        """
        config = Config.load(path, communicators=communicators, overrides=overrides or {})
        return cls(config=config, observers=observers)

    @property
    def config(self) -> Config:
        """What this Executor goes by."""
        return self._config

    def run(self, task: Runnable, /, **parameters: object) -> TaskResult:
        """Run a Task to its end, in this thread.

        Args:
            task: the name of a task in the config, `"module:attribute"`, a Task class, a function, a command (a list
                of texts), or a TaskSpec.
            parameters: for the Task's `run`, the function, or the `{placeholders}` of the command.

        Raises:
            ConfigError: there is no such task, or it asks for something that cannot be.
            PluginError: a communicator cannot be used.
            EncodeError: the function or its parameters cannot be sent.
            OSError: the system refuses what a run needs before its process starts.
            ClosedError: the Executor was closed.
            KeyboardInterrupt: Ctrl-C; the Task was ended.
        """
        self._check_open()
        return self._prepare(task, parameters).execute()

    def check(self, task: Runnable, /) -> None:
        """See that a Task could be run, and start nothing: it is there, and its communicators and their settings are.

        Raises:
            ConfigError, PluginError: what `run` would raise.
        """
        spec = self._spec_of(task)
        self._protocols_of(spec, self._names(spec))

    def submit(self, task: Runnable, /, **parameters: object) -> TaskFuture:
        """Run a Task in another thread; see `run` for the arguments.

        What `run` would raise is raised by the future's `result`.

        Raises:
            ClosedError: the Executor was closed.
            ConfigError: there is no task of that name.
        """
        future = TaskFuture()
        label = self._spec_of(task).label
        with self._lock:
            self._check_open()
            if self._pool is None:
                workers = self._config.parallel or _usable_cpus()
                self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tasklink-run")
            self._futures.add(future)
            self._pool.submit(future.work, lambda: self._prepare(task, parameters), label)
        future.add_done_callback(self._futures.discard)
        return future

    def close(self) -> None:
        """Wait for what was submitted, and release everything. Can be called again."""
        with self._lock:
            self._closed = True
            pool = self._pool
        if pool is not None:
            pool.shutdown(wait=True)
        self._bundles.close()
        self._guardian.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            grace = INTERRUPT_GRACE if issubclass(kind, KeyboardInterrupt) else None
            for future in list(self._futures):
                future.cancel(f"the Executor was closed by {kind.__name__}", grace)
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this Executor was closed; make another one")

    def _allowed(self) -> list[str] | None:
        """The only communicators that may be loaded; None: all."""
        config = self._config
        if not config.strict:
            return None
        lists = [config.communicators, *(spec.communicators for spec in config.tasks.values())]
        return [name for names in lists for name in names or ()]

    def _prepare(self, task: Runnable, parameters: Mapping[str, object]) -> Run:
        spec = self._spec_of(task)
        names = self._names(spec)
        timeout = self._config.timeout if spec.timeout is None else spec.timeout
        grace = self._config.grace if spec.grace is None else spec.grace
        spec = attrs.evolve(spec, communicators=names, timeout=timeout, grace=grace)
        folder = self._config.path.absolute().parent if self._config.path else None
        plan = make_plan(
            spec,
            parameters,
            self._protocols_of(spec, names),
            guardian=self._guardian,
            folders=(str(folder),) if folder else (),
            bundle=self._bundles.get,
        )
        try:
            return Run(plan, self._observers)
        except BaseException:  # it takes descriptors of its own, and there may be none left
            plan.__exit__()
            raise

    def _spec_of(self, task: Runnable) -> TaskSpec:
        if isinstance(task, TaskSpec):
            return task
        if isinstance(task, str):
            return TaskSpec(run=task) if ":" in task else self._config.task(task)
        if callable(task):
            return TaskSpec(run=task)
        if isinstance(task, Task):
            raise TypeError(f"give the class {type(task).__name__} itself: the Task makes its own instance of it")
        return TaskSpec(command=tuple(task))

    def _names(self, spec: TaskSpec) -> tuple[str, ...]:
        return spec.communicators or self._config.communicators or self._default_communicators()

    def _default_communicators(self) -> tuple[str, ...]:
        installed = self._registry.names()
        names = tuple(name for name in DEFAULT_COMMUNICATORS if name in installed)
        if not names:
            raise PluginNotFoundError(
                f"none of the default communicators ({', '.join(DEFAULT_COMMUNICATORS)}) is installed: "
                "pip install tasklink-unix, or name the one to use"
            )
        return names

    def _protocols_of(self, spec: TaskSpec, names: Sequence[str]) -> list[Protocol]:
        """Load communicators, and see that they carry messages where the Task needs that, and suit one not trusted."""
        protocols = [self._protocol(name) for name in names]
        carry = any(protocol.kind.capabilities.carries_messages for protocol in protocols)
        if spec.command is None and not carry:
            raise ConfigError(
                f"{spec.label}: communicators = {list(names)}: none of them carries messages, by which a Task in "
                "Python is told what to run; add one that does, such as 'unix'"
            )
        shared = [protocol.name for protocol in protocols if protocol.kind.capabilities.zero_copy]
        if spec.trust == "none" and shared:
            raise ConfigError(
                f'{spec.label}: communicators = {list(names)}: with trust = "none" what arrives must not change any '
                f"more, and {shared[0]!r} shares memory with the Task; leave it out, and name one such as 'unix'"
            )
        return protocols

    def _protocol(self, name: str) -> Protocol:
        """Load a communicator once; reading what is installed for every run would cost a third of a small one."""
        protocol = self._protocols.get(name)
        if protocol is None:
            kind = self._registry.get(name)
            settings = self._registry.settings(name, self._config.settings.get(name))
            protocol = self._protocols[name] = Protocol(name=name, kind=kind, settings=settings)
        return protocol


class TaskFuture(concurrent.futures.Future[TaskResult]):
    """The run of a submitted Task; its result is always a TaskResult, also of a run that was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._run: Run | None = None
        self._reached = threading.Event()  # there is a run, or there will be none
        self._cancel: tuple[str, float | None] | None = None  # reason and grace
        self._lock = threading.Lock()

    def signal(self, name: str, contents: object = None, timeout: float | None = None) -> None:
        """Send a signal to the Task; waits until it has started.

        Args:
            name: what the Task asked for with `on`, or gets from `received`.
            contents: any object.
            timeout: seconds to wait; None: until the Task has started or will not.

        Raises:
            ValueError: the name is reserved, empty, or longer than 255 bytes.
            SignalNotDeliveredError: the Task has ended, or is a command.
            EncodeError: the contents cannot be sent.
            TimeoutError: it could not be sent in time.
        """
        check_name(name)
        if not self._reached.wait(timeout):
            raise TimeoutError(f"{name!r} could not be sent in time: the Task waits for its turn")
        self._running(name).signal(name, contents, timeout)

    def cancel(self, reason: str = "", grace: float | None = None) -> bool:
        """End the Task: it is asked, then told by SIGTERM, then killed. A Task that waits for its turn never starts.

        Args:
            reason: what `Task.cancel_reason` and the error of the result say.
            grace: seconds between these means; None: what the Task's own grace says.

        Returns:
            False when it has ended already.
        """
        with self._lock:
            if self.done():
                return False
            self._cancel = (reason, grace)
            if self._run is not None:
                self._run.cancel(reason, grace)
            return True

    def pause(self) -> None:
        """Have the Task rest: at its next word to us, or wherever it is if it says none within the grace.

        Raises:
            SignalNotDeliveredError: it has not started, or it has ended.
        """
        self._running("pause").pause()

    def resume(self) -> None:
        """Have a paused Task go on.

        Raises:
            SignalNotDeliveredError: it has not started, or it has ended.
        """
        self._running("resume").resume()

    def messages(self) -> Iterator[Message]:
        """Give what the Task reports and signals as it comes, from the first on; ends with the run.

        With `keep_messages = false` those that came before are not given.
        """
        self._reached.wait()
        return iter(()) if self._run is None else self._run.follow()

    def work(self, prepare: Callable[[], Run], label: str) -> None:
        """Do the run in this thread. For the Executor only."""
        self.set_running_or_notify_cancel()
        try:
            result = self._begin(prepare, label)
        except BaseException as error:  # noqa: BLE001 - all of it belongs to whoever asks for the result
            self._reached.set()
            self.set_exception(error)
        else:
            self._reached.set()
            self.set_result(result)

    def _begin(self, prepare: Callable[[], Run], label: str) -> TaskResult:
        if self._cancel is None:
            run = prepare()
            with self._lock:
                self._run = run
                if self._cancel is not None:
                    run.cancel(*self._cancel)
            self._reached.set()
            return run.execute()
        error = TaskCancelledError(f"{label} was cancelled before it started: {self._cancel[0]}".rstrip(": "))
        error.result = TaskResult(name=label, status=Status.CANCELLED, error=error)
        return error.result

    def _running(self, name: str) -> Run:
        if self._run is None or self.done():
            state = "has ended" if self.done() else "has not started"
            raise SignalNotDeliveredError(f"{name!r} cannot be delivered: the Task {state}")
        return self._run


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS cannot bind a process to some of them


class _Bundles:
    """The zips of the Task side for other interpreters, made when first needed, in a folder of their own."""

    def __init__(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._made: dict[frozenset[str], Path] = {}

    def get(self, packages: Iterable[str]) -> Path:
        """Give the zip with these packages."""
        wanted = frozenset(packages)
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="tasklink-"))
                self._guardian.keep(self._folder)
            if wanted not in self._made:
                path = self._folder / f"task-side-{len(self._made)}.zip"
                write_bundle(path, wanted)
                self._made[wanted] = path
            return self._made[wanted]

    def close(self) -> None:
        """Remove them."""
        with self._lock:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._guardian.forget(self._folder)
            self._folder = None
            self._made.clear()
