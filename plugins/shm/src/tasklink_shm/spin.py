"""To look again and again for a moment, instead of sleeping: waking a CPU that sleeps takes 30 us.

It only pays while there is a CPU to spare. A thread that spins keeps Python's other threads from running, and a peer
that is on the same CPU from answering. So each side says on which CPU it is when it begins to wait, and nobody spins
against a peer that was last seen on its own.

Part of the Task side: standard library, Python 3.9. `_ctypes` is what `ctypes` wraps; it is imported by a side that is
about to spin, and so has just exchanged messages with its peer.
"""

from __future__ import annotations

import os
from _thread import _count
from itertools import repeat
from time import monotonic

from tasklink_shm.layout import NOTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LOOKS = 32  # between two looks at the clock
# After so many waits in vain in a row it is tried only now and then: whoever writes seldom is not spun for.
_PATIENCE = 8
_NOW_AND_THEN = 32


class Spinner:
    """Spins for one reader.

    Args:
        words: of the shared memory.
        ours: the index of the word that says on which CPU this side is.
        theirs: that of the other side.
        seconds: how long to spin.
    """

    __slots__ = ("_in_vain", "_ours", "_seconds", "_theirs", "_which_cpu", "_words")

    def __init__(self, words: memoryview, ours: int, theirs: int, seconds: float) -> None:
        self._words = words
        self._ours = ours
        self._theirs = theirs
        self._seconds = seconds if os.cpu_count() != 1 else 0.0
        self._in_vain = 0
        self._which_cpu: Callable[[], int] | None = None

    def stop(self) -> None:
        """Let go of the memory."""
        self._words = NOTHING
        self._seconds = 0.0

    def spin(self, place: int, deadline: float | None) -> bool:
        """Look at a word until it is not 0; False when it still is, or when there is no CPU to spare."""
        # Not asked of the scheduler: two sides that are pinned to a CPU each may spin, and those that share one see it.
        if not self._seconds or _count():
            return False
        if self._in_vain >= _PATIENCE and self._in_vain % _NOW_AND_THEN:
            self._in_vain += 1
            return False
        if self._which_cpu is None:
            self._which_cpu = _cpu_teller()
        words = self._words
        here = words[self._ours] = self._which_cpu() + 1
        if here <= 0 or here == words[self._theirs]:
            return False
        end = monotonic() + self._seconds
        if deadline is not None and deadline < end:
            end = deadline
        while True:
            for _ in repeat(None, _LOOKS):
                if words[place]:
                    self._in_vain = 0
                    return True
            if monotonic() >= end:
                self._in_vain += 1
                return False


def _cpu_teller() -> Callable[[], int]:
    """The function sched_getcpu of the C library; where there is none, one that always says -1."""
    try:
        import _ctypes  # noqa: PLC0415 - most Tasks never spin

        class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "i"

        class Function(_ctypes.CFuncPtr):
            _flags_ = _ctypes.FUNCFLAG_CDECL
            _restype_ = Int

        library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None: what the process has loaded
        return Function(_ctypes.dlsym(library, "sched_getcpu"))
    except (ImportError, OSError, AttributeError):
        return lambda: -1
