"""The Executor's side where the Task inherits nothing: a socket with a name, and a key that both sides prove."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from acme_connection.communicator import ConnectionCommunicator, hang_up, prove
from tasklink.communicator import Address, Listener
from tasklink.errors import ClosedError, CommunicatorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from acme_connection.settings import ConnectionSettings

_KEY_BYTES = 32
_MOST_STRANGERS = 32


class DoorListener(Listener):
    """Lets in the one peer that has the key. Each that comes is asked in a thread of its own: a stranger may be silent.

    Args:
        settings: of the connection communicator.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._room, self._linger = int(settings.room), float(settings.linger)
        self._patience = float(settings.connect_timeout)
        self._changed = threading.Condition()  # for all that follows
        self._strangers: set[socket.socket] = set()
        self._proven: deque[socket.socket] = deque()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._accepted = False
        path = Path(tempfile.mkdtemp(prefix="acme-", dir=os.environ.get("XDG_RUNTIME_DIR")))
        self.directories = (path,)
        name = str(path / "door")
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pipe = os.pipe()
        try:
            self._door.bind(name)
            (path / "door").chmod(0o600)
            self._door.listen(_MOST_STRANGERS)
        except BaseException:
            self._release()
            raise
        details = {"room": self._room, "linger": self._linger, "door": name, "patience": self._patience}
        self.address = Address(details, key=os.urandom(_KEY_BYTES))
        self._start(self._watch)

    def accept(self, timeout: float | None = None) -> ConnectionCommunicator:
        """Wait for who has proven the key; see `Listener.accept`."""
        wait = None if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        with self._changed:
            done = self._changed.wait_for(lambda: self._proven or self._closed or self._accepted, wait)
            if self._closed or self._accepted:
                raise ClosedError("this DoorListener was closed, or its one peer was accepted")
            if not done:
                raise TimeoutError("nobody with the key has come in time")
            self._accepted = True
            return ConnectionCommunicator(self._proven.popleft(), self._room, self._linger)

    def fileno(self) -> int:
        """A pipe with a byte in it when somebody has proven the key; see `Listener.fileno`."""
        return self._pipe[0]

    def close(self) -> None:
        """Send away who waits, and remove the directory."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for stranger in self._strangers:
                hang_up(stranger)
            self._changed.notify_all()
        hang_up(self._door)  # which wakes who waits in its accept
        for thread in self._threads:  # the first one starts the others, and ends first
            thread.join()
        for end in self._proven:
            end.close()
        self._release()

    def _release(self) -> None:
        self._door.close()
        for descriptor in self._pipe:
            os.close(descriptor)
        shutil.rmtree(self.directories[0])

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="acme door", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        while True:
            try:
                stranger, _ = self._door.accept()
            except OSError:  # closed; or no descriptor is left, and who comes later has to be waited for
                if self._closed:
                    return
                time.sleep(0.1)
                continue
            with self._changed:
                self._changed.wait_for(lambda: len(self._strangers) < _MOST_STRANGERS or self._closed)
                if self._closed:
                    stranger.close()
                    return
                self._strangers.add(stranger)
            self._start(self._ask, stranger)

    def _ask(self, stranger: socket.socket) -> None:
        try:
            prove(stranger, self.address.key, self._patience, first=False)
            proven = True
        except (CommunicatorError, OSError, EOFError):  # nobody we know; the next one may be the Task
            proven = False
        with self._changed:
            self._strangers.discard(stranger)
            if proven and not self._closed:
                self._proven.append(stranger)
                os.write(self._pipe[1], b"!")
            else:
                stranger.close()
            self._changed.notify_all()
