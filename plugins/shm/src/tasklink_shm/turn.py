"""Whose turn it is: the locks that order the threads of one side.

A signal handler may raise between any two bytecodes (a user's Control-C, the time-out of a framework), and must not
leave a lock taken. So every lock is an RLock: its own C code knows which thread has it, however far that thread got.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

from _thread import TIMEOUT_MAX, RLock, allocate_lock
from time import monotonic

from tasklink.errors import BusyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def is_mine(lock: RLock) -> bool:
    """Whether this thread has the lock."""
    return lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # what threading.Condition asks, too


def take(lock: RLock, deadline: float | None) -> None:
    """Take a lock.

    Raises:
        TimeoutError: others kept it until the deadline.
    """
    wait = -1.0 if deadline is None else min(max(0.0, deadline - monotonic()), TIMEOUT_MAX)
    if not lock.acquire(True, wait):
        raise TimeoutError("other threads kept the communicator busy")


def busy() -> BusyError:
    """For a thread that has the lock, and was interrupted by who calls now."""
    return BusyError("a signal handler or a finalizer interrupted this thread in the same call; use another thread")


def deadline_of(timeout: float | None) -> float | None:
    """The time of the monotonic clock at which so many seconds are over."""
    return None if timeout is None else monotonic() + timeout


def rest_of(deadline: float | None) -> float | None:
    """The seconds until then, which may be over."""
    return None if deadline is None else deadline - monotonic()


def new_fence() -> Callable[[], None]:
    """Make a fence: a function that orders memory, for one thread at a time. See `layout`."""
    lock = allocate_lock()
    release, acquire = lock.release, lock.acquire

    def fence() -> None:
        acquire(False)  # it is taken already, unless this was interrupted the last time
        release()
        acquire(False)

    return fence
