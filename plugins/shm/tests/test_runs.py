"""Whole runs over shared memory, inherited and handed over, straight and through programs in front of the Task."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasklink import Executor, Status, TaskSpec, current_task
from tasklink.communicator import Address
from tasklink.errors import AuthenticationError, BrokenError, ConfigError
from tasklink.message import Message
from tasklink.registry import Registry
from tasklink.testing.tally import Tally, fresh_tally
from tasklink_shm import SharedMemoryCommunicator, layout
from tasklink_shm.settings import SharedMemorySettings

if TYPE_CHECKING:
    from collections.abc import Callable

# As srun and mpirun do: it passes 0, 1 and 2 on, and nothing else.
LAUNCHER = (sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)")
MODES = [(False, ()), (True, ()), (True, LAUNCHER), (False, ("env",))]


def executor(tmp_path: Path, *, named: bool) -> Executor:
    """An Executor over shared memory, whose private directories are made in `tmp_path`."""
    return Executor("shm", settings={"shm": {"named": named, "directory": str(tmp_path)}})


def echo() -> Callable[[object], object]:
    """A Task that says its parameter back."""

    def task(value: object) -> object:
        current_task().report("running")
        print("printed", flush=True)
        return value

    return task


def folders(path: Path) -> list[str]:
    """What is there, but for the lock files that say whose it is."""
    return [child.name for child in path.iterdir()]


@pytest.mark.parametrize(("named", "prefix"), MODES)
@pytest.mark.parametrize("size", [100, 3 << 20])
def test_a_task(named: bool, prefix: tuple[str, ...], size: int, tmp_path: Path) -> None:
    """It runs, talks, prints, and nothing is left of the way to it."""
    payload = os.urandom(size)
    with executor(tmp_path, named=named) as executing:
        result = executing.run(TaskSpec(run=echo(), prefix=prefix), value=payload)
    assert (result.status, result.value == payload, result.lost) == (Status.COMPLETED, True, 0), result.error
    assert [message.contents for message in result.messages] == ["running"]
    assert result.stdout == b"printed\n"
    assert folders(tmp_path) == []


@pytest.mark.parametrize(("named", "prefix"), MODES[:3])
def test_killed_at_any_moment(named: bool, prefix: tuple[str, ...], tmp_path: Path) -> None:
    """Every message whose write had returned is delivered, once and in order; the next one may be, too."""
    path = tmp_path / "tally"
    moments = random.Random(1)

    def task() -> None:
        counts = Tally.at(path)
        current_task().report(os.getpid())
        for number in itertools.count():
            current_task().report((number, bytes(number % 150_000)))
            counts.accepted = number + 1

    for _ in range(4):
        with executor(tmp_path, named=named) as executing, fresh_tally(path) as tally:
            future = executing.submit(TaskSpec(run=task, prefix=prefix))
            pid = next(future.messages()).contents
            time.sleep(moments.uniform(0, 0.02))
            os.kill(pid, signal.SIGKILL)  # type: ignore[arg-type]
            result = future.result()
            accepted = tally.accepted
        numbers = [message.contents[0] for message in result.messages[1:]]  # type: ignore[index]
        assert (result.status, numbers) == (Status.CRASHED, list(range(len(numbers))))
        assert accepted <= len(numbers) <= accepted + 1


def test_an_array_is_not_copied(tmp_path: Path) -> None:
    """The private memory of either side does not grow by what is sent."""
    pytest.importorskip("numpy", reason="arrays are numpy's")

    def task(megabytes: int) -> Any:
        import numpy

        def private() -> int:
            fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
            return int(fields["Private_Dirty"].split()[0]) + int(fields["Anonymous"].split()[0])

        array = numpy.full(megabytes << 17, 1.5)
        before = private()
        current_task().report(array)
        return private() - before

    with executor(tmp_path, named=False) as executing:
        executing.run(task, megabytes=1)
        rollup = Path("/proc/self/smaps_rollup")

        def anonymous() -> int:
            return int(rollup.read_text().partition("Anonymous:")[2].split()[0])

        before = anonymous()
        result = executing.run(task, megabytes=64)
        (message,) = result.messages
        array = message.contents
        assert array.sum() == 1.5 * (64 << 17)  # type: ignore[attr-defined]
        assert anonymous() - before < 16 << 10
        assert result.value < 16 << 10


def test_an_array_that_was_shared_before_it_was_sent(tmp_path: Path) -> None:
    """What a Task builds in `empty` is where the Executor sees it: what is done to it afterwards shows there."""
    pytest.importorskip("numpy", reason="arrays are numpy's")

    def task() -> object:
        array = current_task().empty((1024, 512))
        array[:] = 1.5
        current_task().report(array[256:])
        array[512, 0] = 7.0
        return array

    with executor(tmp_path, named=False) as executing:
        result = executing.run(task)
    (message,) = result.messages
    reported: Any = message.contents
    value: Any = result.value_or_raise()
    assert (reported.shape, reported[256, 0], value[512, 0]) == ((768, 512), 7.0, 7.0)
    assert value.sum() == 1.5 * 1024 * 512 + 5.5


def test_a_launcher_that_may_pass_no_descriptors(tmp_path: Path) -> None:
    """Before anything is started the error says what to set."""
    with executor(tmp_path, named=False) as executing, pytest.raises(ConfigError, match="set named = true") as caught:
        executing.run(TaskSpec(run=echo(), prefix=LAUNCHER), value=3)
    assert "[communicators.shm]" in str(caught.value)


def test_several_at_once(tmp_path: Path) -> None:
    """Runs in parallel have memory of their own, and none gets the other's messages."""
    with executor(tmp_path, named=False) as executing:
        futures = [executing.submit(echo(), value=[number, bytes(100_000)]) for number in range(8)]
        assert [future.result().value[0] for future in futures] == list(range(8))  # type: ignore[index]


class TestNamed:
    """The memory is handed to who proves the key, and to nobody else."""

    def test_a_wrong_key(self, tmp_path: Path) -> None:
        """Gets no descriptor."""
        with SharedMemoryCommunicator.listen(SharedMemorySettings(named=True, directory=tmp_path)) as listener:
            address = listener.address
            wrong = Address(address.details, key=bytes(32))
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(1) as pool:
                accepting = pool.submit(listener.accept, 10)
                with pytest.raises(AuthenticationError):
                    SharedMemoryCommunicator.connect(wrong)
                with SharedMemoryCommunicator.connect(address) as task, accepting.result() as end:
                    task.write(Message("hello"))
                    assert end.read(5).contents == "hello"
            with pytest.raises(BrokenError):
                SharedMemoryCommunicator.connect(address)

    def test_killed(self, tmp_path: Path) -> None:
        """The guardian removes the directory of a run that was waiting for its Task."""
        program = (
            "import sys\n"
            "from tasklink import Executor, TaskSpec\n"
            "executor = Executor('shm', settings={'shm': {'named': True, 'directory': sys.argv[1]}})\n"
            "prefix = ('sh', '-c', 'echo waiting >&2; sleep 60')\n"
            "executor.run(TaskSpec(run='os:getpid', prefix=prefix, stderr=sys.argv[2]))"
        )
        errors = tmp_path / "stderr"
        place = tmp_path / "p"
        place.mkdir()
        with subprocess.Popen([sys.executable, "-c", program, str(place), str(errors)]) as dying:
            until(lambda: errors.exists() and errors.read_text() == "waiting\n")
            assert folders(place)
            dying.kill()
        until(lambda: not folders(place))


class TestSettings:
    """The table `[communicators.shm]`."""

    def test_all_of_them(self, tmp_path: Path) -> None:
        """Sizes, durations and paths are text in a config."""
        table = {
            "ring": "1 MiB", "segment": "32 KiB", "pool": "64 MiB", "fallback": False, "spin": "0 s", "quiet": "1 ms",
            "named": True, "directory": str(tmp_path), "connect_timeout": "500 ms",
        }  # fmt: skip
        settings: Any = Registry().settings("shm", table)
        assert (settings.ring, settings.segment, settings.pool, settings.spin) == (1 << 20, 32 << 10, 64 << 20, 0.0)
        assert (settings.quiet, settings.directory, settings.connect_timeout) == (0.001, tmp_path, 0.5)
        assert set(settings.options()) == {"segment", "pool", "fallback", "spin", "quiet"}

    @pytest.mark.parametrize(
        "table",
        [{"ring": "63 KiB"}, {"ring": 65_537}, {"ring": "2 GiB"}, {"segment": 100}, {"spin": "2 s"}, {"quiet": "1 h"}],
    )
    def test_what_makes_no_sense(self, table: dict[str, object]) -> None:
        """Is refused with the name of the setting."""
        with pytest.raises(ConfigError, match=next(iter(table))):
            Registry().settings("shm", table)

    def test_no_memory_for_the_rings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is an error of `listen`, and nothing is left."""

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        before = sorted(os.listdir("/dev/fd"))
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match="No space left"):
            SharedMemoryCommunicator.listen(SharedMemorySettings())
        assert sorted(os.listdir("/dev/fd")) == before

    def test_where_there_is_no_such_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It says so, and what to use instead."""
        assert SharedMemoryCommunicator.unavailable() is None
        monkeypatch.delattr(os, "memfd_create")
        assert "'unix' or 'pipe'" in (SharedMemoryCommunicator.unavailable() or "")
        monkeypatch.setattr(sys, "platform", "darwin")
        assert "darwin" in (layout.unavailable() or "")


def test_what_a_task_imports() -> None:
    """The Task half brings nothing that takes long, until there are arrays or a reason to spin."""
    code = (
        "import sys; before = set(sys.modules); import tasklink_shm.communicator\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('tasklink')))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    heavy = {"ctypes", "_ctypes", "socket", "threading", "logging", "re", "enum", "typing", "attrs", "numpy", "signal"}
    assert not heavy & set(done.stdout.split())


def until(condition: Callable[[], bool]) -> None:
    """Look again and again, for ten seconds at most: there is no descriptor that tells of another program's files."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
