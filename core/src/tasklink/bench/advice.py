"""Which protocol for what, from measured values alone.

Where two are about as fast, the one that is best for small messages is advised: one protocol is simpler than two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ABOUT_AS_FAST = 1.25
"""Up to this factor nobody is advised to take another protocol: it is what changes from run to run."""


@attrs.frozen
class Advice:
    """What to use.

    Attributes:
        small: the protocol for everything, or for everything else.
        large: the one for large results; the same as `small` where that is as good.
        beyond: the size in bytes from which `large` is the better one; None where it is the same.
        reasons: the values that it follows from, a line each.
    """

    small: str
    large: str
    beyond: int | None
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.beyond is None:
            return f"everything: {self.small}"
        return f"results above {spell_size(self.beyond)}: {self.large}; everything else: {self.small}"


def advise(round_trips: Mapping[str, float], transfers: Mapping[str, Mapping[int, float]]) -> Advice:
    """Choose protocols.

    Args:
        round_trips: by name, microseconds for a small message and its answer.
        transfers: by name and size in bytes, microseconds from the call that sends to when the contents are there.

    >>> print(advise({"unix": 70.0, "shm": 99.0}, {"unix": {4096: 40, 1 << 20: 300}, "shm": {4096: 41, 1 << 20: 60}}))
    results above 4 KiB: shm; everything else: unix
    >>> print(advise({"unix": 70.0}, {"unix": {4096: 40.0}}))
    everything: unix
    """
    sizes = sorted(set.intersection(*(set(times) for times in transfers.values())))
    small = _best_for_small(round_trips, transfers, sizes)
    beyond, large = None, small
    for index, size in enumerate(sizes):
        rival = min(transfers, key=lambda name: (transfers[name][size], name))
        if all(transfers[small][later] > ABOUT_AS_FAST * transfers[rival][later] for later in sizes[index:]):
            beyond, large = sizes[max(0, index - 1)], rival
            break
    reasons = [f"a small message and its answer: {_ranked(round_trips)}"]
    if sizes:
        reasons.append(
            f"{spell_size(sizes[-1])}, one way: {_ranked({name: transfers[name][sizes[-1]] for name in transfers})}"
        )
    return Advice(small, large, beyond, tuple(reasons))


def spell_size(size: int) -> str:
    """Write a size.

    >>> [spell_size(size) for size in (256, 65536, 5 << 20, 1 << 30, 100_000)]
    ['256 B', '64 KiB', '5 MiB', '1 GiB', '97.7 KiB']
    """
    amount, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if amount == int(amount) else f"{amount:.1f} {unit}"


def spell_time(microseconds: float) -> str:
    """Write how long something takes.

    >>> [spell_time(time) for time in (3.14, 71.4, 1234.5, 45_678.0, 2.5e6)]
    ['3.1 µs', '71 µs', '1.2 ms', '46 ms', '2.5 s']
    """
    for unit in ("µs", "ms", "s"):
        if microseconds < 999.5 or unit == "s":
            return f"{microseconds:.1f} {unit}" if microseconds < 9.95 else f"{microseconds:.0f} {unit}"
        microseconds /= 1000
    raise AssertionError


def _best_for_small(
    round_trips: Mapping[str, float], transfers: Mapping[str, Mapping[int, float]], sizes: Sequence[int]
) -> str:
    """Of those whose answers come about as fast as the fastest, the one that is best for the largest too."""
    limit = ABOUT_AS_FAST * min(round_trips.values())
    fast = [name for name, time in round_trips.items() if time <= limit]
    return min(fast, key=lambda name: (transfers[name][sizes[-1]] if sizes else 0, round_trips[name], name))


def _ranked(times: Mapping[str, float]) -> str:
    ordered = sorted(times.items(), key=lambda item: (item[1], item[0]))
    return ", ".join(f"{name} {spell_time(time)}" for name, time in ordered)
