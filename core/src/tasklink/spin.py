"""Whether to look again before going to sleep.

A reader that sleeps is woken by the system: 30 us on a virtual machine, twice that for a question and its answer, and
the writer pays a good part of it. A reader that looks again for a while gets the message 1 us after it was written, but
has a processor for itself meanwhile. That is worth it while messages come soon after each other and there is a
processor to spare, and never otherwise. So it is tried for 50 us, or as long as a communicator is told to, and what
came of it decides about the next time. Where the peer takes longer, or is on the same processor (which the reader then
keeps from it), looking again fails; after some failures in a row it is tried now and then, and then hardly ever, until
it succeeds. On the same processor it may also seem to succeed: the system takes the processor from the reader, the peer
writes, and the next look finds it. To sleep at once would have been quicker. It shows in the time between two looks,
and is a failure too.

What is allowed to this process (`os.sched_getaffinity`) is not asked: two sides that are pinned to a processor each
may look again, and two that are pinned to the same one find out that it does not pay.

A process with several threads sleeps at once: a thread that looks again would hold the interpreter's lock against the
thread that computes.

This module is part of the Task side.
"""

from __future__ import annotations

import os
from _thread import _count as other_threads
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

# A peer written in Python needs 3 us to 30 us for an answer; more than this is not met by chance.
SPIN_SECONDS = 50e-6

# A look takes 1 us at most. If so much lies between two, somebody else has had the processor.
_TAKEN_AWAY = 4e-6

_TRUSTED = 8  # failures in a row before it is tried only now and then:
_PROBE = 32  # one time out of so many, then of twice as many, and so on
_LEAST_PROBE = 4096


class Spin:
    """Looks again for a reader, as long as that pays.

    Args:
        seconds: for how long at a time; 0: never.
    """

    __slots__ = ("_every", "_failures", "_seconds", "_skipped")

    def __init__(self, seconds: float = SPIN_SECONDS) -> None:
        self._seconds = seconds if (os.cpu_count() or 1) > 1 else 0.0
        self._failures = 0
        self._every = _PROBE
        self._skipped = 0

    def look(self, glance: Callable[[], object], deadline: float | None = None) -> bool:
        """Look again and again, if that is worth it.

        Args:
            glance: gives something true when there is something.
            deadline: when to stop at the latest, on the monotonic clock.

        Returns:
            whether there is something.
        """
        if not self._seconds or other_threads() or self._is_vain():
            return False
        if glance():
            return True  # it came before we looked, which says nothing about how long the next one takes
        looked = monotonic()
        end = looked + self._seconds
        if deadline is not None and deadline < end:
            end = deadline
        while not glance():
            looked = monotonic()
            if looked >= end:
                self._failures += 1
                return False
        if monotonic() - looked > _TAKEN_AWAY:
            self._failures += 1
        else:
            self._failures = 0
            self._every = _PROBE
        return True

    def _is_vain(self) -> bool:
        if self._failures < _TRUSTED:
            return False
        self._skipped += 1
        if self._skipped < self._every:
            return True
        self._skipped = 0
        self._every = min(2 * self._every, _LEAST_PROBE)
        return False
