"""Many values to few. The module `statistics` of Python would do, and takes 10 ms to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def median(values: Iterable[float]) -> float:
    """Return the middle one, or the mean of the two in the middle.

    >>> median([3, 1, 2]), median([4.0, 1.0, 2.0, 3.0])
    (2, 2.5)
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(values: Iterable[float], percent: int) -> float:
    """Return the smallest value that is not exceeded by so many of a hundred.

    >>> percentile(range(1, 201), 99), percentile([7], 99)
    (198, 7)
    """
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
