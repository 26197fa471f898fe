"""Whole runs over Unix sockets, inherited and named, straight and through programs in front of the Task."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tasklink import Executor, Status, TaskSpec, current_task
from tasklink.errors import ConfigError
from tasklink.registry import Registry
from tasklink.testing.tally import Tally, fresh_tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# As srun and mpirun do: it passes 0, 1 and 2 on, and nothing else.
LAUNCHER = (sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)")

TRANSPARENT = [
    ("nice", "-n", "1"),
    ("env", "TASKLINK_TEST=1"),
    ("taskset", "-c", str(min(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else "0"),
    ("setpriv", "--nnp"),
    ("nohup",),
    ("stdbuf", "-o0"),
    ("ionice", "-c3"),
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


def executor(tmp_path: Path, *, named: bool) -> Executor:
    """An Executor over Unix sockets, whose private directories are made in `tmp_path`."""
    return Executor("unix", settings={"unix": {"named": named, "directory": str(tmp_path)}})


def echo() -> Callable[[object], object]:
    """A Task that says its parameter back, and what it finds on its standard input."""

    def task(value: object) -> object:
        # Opened anew, a file is read from its beginning: the handover must not be what stands there.
        current_task().report(sys.stdin.read() + Path("/dev/stdin").read_text())
        print("printed", flush=True)
        return value

    return task


class TestModes:
    """The same Task, whichever way it is reached."""

    @pytest.mark.parametrize(
        ("named", "prefix"), [(False, ()), (True, ()), (True, LAUNCHER), (True, ("nice",)), (False, ("env",))]
    )
    def test_a_task(self, named: bool, prefix: tuple[str, ...], tmp_path: Path) -> None:
        """It runs, talks, prints, has an empty standard input, and nothing is left of the way to it."""
        with executor(tmp_path, named=named) as executing:
            result = executing.run(TaskSpec(run=echo(), prefix=prefix), value=[1, 2])
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, [1, 2], 0), result.error
        assert [message.contents for message in result.messages] == [""]
        assert result.stdout == b"printed\n"
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("size", [100, 3 << 20])
    @pytest.mark.parametrize("prefix", [(), LAUNCHER])
    def test_large_messages(self, size: int, prefix: tuple[str, ...], tmp_path: Path) -> None:
        """Parameters and results of any size get through a named socket."""
        payload = os.urandom(size)
        with executor(tmp_path, named=True) as executing:
            result = executing.run(TaskSpec(run=echo(), prefix=prefix), value=payload)
        assert result.value_or_raise() == payload

    def test_several_at_once(self, tmp_path: Path) -> None:
        """Runs in parallel have a socket each, and none gets the other's messages."""
        with executor(tmp_path, named=True) as executing:
            futures = [executing.submit(echo(), value=number) for number in range(8)]
            assert [future.result().value for future in futures] == list(range(8))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("named", "prefix"), [(False, ()), (True, ()), (True, LAUNCHER)])
    def test_killed_after_the_last_write(self, named: bool, prefix: tuple[str, ...], tmp_path: Path) -> None:
        """What was written before SIGKILL is delivered, all of it and in order."""

        def task() -> None:
            for number in range(200):
                current_task().report((number, bytes(number * 10)))
            os.kill(os.getpid(), signal.SIGKILL)

        with executor(tmp_path, named=named) as executing:
            result = executing.run(TaskSpec(run=task, prefix=prefix))
        assert result.status is Status.CRASHED
        assert [message.contents for message in result.messages] == [(n, bytes(n * 10)) for n in range(200)]

    @pytest.mark.parametrize(("named", "prefix"), [(False, ()), (True, ()), (True, LAUNCHER)])
    def test_killed_at_any_moment(self, named: bool, prefix: tuple[str, ...], tmp_path: Path) -> None:
        """Every message whose write had returned is delivered, once and in order; the next one may be, too."""
        path = tmp_path / "tally"
        moments = random.Random(1)

        def task() -> None:
            counts = Tally.at(path)
            current_task().report(os.getpid())
            for number in itertools.count():
                current_task().report((number, bytes(number % 5000)))
                counts.accepted = number + 1

        for _ in range(5):
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

    def test_a_command(self, tmp_path: Path) -> None:
        """A command is not spoken to: no socket is made, and a prefix just stands in front."""
        with executor(tmp_path, named=True) as executing:
            result = executing.run(TaskSpec(command=("ls", str(tmp_path)), prefix=LAUNCHER))
        assert (result.status, result.stdout) == (Status.COMPLETED, b"")


class TestPrefix:
    """Programs in front of the Task, and what they pass on."""

    @pytest.mark.parametrize("prefix", TRANSPARENT, ids=lambda prefix: prefix[0])
    def test_programs_that_pass_descriptors(self, prefix: tuple[str, ...], tmp_path: Path) -> None:
        """Behind those that become the Task the default settings work."""
        if shutil.which(prefix[0]) is None:
            pytest.skip(f"{prefix[0]} is not installed")
        with executor(tmp_path, named=False) as executing:
            result = executing.run(TaskSpec(run=echo(), prefix=prefix), value=3)
        assert (result.status, result.value) == (Status.COMPLETED, 3), result.error

    def test_a_launcher_that_may_pass_none(self, tmp_path: Path) -> None:
        """Before anything is started the error says what to set."""
        with executor(tmp_path, named=False) as executing, pytest.raises(ConfigError) as caught:
            executing.run(TaskSpec(run=echo(), prefix=LAUNCHER), value=3)
        assert "is not known to pass descriptors on" in str(caught.value)
        assert "set named = true in [communicators.unix]" in str(caught.value)

    def test_a_launcher_behind_a_program_that_passes_descriptors(self, tmp_path: Path) -> None:
        """What cannot be known before shows in the Task, and the error says what to set."""
        with executor(tmp_path, named=False) as executing:
            result = executing.run(TaskSpec(run=echo(), prefix=("nice", *LAUNCHER)), value=3)
        assert result.status is Status.NOT_STARTED
        assert "did not come through the prefix" in str(result.error)
        assert "set named = true in [communicators.unix]" in str(result.error)

    def test_a_descriptor_that_is_another_one(self, tmp_path: Path) -> None:
        """The launcher's own descriptor under the number of ours is not taken for it."""
        other = "import os, sys; fd = os.dup2(1, int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
        with executor(tmp_path, named=False) as executing:
            for number in range(3, 30):  # one of them is ours
                prefix = ("env", sys.executable, "-c", other, str(number))
                result = executing.run(TaskSpec(run=echo(), prefix=prefix), value=3)
                if result.status is not Status.COMPLETED:
                    break
        assert f"descriptor {number}, which communicator" in str(result.error)
        assert result.stdout == b""

    def test_a_launcher_that_drops_standard_input(self, tmp_path: Path) -> None:
        """A Task that gets nothing to read says so, instead of waiting."""
        prefix = (sys.executable, "-c", LAUNCHER[2].replace("[1:]", "[1:], stdin=subprocess.DEVNULL"))
        with executor(tmp_path, named=True) as executing:
            result = executing.run(TaskSpec(run=echo(), prefix=prefix), value=3)
        assert result.status is Status.NOT_STARTED
        assert "the Executor ended before it had said what to run" in str(result.error)


class TestSettings:
    """The table `[communicators.unix]`."""

    def test_all_of_them(self, tmp_path: Path) -> None:
        """Sizes, durations and paths are text in a config."""
        table = {"named": True, "directory": str(tmp_path), "connect_timeout": "500 ms", "buffer": "1 MiB"}
        settings = Registry().settings("unix", table)
        assert (settings.directory, settings.connect_timeout, settings.buffer) == (tmp_path, 0.5, 1 << 20)  # type: ignore[attr-defined]

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        """The run is refused with what to set, before anything has started."""
        with executor(tmp_path / "nowhere", named=True) as executing, pytest.raises(ConfigError, match="`directory`"):
            executing.run(echo(), value=1)


class TestKey:
    """The one-shot key is a secret."""

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    @pytest.mark.parametrize("prefix", [(), LAUNCHER])
    def test_it_is_nowhere_to_be_seen(
        self,
        prefix: tuple[str, ...],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Not in arguments or environment of any process, not in logs, output, reprs or the file system."""
        drawn: list[bytes] = []
        draw = os.urandom

        def urandom(count: int) -> bytes:
            drawn.append(draw(count))
            return drawn[-1]

        def task() -> list[bytes]:
            grandchild = subprocess.Popen(["sleep", "60"])
            pids = [str(grandchild.pid), "self", str(os.getppid())]
            seen = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in ("cmdline", "environ")]
            grandchild.kill()
            grandchild.wait()
            return [*seen, repr(dict(os.environ)).encode()]

        monkeypatch.setattr(os, "urandom", urandom)
        with executor(tmp_path, named=True) as executing, caplog.at_level(0):
            result = executing.run(TaskSpec(run=task, prefix=prefix))
        seen = b"\n".join([*result.value_or_raise(), result.stdout, result.stderr, repr(result).encode()])
        seen += caplog.text.encode() + Path("/proc/self/environ").read_bytes() + Path("/proc/self/cmdline").read_bytes()
        secrets = [secret for secret in drawn if len(secret) == 32]
        assert secrets
        for secret in secrets:
            for form in (secret, secret.hex().encode(), base64.b64encode(secret), repr(secret).encode()[2:-1]):
                assert form not in seen


# Waits in a run for a Task that never comes.
WAITING = """
import sys
from tasklink import Executor, TaskSpec
executor = Executor('unix', settings={'unix': {'named': True, 'directory': sys.argv[1]}})
prefix = ('sh', '-c', 'echo waiting >&2; sleep 60')
executor.run(TaskSpec(run='os:getpid', prefix=prefix, stderr=sys.argv[2]))
"""


@contextlib.contextmanager
def waiting(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """An Executor that has a private directory, and where that is."""
    errors = tmp_path / "stderr"
    # Not in tmp_path, which may be too long for the path of a socket.
    with (
        tempfile.TemporaryDirectory() as place,
        subprocess.Popen([sys.executable, "-c", WAITING, place, str(errors)]) as dying,
    ):
        try:
            until(lambda: errors.exists() and errors.read_text() == "waiting\n")
            assert len(os.listdir(place)) == 1
            yield dying, Path(place)
        finally:
            dying.kill()


class TestDeath:
    """The Executor is killed."""

    def test_nothing_is_left_of_the_directory(self, tmp_path: Path) -> None:
        """The guardian removes the directory of a run that was waiting for its Task."""
        with waiting(tmp_path) as (dying, place):
            dying.kill()
            until(lambda: not list(place.iterdir()))

    def test_the_guardian_is_killed_as_well(self, tmp_path: Path) -> None:
        """Then the next run that makes such a directory removes what was left, before its own Task starts."""
        with waiting(tmp_path) as (dying, place):
            processes = [psutil.Process(dying.pid), *psutil.Process(dying.pid).children(recursive=True)]
            assert any("sentinel" in " ".join(process.cmdline()) for process in processes)
            for process in processes:
                process.suspend()  # so that none can act upon the end of another
            for process in processes:
                process.kill()
            psutil.wait_procs(processes[1:], 10)
            (left,) = place.iterdir()
            with executor(place, named=True) as executing:
                result = executing.run(os.listdir, path=str(place))
            assert result.value_or_raise() == []
            assert not left.exists()


def until(condition: Callable[[], bool]) -> None:
    """Look again and again, for ten seconds at most: there is no descriptor that tells of another program's files."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
