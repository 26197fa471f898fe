"""The sentinel: a small process that ends what an Executor leaves behind when it dies.

However the Executor's process ends, SIGKILL included, its sentinel sends SIGTERM to every process group it was told of,
SIGKILL to what is left after `GRACE` and to what has left its group, and removes the directories it was told of: all
within a second of the death.
Then it exits. It costs some 10 ms of processor time, beside the start of the first Task, and 4 MiB of memory.

Rules of this file:

* It is run alone, as a script, by an interpreter that looks for no packages (`-I -S`). It imports nothing of tasklink,
  and of the standard library the few modules that are cheap. The Executor's side, `guardian`, imports what both need.
* The sentinel learns of the death in two ways: the channel ends, and a descriptor of the Executor's process becomes
  readable. The channel alone would not do: a child that the host application forked may hold it open.
* It first reads all that was written, then acts; the tail of a record that was cut off by the death is not acted upon.

What it does not reach:

* A Task whose Executor is killed between the fork and `Guardian.watch`: 0.2 ms, nearly all of it the kernel's exec,
  since the pid is not known before. A Task in Python notices the end of its own channel; a command goes on.
* A descendant that went into a session of its own and has wiped its environment, which names its origin; or that runs
  as another user; or any such descendant on a system without /proc.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of it, which takes as long as all the rest here
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GRACE = 0.3  # seconds between SIGTERM and SIGKILL; the sweep as a whole has one second
PIDFD_OPEN = 434  # the system call; the same number on all architectures but Alpha and MIPS


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
    r"""Write down one change as it goes over the channel: `+group 123\0`, `-directory /run/x\0`, `+origin 5ed9\0`.

    NUL ends it because a path may hold any other byte.
    """
    return b"%b%b %b\0" % (sign, kind, name)


class Wards:
    """What a sentinel guards, kept by reading records. Both sides hold one; it does no input or output."""

    def __init__(self) -> None:
        self._kept: dict[bytes, set[bytes]] = {b"group": set(), b"origin": set(), b"directory": set()}
        self._partial = b""

    @property
    def groups(self) -> frozenset[int]:
        """The process groups. Never 0 or 1: to the kernel those mean our own group and every process there is."""
        return frozenset(int(name) for name in self._kept[b"group"] if name.isdigit() and int(name) > 1)

    @property
    def origins(self) -> frozenset[bytes]:
        """The words that the environments of its groups' processes hold, and of those that have left them."""
        return frozenset(self._kept[b"origin"])

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


def processes() -> list[int]:
    """Find all processes.

    Raises:
        OSError: this system has no /proc.
    """
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - pathlib is not cheap


def members(groups: frozenset[int]) -> list[int]:
    """Find the processes of some groups that have not ended. Without /proc these are taken to be the leaders."""
    found = []
    try:
        pids = processes()
    except OSError:
        return list(groups)
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - pathlib is not cheap
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


def bears(pid: int, origins: Iterable[bytes]) -> bool:
    """Tell whether a process has one of some origins in the environment that it, or who it is a fork of, began with."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123 - pathlib is not cheap
            environment = file.readall()
    except OSError:
        return False  # it ended, or runs as another user
    return any(origin in environment for origin in origins)


def end_bearers(origins: Iterable[bytes], timeout: float, first: int = 0) -> None:
    """Kill all processes that bear one of some origins, wherever they have gone, and wait until they have ended.

    Args:
        origins: words that nothing else has in its environment.
        timeout: how many seconds to wait at most.
        first: the first pid to look at.
    """
    deadline = time.monotonic() + timeout
    while True:
        ends = []
        try:
            for pid in processes():
                if pid >= first and bears(pid, origins):
                    end = open_end(pid)
                    ends.append(end)
                    if bears(pid, origins):  # now that the descriptor is its own, whose pid may have been another's
                        _kill(pid, end)
        except OSError:
            pass  # no /proc, or no more descriptors: those that were found come first
        ended = wait_for_ends(ends, max(0.0, deadline - time.monotonic()))
        for end in ends:
            os.close(end)
        if not ends or not ended:
            return  # else they may have started others meanwhile


def _kill(pid: int, end: int) -> None:
    try:
        if hasattr(_signal, "pidfd_send_signal"):
            _signal.pidfd_send_signal(end, _signal.SIGKILL)
        else:
            os.kill(pid, _signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended, or became another user


def sweep(wards: Wards) -> None:
    """End the groups and what has left them, and remove the directories, within three `GRACE`s."""
    groups = wards.groups
    if groups:
        signal_groups(groups, _signal.SIGTERM)
        signal_groups(groups, _signal.SIGCONT)  # a stopped process does not act upon SIGTERM
        wait_for_members(groups, GRACE)
        signal_groups(groups, _signal.SIGKILL)
        wait_for_members(groups, GRACE)  # so that nobody is left who could still write into a directory
    if wards.origins:
        end_bearers(wards.origins, GRACE)
    if wards.directories:
        import shutil  # noqa: PLC0415 - it would double what the sentinel costs to start

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
    """Be the sentinel.

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


if __name__ == "__main__":
    serve(sys.argv[1:])
    os._exit(0)  # there is nothing to tidy up
