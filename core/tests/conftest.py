"""What the tests of processes share: commands, hosts, and a look at what is left behind."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import settings

from tasklink.guardian import Guardian
from tasklink.hooks import Observers, hookimpl
from tasklink.plan import Protocol, make_plan
from tasklink.sentinel import open_end
from tasklink.supervision import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import ModuleType

    from tasklink.communicator import Communicator
    from tasklink.config import TaskSpec
    from tasklink.result import TaskResult

IGNORES_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)

# A property holds no time: how long an example takes says how busy the machine is. What hangs, the time-out ends.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# What Tasks import stands in files of its own: a process finds it without the tests.
TASKS = Path(__file__).parent / "tasks"


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> Iterator[None]:
    """Have signals as in a terminal: nohup ignores SIGHUP, a shell SIGINT for what is in the background.

    Our children would ignore them as well.
    """
    terminal: dict[signal.Signals, Any] = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in terminal.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _holdings() -> tuple[list[str], list[int]]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir()), sorted(
        child.pid for child in psutil.Process().children()
    )


@contextmanager
def _group(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _run_host(host: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", host],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.fixture
def holdings() -> Callable[[], tuple[list[str], list[int]]]:
    """A look at the descriptors and the children, zombies included, of this process."""
    return _holdings


@pytest.fixture
def clean() -> Iterator[None]:
    """The test leaves the descriptors and the children of this process as they were."""
    before = _holdings()
    yield
    assert _holdings() == before


@pytest.fixture
def guardian(clean: None) -> Iterator[Guardian]:
    """A guardian that is closed at the end."""
    with Guardian() as guardian:
        yield guardian


@pytest.fixture
def end_of(clean: None) -> Iterator[Callable[[int], int]]:
    """Open what tells of the end of a process, as `open_end` does; closed at the end."""
    with ExitStack() as opened:

        def end_of(pid: int) -> int:
            end = open_end(pid)
            opened.callback(os.close, end)
            return end

        yield end_of


@pytest.fixture
def group() -> Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]:
    """Start a command that leads a group and whose output can be read; killed and reaped when the context ends."""
    return _group


@pytest.fixture
def python() -> tuple[str, ...]:
    """The command of a small Python program, but for its code."""
    return (sys.executable, "-I", "-S", "-c")


@pytest.fixture
def stubborn(python: tuple[str, ...]) -> tuple[str, ...]:
    """The command of a program that ignores SIGTERM, once it has written a line that says `ready`."""
    return (*python, IGNORES_SIGTERM)


@pytest.fixture
def run_host() -> Callable[[str], str]:
    """Run a program that uses tasklink in an interpreter of its own; what it prints. It writes no error."""
    return _run_host


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A small protocol, in a module that Tasks can import."""
    monkeypatch.syspath_prepend(TASKS)
    return importlib.import_module("wires")


@pytest.fixture
def errands(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What Tasks have to do, in a module that they can import."""
    monkeypatch.syspath_prepend(TASKS)
    return importlib.import_module("errands")


@pytest.fixture
def run_over(guardian: Guardian) -> Callable[..., tuple[TaskResult, list[str]]]:
    """Run a Task over some protocols, by their classes; its result, and what it logged."""

    def run(spec: TaskSpec, *kinds: type[Communicator], **parameters: object) -> tuple[TaskResult, list[str]]:
        logs: list[str] = []

        class Logs:
            @hookimpl
            def tasklink_log(self, level: str, text: str) -> None:
                logs.append(f"{level}: {text}")

        protocols = [Protocol(name=f"{kind.__name__}{n}", kind=kind, settings=None) for n, kind in enumerate(kinds)]
        plan = make_plan(spec, parameters, protocols, guardian=guardian, bundle=lambda _: Path())
        return Run(plan, Observers([Logs()])).execute(), logs

    return run
