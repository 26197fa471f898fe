"""Numbers as people read them."""

from __future__ import annotations

import math

MIB = 1 << 20


def spell_seconds(seconds: float) -> str:
    """Write a duration.

    >>> [spell_seconds(seconds) for seconds in (0.0514, 9.96, 47.3, 200, 7500)]
    ['0.05 s', '10.0 s', '47.3 s', '3 min 20 s', '2 h 5 min']
    """
    if seconds < 9.95:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def spell_roughly(seconds: float) -> str:
    """Write a duration that changes while one looks at it, or that is a guess.

    >>> [spell_roughly(seconds) for seconds in (0.3, 9.96, 200)]
    ['0 s', '10 s', '3 min 20 s']
    """
    return f"{seconds:.0f} s" if seconds < 59.5 else spell_seconds(seconds)


def spell_number(number: float) -> str:
    """Write how much is done, in whatever unit that is.

    >>> [spell_number(number) for number in (3.0, 1234567, 0.25, 12.345, float("inf"))]
    ['3', '1,234,567', '0.25', '12.3', 'inf']
    """
    if not math.isfinite(number):
        return str(number)
    if number == int(number):
        return f"{int(number):,}" if abs(number) < 1e15 else f"{number:.3g}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2g}"


def spell_rate(per_second: float) -> str:
    """Write a rate, so that it is not a small fraction.

    >>> [spell_rate(rate) for rate in (1234.5, 3.21, 0.25, 0.001)]
    ['1,234/s', '3.2/s', '15/min', '3.6/h']
    """
    for factor, unit in ((1, "s"), (60, "min")):
        if per_second * factor >= 1:
            return f"{_two_digits(per_second * factor)}/{unit}"
    return f"{_two_digits(per_second * 3600)}/h"


def spell_bytes(count: int) -> str:
    """Write an amount of bytes.

    >>> [spell_bytes(count) for count in (0, 999, 20_000, 5 << 20, 3 << 30)]
    ['0 B', '999 B', '19.5 KiB', '5.0 MiB', '3.0 GiB']
    """
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1000:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def count_of(number: int, thing: str) -> str:
    """Write how many there are.

    >>> count_of(1, "message"), count_of(2048, "message")
    ('1 message', '2,048 messages')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _two_digits(number: float) -> str:
    if number >= 1e15:
        return f"{number:.3g}"
    return f"{int(number):,}" if number >= 10 else f"{number:.1f}".removesuffix(".0")
