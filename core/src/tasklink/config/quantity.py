"""Sizes and durations: numbers in the program, text such as "64 MiB" and "10 min" in config files.

Rules of this module:

* A plain number counts bytes or seconds. A text is a decimal number and one unit, whatever the locale.
* Nothing is guessed: "kb" is not a unit, True is not 1; NaN, infinity and what is below 0 do not get through.
* `parse_size(format_size(size)) == size`, and the same for durations: what is shown can be written back.
"""

import math
import re
import sys
from decimal import Decimal
from fractions import Fraction
from typing import NewType

Size = NewType("Size", int)
"""A number of bytes, 0 or more."""

Duration = NewType("Duration", float)
"""A number of seconds, 0 or more, finite."""

# Fractions, because floats would not give back to the byte and to the bit what was shown.
# Both from the smallest unit to the largest.
_SIZE_UNITS = {
    "B": Fraction(1),
    "kB": Fraction(10**3),
    "KiB": Fraction(2**10),
    "MB": Fraction(10**6),
    "MiB": Fraction(2**20),
    "GB": Fraction(10**9),
    "GiB": Fraction(2**30),
    "TB": Fraction(10**12),
    "TiB": Fraction(2**40),
}
_DURATION_UNITS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(60 * 60),
    "d": Fraction(24 * 60 * 60),
}

NOT_A_SIZE = f'not a size; write a whole number of bytes or a text like "64 MiB", in {", ".join(_SIZE_UNITS)}'
NOT_A_DURATION = 'not a duration; write a number of seconds or a text like "500 ms", "10 min", "1.5 h", "2 d"'

# 400 digits are enough for every float, and too few to keep the conversion busy.
_QUANTITY = re.compile(r"([0-9]{1,400}(?:\.[0-9]{1,400})?) *([A-Za-z]*)")


def parse_size(value: int | str) -> Size:
    """Turn a number of bytes, or a text such as "64 MiB", into a size in bytes.

    A text may hold a fraction, which is rounded down to whole bytes: "1.1 KiB" is 1126 bytes. A float is no size.

    Raises:
        ValueError: it is not a size; the text says what is one.
    """
    amount = None if isinstance(value, float) else _amount(value, _SIZE_UNITS, plain="B")
    if amount is None:
        raise ValueError(f"{value!r}: {NOT_A_SIZE}")
    return Size(math.floor(amount))


def parse_duration(value: float | str) -> Duration:
    """Turn a number of seconds, or a text such as "10 min", into a duration in seconds.

    Raises:
        ValueError: it is not a duration; the text says what is one.
    """
    amount = _amount(value, _DURATION_UNITS, plain="s")
    if amount is None or amount > sys.float_info.max:
        raise ValueError(f"{value!r}: {NOT_A_DURATION}")
    return Duration(float(amount))


def format_size(size: int) -> str:
    """Return a short text that `parse_size` turns into exactly this size: "64 MiB"."""
    return _shortest(Fraction(size), _SIZE_UNITS) or f"{size} B"


def format_duration(duration: float) -> str:
    """Return a short text that `parse_duration` turns into exactly this duration: "10 min"."""
    digits = repr(float(duration))
    return _shortest(Fraction(digits), _DURATION_UNITS) or f"{Decimal(digits).normalize():f} s"


def _amount(value: float | str, units: dict[str, Fraction], plain: str) -> Fraction | None:
    """Return the exact amount in bytes or seconds; None when the value does not say one."""
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        unit = units.get(match[2] or plain) if match else None
        return Fraction(match[1]) * unit if match and unit else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Fraction(value) if is_number and 0 <= value < math.inf else None


def _shortest(amount: Fraction, units: dict[str, Fraction]) -> str | None:
    """Return the amount in the unit that needs the fewest digits; None when each needs more than three decimals."""
    counts = {name: amount / unit for name, unit in reversed(units.items()) if amount >= unit}
    texts = {name: _decimal(count) for name, count in counts.items() if (count * 1000).denominator == 1}
    best = min(texts, key=lambda name: len(texts[name]), default=None)
    return None if best is None else f"{texts[best]} {best}"


def _decimal(count: Fraction) -> str:
    whole, thousandths = divmod(int(count * 1000), 1000)
    return f"{whole}.{thousandths:03}".rstrip("0").removesuffix(".") if thousandths else str(whole)
