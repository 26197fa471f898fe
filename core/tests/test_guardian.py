"""The guardian and its sentinel: what becomes of both, and of what they guard; on real processes."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tasklink import guardian as guardian_module
from tasklink.errors import ClosedError
from tasklink.guardian import Guardian
from tasklink.process import Process
from tasklink.sentinel import members, wait_for_ends

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Group = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]

pytestmark = pytest.mark.usefixtures("clean")


def pid_of(guardian: Guardian) -> int:
    """The pid of a sentinel that has been started."""
    assert guardian.pid is not None
    return guardian.pid


def wait_until_up(guardian: Guardian, tmp_path: Path) -> None:
    """Return when the sentinel reads: it has been told more than the channel holds."""
    longest = tmp_path / "/".join(["x" * 200] * 15)
    for number in range(2 * resource.getpagesize() // 64):
        guardian.keep(longest / str(number))
        guardian.forget(longest / str(number))


class TestClose:
    """An orderly end sweeps as the death of the Executor does; what a sweep does is in test_sentinel."""

    def test_lazy(self) -> None:
        """A guardian that nobody needed has no sentinel, and one that was closed none any more."""
        with Guardian() as guardian:
            assert guardian.pid is None
            guardian.start()
            first = guardian.pid
            guardian.start()
            assert [child.pid for child in psutil.Process().children()] == [guardian.pid] == [first]
        assert guardian.pid is None
        assert psutil.Process().children() == []
        guardian.close()

    def test_dropped(self) -> None:
        """A guardian that nobody holds any longer ends its sentinel."""
        guardian = Guardian()
        guardian.start()
        del guardian
        assert psutil.Process().children() == []

    def test_closed(self, guardian: Guardian) -> None:
        """A closed guardian can be told what is over, and given nothing new."""
        guardian.close()
        guardian.release(1 << 21)
        with pytest.raises(ClosedError, match="make a new Executor"):
            guardian.start()
        with pytest.raises(ClosedError):
            guardian.watch(1 << 21)

    def test_released_group(self, group: Group, guardian: Guardian) -> None:
        """A group that was released is left alone."""
        with group("sleep", "60") as kept, group("sleep", "60") as released:
            guardian.watch(released.pid)
            guardian.watch(kept.pid)
            guardian.release(released.pid)
            guardian.close()
            assert kept.wait(0) == -signal.SIGTERM
            assert released.poll() is None

    def test_directories(self, guardian: Guardian, tmp_path: Path) -> None:
        """Those that are kept are removed with all that is in them, whatever their names; those forgotten are not."""
        kept = [tmp_path / "plain", tmp_path / "new\nline", tmp_path / os.fsdecode(b"\xff")]
        forgotten = tmp_path / "forgotten"
        for directory in [*kept, forgotten]:
            (directory / "sub").mkdir(parents=True)
            (directory / "sub" / "file").touch()
            guardian.keep(directory)
        guardian.keep(tmp_path / "absent")
        guardian.forget(forgotten)
        guardian.close()
        assert list(tmp_path.iterdir()) == [forgotten]

    def test_many_threads(self, guardian: Guardian, tmp_path: Path) -> None:
        """Changes from several threads at once arrive whole."""
        for number in range(8):
            (tmp_path / f"{number}-last").mkdir()
            (tmp_path / f"{number}-first").mkdir()

        def change(number: int) -> None:
            guardian.keep(tmp_path / f"{number}-first")
            for other in range(200):
                guardian.keep(tmp_path / f"{number}-{other}")
                guardian.forget(tmp_path / f"{number}-{other}")
            guardian.forget(tmp_path / f"{number}-first")
            guardian.keep(tmp_path / f"{number}-last")

        threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        guardian.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}-first" for number in range(8)]


class TestWatcher:
    """What happens to the sentinel itself."""

    def test_start_costs_little(self, guardian: Guardian) -> None:
        """To start a sentinel is not to wait for it: its Executor goes on after a few milliseconds."""
        before = time.monotonic()
        guardian.start()
        assert time.monotonic() - before < 0.1
        with Process.start(["true"], standard={}, inherited=(), guardian=guardian) as process:
            assert process.reap().code == 0

    def test_signals_for_the_executor(self, group: Group, guardian: Guardian, tmp_path: Path) -> None:
        """Ctrl-C and what a batch system sends to all of a job do not keep it from its work."""
        with group("sleep", "60") as process:
            guardian.watch(process.pid)
            wait_until_up(guardian, tmp_path)
            pid = pid_of(guardian)
            assert os.getsid(pid) == pid
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP):
                os.kill(pid, signum)
            guardian.close()
            assert process.wait(0) == -signal.SIGTERM

    @pytest.mark.parametrize("again", ["start", "watch"])
    def test_it_was_killed(
        self, group: Group, guardian: Guardian, caplog: pytest.LogCaptureFixture, again: str
    ) -> None:
        """The next start or watch starts another, which guards what the first did, and says so."""
        with group("sleep", "60") as first, group("sleep", "60") as second:
            guardian.watch(first.pid)
            pid = pid_of(guardian)
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            guardian.release(1 << 21)
            if again == "start":
                guardian.start()
            guardian.watch(second.pid)
            assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
            assert guardian.pid != pid
            guardian.close()
            assert (first.wait(0), second.wait(0)) == (-signal.SIGTERM, -signal.SIGTERM)

    def test_it_is_stuck(self, group: Group, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A sentinel that reads no more cannot hold up its Executor: another takes its place."""
        monkeypatch.setattr(guardian_module, "PATIENCE", 0.2)
        with Guardian() as guardian, group("sleep", "60") as process:
            guardian.watch(process.pid)
            pid = pid_of(guardian)
            os.kill(pid, signal.SIGSTOP)
            wait_until_up(guardian, tmp_path)
            assert guardian.pid != pid
            monkeypatch.setattr(guardian_module, "PATIENCE", 2.0)
            guardian.close()
            assert process.wait(0) == -signal.SIGTERM

    def test_somebody_else_reaped_it(self, guardian: Guardian) -> None:
        """That another part of the program waited for it changes nothing."""
        guardian.start()
        pid = pid_of(guardian)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        guardian.start()
        assert guardian.pid != pid

    def test_sigpipe_at_its_default(self, run_host: Callable[[str], str]) -> None:
        """An application that dies of SIGPIPE does not die of the death of its sentinel."""
        host = """
import os, signal
from tasklink.guardian import Guardian
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with Guardian() as guardian:
    guardian.start()
    os.kill(guardian.pid, signal.SIGKILL)
    os.waitid(os.P_PID, guardian.pid, os.WEXITED | os.WNOWAIT)
    guardian.release(1 << 21)
    guardian.release(1 << 21)
"""
        assert run_host(host) == ""


HOST = """
import os, signal, subprocess, sys, uuid
from tasklink.config import environment
from tasklink.guardian import Guardian
from tasklink.process import Process
from pathlib import Path

guardian = Guardian()
guardian.keep(Path(sys.argv[1]))
commands = [["sh", "-c", "sleep 60 & setsid sleep 60 & echo daemon $!; wait"], sys.argv[2:]]
started = [
    Process.start(
        command, env=environment({}, origin), standard={}, inherited=(), guardian=guardian, origin=origin
    )
    for command, origin in zip(commands, [uuid.uuid4().hex, uuid.uuid4().hex])
]
print(*(process.pid for process in started), guardian.pid, flush=True)
"""
FORKS = """
if os.fork() == 0:
    signal.pause()
"""
ENDS = {"is killed": "os.kill(os.getpid(), signal.SIGKILL)", "exits": "sys.exit()", "calls _exit": "os._exit(1)"}


class TestDeathOfTheExecutor:
    """The reason for all this."""

    @pytest.mark.parametrize("forks", ["", FORKS], ids=["alone", "with a forked child"])
    @pytest.mark.parametrize("how", ENDS)
    def test_its_tasks_die_within_a_second(
        self, stubborn: tuple[str, ...], end_of: Callable[[int], int], tmp_path: Path, how: str, forks: str
    ) -> None:
        """However it dies: its groups, one that ignores SIGTERM too, a daemon, its directory and its sentinel are gone.

        A child that the application forked, and which has all of its descriptors, does not keep them alive.
        """
        directory = tmp_path / "runtime"
        directory.mkdir()
        host = HOST + forks + f"sys.stdin.readline(); {ENDS[how]}"
        argv = [sys.executable, "-W", "error", "-c", host, str(directory), *stubborn]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as executor:
            assert executor.stdin is not None
            assert executor.stdout is not None
            assert executor.stderr is not None
            numbers, daemon, ready = sorted(executor.stdout.readline() for _ in range(3))
            assert ready == b"ready\n"
            pids = [int(pid) for pid in numbers.split()]
            ends = [end_of(pid) for pid in [*pids, int(daemon.split()[1])]]
            before = time.monotonic()
            executor.stdin.write(b"\n")
            executor.stdin.close()
            executor.wait()
            assert wait_for_ends(ends, 5)
            assert time.monotonic() - before < 1
            assert members(frozenset(pids)) == []
            assert not directory.exists()
            # The forked child, if any, is in the Executor's group still.
            assert bool(members(frozenset([executor.pid]))) == bool(forks)
            if forks:
                os.killpg(executor.pid, signal.SIGKILL)
            assert executor.stderr.read() == b""

    def test_exit_without_close(self, run_host: Callable[[str], str], end_of: Callable[[int], int]) -> None:
        """An interpreter that exits with a guardian open does so quietly, and the sentinel with it."""
        host = """
from tasklink.guardian import Guardian
guardian = Guardian()
guardian.start()
print(guardian.pid)
"""
        assert wait_for_ends([end_of(int(run_host(host)))], 5)

    def test_after_a_fork(self, run_host: Callable[[str], str]) -> None:
        """The child of a fork gives its parent's guardian nothing, takes nothing away, and does not end it."""
        host = """
import os, signal
from tasklink.errors import ForkedError
from tasklink.guardian import Guardian
from tasklink.process import Process
from tasklink.sentinel import wait_for_ends
guardian = Guardian()
with Process.start(["sleep", "60"], standard={}, inherited=(), guardian=guardian) as process:
    child = os.fork()
    if child == 0:
        for change in (guardian.start, lambda: guardian.watch(5), lambda: guardian.release(process.pid)):
            try:
                change()
            except ForkedError as error:
                assert "make a new Executor in the child" in str(error)
            else:
                os._exit(1)
        guardian.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not wait_for_ends([process.fileno()], 0.2)
    guardian.close()
    assert process.reap().signal_name == "SIGTERM"
"""
        assert run_host(host) == ""
