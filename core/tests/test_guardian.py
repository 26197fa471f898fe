"""The guardian: what it keeps, and what it does when its Executor dies; on real processes."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import guardian as guardian_module
from tasklink.errors import ClosedError
from tasklink.guardian import Guardian, Wards, attend, members, open_end, record, wait_for_ends
from tasklink.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

IGNORES_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)
LEAVES_A_NOTE = """
import signal, sys
def note(*_):
    open(sys.argv[1], "w").write("asked")
    sys.exit()
signal.signal(signal.SIGTERM, note)
print('ready', flush=True)
signal.pause()
"""


def holdings() -> tuple[list[str], list[int]]:
    """The descriptors and the children of this process."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir()), sorted(
        child.pid for child in psutil.Process().children()
    )


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors and the children, zombies included, as they were."""
    before = holdings()
    yield
    assert holdings() == before


@pytest.fixture
def guardian(clean: None) -> Iterator[Guardian]:
    """A guardian that is closed at the end."""
    with Guardian() as guardian:
        yield guardian


@contextmanager
def group(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a group, killed and reaped at the end."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def python(code: str) -> tuple[str, ...]:
    """The command of a small Python program."""
    return (sys.executable, "-I", "-S", "-c", code)


def pid_of(guardian: Guardian) -> int:
    """The pid of a guardian that has been started."""
    assert guardian.pid is not None
    return guardian.pid


def wait_until_up(guardian: Guardian, tmp_path: Path) -> None:
    """Return when the guardian process reads: it has been told more than the channel holds."""
    longest = tmp_path / "/".join(["x" * 200] * 15)
    for number in range(2 * resource.getpagesize() // 64):
        guardian.keep(longest / str(number))
        guardian.forget(longest / str(number))


names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)
changes = st.one_of(
    st.tuples(st.sampled_from([b"+", b"-"]), st.just(b"group"), st.integers(2, 5).map(lambda n: b"%d" % n)),
    st.tuples(
        st.sampled_from([b"+", b"-"]), st.just(b"directory"), st.sampled_from([b"/a", b"/b c", b"/d\n+", b"/\xff"])
    ),
)


class TestWards:
    """The records, without a process."""

    @given(st.lists(changes), st.data())
    def test_records_split_anywhere(self, changes: list[tuple[bytes, bytes, bytes]], data: st.DataObject) -> None:
        """However the bytes arrive, what is kept is what the changes say."""
        stream = b"".join(record(*change) for change in changes)
        cuts = data.draw(st.lists(st.integers(0, len(stream))).map(sorted))
        wards = Wards()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            wards.feed(stream[start:end])
        expected: set[tuple[bytes, bytes]] = set()
        for sign, kind, name in changes:
            (expected.add if sign == b"+" else expected.discard)((kind, name))
        assert wards.groups == {int(name) for kind, name in expected if kind == b"group"}
        assert wards.directories == {name for kind, name in expected if kind == b"directory"}

    @given(st.lists(changes))
    def test_records_lead_to_the_same(self, changes: list[tuple[bytes, bytes, bytes]]) -> None:
        """What is kept can be told to another guardian."""
        wards, other = Wards(), Wards()
        for change in changes:
            wards.feed(record(*change))
        other.feed(wards.records())
        assert (other.groups, other.directories) == (wards.groups, wards.directories)

    @given(st.sampled_from([b"group", b"directory"]), names, st.data())
    def test_record_that_was_cut_off(self, kind: bytes, name: bytes, data: st.DataObject) -> None:
        """The tail of a record that its writer did not finish means nothing: `+group 12` may have been 123."""
        whole = record(b"+", kind, name)
        wards = Wards()
        wards.feed(whole[: data.draw(st.integers(0, len(whole) - 1))])
        assert (wards.groups, wards.directories, wards.records()) == (frozenset(), frozenset(), b"")

    @given(st.binary())
    def test_other_bytes(self, data: bytes) -> None:
        """Nothing that arrives raises, or means a group that is no single one."""
        wards = Wards()
        wards.feed(data + b"\0")
        assert all(group > 1 for group in wards.groups)

    @pytest.mark.parametrize("name", [b"0", b"1", b"-1", b"", b"x"])
    def test_groups_that_are_no_single_one(self, name: bytes) -> None:
        """0 is our own group to the kernel, and 1 is every process there is."""
        wards = Wards()
        wards.feed(record(b"+", b"group", name))
        assert wards.groups == frozenset()


class TestClose:
    """An orderly end sweeps as the death of the Executor does."""

    def test_lazy(self) -> None:
        """A guardian that nobody needed has no process, and one that was closed none any more."""
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
        """A guardian that nobody holds any longer ends its process."""
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

    def test_group_is_asked_first(self, guardian: Guardian, tmp_path: Path) -> None:
        """SIGTERM comes before SIGKILL, and the rest of the grace is not waited for."""
        with group(*python(LEAVES_A_NOTE), str(tmp_path / "note")) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            guardian.watch(process.pid)
            guardian.close()
            assert process.wait(0) == 0
        assert (tmp_path / "note").read_text() == "asked"

    def test_group_that_ignores_sigterm(self, guardian: Guardian) -> None:
        """It is killed after the grace, and the guardian ends only then."""
        with group(*python(IGNORES_SIGTERM)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            guardian.watch(process.pid)
            before = time.monotonic()
            guardian.close()
            assert guardian_module.GRACE <= time.monotonic() - before < 1
            assert process.wait(0) == -signal.SIGKILL

    def test_stopped_group(self, guardian: Guardian) -> None:
        """A stopped group is ended by SIGTERM: it is continued."""
        with group("sleep", "60") as process:
            guardian.watch(process.pid)
            os.killpg(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            guardian.close()
            assert process.wait(0) == -signal.SIGTERM

    def test_group_without_its_leader(self, guardian: Guardian) -> None:
        """What is left of a group whose leader has ended is ended as well."""
        with group("sh", "-c", "sleep 60 & echo $!") as process:
            assert process.stdout is not None
            child = open_end(int(process.stdout.readline()))
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            guardian.watch(process.pid)
            guardian.close()
            assert wait_for_ends([child], 0)
            os.close(child)

    def test_released_group(self, guardian: Guardian) -> None:
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
        kept = [tmp_path / "plain", tmp_path / "new\nline", Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))]
        forgotten = tmp_path / "forgotten"
        for directory in [*kept, forgotten]:
            (directory / "sub").mkdir(parents=True)
            (directory / "sub" / "file").touch()
            guardian.keep(directory)
        guardian.keep(tmp_path / "absent")
        guardian.forget(forgotten)
        guardian.close()
        assert list(tmp_path.iterdir()) == [forgotten]

    def test_link_in_place_of_a_directory(self, guardian: Guardian, tmp_path: Path) -> None:
        """What a link points to is not ours."""
        (tmp_path / "theirs").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "theirs")
        guardian.keep(tmp_path / "link")
        guardian.close()
        assert (tmp_path / "theirs").is_dir()

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


class TestGuardianProcess:
    """What happens to the guardian process itself."""

    def test_it_imports_little(self) -> None:
        """It starts on the modules that an interpreter has anyway, and few more: about 9 ms of processor time."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.close()
            argv = [sys.executable, "-I", "-S", "-X", "importtime", guardian_module.__file__]
            told = subprocess.run(
                [*argv, str(theirs.fileno()), str(os.getpid()), "-1"],
                pass_fds=[theirs.fileno()],
                capture_output=True,
                text=True,
                check=True,
            )
        imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
        assert {"os", "select"} <= imported
        assert not imported & {"collections", "enum", "re", "signal", "socket", "subprocess", "threading", "typing"}

    def test_start_costs_little(self, guardian: Guardian) -> None:
        """To start a guardian is not to wait for it: its Executor goes on after a few milliseconds."""
        before = time.monotonic()
        guardian.start()
        assert time.monotonic() - before < 0.1
        with Process.start(["true"], standard={}, inherited=(), guardian=guardian) as process:
            assert process.reap().code == 0

    def test_signals_for_the_executor(self, guardian: Guardian, tmp_path: Path) -> None:
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
    def test_it_was_killed(self, guardian: Guardian, caplog: pytest.LogCaptureFixture, again: str) -> None:
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

    def test_it_is_stuck(self, clean: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A guardian that reads no more cannot hold up its Executor: another takes its place."""
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

    def test_sigpipe_at_its_default(self) -> None:
        """An application that dies of SIGPIPE does not die of the death of its guardian."""
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
        assert run(host) == ""


def test_attend() -> None:
    """All that the Executor wrote before it ended is read, although a child that it forked holds the channel open."""
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen(["sleep", "60"]) as executor:
        end = open_end(executor.pid)
        executor.kill()
        executor.wait()
        wards = Wards()
        ours.sendall(record(b"+", b"group", b"123") + b"+group 45")
        attend(theirs.fileno(), end, wards)
        assert wards.groups == {123}
        os.close(end)


def test_members() -> None:
    """The living processes of a group, and of no other; one that has ended is none, although it was not reaped."""
    with group("sh", "-c", "sleep 60 & echo $!") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert members(frozenset([process.pid])) == [child]
        os.killpg(process.pid, signal.SIGKILL)


HOST = """
import os, signal, subprocess, sys
from tasklink.guardian import Guardian
from tasklink.process import Process
from pathlib import Path

guardian = Guardian()
guardian.keep(Path(sys.argv[1]))
commands = [["sh", "-c", "sleep 60 & wait"], [sys.executable, "-I", "-S", "-c", sys.argv[2]]]
started = [Process.start(command, standard={}, inherited=(), guardian=guardian) for command in commands]
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
    def test_its_tasks_die_within_a_second(self, tmp_path: Path, how: str, forks: str) -> None:
        """However it dies: its groups, one that ignores SIGTERM too, its directory and its guardian are gone.

        A child that the application forked, and which has all of its descriptors, does not keep them alive.
        """
        directory = tmp_path / "runtime"
        directory.mkdir()
        host = HOST + forks + f"sys.stdin.readline(); {ENDS[how]}"
        argv = [sys.executable, "-W", "error", "-c", host, str(directory), IGNORES_SIGTERM]
        with (
            subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            ) as executor,
            ExitStack() as opened,
        ):
            assert executor.stdin is not None
            assert executor.stdout is not None
            assert executor.stderr is not None
            lines = sorted([executor.stdout.readline(), executor.stdout.readline()])
            assert lines[1] == b"ready\n"
            pids = [int(pid) for pid in lines[0].split()]
            ends = [open_end(pid) for pid in pids]
            for end in ends:
                opened.callback(os.close, end)
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

    def test_exit_without_close(self) -> None:
        """An interpreter that exits with a guardian open does so quietly, and the guardian with it."""
        host = """
from tasklink.guardian import Guardian
guardian = Guardian()
guardian.start()
print(guardian.pid)
"""
        pid = int(run(host))
        end = open_end(pid)
        assert wait_for_ends([end], 5)
        os.close(end)

    def test_after_a_fork(self) -> None:
        """The child of a fork gives its parent's guardian nothing, takes nothing away, and does not end it."""
        host = """
import os, signal
from tasklink.errors import ForkedError
from tasklink.guardian import Guardian, wait_for_ends
from tasklink.process import Process
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
        assert run(host) == ""


def run(host: str) -> str:
    """Run a program that uses tasklink in an interpreter of its own; what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", host],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout
