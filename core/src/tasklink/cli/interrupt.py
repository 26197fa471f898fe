"""Ctrl-C, SIGTERM and SIGHUP: the program ends within a second, and its Tasks before it.

The first of these signals raises `Interrupted` in the main thread, which ends the Tasks in good order. Those that come
later are ignored: what they ask for is under way. Should that take too long, because a Task clings to life or because
nobody reads what we print, the program exits all the same, and the guardian ends what is left.

What is raised within `__del__`, or a callback of a weak reference, goes no further. A signal that strikes there is told
once more, a moment later.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sys import UnraisableHookArgs
    from types import FrameType

GRACE = 0.2
"""Seconds between asking a Task to end and each harder means, once we were told to end."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST_MOMENT = 0.9
_SOON = 0.005


class Interrupted(KeyboardInterrupt):
    """The program was told to end.

    Attributes:
        number: of the signal.
        name: of it, such as "SIGINT".
        exit_code: what the program exits with: 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[list[Interrupted]]:
    """Have the signals act as described above. In the main thread only.

    Gives what was raised, each time that it was; empty as long as there was no signal.
    """
    # What is ignored from the start, as under nohup, stays ignored.
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    told: list[Interrupted] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        told.append(Interrupted(number))
        for other in heeded:
            signal.signal(other, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
        signal.setitimer(signal.ITIMER_REAL, _LAST_MOMENT)
        raise told[-1]

    def interrupt_again(lost: UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, Interrupted):
            signal.signal(signal.SIGALRM, lambda *_: interrupt(told[0].number, None))
            signal.setitimer(signal.ITIMER_REAL, _SOON)
        else:
            before_lost(lost)

    before_lost, sys.unraisablehook = sys.unraisablehook, interrupt_again
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield told
    finally:
        sys.unraisablehook = before_lost
        for number in heeded:
            if signal.getsignal(number) is interrupt:
                signal.signal(number, before[number])
