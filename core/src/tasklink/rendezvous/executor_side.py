"""The Executor's side of a rendezvous: a socket in a private directory, until the Task has proved that it is the Task.

A name can be reached by others, so a connection counts for nothing until its peer has proved that it holds the key:

 1. nobody but this user can enter the directory, whatever the umask is;
 2. the kernel says whose process the peer is: another user's is refused unheard;
 3. the peer proves that it holds the one-shot key, and we prove it to the peer (`handshake`).

Until then a peer gets 2 s, 80 bytes are read of it, and it is one of 16 at most: for one more the oldest has to go. So
those who connect and say nothing cannot keep the Task out, nor make us hold more than a little for them. One peer is
accepted. Then the key is worth nothing any more, and the socket and its directory are removed; a rendezvous of several
(the ranks of one Task, which have one key) stays open until `close`.

Rules of this file: nothing waits but `accept`, and that on one descriptor that stands for all of it. Nothing that a
peer sends is decoded, shown or logged.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import stat
from contextlib import ExitStack, closing
from time import monotonic
from typing import TYPE_CHECKING

import attrs

from tasklink.errors import AuthenticationError, ClosedError
from tasklink.rendezvous import handshake
from tasklink.rendezvous.credentials import Credentials, peer_of
from tasklink.rendezvous.directory import PrivateDirectory
from tasklink.rendezvous.timer import Timer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_VISITORS = 16
PATIENCE = 2.0  # seconds for a visitor to prove itself
_NAME = "socket"
_BACKLOG = 128
# Whoever connects in a loop shall not fill a disk.
_MOST_LOGGED = 100

_log = logging.getLogger("tasklink.rendezvous")


@attrs.define(eq=False)
class _Visitor:
    """Somebody who has connected and proved nothing yet."""

    connection: socket.socket
    peer: Credentials
    handshake: handshake.ExecutorSide
    deadline: float


class Rendezvous:
    """Listens at a socket in a private directory, and lets the one in who holds the key.

    Attributes:
        details: what `task_side.reach` needs beside the key, as a part of an `Address`.
        key: the one-shot key; empty once it is worth nothing.
        directories: what was made in the file system, for `Listener.directories`.

    Args:
        parent: where to make the directory; see `PrivateDirectory`.
        table: the table of the config in whose key `directory` another place can be named, as `communicators.unix`.
        timeout: how long the Task tries to get in (seconds).
        several: more than one peer may come.

    Raises:
        ConfigError: the directory cannot be used.
        OSError: there is no descriptor left.
    """

    def __init__(self, parent: Path | None, *, table: str, timeout: float, several: bool = False) -> None:
        self._owner = os.getpid()
        self._several = several
        self.key = os.urandom(handshake.KEY_BYTES)
        self._session = os.urandom(handshake.SESSION_BYTES)
        self._visitors: dict[int, _Visitor] = {}  # by descriptor; the oldest first
        self._admitted: socket.socket | None = None
        self._refused = 0
        with ExitStack() as opened:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._timer = opened.enter_context(closing(Timer()))
            self._socket = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self._directory = opened.enter_context(PrivateDirectory(parent, table=table))
            path = self._bind()
            opened.pop_all()
        self.directories = (self._directory.path,)
        self.details: dict[str, object] = {"path": str(path), "session": self._session.hex(), "timeout": timeout}

    def accept(self, timeout: float | None = None) -> socket.socket:
        """Wait for a peer that holds the key; the name is then taken away, unless several may come.

        Returns:
            the connection, non-blocking.

        Raises:
            TimeoutError: it has not come in time; `fileno` tells when to ask again.
            ClosedError: `close` was called, or the only peer has been given before.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while self._admitted is None:
            self._check_open()
            rest = None if deadline is None else max(0.0, deadline - monotonic())
            self._serve(self._selector.select(rest))
            if self._admitted is None and deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"the Task has not come to {self.details['path']} in time")
        connection, self._admitted = self._admitted, None
        if not self._several:
            self._stop_listening("the Task has come")
        return connection

    def fileno(self) -> int:
        """Readable when somebody knocks, answers, or has taken too long: when `accept` has work."""
        return self._selector.fileno()

    def close(self) -> None:
        """Send everybody away and remove the socket and its directory."""
        self._stop_listening("the run is over")
        if self._admitted is not None:
            self._admitted.close()
            self._admitted = None
        self._selector.close()

    def _bind(self) -> Path:
        path = self._directory.path / _NAME
        self._directory.check_length(path)
        self._socket.bind(str(path))
        # Not by a umask, which would hold for the other threads of this process too. Nobody can connect before listen.
        path.chmod(0o600)
        self._directory.check_private(path, stat.S_IFSOCK, 0o600)
        self._socket.setblocking(False)
        self._socket.listen(_BACKLOG)
        self._selector.register(self._socket, selectors.EVENT_READ, self._greet)
        self._selector.register(self._timer, selectors.EVENT_READ, self._send_away_late)
        return path

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise ClosedError("this rendezvous was closed, or its peer has come: its key works once")

    def _serve(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in events:
            if self._admitted is None and key.fd in self._selector.get_map():  # it may have been sent away since
                act: Callable[[], None] = key.data
                act()

    # Visitors

    def _greet(self) -> None:
        """Let one of those in who knock; the descriptor stays readable for the others, and everybody has a turn."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # who has knocked is gone again
        except OSError as error:
            # Out of descriptors. Those who wait have no more right to theirs than the newcomer; if nobody waits, it is
            # not our doing, and the run must end rather than go round and round.
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._visitors:
                raise
            self._send_oldest_away("there are no descriptors left")
        else:
            self._meet(connection)

    def _meet(self, connection: socket.socket) -> None:
        try:
            peer = peer_of(connection)
        except OSError:  # it is gone, says macOS
            connection.close()
            return
        us = handshake.ExecutorSide(self.key, self._session)
        visitor = _Visitor(connection, peer, us, monotonic() + PATIENCE)
        if visitor.peer.uid != os.geteuid():
            self._refuse(visitor, f"it is not of user {os.geteuid()}")
            return
        if len(self._visitors) >= MOST_VISITORS:
            self._send_oldest_away(f"there are {MOST_VISITORS} others")
            if self._admitted is not None:
                connection.close()
                return
        connection.setblocking(False)
        try:
            connection.send(visitor.handshake.challenge)  # an empty buffer has room for so little
        except OSError:
            self._refuse(visitor, "it hung up")
            return
        self._visitors[connection.fileno()] = visitor
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(visitor))
        self._set_timer()

    def _hear(self, visitor: _Visitor) -> None:
        try:
            data = visitor.connection.recv(visitor.handshake.wanted)
            if not data:
                self._refuse(visitor, "it hung up")
                return
            confirmation = visitor.handshake.receive(data)
            if confirmation is not None:
                visitor.connection.send(confirmation)
                self._forget(visitor)
                self._admitted = visitor.connection
        except BlockingIOError:
            return
        except AuthenticationError as error:
            self._refuse(visitor, str(error))
        except OSError:
            self._refuse(visitor, "it hung up")

    def _send_oldest_away(self, reason: str) -> None:
        oldest = next(iter(self._visitors.values()))
        self._hear(oldest)  # its answer may have come by now
        if oldest.connection.fileno() in self._visitors:
            self._refuse(oldest, reason)

    def _send_away_late(self) -> None:
        now = monotonic()
        for visitor in [visitor for visitor in self._visitors.values() if visitor.deadline <= now]:
            self._refuse(visitor, f"it did not prove itself within {PATIENCE:g} s")
        self._set_timer()

    def _refuse(self, visitor: _Visitor, reason: str) -> None:
        self._forget(visitor)
        visitor.connection.close()
        self._refused += 1
        if self._refused <= _MOST_LOGGED:
            peer = visitor.peer
            _log.warning("refused a connection from process %d of user %d: %s", peer.pid, peer.uid, reason)

    def _forget(self, visitor: _Visitor) -> None:
        if self._visitors.pop(visitor.connection.fileno(), None) is not None:
            self._selector.unregister(visitor.connection)
            self._set_timer()

    def _set_timer(self) -> None:
        oldest = next(iter(self._visitors.values()), None)
        if oldest is None:
            self._timer.clear()
        else:
            self._timer.set(oldest.deadline - monotonic())

    # The end

    def _stop_listening(self, reason: str) -> None:
        """Take the name away; the descriptor that stands for everything lives until `close`."""
        if self._socket.fileno() < 0:
            return
        # In a fork all of this belongs to the parent, the insides of epoll and timer too: only our copies are closed.
        if os.getpid() == self._owner:
            for visitor in list(self._visitors.values()):
                self._refuse(visitor, reason)
            if self._refused > _MOST_LOGGED:
                _log.warning("refused %d more connections", self._refused - _MOST_LOGGED)
            self._selector.unregister(self._socket)
            self._selector.unregister(self._timer)
        for visitor in self._visitors.values():
            visitor.connection.close()
        self._socket.close()
        self._timer.close()
        self._directory.close()
        self.key = b""
