"""A descriptor that becomes readable at a time that was set: so one wait on descriptors covers time-outs as well.

A timerfd on Linux, called through ctypes as Python has no function for it before 3.13; a kqueue on macOS. The
Executor's side only.
"""

from __future__ import annotations

import os
import select
import sys

_SOONEST = 1e-6  # to set a timerfd to 0 is to clear it
_NEVER = 1e6

if sys.platform == "darwin":

    class Timer:
        """Not set at first."""

        def __init__(self) -> None:
            self._queue = select.kqueue()

        def fileno(self) -> int:
            """The descriptor to wait on."""
            return self._queue.fileno()

        def set(self, seconds: float) -> None:
            """Make it readable in so many seconds, and not before."""
            milliseconds = max(1, round(seconds * 1000))
            self._queue.control([select.kevent(1, select.KQ_FILTER_TIMER, select.KQ_EV_ADD, 0, milliseconds)], 0)

        def clear(self) -> None:
            """Make it unreadable until it is set again."""
            self.set(_NEVER)  # to set it again forgets that it was due

        def close(self) -> None:
            """Release the descriptor."""
            self._queue.close()

else:
    import ctypes
    import time

    _libc = ctypes.CDLL(None, use_errno=True)
    _Itimerspec = ctypes.c_long * 4  # interval and value, each in seconds and nanoseconds

    class Timer:
        """Not set at first."""

        def __init__(self) -> None:
            self._descriptor = _checked(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK))

        def fileno(self) -> int:
            """The descriptor to wait on."""
            return self._descriptor

        def set(self, seconds: float) -> None:
            """Make it readable in so many seconds, and not before."""
            self._set(max(seconds, _SOONEST))

        def clear(self) -> None:
            """Make it unreadable until it is set again."""
            self._set(0)

        def close(self) -> None:
            """Release the descriptor."""
            os.close(self._descriptor)

        def _set(self, seconds: float) -> None:
            whole = int(seconds)
            value = _Itimerspec(0, 0, whole, int((seconds - whole) * 1e9))
            _checked(_libc.timerfd_settime(self._descriptor, 0, value, None))

    def _checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result
