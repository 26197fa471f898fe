"""Observers: told in order, checked when they are registered, and never able to stop a run."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import timeit
from textwrap import dedent
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tasklink import hooks
from tasklink.errors import BrokenError, BrokenPluginError, PluginError, PluginNotFoundError
from tasklink.hooks import HOOKS, Observers, TaskInfo, hookimpl
from tasklink.message import Message
from tasklink.registry import OBSERVERS, Registry

if TYPE_CHECKING:
    from pathlib import Path

TASK = TaskInfo(run_id="r1", name="count", pid=42, communicators=("pipe",))

NEWS: dict[str, dict[str, Any]] = {
    "tasklink_task_started": {},
    "tasklink_message_received": {"message": Message("hello")},
    "tasklink_output_received": {"stream": "stdout", "data": b"\xff\x00"},
    "tasklink_progress": {"done": 1.0, "total": None, "note": ""},
    "tasklink_log": {"level": "info", "logger": "lab", "text": "hot"},
    "tasklink_communicator_broken": {"communicator": "pipe", "error": BrokenError("gone")},
    "tasklink_task_ended": {"result": object()},
}


def tell(observers: Observers, hook: str) -> None:
    """Tell some news by the method of a hook."""
    getattr(observers, hook.removeprefix("tasklink_"))(TASK, **NEWS[hook])


@attrs.define
class Named:
    """An observer that writes its name into a common list; two of one name are equal."""

    name: str
    heard: list[str]

    @hookimpl
    def tasklink_task_started(self) -> None:
        """Listen."""
        self.heard.append(self.name)

    @hookimpl
    def tasklink_log(self, text: str) -> None:
        """Listen."""
        self.heard.append(f"{self.name}: {text}")


@attrs.define
class Raising:
    """An observer that raises whatever it is told to, and counts how often."""

    error: BaseException
    calls: int = 0

    @hookimpl
    def tasklink_task_started(self) -> None:
        """Fail."""
        self.calls += 1
        raise self.error

    @hookimpl
    def tasklink_log(self) -> None:
        """Fail."""
        self.calls += 1
        raise self.error


class TestTelling:
    """Who is told what."""

    def test_every_hook_arrives_whole(self) -> None:
        """Each hook reaches its implementation with all it carries, unchanged."""
        heard: dict[str, dict[str, Any]] = {}

        class Everything:
            @hookimpl
            def tasklink_task_started(self, task):
                heard["tasklink_task_started"] = {}

            @hookimpl
            def tasklink_message_received(self, task, message):
                heard["tasklink_message_received"] = {"message": message}

            @hookimpl
            def tasklink_output_received(self, task, stream, data):
                heard["tasklink_output_received"] = {"stream": stream, "data": data}

            @hookimpl
            def tasklink_progress(self, task, done, total, note):
                heard["tasklink_progress"] = {"done": done, "total": total, "note": note}

            @hookimpl
            def tasklink_log(self, task, level, logger, text):
                heard["tasklink_log"] = {"level": level, "logger": logger, "text": text}

            @hookimpl
            def tasklink_communicator_broken(self, task, communicator, error):
                heard["tasklink_communicator_broken"] = {"communicator": communicator, "error": error}

            @hookimpl
            def tasklink_task_ended(self, task, result):
                heard["tasklink_task_ended"] = {"result": result}

        observers = Observers([Everything()])
        for hook in HOOKS:
            tell(observers, hook)
        assert heard == NEWS
        assert tuple(heard) == HOOKS

    def test_methods_are_the_hooks(self) -> None:
        """Observers has a method for each hook, with the same arguments, and both are documented."""
        for hook in HOOKS:
            specification = getattr(hooks, hook)
            method = getattr(Observers, hook.removeprefix("tasklink_"))
            assert list(inspect.signature(method).parameters)[1:] == list(inspect.signature(specification).parameters)
            assert specification.__doc__
            assert method.__doc__
            for argument in inspect.signature(specification).parameters:
                assert f"{argument}: " in specification.__doc__

    def test_order_of_registration(self) -> None:
        """Observers are told in the order in which they were registered, whatever pluggy's own order is."""
        heard: list[str] = []
        observers = Observers([Named("first", heard), Named("second", heard)])
        observers.register(Named("third", heard))
        observers.task_started(TASK)
        assert heard == ["first", "second", "third"]

    def test_subset_of_hooks_and_arguments(self) -> None:
        """An observer implements the hooks it likes, with the arguments it likes, in any order, with defaults."""
        heard: list[object] = []

        class Some:
            @hookimpl
            def tasklink_log(self, text, task, colour="red"):
                heard.append((text, task.name, colour))

        observers = Observers([Some()])
        for hook in HOOKS:
            tell(observers, hook)
        assert heard == [("hot", "count", "red")]

    def test_equal_observers_are_two(self) -> None:
        """Observers that compare equal are told separately."""
        heard: list[str] = []
        Observers([Named("twin", heard), Named("twin", heard)]).task_started(TASK)
        assert heard == ["twin", "twin"]

    def test_class_and_module(self) -> None:
        """A class is made without arguments; a module observes by its functions."""
        made: list[object] = []

        class Made:
            def __init__(self):
                made.append(self)

            @hookimpl
            def tasklink_task_started(self):
                made.append("told")

        module = ModuleType("watching")
        module.tasklink_task_started = hookimpl(lambda task: made.append(task.pid))  # type: ignore[attr-defined]
        Observers([Made, module]).task_started(TASK)
        assert made[1:] == ["told", 42]
        assert type(made[0]) is Made

    def test_answers_are_ignored(self) -> None:
        """What an observer returns, even as a generator, reaches nobody."""

        class Chatty:
            @hookimpl
            def tasklink_task_started(self):
                return "stop!"

            @hookimpl(wrapper=True)
            def tasklink_log(self):
                return (yield)

        observers = Observers([Chatty()])
        observers.task_started(TASK)
        observers.log(TASK, "info", "lab", "hot")

    def test_nobody_listens(self) -> None:
        """Without observers news costs less than a microsecond: output and messages pass here."""
        observers = Observers()
        seconds = timeit.repeat(lambda: observers.output_received(TASK, "stdout", b""), number=10_000, repeat=9)
        assert min(seconds) / 10_000 < 1e-6


class TestGuard:
    """What an observer cannot do."""

    @pytest.mark.parametrize("error", [ValueError("oh"), AssertionError("oh"), SystemExit("oh"), GeneratorExit("oh")])
    def test_raising_observer(self, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
        """One that raises is logged once, with its name, the hook and the error, and is never called again."""
        heard: list[str] = []
        raising = Raising(error)
        observers = Observers([Named("before", heard), raising, Named("after", heard)])
        observers.task_started(TASK)
        observers.task_started(TASK)
        observers.log(TASK, "info", "lab", "hot")
        assert heard == ["before", "after"] * 2 + ["before: hot", "after: hot"]
        assert raising.calls == 1
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("tasklink.hooks", logging.ERROR)
        assert record.getMessage() == (
            f"observer 'Raising' raised in tasklink_task_started, and is told nothing more: {type(error).__name__}: oh"
        )
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    def test_interrupt_is_the_users(self) -> None:
        """Ctrl-C while an observer runs is not the observer's fault: it arrives, and the observer is kept."""
        raising = Raising(KeyboardInterrupt())
        observers = Observers([raising])
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                observers.task_started(TASK)
        assert raising.calls == 2

    def test_threads(self, caplog: pytest.LogCaptureFixture) -> None:
        """Several runs tell at once: nothing is lost, and one that raises in all of them is logged once."""
        heard: list[str] = []
        barrier = threading.Barrier(4)

        class Meeting:
            @hookimpl
            def tasklink_task_started(self):
                barrier.wait()
                raise ValueError("oh")

        observers = Observers([Meeting(), Named("calm", heard)])

        def run() -> None:
            observers.task_started(TASK)
            for _ in range(1000):
                observers.log(TASK, "info", "lab", "hot")

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            observers.register(Named("late", []))
        for thread in threads:
            thread.join()
        assert len(heard) == 4 + 4 * 1000
        assert len(caplog.records) == 1

    def test_observer_that_registers_another(self) -> None:
        """An observer may bring another one, who is told from the next news on."""
        heard: list[str] = []

        class Bringing:
            @hookimpl
            def tasklink_task_started(self):
                if not heard:
                    observers.register(Named("late", heard))
                heard.append("bringing")

        observers = Observers([Bringing()])
        observers.task_started(TASK)
        observers.task_started(TASK)
        assert heard == ["bringing", "bringing", "late"]


class TestRegistering:
    """What is refused, and how that is said."""

    def test_misspelt_hook(self) -> None:
        """A hook that does not exist is refused with the nearest one, and its observer is not told anything."""

        class Misspelt:
            @hookimpl
            def tasklink_task_start(self): ...

            @hookimpl
            def tasklink_log(self):
                raise AssertionError

        observers = Observers()
        with pytest.raises(
            PluginError,
            match=r"observer 'Misspelt' .* no hook tasklink_task_start; did you mean tasklink_task_started\?",
        ):
            observers.register(Misspelt())
        heard: list[str] = []
        observers.register(Named("fine", heard))
        observers.log(TASK, "info", "lab", "hot")
        assert heard == ["fine: hot"]

    def test_unknown_hook(self) -> None:
        """Where no hook is near, all are listed."""

        class Foreign:
            @hookimpl
            def pytest_configure(self): ...

        with pytest.raises(PluginError, match="there is no hook pytest_configure; there are tasklink_task_started, "):
            Observers([Foreign()])

    def test_optional_hook(self) -> None:
        """An observer may implement the hooks of a later tasklink, if it says so."""

        class Modern:
            @hookimpl(optionalhook=True)
            def tasklink_paused(self): ...

            @hookimpl
            def tasklink_log(self): ...

        Observers([Modern()])

    def test_unknown_argument(self) -> None:
        """An argument that the hook does not have is refused, and named."""

        class Curious:
            @hookimpl
            def tasklink_log(self, colour): ...

        with pytest.raises(PluginError, match=r"observer 'Curious' is refused: .*tasklink_log.*'colour'"):
            Observers([Curious()])

    def test_forgotten_mark(self) -> None:
        """A method that has the name of a hook but not its mark would never be called: it is refused."""

        class Unmarked:
            def tasklink_log(self, text): ...

        with pytest.raises(PluginError, match=r"tasklink_log lacks the mark @tasklink\.hooks\.hookimpl"):
            Observers([Unmarked()])

    @pytest.mark.parametrize("observer", [object(), None, 3, print])
    def test_no_hook(self, observer: object) -> None:
        """Something that implements no hook is no observer."""
        with pytest.raises(PluginError, match="it implements no hook; there are tasklink_task_started, "):
            Observers([observer])

    def test_twice(self) -> None:
        """One observer is registered once."""
        observer = Named("one", [])
        with pytest.raises(PluginError, match="observer 'Named' is registered already"):
            Observers([observer, observer])


class TestByName:
    """Observers that are installed."""

    @pytest.fixture
    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A function that installs a distribution with one observer."""
        monkeypatch.syspath_prepend(tmp_path)
        modules = []

        def install(name: str, code: str, value: str = "{}:Plugin") -> ModuleType | None:
            module = f"tasklink_{name}"
            modules.append(module)
            (tmp_path / f"{module}.py").write_text("from tasklink.hooks import hookimpl\n" + dedent(code))
            folder = tmp_path / f"{module}-1.0.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tasklink-{name}\nVersion: 1.0\n")
            (folder / "entry_points.txt").write_text(f"[{OBSERVERS}]\n{name} = {value.format(module)}\n")

        yield install
        for module in modules:
            sys.modules.pop(module, None)

    CLASS = """
        heard = []

        class Plugin:
            @hookimpl
            def tasklink_task_started(self, task):
                heard.append(task.name)
    """
    MODULE = """
        heard = []

        @hookimpl
        def tasklink_task_started(task):
            heard.append(task.name)
    """

    @pytest.mark.parametrize(
        ("code", "value"),
        [(CLASS, "{}:Plugin"), (CLASS + "\n        plugin = Plugin()", "{}:plugin"), (MODULE, "{}")],
        ids=["class", "instance", "module"],
    )
    def test_entry_point(self, install, code: str, value: str) -> None:
        """An entry point names a class, which is made, or an instance, or a module."""
        install("bell", code, value)
        Observers(["bell"]).task_started(TASK)
        assert sys.modules["tasklink_bell"].heard == ["count"]

    def test_name_in_the_log(self, install, caplog: pytest.LogCaptureFixture) -> None:
        """An installed observer is logged under the name that the config calls it."""
        install("bell", self.CLASS.replace("heard.append(task.name)", "1 / 0"))
        Observers(["bell"]).task_started(TASK)
        assert "observer 'bell' raised in tasklink_task_started" in caplog.text

    def test_unknown(self) -> None:
        """A name that is not installed is answered by the registry."""
        with pytest.raises(PluginNotFoundError, match="observer 'bell' is not installed"):
            Observers(["bell"])

    def test_broken(self, install) -> None:
        """So is an observer that cannot be made."""
        install("bell", "class Plugin:\n    def __init__(self):\n        raise OSError('no sound')")
        with pytest.raises(BrokenPluginError, match=r"'bell' of tasklink-bell 1\.0 .*OSError: no sound"):
            Observers(["bell"])

    def test_misspelt_hook(self, install) -> None:
        """A mistake in an installed observer is refused under its name."""
        install("bell", self.CLASS.replace("tasklink_task_started", "tasklink_tusk_started"))
        with pytest.raises(PluginError, match="observer 'bell' is refused: there is no hook tasklink_tusk_started"):
            Observers(["bell"])

    def test_strict(self, install) -> None:
        """A strict registry loads only what is listed."""
        install("bell", self.CLASS)
        Observers(["bell"], registry=Registry(OBSERVERS, allowed=["bell"]))
        with pytest.raises(PluginError, match="'bell' may not be loaded"):
            Observers(["bell"], registry=Registry(OBSERVERS, allowed=[]))
