"""The guardian: an Executor's hold on its sentinel, the process that ends what the Executor leaves when it dies.

What the sentinel does is in `sentinel`. Here it is started, told what to guard, replaced if need be, and dismissed.

Rules of this file:

* A group is released before its leader is reaped. Until it is reaped the leader, dead or alive, keeps its pid, and
  what the sentinel signals is what it was told of; afterwards the number may belong to anybody.
* The Executor waits for its sentinel no longer than `PATIENCE`. One that is dead or stuck is replaced, and the next is
  told all there is to guard, which this side keeps as well.
* After a fork all of this belongs to the parent: a child closes its copies of the descriptors, and does nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from signal import SIGKILL

from tasklink import config, sentinel
from tasklink.child import reap_child, spawn, unreaped
from tasklink.errors import ClosedError, ForkedError
from tasklink.sentinel import Wards, open_end, record, wait_for_ends

PATIENCE = 2.0  # seconds that a sentinel has to take a record, or to end


class Watcher:
    """One sentinel, seen from the Executor's side.

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
        # Opened here, by the process itself: by the time the sentinel could open it, the pid may be another's.
        # A kqueue cannot be inherited.
        own = -1 if sys.platform == "darwin" else open_end(pid)
        try:
            argv = [sys.executable, "-I", "-S", sentinel.__file__, str(channel), str(pid), str(own)]
            standard = {1: subprocess.DEVNULL, 2: subprocess.DEVNULL}
            inherited = [descriptor for descriptor in (channel, own) if descriptor >= 0]
            env = config.unbound_environment()  # it has still to sweep when the Task that we may be is ended
            return spawn(argv, env=env, cwd=Path("/"), standard=standard, inherited=inherited)
        finally:
            if own >= 0:
                os.close(own)

    def alive(self) -> bool:
        """Tell whether the process runs."""
        return not wait_for_ends([self._end], 0)

    def tell(self, records: bytes) -> bool:
        """Send records. False is for a sentinel that is dead or stuck, and of no more use."""
        try:
            # A pipe would do, but for a host application that has set SIGPIPE to its default: it would die of it.
            self._channel.sendall(records, getattr(socket, "MSG_NOSIGNAL", 0))
        except OSError:
            return False
        return True

    def dismiss(self, patience: float) -> None:
        """Close the channel, give the sentinel `patience` seconds to sweep and to exit, and reap it."""
        with contextlib.suppress(OSError):  # it has ended already
            self._channel.shutdown(socket.SHUT_WR)  # closing does not end it while a forked child holds it open
        if not wait_for_ends([self._end], patience) and unreaped(self._end):
            os.kill(self.pid, SIGKILL)
        reap_child(self.pid, self._end)
        self.drop()

    def drop(self) -> None:
        """Close the descriptors of this process, without a word to the sentinel."""
        self._channel.close()
        os.close(self._end)


class Guardian:
    """The guardian of one Executor: its sentinel is started when it is first needed, and again should it die.

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
        """The pid of the sentinel; None while there is none."""
        watcher = self._watcher
        return None if watcher is None else watcher.pid

    def start(self) -> None:
        """Have a sentinel running, or starting up.

        Raises:
            OSError: no process can be started.
            ClosedError: the guardian was closed.
            ForkedError: it belongs to the process that this one was forked from.
        """
        self._check_process()
        with self._lock:
            if self._watcher is None or not self._watcher.alive():
                self._replace()

    def watch(self, group: int, origin: str = "") -> None:
        """Guard a process group, until `release`.

        Args:
            group: the pid of the process that leads it, which has not been reaped.
            origin: a word of its environment, by which those are found that have left the group; empty for none.

        Raises:
            OSError, ClosedError, ForkedError: as `start`.
        """
        self._add(*_wards(group, origin))

    def release(self, group: int, origin: str = "") -> None:
        """Guard a process group no longer. This comes before its leader is reaped; see the rules of this file.

        Raises:
            ForkedError: as `start`.
        """
        self._remove(*_wards(group, origin))

    def keep(self, directory: Path) -> None:
        """Have a directory removed, with all that is in it, when the Executor dies, until `forget`.

        Args:
            directory: one that the Executor made for itself.

        Raises:
            OSError, ClosedError, ForkedError: as `start`.
        """
        self._add((b"directory", os.fsencode(directory.absolute())))

    def forget(self, directory: Path) -> None:
        """Leave a directory alone, since the Executor has removed it.

        Raises:
            ForkedError: as `start`.
        """
        self._remove((b"directory", os.fsencode(directory.absolute())))

    def close(self) -> None:
        """End the sentinel.

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

    def _add(self, *wards: tuple[bytes, bytes]) -> None:
        change = b"".join(record(b"+", *ward) for ward in wards)
        self._check_process()
        with self._lock:
            self._wards.feed(change)
            if self._watcher is None or not self._watcher.tell(change):
                self._replace()

    def _remove(self, *wards: tuple[bytes, bytes]) -> None:
        change = b"".join(record(b"-", *ward) for ward in wards)
        self._check_process()
        with self._lock:
            self._wards.feed(change)
            if self._watcher is not None:
                self._watcher.tell(change)  # one that is dead need not know; the next `start` or `watch` replaces it

    def _replace(self) -> None:
        """Start a sentinel and tell it all there is to guard."""
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


def _wards(group: int, origin: str) -> list[tuple[bytes, bytes]]:
    wards = [(b"group", b"%d" % group)]
    return [*wards, (b"origin", origin.encode())] if origin else wards
