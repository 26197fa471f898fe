"""What was sent and is not confirmed: it counts against the high-water mark, and can be sent again.

Rules of this file: it does no I/O. Units are numbered from 1, and confirmed in that order, all up to one at a time.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# After so many bytes, or units, a confirmation is asked for: seldom enough to cost nothing.
ASK_BYTES = 1 << 20
ASK_UNITS = 512


class Parcel:
    """A unit that was sent, in all its parts.

    Attributes:
        number: the first unit has 1.
        kind, cut: as in its header.
        rest: what follows the header.
        parts: the further parts, in memory that is nobody else's.
        size: what it counts for, in bytes.
        ahead: bytes of this and all earlier units.
    """

    __slots__ = ("ahead", "cut", "kind", "number", "parts", "rest", "size")

    def __init__(self, kind: int, cut: int, rest: bytes, parts: Sequence[Any], size: int) -> None:
        self.kind = kind
        self.cut = cut
        self.rest = rest
        self.parts = parts
        self.size = size
        self.number = 0
        self.ahead = 0


class Outbox:
    """The account of one direction.

    Attributes:
        number: of the last unit.

    Args:
        high_water: how many bytes may be unconfirmed. A unit that is larger passes when it is alone.
    """

    def __init__(self, high_water: int) -> None:
        self.number = 0
        self._high_water = high_water
        self._parcels: deque[Parcel] = deque()
        self._total = 0  # bytes ever sent,
        self._confirmed = 0  # and how many of them are confirmed
        self._asked_at = 0  # the total when a confirmation was last asked for,
        self._asked_for = 0  # and the number

    @property
    def unconfirmed(self) -> int:
        """How many units are not confirmed."""
        return len(self._parcels)

    def has_room(self, size: int, earlier: int = 0) -> bool:
        """Whether a unit of so many bytes may be sent now, and the one of number `earlier` is confirmed."""
        if not self._parcels:
            return True
        return self._parcels[0].number > earlier and self._total - self._confirmed + size <= self._high_water

    def add(self, parcel: Parcel) -> bool:
        """Number a unit that goes out now; True when it is to ask for a confirmation."""
        if self._parcels and self._parcels[-1].number > self.number:
            self._enter(self._parcels[-1])  # an exception of a signal handler came in between
        parcel.number, parcel.ahead = self.number + 1, self._total + parcel.size
        self._parcels.append(parcel)
        self._enter(parcel)
        asking = self._total - self._asked_at >= ASK_BYTES or self.number - self._asked_for >= ASK_UNITS
        if asking:
            self._asked_at, self._asked_for = self._total, self.number
        return asking

    def _enter(self, parcel: Parcel) -> None:
        self.number, self._total = parcel.number, parcel.ahead

    def confirm(self, taken: int) -> list[Parcel]:
        """Take note that the peer has taken all units up to this number; gives those that this is news of.

        Raises:
            ValueError: there is no such number yet.
        """
        if taken > self.number:
            raise ValueError(f"unit {taken} is confirmed, and {self.number} were sent")
        confirmed = []
        while self._parcels and self._parcels[0].number <= taken:
            parcel = self._parcels.popleft()
            self._confirmed = parcel.ahead
            confirmed.append(parcel)
        return confirmed

    def after(self, number: int) -> list[Parcel]:
        """Those that are not confirmed, in order, from the one behind this number on."""
        return [parcel for parcel in self._parcels if parcel.number > number]
