"""A directory that only this user can enter, for what has to have a name: a socket, a file that is mapped.

Rules of this file:

* What was made is looked at afterwards, for not every file system does what it is told. A name is never reused and
  never guessable: mkdtemp makes it, and fails rather than take over what is there. No abstract names: anybody on the
  machine could connect to those.
* Its owner has a `hold` on it for as long as it lives: a lock that the kernel gives back however the owner dies. So who
  makes a directory can tell which of those beside it are left over, and removes them. (A forked child has the lock as
  well; what its dead parent has left is removed when it has ended, too.)
* A directory is made and locked under a name that begins with a dot, and only then gets the name that a sweep looks
  for. So no sweep ever meets one that is not locked yet. (Killed between the two, an empty directory stays.)
* A sweep holds the lock of what it removes. Of two at once one gets it, and the other finds it taken, or nothing there.
* Locks of some network file systems are not seen by other machines, therefore the name says which machine's it is.
  Where a file system locks no directories, it keeps its first name and is never swept.

The Executor's side only.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import sys
import tempfile
import zlib
from pathlib import Path

from tasklink import config
from tasklink.errors import ConfigError
from tasklink.rendezvous.hold import Hold

# sizeof(sockaddr_un.sun_path), one byte of which is for the NUL at its end.
PATH_BYTES = 104 if sys.platform == "darwin" else 108

_log = logging.getLogger("tasklink.rendezvous")


class PrivateDirectory:
    """A directory of mode 0700, this process's own until `close`. Left-over ones beside it are removed first.

    Attributes:
        path: where it is.

    Args:
        parent: where to make it; None: $XDG_RUNTIME_DIR if that is this user's own, else the directory for temporary
            files.
        table: the table of the config in whose key `directory` another place can be named, as `communicators.unix`.

    Raises:
        ConfigError: it cannot be made there, or the file system does not keep its owner and mode.
        OSError: there is no descriptor left.
    """

    def __init__(self, parent: Path | None, *, table: str) -> None:
        parent = (parent or _default_parent()).absolute()
        sweep(parent)
        self._table = table
        self._hold = _make(parent, table)
        self.path = Path(self._hold.path)

    def check_length(self, path: Path) -> None:
        """See that a path in it fits into the address of a Unix socket.

        Raises:
            ConfigError: it is too long.
        """
        length = len(os.fsencode(path))
        if length >= PATH_BYTES:
            raise ConfigError(
                f"{str(path)!r} has {length} bytes; the path of a Unix socket has at most {PATH_BYTES - 1} here, "
                f"{PATH_BYTES} with the NUL at its end: name a shorter place: {_remedy(self._table)}"
            )

    def check_private(self, path: Path, kind: int, mode: int) -> None:
        """See that what was just made in it is what it was made to be; as the function `check_private`."""
        check_private(path, kind, mode, table=self._table)

    def close(self) -> None:
        """Remove it with all that is in it, unless the peer has a hold on it too. A forked child removes nothing."""
        self._hold.close()

    def __enter__(self) -> PrivateDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_private(path: Path, kind: int, mode: int, *, table: str) -> None:
    """See that something that was just made is what it was made to be.

    Args:
        path: what was made; a symbolic link is not followed.
        kind: its type, as `stat.S_IFDIR`.
        mode: its permissions.
        table: as of `PrivateDirectory`.

    Raises:
        ConfigError: the file system has made something else of it.
    """
    found = path.lstat()
    # The upper bits of a mode may come from the parent: set-group-ID on a directory is inherited.
    if (stat.S_IFMT(found.st_mode), found.st_uid, found.st_mode & 0o777) != (kind, os.geteuid(), mode):
        raise ConfigError(
            f"{str(path)!r} made with mode {mode:03o} for user {os.geteuid()}, has {stat.filemode(found.st_mode)} "
            f"and user {found.st_uid}: its file system does not keep private what is private; "
            f"name another place: {_remedy(table)}"
        )


def sweep(parent: Path) -> int:
    """Remove the private directories whose owners, processes of this user on this machine, are dead.

    Args:
        parent: where they are.

    Returns:
        how many this sweep has removed; also logged.
    """
    try:
        with os.scandir(parent) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.startswith(_prefix())]
    except OSError:
        return 0  # whoever makes a directory there will be told
    removed = sum(map(_remove_left, found))
    if removed:
        _log.info("removed %d directories in %s that dead processes had left", removed, parent)
    return removed


def _remove_left(directory: Path) -> bool:
    """Remove a directory if nobody lives who owns it; whether it was removed here."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False  # it is gone, another user's, or no directory
    try:
        if os.fstat(lock).st_uid != os.geteuid():  # root can open everybody's
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory)  # fails when another sweep has removed it before we had the lock
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _make(parent: Path, table: str) -> Hold:
    """Make a directory; gives our hold on it."""
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{_prefix()}", dir=parent))
    except OSError as error:
        raise ConfigError(
            f"no directory can be made in {str(parent)!r} ({error.strerror}): name another place: {_remedy(table)}"
        ) from error
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, made, ignore_errors=True)
        check_private(made, stat.S_IFDIR, 0o700, table=table)
        hold = Hold(str(made))
        undo.callback(hold.close)
        if hold.locked:
            hold.path = str(made.rename(made.with_name(made.name[1:])))
        undo.pop_all()
    return hold


def _prefix() -> str:
    return f"tasklink-{zlib.crc32(os.fsencode(os.uname().nodename)):08x}-"


def _remedy(table: str) -> str:
    return f"`directory` in [{table}]"


def _default_parent() -> Path:
    runtime = config.environment({}).get("XDG_RUNTIME_DIR")
    # A launcher or `su` may hand down a variable whose directory is another user's, or on another machine.
    if runtime and _is_ours(Path(runtime)):
        return Path(runtime)
    return Path(tempfile.gettempdir())


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.stat()
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return ours and found.st_mode & 0o077 == 0 and os.access(directory, os.W_OK | os.X_OK)
