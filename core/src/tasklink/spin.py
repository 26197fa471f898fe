"""Whether to look again before going to sleep.

A reader that sleeps is woken by the system: 30 us on a virtual machine, twice that for a question and its answer, and
the writer pays a good part of it. A reader that looks again for a while gets the message 1 us after it was written,
but has a processor for itself meanwhile. That is worth it while messages come soon after each other and there is a
processor to spare, and never otherwise. So it is tried for 50 us at most, and what came of it decides about the next
time: where the peer takes longer, or runs on the same processor (which the reader then keeps from it), looking again
fails, and is soon tried but rarely.

A process with several threads sleeps at once: a thread that looks again would hold the interpreter's lock against the
thread that computes.

This module is part of the Task side.
"""

from __future__ import annotations

import os
from _thread import _count as other_threads
from time import monotonic

# A peer written in Python needs 3 us to 30 us for an answer; more than this is not met by chance.
SPIN_SECONDS = 50e-6
_TRUST = 8  # how many failures in a row it takes to stop trying
_PROBE = 32  # then, one time out of so many is tried


class Spin:
    """How long a reader looks again, learned from how that went.

    Args:
        seconds: at most, at a time.
    """

    def __init__(self, seconds: float = SPIN_SECONDS) -> None:
        spare = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1
        self._seconds = seconds if spare else 0.0
        self._trust = _TRUST
        self._sleeps = 0

    def deadline(self) -> float:
        """Until when (`time.monotonic`) to look again; 0.0: sleep at once."""
        if not self._seconds or other_threads():
            return 0.0
        if self._trust <= 0:
            self._sleeps += 1
            if self._sleeps % _PROBE:
                return 0.0
        return monotonic() + self._seconds

    def succeeded(self) -> None:
        """Take note that something came while looking."""
        self._trust = _TRUST

    def failed(self) -> None:
        """Take note that nothing came."""
        self._trust -= 1
