"""A hold on a private directory: as long as somebody has one, nobody removes it, and who lets go last does.

It is a shared lock (flock) on the directory itself, which the kernel gives back however its owner dies. For plugins
whose peers find in the directory what they have not read yet. Part of the Task side.
"""

from __future__ import annotations

import fcntl
import os


class Hold:
    """One process's share in a directory.

    Attributes:
        path: the directory; whoever renames it says so here.
        locked: whether others can see it; some file systems lock no directories.

    Args:
        path: as above.

    Raises:
        OSError: it is gone, or there is no descriptor left.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._owner = os.getpid()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            self.locked = False
        else:
            self.locked = True

    def close(self) -> None:
        """Let go, and remove the directory if nobody else has a hold on it. A forked child closes its copy only."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if os.getpid() == self._owner and _is_last(descriptor):
                import shutil  # noqa: PLC0415 - a Task is seldom the last one, and it costs 5 ms

                shutil.rmtree(self.path, ignore_errors=True)
        finally:
            os.close(descriptor)


def _is_last(descriptor: int) -> bool:
    try:
        # Not atomic: the shared lock goes first. Of two who are here at once, one finds the other's gone.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # nobody can have a hold where nothing can be locked
    return True
