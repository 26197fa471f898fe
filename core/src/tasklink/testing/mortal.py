"""The Task of `tasklink.testing.chaos`: it reports and prints without rest, and ends in the way that was chosen."""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from tasklink.task import Task
from tasklink.testing.errand import pattern
from tasklink.testing.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklink.link import Link

CODES = {"exit": 3, "_exit": 5}
"""What those who choose their exit code exit with."""

VALUE = "as planned"
"""What those return who return."""

_LINE_EVERY = 16


class Mortal(Task):
    """Reports and prints, and keeps count of it where its death does not reach."""

    def run(
        self, *, tally: str, ending: str, seconds: float, flush_after: float, sizes: Sequence[int], pause: float
    ) -> str:
        """Live.

        Args:
            tally: the file with the counts.
            ending: "return", "exception", "exit", "_exit" or "segfault"; any other one comes from outside.
            seconds: how long to live; infinite where the end comes from outside.
            flush_after: after so many seconds the channel is closed, and no more is sent.
            sizes: of the contents of the messages, again and again.
            pause: seconds between two messages.
        """
        counts = Tally.at(tally)
        counts.begun = 1
        begun = time.monotonic()
        silent_from = begun + min(seconds, flush_after)
        number = 0
        while time.monotonic() < silent_from and not self.cancelled:
            self.report((number, pattern(sizes[number % len(sizes)], number)))
            counts.accepted = number = number + 1
            if number % _LINE_EVERY == 0:
                print(counts.printed)  # noqa: T201 - what it prints is checked, too
                counts.printed += 1
            if pause:
                time.sleep(pause)
        if flush_after < seconds:
            _close_channel(self)
            counts.flushed = number
            _stay(begun + seconds - time.monotonic())
        counts.died = time.monotonic_ns()
        return _end_by(ending)


def _close_channel(task: Task) -> None:
    """Close the Task's Link, as the end of its process would in good order."""
    assert task._conversation is not None
    link: Link = task._conversation._write.__self__  # type: ignore[attr-defined]  # it is Link.write
    link.close()


def _stay(seconds: float) -> None:
    if math.isinf(seconds):
        signal.pause()
    time.sleep(max(0.0, seconds))


def _end_by(ending: str) -> str:
    if ending == "exception":
        raise RuntimeError(VALUE)
    if ending == "exit":
        sys.exit(CODES[ending])
    if ending == "_exit":
        os._exit(CODES[ending])
    if ending == "segfault":
        faulthandler._sigsegv()  # type: ignore[attr-defined]  # what CPython tests itself with
    return VALUE
