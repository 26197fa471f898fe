"""A directory that only this user can enter, for a socket that has a name.

Rules of this file: what was made is looked at afterwards, for not every file system does what it is told. A name is
never reused and never guessable: mkdtemp makes it, and fails rather than take over what is there. No abstract names:
anybody on the machine could connect to those.

The Executor's side only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from tasklink import config
from tasklink.errors import ConfigError

# sizeof(sockaddr_un.sun_path), one byte of which is for the NUL at its end.
PATH_BYTES = 104 if sys.platform == "darwin" else 108

_REMEDY = "name another place: `directory` in [communicators.unix]"


def make_private_directory(parent: Path | None) -> Path:
    """Make a directory of mode 0700.

    Args:
        parent: where; None: $XDG_RUNTIME_DIR if that is this user's own, else the directory for temporary files.

    Raises:
        ConfigError: it cannot be made there, or the file system does not keep its owner and mode.
    """
    parent = (parent or _default_parent()).absolute()
    try:
        directory = Path(tempfile.mkdtemp(prefix="tasklink-", dir=parent))
    except OSError as error:
        raise ConfigError(f"no directory can be made in {str(parent)!r} ({error.strerror}): {_REMEDY}") from error
    try:
        check_private(directory, stat.S_IFDIR, 0o700)
    except BaseException:
        directory.rmdir()
        raise
    return directory


def check_private(path: Path, kind: int, mode: int) -> None:
    """See that something that was just made is what it was made to be.

    Args:
        path: what was made; a symbolic link is not followed.
        kind: its type, as `stat.S_IFDIR`.
        mode: its permissions.

    Raises:
        ConfigError: the file system has made something else of it.
    """
    found = path.lstat()
    # The upper bits of a mode may come from the parent: set-group-ID on a directory is inherited.
    if (stat.S_IFMT(found.st_mode), found.st_uid, found.st_mode & 0o777) != (kind, os.geteuid(), mode):
        raise ConfigError(
            f"{str(path)!r} made with mode {mode:03o} for user {os.geteuid()}, has {stat.filemode(found.st_mode)} "
            f"and user {found.st_uid}: its file system does not keep private what is private; {_REMEDY}"
        )


def check_length(path: Path) -> None:
    """See that a path fits into the address of a Unix socket.

    Raises:
        ConfigError: it is too long.
    """
    length = len(os.fsencode(path))
    if length >= PATH_BYTES:
        raise ConfigError(
            f"{str(path)!r} has {length} bytes; the path of a Unix socket has at most {PATH_BYTES - 1} here, "
            f"{PATH_BYTES} with the NUL at its end: name a shorter place: `directory` in [communicators.unix]"
        )


def remove(directory: Path, *names: str) -> None:
    """Remove a directory with the files of these names; what is gone already, or not empty, is left as it is."""
    for name in names:
        with contextlib.suppress(OSError):
            (directory / name).unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()


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
