"""Starting and ending the process of a Task, on real processes."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import stat
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tasklink.config import environment
from tasklink.errors import ClosedError, TaskNotStartedError
from tasklink.guardian import Guardian
from tasklink.process import ExitStatus, Process
from tasklink.sentinel import wait_for_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

pytestmark = pytest.mark.usefixtures("clean")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc to look for it in")

# New in each process: a daemon must not be found by another test, nor by another run of the same one.
ORIGIN = uuid.uuid4().hex

# Says its pid when it is in a session of its own, and its parent has ended.
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            os.sched_yield()
        print(os.getpid(), flush=True)
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


@contextmanager
def started(
    guardian: Guardian,
    *argv: str,
    standard: Mapping[int, int] = {},
    inherited: Sequence[int] = (),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """A process, closed at the end."""
    with Process.start(argv, standard=standard, inherited=inherited, cwd=cwd, env=env, guardian=guardian) as process:
        yield process


@contextmanager
def talking(guardian: Guardian, *argv: str, **options: object) -> Iterator[tuple[Process, int]]:
    """A process and the reading end of its standard output."""
    reader, writer = os.pipe()
    try:
        try:
            process = Process.start(
                argv,
                standard={1: writer},
                guardian=guardian,
                **{"inherited": (), **options},  # type: ignore[arg-type]
            )
        finally:
            os.close(writer)
        with process:
            yield process, reader
    finally:
        os.close(reader)


def everything(reader: int) -> bytes:
    """All that comes until the last writer is gone."""
    return b"".join(iter(lambda: os.read(reader, 65536), b""))


def ends(process: Process, within: float = 5) -> bool:
    """Whether the process ends in time."""
    return wait_for_ends([process.fileno()], within)


class TestStart:
    """What a process has from its start; what every child has is in test_child."""

    def test_it_has_what_was_asked_for(self, guardian: Guardian, python: tuple[str, ...], tmp_path: Path) -> None:
        """Arguments, environment, working directory and descriptors are those that were given."""
        reader, writer = os.pipe()
        code = "import os, sys; os.write(int(sys.argv[1]), f'{os.environ} {os.getcwd()}'.encode())"
        env = {"A": "1", "LC_CTYPE": "C.UTF-8"}
        with started(guardian, *python, code, str(writer), env=env, cwd=tmp_path, inherited=[writer]):
            os.close(writer)
            assert everything(reader).decode() == f"environ({env}) {tmp_path}"
        os.close(reader)

    def test_inherited_descriptors_are_above_the_standard_ones(self, guardian: Guardian) -> None:
        """A number that is both would go to the one or the other by chance: it is refused."""
        with pytest.raises(ValueError, match=r"\[2\]"), started(guardian, "true", inherited=[2]):
            pass

    def test_the_thread_that_started_it_may_end(self, guardian: Guardian) -> None:
        """F17: the process outlives the thread from which it was started."""
        processes: list[Process] = []

        def start() -> None:
            processes.append(Process.start(["cat"], standard={0: reader}, inherited=(), guardian=guardian))

        reader, writer = os.pipe()
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        with processes[0] as process:
            os.close(reader)
            assert not process.ended()
            os.close(writer)
            assert process.reap() == ExitStatus(code=0)


class TestStartFailure:
    """Each way not to start says what is at fault, and leaves nothing behind."""

    @staticmethod
    def why(guardian: Guardian, *argv: str, **options: object) -> tuple[int | None, str]:
        """The error number and the text of a start that fails."""
        with pytest.raises(TaskNotStartedError) as caught:
            Process.start(argv, standard={}, inherited=(), guardian=guardian, **options)  # type: ignore[arg-type]
        return getattr(caught.value.__cause__, "errno", None), str(caught.value)

    def test_no_such_command(self, guardian: Guardian) -> None:
        """A name that PATH does not lead to."""
        number, text = self.why(guardian, "no-such-command")
        assert number == errno.ENOENT
        assert text == (
            "cannot start 'no-such-command': there is no such command in the directories of PATH; "
            "install it, or give its full path"
        )

    def test_path_is_that_of_the_task(self, guardian: Guardian, tmp_path: Path) -> None:
        """A command is looked for in the environment of the Task, not in ours."""
        number, text = self.why(guardian, "sleep", "0", env={"PATH": str(tmp_path)})
        assert (number, "no such command" in text) == (errno.ENOENT, True)

    def test_no_such_file(self, guardian: Guardian, tmp_path: Path) -> None:
        """A path without a file; relative to the directory of the Task."""
        number, text = self.why(guardian, "./absent", cwd=tmp_path)
        assert number == errno.ENOENT
        assert f"there is no such file ('{tmp_path}/absent')" in text

    def test_interpreter_of_a_script_missing(self, guardian: Guardian, tmp_path: Path) -> None:
        """The kernel says "no such file" of a script that is there: the text names what is not."""
        script = self.executable(tmp_path / "script", b"#!/no/such/interpreter -u\n")
        number, text = self.why(guardian, str(script))
        assert number == errno.ENOENT
        assert (
            f"cannot start '{script}': the interpreter that its first line names, '/no/such/interpreter', is missing"
            in text
        )
        assert "'/no/such/interpreter'" in self.why(guardian, "script", env={"PATH": str(tmp_path)})[1]

    def test_neither_program_nor_script(self, guardian: Guardian, tmp_path: Path) -> None:
        """A text file without `#!`."""
        number, text = self.why(guardian, str(self.executable(tmp_path / "text", b"echo hello\n")))
        assert (number, "begins with '#!'" in text) == (errno.ENOEXEC, True)

    def test_not_executable(self, guardian: Guardian, tmp_path: Path) -> None:
        """A file without the permission, and a directory."""
        (tmp_path / "data").write_bytes(b"")
        number, text = self.why(guardian, "./data", cwd=tmp_path)
        assert (number, "chmod +x" in text) == (errno.EACCES, True)
        number, text = self.why(guardian, str(tmp_path))
        assert (number, "it is a directory" in text) == (errno.EACCES, True)

    @pytest.mark.parametrize(("name", "number"), [("absent", errno.ENOENT), ("file", errno.ENOTDIR)])
    def test_no_such_directory(self, guardian: Guardian, tmp_path: Path, name: str, number: int) -> None:
        """The working directory is at fault, not the command."""
        (tmp_path / "file").write_bytes(b"")
        caused, text = self.why(guardian, "true", cwd=tmp_path / name)
        assert caused == number
        assert f"cannot start 'true': its working directory '{tmp_path / name}' cannot be entered" in text

    def test_too_long(self, guardian: Guardian) -> None:
        """More arguments than the kernel takes."""
        number, text = self.why(guardian, "true", *["x" * 100_000] * 100)
        assert (number, "hand large values over in a file" in text) == (errno.E2BIG, True)

    def test_no_process_can_be_given_it(self, guardian: Guardian) -> None:
        """A NUL in an argument, a name in the environment that cannot be one, and no command at all."""
        assert "null byte" in self.why(guardian, "true", "a\0b")[1]
        assert "environment" in self.why(guardian, "true", env={"a=b": ""})[1]
        assert "its command is empty" in self.why(guardian)[1]

    def test_guardian_that_cannot_watch(self) -> None:
        """What nobody would guard is not left running."""

        class Closing(Guardian):
            def watch(self, group: int, origin: str = "") -> None:
                self.close()
                super().watch(group, origin)

        with pytest.raises(ClosedError):
            Process.start(["sleep", "60"], standard={}, inherited=(), guardian=Closing())

    def test_descriptors_run_out_anywhere(self, run_host: Callable[[str], str]) -> None:
        """With so many descriptors left and no more, a start succeeds or fails as a whole, and says why."""
        host = """
import itertools, os, resource
from tasklink.errors import TaskNotStartedError
from tasklink.guardian import Guardian
from tasklink.process import Process
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
outcomes = set()
before = sorted(os.listdir("/proc/self/fd"))
for free, early in itertools.product(range(24), (False, True)):
    with Guardian() as guardian:
        if early:
            guardian.start()
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, hard))
        try:
            with Process.start(["true"], standard={}, inherited=(), guardian=guardian) as process:
                assert process.reap().code == 0, process
                outcomes.add("started")
        except TaskNotStartedError as error:
            assert "no descriptors left" in str(error), error
            outcomes.add("guardian" if "its guardian" in str(error) else "task")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert sorted(os.listdir("/proc/self/fd")) == before, free
    try:
        raise SystemExit(f"a child is left at {free}: {os.waitpid(-1, 0)}")
    except ChildProcessError:
        pass
print(*sorted(outcomes))
"""
        assert run_host(host) == "guardian started task\n"

    @staticmethod
    def executable(path: Path, content: bytes) -> Path:
        """A file that may be executed."""
        path.write_bytes(content)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path


class TestSend:
    """Signals to the group."""

    def test_it_reaches_the_whole_group(self, guardian: Guardian, end_of: Callable[[int], int]) -> None:
        """A child of the Task gets the signal too."""
        with talking(guardian, "sh", "-c", "sleep 60 & echo $!; wait") as (process, reader):
            child = end_of(int(os.read(reader, 100)))
            process.send(signal.SIGTERM)
            assert wait_for_ends([child, process.fileno()], 5)
            assert process.reap() == ExitStatus(signal=signal.SIGTERM)

    def test_at_the_first_moment(self, guardian: Guardian) -> None:
        """A signal right after the start reaches the Task, and never the group of this process."""
        for _ in range(50):
            with started(guardian, "sleep", "60") as process:
                process.send(signal.SIGTERM)
                assert process.reap().signal_name == "SIGTERM"

    def test_stopped_group(self, guardian: Guardian) -> None:
        """A stopped process says so, and is ended by SIGTERM all the same."""
        with started(guardian, "sleep", "60") as process:
            assert not process.stopped()
            process.send(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert process.stopped()
            process.send(signal.SIGTERM)
            assert ends(process)
            assert not process.stopped()
            assert process.reap().signal_name == "SIGTERM"
            assert not process.stopped()

    def test_process_that_ignores_sigterm(self, guardian: Guardian, stubborn: tuple[str, ...]) -> None:
        """SIGTERM leaves it alive, SIGKILL does not."""
        with talking(guardian, *stubborn) as (process, reader):
            assert os.read(reader, 100) == b"ready\n"
            process.send(signal.SIGTERM)
            assert not ends(process, 0.1)
            process.send(signal.SIGKILL)
            assert process.reap().signal_name == "SIGKILL"

    def test_after_the_end(self, guardian: Guardian) -> None:
        """A signal to a process that has ended, was reaped or closed does nothing, and is no error."""
        with started(guardian, "true") as process:
            assert ends(process)
            process.send(signal.SIGTERM)
            process.reap()
            process.send(signal.SIGTERM)
        process.send(signal.SIGTERM)

    def test_reaped_by_somebody_else(self, guardian: Guardian, end_of: Callable[[int], int]) -> None:
        """F16: a pid that is free again is not signalled, although a group has that number still."""
        with talking(guardian, "sh", "-c", "sleep 60 & echo $!") as (process, reader):
            child = int(os.read(reader, 100))
            os.waitpid(process.pid, 0)
            end = end_of(child)
            process.send(signal.SIGKILL)
            assert process.reap() == ExitStatus()
            assert not wait_for_ends([end], 0.1)
            os.kill(child, signal.SIGKILL)
            assert wait_for_ends([end], 5)


class TestReap:
    """The end, and the exit status."""

    @pytest.mark.parametrize(
        ("code", "status", "name", "description"),
        [
            ("exit 0", ExitStatus(code=0), None, "exited with code 0"),
            ("exit 3", ExitStatus(code=3), None, "exited with code 3"),
            ("kill -KILL $$", ExitStatus(signal=9), "SIGKILL", "was killed by SIGKILL"),
            ("kill -TERM $$", ExitStatus(signal=15), "SIGTERM", "was killed by SIGTERM"),
            ("kill -ABRT $$", ExitStatus(signal=6), "SIGABRT", "was killed by SIGABRT (aborted)"),
            ("kill -SEGV $$", ExitStatus(signal=11), "SIGSEGV", "was killed by SIGSEGV (segmentation fault)"),
            ("kill -40 $$", ExitStatus(signal=40), "signal 40", "was killed by signal 40 (real-time signal 6)"),
        ],
    )
    def test_exit_status(
        self, guardian: Guardian, code: str, status: ExitStatus, name: str | None, description: str
    ) -> None:
        """The code or the signal, as numbers and in words; asked twice it is the same."""
        with started(guardian, "sh", "-c", f"ulimit -c 0; {code}") as process:
            assert process.reap() == status
            assert process.reap() == status
            assert (status.signal_name, status.description) == (name, description)
            assert process.ended()

    def test_ended_does_not_reap(self, guardian: Guardian) -> None:
        """The status is there still after it was asked whether the process has ended, and how."""
        with started(guardian, "sh", "-c", "exit 3") as process:
            with selectors.DefaultSelector() as selector:
                selector.register(process, selectors.EVENT_READ)
                assert selector.select(5)
            assert process.ended()
            assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
            assert process.reap().code == 3

    def test_status_that_somebody_else_took(self, guardian: Guardian) -> None:
        """It is unknown, rather than the code 0."""
        with started(guardian, "sh", "-c", "exit 3") as process:
            os.waitpid(process.pid, 0)
            assert ends(process, 0)
            status = process.reap()
            assert status == ExitStatus()
            assert status.signal_name is None
            assert "unknown" in status.description

    def test_sigchld_ignored(self, run_host: Callable[[str], str]) -> None:
        """Where the kernel reaps every child at once, runs end and their status is unknown."""
        host = """
import signal
from tasklink.guardian import Guardian
from tasklink.process import ExitStatus, Process
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Guardian() as guardian:
    for _ in range(20):
        with Process.start(["true"], standard={}, inherited=(), guardian=guardian) as process:
            assert process.reap() == ExitStatus(), process
"""
        assert run_host(host) == ""

    def test_descendants_are_killed(self, guardian: Guardian, end_of: Callable[[int], int]) -> None:
        """What the Task left in its group dies, so that its output ends with it."""
        with talking(guardian, "sh", "-c", "sleep 60 & echo $!") as (process, reader):
            child = end_of(int(os.read(reader, 100)))
            assert ends(process)
            assert not wait_for_ends([child], 0)
            before = time.monotonic()
            assert process.reap() == ExitStatus(code=0)
            assert wait_for_ends([child], 5)
            assert everything(reader) == b""
            assert time.monotonic() - before < 1

    def test_descendants_are_left(self, guardian: Guardian, end_of: Callable[[int], int]) -> None:
        """Those who shall live do, whatever becomes of the guardian."""
        with talking(guardian, "sh", "-c", "sleep 60 & echo $!") as (process, reader):
            child = int(os.read(reader, 100))
            process.reap(leave_descendants=True)
            guardian.close()
            end = end_of(child)
            assert not wait_for_ends([end], 0.1)
            os.kill(child, signal.SIGKILL)
            assert wait_for_ends([end], 5)

    @needs_proc
    @pytest.mark.parametrize("newest", [None, 2], ids=["numbers go on", "numbers have begun anew"])
    def test_daemon(
        self, guardian: Guardian, end_of: Callable[[int], int], python: tuple[str, ...], newest: int | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """F09: what went into a session of its own, and whose parent is gone, is found by its origin."""
        if newest is not None:
            monkeypatch.setattr("tasklink.process._newest_pid", lambda: newest)
        with talking(guardian, *python, DAEMON, env=environment({}, ORIGIN), origin=ORIGIN) as (process, reader):
            child = end_of(int(os.read(reader, 100)))
            process.send(signal.SIGKILL)
            process.reap()
            assert wait_for_ends([child], 0)

    @needs_proc
    @pytest.mark.parametrize("why", ["it may", "its environment is wiped"])
    def test_daemon_that_lives_on(
        self, guardian: Guardian, end_of: Callable[[int], int], python: tuple[str, ...], why: str
    ) -> None:
        """One that may live on does, and so does, which is the limit, one that gives no origin."""
        argv = python if why == "it may" else ("env", "-i", *python)
        with talking(guardian, *argv, DAEMON, env=environment({}, ORIGIN), origin=ORIGIN) as (process, reader):
            child = int(os.read(reader, 100))
            process.send(signal.SIGKILL)
            process.reap(leave_descendants=why == "it may")
            end = end_of(child)
            assert not wait_for_ends([end], 0.1)
            os.kill(child, signal.SIGKILL)
            assert wait_for_ends([end], 5)

    def test_again_and_again(self, guardian: Guardian, holdings: Callable[[], object]) -> None:
        """Fifty runs, and not a descriptor or a child more than before."""
        with started(guardian, "true") as process:
            process.reap()
        before = holdings()
        for _ in range(50):
            with started(guardian, "true") as process:
                process.reap()
        assert holdings() == before


class TestClose:
    """What becomes of a process that nobody reaps."""

    def test_what_was_not_reaped(self, guardian: Guardian, stubborn: tuple[str, ...]) -> None:
        """It is killed and reaped, with what is in its group."""
        with talking(guardian, *stubborn) as (process, reader):
            assert os.read(reader, 100) == b"ready\n"
            process.close()
            assert everything(reader) == b""
            assert process.fileno() == -1
            process.close()

    def test_in_a_forked_child(self, run_host: Callable[[str], str]) -> None:
        """The child of a fork can neither signal nor reap what its parent started, nor end it by closing."""
        host = """
import os, signal
from tasklink.errors import ForkedError
from tasklink.guardian import Guardian
from tasklink.process import Process
reader, writer = os.pipe()
guardian = Guardian()
with guardian, Process.start(["cat"], standard={0: reader}, inherited=(), guardian=guardian) as process:
    child = os.fork()
    if child == 0:
        process.send(signal.SIGKILL)
        process.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not process.ended()
    child = os.fork()
    if child == 0:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.reap()
        except ForkedError:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert process.reap().signal_name == "SIGTERM"
"""
        assert run_host(host) == ""

    def test_interrupted_start(self, run_host: Callable[[str], str]) -> None:
        """Ctrl-C at any moment of a start leaves no child."""
        host = """
import os, random, signal, threading
from tasklink.guardian import Guardian
from tasklink.process import Process
random.seed(1)
interrupted = 0
def interrupt(signum, frame):
    while frame is not None:
        if frame.f_code is Process.start.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back
signal.signal(signal.SIGALRM, interrupt)
guardian = Guardian()
guardian.start()
before = os.listdir("/proc/self/fd")
for _ in range(300):
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
    try:
        process = Process.start(["sleep", "60"], standard={}, inherited=(), guardian=guardian)
    except KeyboardInterrupt:
        interrupted += 1
    else:
        signal.setitimer(signal.ITIMER_REAL, 0)
        process.close()
assert interrupted > 20, interrupted
guardian.close()
while True:  # until the last of the threads has closed its process
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        break
print("no child is left")
"""
        assert run_host(host) == "no child is left\n"
