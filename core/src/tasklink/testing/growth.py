"""Whether a process takes more and more memory: its trend over many runs, whatever it takes for a while."""

from __future__ import annotations

import os
import statistics
from itertools import combinations
from pathlib import Path

import attrs

LIMIT = 5.0
"""MB that a process may grow by in 1,000 runs."""

_FEWEST_RUNS = 1_000
_FEWEST_SAMPLES = 6


def resident_bytes() -> int | None:
    """The memory of this process; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        return None
    return pages * os.sysconf("SC_PAGESIZE")


@attrs.define
class Growth:
    """The memory after so many runs, again and again.

    Attributes:
        samples: pairs of a number of runs, and the bytes after them.
    """

    samples: list[tuple[int, int]] = attrs.field(factory=list)

    def note(self, runs: int, size: int | None) -> None:
        """Note how much memory there is after so many runs."""
        if size is not None:
            self.samples.append((runs, size))

    @property
    def per_thousand(self) -> float | None:
        """By how many MB it grows in 1,000 runs; None: there were too few of them to tell.

        The median of the slopes between any two samples, without the first third of them: what is taken once, and
        what comes and goes, is no trend.
        """
        late = self.samples[len(self.samples) // 3 :]
        if len(self.samples) < _FEWEST_SAMPLES or late[-1][0] - late[0][0] < _FEWEST_RUNS:
            return None
        slopes = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in combinations(late, 2)]
        return statistics.median(slopes) * 1_000 / 1e6

    @property
    def fault(self) -> str:
        """What is wrong with it; empty where nothing is."""
        grown = self.per_thousand
        return (
            f"the memory of this process grows by {grown:.1f} MB in 1,000 runs"
            if grown is not None and grown > LIMIT
            else ""
        )
