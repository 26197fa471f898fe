"""Whose turn it is: the locks that order the threads of one side of a channel.

A signal handler may raise between any two bytecodes (a user's Control-C, the time-out of a framework), and must not
leave a lock taken. So every lock is an RLock: its own C code knows which thread has it, however far that thread got.
And a handler, or a finalizer, may call into what its thread is in the middle of: it gets a BusyError at once.

For plugins. Part of the Task side.
"""

from __future__ import annotations

from _thread import TIMEOUT_MAX, RLock
from time import monotonic

from tasklink.errors import BusyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, TypeVar

    T = TypeVar("T")


def alone(lock: RLock, deadline: float | None, work: Callable[..., T], *arguments: object) -> T:
    """Call `work` while no other thread does so under the same lock. Whatever raises, the lock is given back.

    Raises:
        TimeoutError: others kept it until the deadline.
        BusyError: this thread has it, and was interrupted by who calls now.
    """
    if is_mine(lock):
        raise busy()
    try:
        if not lock.acquire(False):
            take(lock, deadline)
        try:
            return work(*arguments)
        finally:
            lock.release()
    except BaseException:
        if is_mine(lock):  # it was raised between acquire and try
            lock.release()
        raise


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
