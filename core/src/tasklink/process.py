"""The process of a Task, from its start to its exit status.

Rules of this file:

* A Task leads a session and a process group of its own, so that one signal reaches all of it and none reaches us.
* A process is signalled only as long as nobody has reaped it: until then the kernel gives its pid to no other.
* At the end there is one order: the process has ended, what is left of its group is killed, and what has left the
  group, the guardian releases the group, the process is reaped.
* Whatever fails in `Process.start`, or interrupts it, leaves neither process nor descriptor behind.

A descendant that went into a session or a group of its own, such as a daemon, is out of the reach of signals to the
group. It is known by its environment, which names its origin (`config.variable.ORIGIN`), and killed at the end; what
wipes that (as servers that change their title do), runs as another user, or on a system without /proc, is not reached.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import attrs

from tasklink.child import P_PIDFD, reap_child, spawn, unreaped
from tasklink.errors import TaskNotStartedError
from tasklink.guardian import PATIENCE
from tasklink.sentinel import end_bearers, wait_for_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tasklink.guardian import Guardian

P = TypeVar("P", bound="Process")

_SHORT_LIFE = 1.0  # seconds in which the kernel does not give all pids there are
_LAST_MOMENT = 1.0  # seconds that what is killed at the end has to die

# What a stopped process acts upon only when it is continued.
ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})

# Why a process could not be started, where the error number alone says it, and what to do.
REMEDIES = {
    errno.E2BIG: "its arguments and its environment are larger than the kernel takes; hand large values over in a file",
    errno.EAGAIN: "no more processes are allowed (ulimit -u, or the limit of the container); run fewer at a time",
    errno.EMFILE: "this process has no descriptors left (ulimit -n); raise the limit, or run fewer Tasks at a time",
    errno.ENFILE: "this machine has no descriptors left; run fewer Tasks at a time",
    errno.ENOEXEC: "it is neither a program for this machine nor a script that begins with '#!'; name its interpreter",
    errno.ENOMEM: "there is not enough memory for another process; run fewer Tasks at a time",
    errno.ENOSYS: "this kernel lacks pidfds; Linux 5.4 or newer is needed",
    errno.ETXTBSY: "its file is being written to; wait until that is finished",
}


@attrs.frozen
class ExitStatus:
    """How a process ended. Both attributes are None where somebody else took the status.

    Attributes:
        code: what it exited with.
        signal: the number of the signal that killed it.
    """

    code: int | None = None
    signal: int | None = None

    @property
    def signal_name(self) -> str | None:
        """The name of the signal that killed it, such as "SIGKILL"; None when it exited."""
        if self.signal is None:
            return None
        try:
            return signal.Signals(self.signal).name
        except ValueError:  # most real-time signals have no name
            return f"signal {self.signal}"

    @property
    def description(self) -> str:
        """How it ended in words, to stand after the name of the Task: "exited with code 3"."""
        if self.code is not None:
            return f"exited with code {self.code}"
        if self.signal is None:
            return "ended, and how is unknown: another part of this program waited for it, or ignores SIGCHLD"
        text = (signal.strsignal(self.signal) or "").partition(":")[0].lower()  # macOS appends ": 11"
        said = text in {"", "killed", "terminated"}
        return f"was killed by {self.signal_name}" + ("" if said else f" ({text})")


@attrs.define(eq=False)
class Process:
    """A Task's process, which leads a session and a process group of its own.

    `send` and `ended` may be called from any thread. As a context manager it is closed at the end.

    Attributes:
        pid: its pid, also the number of its group; not to be signalled but by `send`.
    """

    pid: int
    _end: int
    _guardian: Guardian
    _origin: str = ""
    _started: float = attrs.field(factory=time.monotonic, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _owner: int = attrs.field(factory=os.getpid, init=False, repr=False)
    _status: ExitStatus | None = attrs.field(default=None, init=False)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        standard: Mapping[int, int],
        inherited: Sequence[int],
        guardian: Guardian,
        origin: str = "",
    ) -> Self:
        """Start a process, once, under the eyes of a guardian.

        Args:
            argv: the command and its arguments; without a `/` it is looked for in the PATH of `env`.
            env: its environment; None is ours.
            cwd: its working directory, from where a relative command is looked for too; None is ours.
            standard: which of our descriptors become its 0, 1 and 2. Without one it has /dev/null as 0, our own 1, 2.
            inherited: descriptors, above 2, that it has under the same numbers. It has no others.
            guardian: is told of the group.
            origin: a word of `env` by which what has left the group is found; empty for none.

        Raises:
            TaskNotStartedError: it says what is at fault, and what to do. An OSError or ValueError is chained.
            ForkedError: the guardian belongs to the process that this one was forked from.
            ClosedError: the guardian was closed.
        """
        if not argv:
            raise TaskNotStartedError("cannot start a Task: its command is empty; name a program")
        if clash := [descriptor for descriptor in inherited if descriptor <= 2]:
            raise ValueError(
                f"inherited descriptors {clash} would be the child's standard ones: duplicate them above 2"
            )
        return _undisturbed(
            lambda: cls._start(
                argv, env=env, cwd=cwd, standard=standard, inherited=inherited, guardian=guardian, origin=origin
            )
        )

    @classmethod
    def _start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        cwd: Path | None,
        standard: Mapping[int, int],
        inherited: Sequence[int],
        guardian: Guardian,
        origin: str,
    ) -> Self:
        with _guardian_at_fault(argv[0]):
            guardian.start()  # before the Task, so that it starts up while the Task does
        try:
            pid, end = spawn(argv, env=env, cwd=cwd, standard=standard, inherited=inherited)
        except (OSError, ValueError) as error:
            raise TaskNotStartedError(_why_not(error, argv[0], env, cwd)) from error
        process = cls(pid, end, guardian, origin)
        try:
            with _guardian_at_fault(argv[0]):
                guardian.watch(pid, origin)
        except BaseException:
            process.close()
            raise
        return process

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended, for `selectors`; -1 after `close`."""
        return self._end

    def ended(self) -> bool:
        """Tell whether the process has ended; it is not reaped by this."""
        return self._status is not None or wait_for_ends([self._end], 0)

    def stopped(self) -> bool:
        """Tell whether the process is stopped, as by SIGSTOP. Only Linux can tell; elsewhere the answer is no."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # it was reaped
                # Unlike /proc this cannot read the state of another process that has the pid by now.
                return os.waitid(P_PIDFD, self._end, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    def send(self, signum: int) -> None:
        """Send a signal to the whole group, and have it acted upon where the group is stopped.

        Nothing happens when all have ended, or when the process was reaped, by us or by somebody else.

        Raises:
            PermissionError: the whole group runs as another user, as under sudo.
        """
        with self._lock:
            self._signal_group(signum)
            if signum in ENDING:
                self._signal_group(signal.SIGCONT)

    def reap(self, *, leave_descendants: bool = False) -> ExitStatus:
        """Wait for the end of the process, kill what is left of its descendants, and take the exit status.

        Args:
            leave_descendants: let them live on.

        Raises:
            ForkedError: the process is a child of the one that this one was forked from.
        """
        if self._status is None:
            wait_for_ends([self._end], None)  # not under the lock: until it has ended it can be sent signals
            if not leave_descendants:
                self._end_descendants()
            with self._lock:
                self._guardian.release(self.pid, self._origin)
                self._status = _exit_status(reap_child(self.pid, self._end))
        return self._status

    def close(self) -> None:
        """Close the descriptor. A process that was not reaped is killed with its group, and reaped, before.

        One that cannot be killed, because the kernel holds it in a system call or it runs as another user, is left
        to its guardian. In a forked child only the child's copy of the descriptor is closed.
        """
        if self._end < 0:
            return
        if self._status is None and os.getpid() == self._owner:
            with contextlib.suppress(PermissionError):
                self.send(signal.SIGKILL)
            if wait_for_ends([self._end], PATIENCE):
                self.reap()
        end, self._end = self._end, -1
        os.close(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end_descendants(self) -> None:
        with self._lock:
            self._signal_group(signal.SIGKILL)
        if self._origin:
            # To look at every process takes milliseconds. A short Task has no descendants but those that came after it,
            # unless the numbers have begun anew.
            first = self.pid if time.monotonic() - self._started < _SHORT_LIFE and _newest_pid() >= self.pid else 0
            end_bearers([self._origin.encode()], _LAST_MOMENT, first)

    def _signal_group(self, signum: int) -> None:
        """Signal the group, under the lock: between the question whether it is reaped and the signal it must not be."""
        if self._status is not None or not unreaped(self._end):
            return
        assert self.pid != os.getpgrp()  # it led a group of its own before `spawn` returned
        try:
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            return
        except PermissionError:
            if not self.ended():  # macOS refuses where only zombies are left
                raise


def _undisturbed(start: Callable[[], P]) -> P:
    """Start a process in a thread, where no signal handler runs.

    A handler that raises, as that of Ctrl-C does, is held back in the main thread while the kernel makes the child,
    and comes just before Popen has noted the pid: nobody would know of the child. If it comes now, while the main
    thread waits, the process is closed as soon as it is there.

    The thread does not last: nothing in a Task may ask the kernel to be killed when the thread that started it ends.
    """
    if threading.current_thread() is not threading.main_thread():
        return start()
    made: list[P] = []
    failed: list[BaseException] = []
    done = threading.Lock()
    claim = threading.Lock()  # who comes second, the process or the interruption, has to close the process

    def run() -> None:
        try:
            made.append(start())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised in the thread that waits
            failed.append(error)
        if not claim.acquire(blocking=False):
            _close_all(made)
        done.release()

    # Locks and nothing higher: `Thread.start`, `Event` and `Future` wait in Python code, and an exception in the midst
    # of that can leave a lock taken for ever.
    done.acquire()
    try:
        _thread.start_new_thread(run, ())
        done.acquire()
    except BaseException as error:
        if not claim.acquire(blocking=False):
            _close_all(made)
        if isinstance(error, RuntimeError):
            raise TaskNotStartedError(f"cannot start a Task: {REMEDIES[errno.EAGAIN]}") from error
        raise
    if failed:
        raise failed.pop()
    return made[0]  # not pop: after a call an interruption may come, and what is returned would be lost


def _close_all(processes: Sequence[Process]) -> None:
    for process in processes:
        process.close()


@contextlib.contextmanager
def _guardian_at_fault(command: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TaskNotStartedError(
            f"cannot start {command!r}: its guardian ({sys.executable!r}), which ends it when this process dies, "
            f"cannot be started: {REMEDIES.get(error.errno or 0, error)}"
        ) from error


def _newest_pid() -> int:
    """The pid that was given last; 0 where that cannot be told."""
    try:
        return int(Path("/proc/loadavg").read_bytes().split()[-1])
    except (OSError, ValueError):
        return 0


def _exit_status(code: int | None) -> ExitStatus:
    if code is None:
        return ExitStatus()
    return ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)


def _why_not(error: OSError | ValueError, command: str, env: Mapping[str, str] | None, cwd: Path | None) -> str:
    """Say why a command could not be started, and what to do."""
    if isinstance(error, ValueError):
        reason = f"its arguments or its environment cannot be given to a process ({error}); correct them"
    elif cwd is not None and error.filename == cwd:
        reason = f"its working directory {str(cwd)!r} cannot be entered ({error.strerror}); create it, or name another"
    elif error.errno == errno.ENOENT:
        reason = _what_is_missing(_locate(command, env, cwd))
    elif error.errno == errno.EACCES:
        reason = _what_is_forbidden(_locate(command, env, cwd))
    else:
        reason = REMEDIES.get(error.errno or 0, str(error))
    return f"cannot start {command!r}: {reason}"


def _locate(command: str, env: Mapping[str, str] | None, cwd: Path | None) -> Path | None:
    """Find the file of a command as the child looks for it; None where PATH does not lead to one."""
    if "/" in command:
        return (cwd or Path()) / command
    import shutil  # noqa: PLC0415 - it brings every compression along, and is needed for an error only

    found = shutil.which(command, path=None if env is None else env.get("PATH", os.defpath))
    return None if found is None else Path(found)


def _what_is_missing(program: Path | None) -> str:
    if program is None:
        return "there is no such command in the directories of PATH; install it, or give its full path"
    if not program.exists():
        return f"there is no such file ({str(program.absolute())!r}); correct the path, or install it"
    # The kernel says that a file is missing, too, when it is the one that shall run the program.
    try:
        with program.open("rb") as file:
            first = file.readline(256)
    except OSError:
        first = b""
    if first.startswith(b"#!") and (words := first[2:].split()):
        return (
            f"the interpreter that its first line names, {os.fsdecode(words[0])!r}, is missing; install it, or name one"
        )
    return "the loader that it was built for is missing; install a build for this system"


def _what_is_forbidden(program: Path | None) -> str:
    if program is not None and program.is_dir():
        return "it is a directory; name a program"
    return (
        "this user may not execute it; give it the permission (chmod +x), name its interpreter in front of it, "
        "or move it from a file system that is mounted noexec"
    )
