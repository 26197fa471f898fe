"""The guardian: a small process that ends what an Executor leaves behind when it dies.

However the Executor's process ends, SIGKILL included, its guardian sends SIGTERM to every process group it was told of,
SIGKILL to what is left after `GRACE`, and removes the directories it was told of: all within a second of the death.
Then it exits. It costs some 10 ms of processor time, beside the start of the first Task, and 4 MiB of memory.

Rules of this file:

* It is also run alone, as a script, by an interpreter that looks for no packages. The watching side, up to `serve`,
  uses the few modules of the standard library that are cheap to import; the Executor's side, after it, uses more.
* The guardian learns of the death in two ways: the channel ends, and a descriptor of the Executor's process becomes
  readable. The channel alone would not do: a child that the host application forked may hold it open.
* It first reads all that was written, then acts; the tail of a record that was cut off by the death is not acted upon.
* A group is released before its leader is reaped. Until it is reaped the leader, dead or alive, keeps its pid, and
  what the guardian signals is what it was told of; afterwards the number may belong to anybody.

What it does not reach:

* A Task whose Executor is killed between the fork and `watch`: 0.2 ms, nearly all of it the kernel's exec, since the
  pid is not known before. A Task in Python notices the end of its own channel; a command goes on.
* A descendant that went into a session or a process group of its own.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of it, which takes as long as all the rest here
import os
import select
import sys
import time

if __name__ != "__main__":  # the Executor's side
    import contextlib
    import logging
    import socket
    import subprocess
    import threading
    from pathlib import Path
    from signal import SIGKILL

    from tasklink.errors import ClosedError, ForkedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GRACE = 0.3  # seconds between SIGTERM and SIGKILL; the sweep as a whole has one second
PATIENCE = 2.0  # seconds that a guardian has to take a record, or to end
PIDFD_OPEN = 434  # the system call; the same number on all architectures but Alpha and MIPS
P_PIDFD = 3  # os.P_PIDFD, which is absent where os.pidfd_open is


def open_end(pid: int) -> int:
    """Open a descriptor that becomes readable when a process has ended, and stays so.

    It is a pidfd on Linux, a kqueue on macOS; for a process that is gone already, a pipe without a writer. It is not
    inherited by children.

    Args:
        pid: a process that is a child of this one, or this one itself.

    Raises:
        OSError: no more descriptors, or a kernel without pidfds (Linux before 5.4).
    """
    try:
        return _open_end(pid)
    except ProcessLookupError:
        reader, writer = os.pipe()
        os.close(writer)
        return reader


if sys.platform == "darwin":

    def _open_end(pid: int) -> int:
        queue = select.kqueue()
        try:
            event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            queue.control([event], 0)
            return os.dup(queue.fileno())  # the object closes its own when it goes
        finally:
            queue.close()

else:

    def _open_end(pid: int) -> int:
        if hasattr(os, "pidfd_open"):
            return os.pidfd_open(pid)
        # Absent from a Python that was built on an old system, as those that uv installs are. The kernel that runs
        # now is another matter.
        import ctypes  # noqa: PLC0415 - needed nowhere else, and not cheap

        descriptor: int = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_OPEN, pid, 0)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return descriptor


def wait_for_ends(ends: Iterable[int], timeout: float | None) -> bool:
    """Wait until every one of some processes has ended.

    Args:
        ends: a descriptor of `open_end` for each of them.
        timeout: how many seconds to wait at most; None is without limit.

    Returns:
        Whether all have ended.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    poller = select.poll()
    waiting = set(ends)
    for end in waiting:
        poller.register(end, select.POLLIN)
    while waiting:
        ready = poller.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            return False
        for end, _ in ready:
            poller.unregister(end)
            waiting.discard(end)
    return True


def record(sign: bytes, kind: bytes, name: bytes) -> bytes:
    r"""Write down one change as it goes over the channel: `+group 123\0`, `-directory /run/x\0`.

    NUL ends it because a path may hold any other byte.
    """
    return b"%b%b %b\0" % (sign, kind, name)


class Wards:
    """What a guardian guards, kept by reading records. Both sides hold one; it does no input or output."""

    def __init__(self) -> None:
        self._kept: dict[bytes, set[bytes]] = {b"group": set(), b"directory": set()}
        self._partial = b""

    @property
    def groups(self) -> frozenset[int]:
        """The process groups. Never 0 or 1: to the kernel those mean our own group and every process there is."""
        return frozenset(int(name) for name in self._kept[b"group"] if name.isdigit() and int(name) > 1)

    @property
    def directories(self) -> frozenset[bytes]:
        """The directories."""
        return frozenset(self._kept[b"directory"])

    def feed(self, data: bytes) -> None:
        """Apply the records in `data`, which may begin and end anywhere in one; what is no record changes nothing."""
        *records, self._partial = (self._partial + data).split(b"\0")
        for change in records:
            kind, _, name = change[1:].partition(b" ")
            kept = self._kept.get(kind, set())
            if change.startswith(b"+"):
                kept.add(name)
            elif change.startswith(b"-"):
                kept.discard(name)

    def records(self) -> bytes:
        """All that is kept, as the records that lead to it."""
        return b"".join(record(b"+", kind, name) for kind, names in self._kept.items() for name in names)


def members(groups: frozenset[int]) -> list[int]:
    """Find the processes of some groups that have not ended. Without /proc these are taken to be the leaders."""
    found = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - pathlib is not cheap
    except OSError:
        return list(groups)
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - as above
                # The name of the command comes first, in brackets, and may hold brackets and spaces itself.
                state, _, group = file.read(4096).rpartition(b")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # it ended while we looked
        if int(group) in groups and state not in b"ZX":
            found.append(pid)
    return found


def signal_groups(groups: frozenset[int], signum: int) -> None:
    """Send a signal to every process of some groups; one that is gone, or another user's, is passed over."""
    for group in groups:
        try:
            os.killpg(group, signum)
        except (ProcessLookupError, PermissionError):
            continue


def wait_for_members(groups: frozenset[int], timeout: float) -> None:
    """Wait until the processes that are in some groups now have ended, for `timeout` seconds at most."""
    ends = []
    for pid in members(groups):
        try:
            ends.append(open_end(pid))
        except OSError:
            break  # no more descriptors: what can be waited for decides when the grace is over
    wait_for_ends(ends, timeout)
    for end in ends:
        os.close(end)


def sweep(wards: Wards) -> None:
    """End the groups and remove the directories, within two `GRACE`s."""
    groups = wards.groups
    if groups:
        signal_groups(groups, _signal.SIGTERM)
        signal_groups(groups, _signal.SIGCONT)  # a stopped process does not act upon SIGTERM
        wait_for_members(groups, GRACE)
        signal_groups(groups, _signal.SIGKILL)
        wait_for_members(groups, GRACE)  # so that nobody is left who could still write into a directory
    if wards.directories:
        import shutil  # noqa: PLC0415 - it would double what the guardian costs to start

        for directory in wards.directories:
            shutil.rmtree(directory, ignore_errors=True)


def attend(channel: int, executor: int, wards: Wards) -> None:
    """Follow the changes until the Executor closes the channel or ends.

    Args:
        channel: a descriptor that gives its records.
        executor: what `open_end` gave for its process.
        wards: what to keep them in.
    """
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.register(executor, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poller.poll()]
        if channel not in ready:
            return  # the Executor has ended, and all it wrote has been read
        data = os.read(channel, 1 << 16)
        if not data:
            return
        wards.feed(data)


def serve(arguments: Sequence[str]) -> None:
    """Be the guardian.

    Args:
        arguments: the descriptor of the channel, the Executor's pid, and the descriptor that tells of its end or -1.
    """
    for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "XCPU", "TSTP"):
        # Those are meant for the Executor, and a batch system may send them to every process of a job.
        _signal.signal(getattr(_signal, f"SIG{name}"), _signal.SIG_IGN)
    channel, pid, end = map(int, arguments)
    wards = Wards()
    attend(channel, open_end(pid) if end < 0 else end, wards)
    sweep(wards)


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    standard: Mapping[int, int],
    inherited: Sequence[int],
) -> tuple[int, int]:
    """Start a process that leads a session and a process group of its own.

    When this returns, the process has called both `setsid` and `exec`. A failure leaves nothing behind.

    Args:
        argv: the command and its arguments.
        env: its environment; None is ours.
        cwd: its working directory; None is ours.
        standard: which of our descriptors become its 0, 1 and 2. Without one it has /dev/null as 0, our own 1 and 2.
        inherited: descriptors that it has under the same numbers.

    Returns:
        Its pid, which the caller has to reap (`reap_child`), and the descriptor that `open_end` gives.

    Raises:
        OSError: as `subprocess.Popen`, or as `open_end`.
        ValueError: a NUL in the command, or a name in the environment that cannot be one.
    """
    popen = subprocess.Popen(
        argv,
        stdin=standard.get(0, subprocess.DEVNULL),
        stdout=standard.get(1),
        stderr=standard.get(2),
        env=env,
        cwd=cwd,
        pass_fds=inherited,
        start_new_session=True,
    )
    popen.returncode = 0  # from here on it is ours to reap: Popen shall neither do so nor warn that it did not
    try:
        return popen.pid, open_end(popen.pid)
    except OSError:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(popen.pid, SIGKILL)
            os.waitpid(popen.pid, 0)
        raise


def unreaped(end: int) -> bool:
    """Tell whether a child still keeps its pid, running or ended, so that a signal to that pid reaches it and no other.

    Args:
        end: the descriptor of `open_end`. On macOS, where that cannot tell, the answer is always yes.
    """
    if sys.platform == "darwin":
        return True
    try:
        os.waitid(P_PIDFD, end, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # ECHILD: it was reaped. EBADF, EINVAL: before open_end, even, or the descriptor is closed
        return False
    return True


def reap_child(pid: int, end: int) -> int | None:
    """Wait for the end of a child and take its exit status; its pid may be anybody's afterwards.

    Returns:
        The exit code, or the number of the signal that killed it, negative. None where somebody else has taken it:
        a wait for any child elsewhere in this process, or the kernel because SIGCHLD is ignored.
    """
    try:
        if sys.platform == "darwin":
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # Not Popen.wait, which takes a process that somebody else has reaped for one that exited with code 0.
        ended = os.waitid(P_PIDFD, end, os.WEXITED)
    except OSError:  # as in `unreaped`
        return None
    assert ended is not None  # only with WNOHANG
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


class Watcher:
    """One guardian process, seen from the Executor's side.

    Attributes:
        pid: its pid.
    """

    def __init__(self) -> None:
        """Start it. That it is up is not waited for: what is told until then waits in the channel."""
        self._channel, theirs = socket.socketpair()
        try:
            with theirs:
                self.pid, self._end = self._spawn(theirs.fileno())
        except BaseException:
            self._channel.close()
            raise
        self._channel.settimeout(PATIENCE)

    @staticmethod
    def _spawn(channel: int) -> tuple[int, int]:
        pid = os.getpid()
        # Opened here, by the process itself: by the time the guardian could open it, the pid may be another's.
        # A kqueue cannot be inherited.
        own = -1 if sys.platform == "darwin" else open_end(pid)
        try:
            argv = [sys.executable, "-I", "-S", __file__, str(channel), str(pid), str(own)]
            standard = {1: subprocess.DEVNULL, 2: subprocess.DEVNULL}
            inherited = [descriptor for descriptor in (channel, own) if descriptor >= 0]
            return spawn(argv, cwd=Path("/"), standard=standard, inherited=inherited)
        finally:
            if own >= 0:
                os.close(own)

    def alive(self) -> bool:
        """Tell whether the process runs."""
        return not wait_for_ends([self._end], 0)

    def tell(self, records: bytes) -> bool:
        """Send records. False is for a guardian that is dead or stuck, and of no more use."""
        try:
            # A pipe would do, but for a host application that has set SIGPIPE to its default: it would die of it.
            self._channel.sendall(records, getattr(socket, "MSG_NOSIGNAL", 0))
        except OSError:
            return False
        return True

    def dismiss(self, patience: float) -> None:
        """Close the channel, give the guardian `patience` seconds to sweep and to exit, and reap it."""
        with contextlib.suppress(OSError):  # it has ended already
            self._channel.shutdown(socket.SHUT_WR)  # closing does not end it while a forked child holds it open
        if not wait_for_ends([self._end], patience) and unreaped(self._end):
            os.kill(self.pid, SIGKILL)
        reap_child(self.pid, self._end)
        self.drop()

    def drop(self) -> None:
        """Close the descriptors of this process, without a word to the guardian."""
        self._channel.close()
        os.close(self._end)


class Guardian:
    """The guardian of one Executor: started when it is first needed, and again should it die.

    Its methods may be called from any thread. After a fork it belongs to the parent: in the child all but `close` raise
    ForkedError. It can be used as a context manager.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._closed = False
        self._wards = Wards()
        self._watcher: Watcher | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the guardian process; None while there is none."""
        watcher = self._watcher
        return None if watcher is None else watcher.pid

    def start(self) -> None:
        """Have a guardian process running, or starting up.

        Raises:
            OSError: no process can be started.
            ClosedError: the guardian was closed.
            ForkedError: it belongs to the process that this one was forked from.
        """
        self._check_process()
        with self._lock:
            if self._watcher is None or not self._watcher.alive():
                self._replace()

    def watch(self, group: int) -> None:
        """Guard a process group, until `release`.

        Args:
            group: the pid of the process that leads it, which has not been reaped.

        Raises:
            OSError, ClosedError, ForkedError: as `start`.
        """
        self._add(b"group", b"%d" % group)

    def release(self, group: int) -> None:
        """Guard a process group no longer. This comes before its leader is reaped; see the rules of this file.

        Raises:
            ForkedError: as `start`.
        """
        self._remove(b"group", b"%d" % group)

    def keep(self, directory: Path) -> None:
        """Have a directory removed, with all that is in it, when the Executor dies, until `forget`.

        Args:
            directory: one that the Executor made for itself.

        Raises:
            OSError, ClosedError, ForkedError: as `start`.
        """
        self._add(b"directory", os.fsencode(directory.absolute()))

    def forget(self, directory: Path) -> None:
        """Leave a directory alone, since the Executor has removed it.

        Raises:
            ForkedError: as `start`.
        """
        self._remove(b"directory", os.fsencode(directory.absolute()))

    def close(self) -> None:
        """End the guardian process.

        What it still guards is ended and removed first, as if the Executor had died; `PATIENCE` limits this. In a
        forked child only the child's copies of the descriptors are closed. To close twice does nothing.
        """
        if os.getpid() != self._owner:
            if self._watcher is not None:  # not under the lock: another thread may have held it at the fork
                self._watcher.drop()
            self._watcher = None
            return
        with self._lock:
            self._closed = True
            watcher, self._watcher = self._watcher, None
            if watcher is not None:
                # With nothing to sweep it is killed: to wait until it has started up, and exits, would take longer.
                watcher.dismiss(PATIENCE if self._wards.records() else 0)

    def __enter__(self) -> Guardian:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _check_process(self) -> None:
        if os.getpid() != self._owner:
            raise ForkedError(
                f"this guardian belongs to process {self._owner}, from which process {os.getpid()} was forked; "
                "make a new Executor in the child"
            )

    def _add(self, kind: bytes, name: bytes) -> None:
        change = record(b"+", kind, name)
        self._check_process()
        with self._lock:
            self._wards.feed(change)
            if self._watcher is None or not self._watcher.tell(change):
                self._replace()

    def _remove(self, kind: bytes, name: bytes) -> None:
        change = record(b"-", kind, name)
        self._check_process()
        with self._lock:
            self._wards.feed(change)
            if self._watcher is not None:
                self._watcher.tell(change)  # one that is dead need not know; the next `start` or `watch` replaces it

    def _replace(self) -> None:
        """Start a guardian process and tell it all there is to guard."""
        if self._closed:
            raise ClosedError("the guardian was closed with its Executor: make a new Executor")
        if self._watcher is not None:
            logging.getLogger("tasklink.guardian").warning(
                "the guardian process of this Executor was dead or stuck; a new one takes its place"
            )
            watcher, self._watcher = self._watcher, None
            watcher.dismiss(0)
        self._watcher = Watcher()
        self._watcher.tell(self._wards.records())


if __name__ == "__main__":
    serve(sys.argv[1:])
    os._exit(0)  # there is nothing to tidy up
