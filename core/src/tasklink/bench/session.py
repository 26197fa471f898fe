"""Who is visited when, and what came of it.

All take turns in rounds, so that whatever else the machine does meanwhile is shared by all. There are as many rounds as
fit into the time; what is told in the end is the median of them.
"""

from __future__ import annotations

from collections import defaultdict
from time import monotonic
from typing import TYPE_CHECKING, Any

import attrs

from tasklink.bench.item import FREE, SAME, placements
from tasklink.bench.statistic import median
from tasklink.bench.visit import Entrant, Outcome, Visit, carry_out
from tasklink.guardian import Guardian

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KIB, MIB = 1 << 10, 1 << 20

SMALLEST_ARRAY = 64 * KIB
LARGEST_ARRAY = 64 * MIB
"""As far as arrays go where nobody says otherwise: what is larger takes long."""

MEMORY = "memcpy"
"""What the copying of memory is called, beside the names of communicators."""

# Below these sizes it is the round trip that counts, not the bytes.
_SMALL_SIZES = (256, 4 * KIB, 16 * KIB)
_FEWEST_ROUNDS, _MOST_ROUNDS = 2, 7
_SECONDS = 20.0
_VISIT_SECONDS = 60.0


@attrs.define
class Tally:
    """What came of all orders so far."""

    _values: dict[tuple[str, str], list[Mapping[str, float]]] = attrs.field(factory=lambda: defaultdict(list))
    _reasons: dict[tuple[str, str], str] = attrs.field(factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Take in what came of one order."""
        place = (outcome.contender, outcome.key)
        if outcome.reason:
            self._reasons[place] = outcome.reason
        else:
            self._values[place].append(outcome.values)

    def rounds(self, contender: str, key: str, value: str) -> list[float]:
        """Give a value of each round; none where there are none."""
        return [values[value] for values in self._values.get((contender, key), []) if value in values]

    def median(self, contender: str, key: str, value: str) -> float | None:
        """Give the median of all rounds; None where there is none."""
        rounds = self.rounds(contender, key, value)
        return median(rounds) if rounds else None

    def reason(self, contender: str, key: str) -> str:
        """Say why something could not be measured; empty where it could."""
        return self._reasons.get((contender, key), "")

    def reasons(self, contender: str) -> list[str]:
        """Say all that went wrong with a contender, each once."""
        return list(dict.fromkeys(reason for (name, _), reason in self._reasons.items() if name == contender))

    def values(self, contender: str) -> dict[str, dict[str, dict[str, Any]]]:
        """Give everything of a contender: by key and value the median and all rounds."""
        keys = [key for name, key in self._values if name == contender]
        return {
            key: {
                value: {
                    "median": median(self.rounds(contender, key, value)),
                    "rounds": self.rounds(contender, key, value),
                }
                for value in self._values[contender, key][0]
            }
            for key in keys
        }


@attrs.frozen
class Bench:
    """What `tasklink bench` measures.

    Attributes:
        names: of the communicators.
        largest: bytes of the largest array.
        seconds: about how long it may take; a round that was begun is ended, and there are two at least.
    """

    names: Sequence[str]
    largest: int = LARGEST_ARRAY
    seconds: float = _SECONDS
    tally: Tally = attrs.field(factory=Tally, init=False)

    @property
    def sizes(self) -> list[int]:
        """How large arrays are, in bytes."""
        sizes = [SMALLEST_ARRAY]
        while sizes[-1] * 4 < self.largest:
            sizes.append(sizes[-1] * 4)
        return sizes if self.largest <= SMALLEST_ARRAY else [*sizes, self.largest]

    @property
    def all_sizes(self) -> list[int]:
        """How large whatever is sent is, in bytes."""
        return [*_SMALL_SIZES, *self.sizes]

    def steps(self) -> Iterator[tuple[float, str]]:
        """Measure; before each step say how much is done, from 0 to 1, and what comes next.

        Raises:
            TaskNotStartedError, OSError: no process can be started.
        """
        begun = monotonic()
        with Guardian() as guardian:
            for number in range(_MOST_ROUNDS):
                round_begun = monotonic()
                visits = self._visits()
                for position, visit in enumerate(visits):
                    done = self._done(monotonic() - begun, number + position / len(visits))
                    yield done, f"round {number + 1}, {visit.contender.name}"
                    for outcome in carry_out(visit, guardian):
                        self.tally.add(outcome)
                now = monotonic()
                if number + 1 >= _FEWEST_ROUNDS and now - begun + (now - round_begun) > self.seconds:
                    break

    def _done(self, elapsed: float, rounds: float) -> float:
        """Say how much is done, from 0 to 1: of the rounds that there are at least, then of the time."""
        of_the_time = elapsed / self.seconds if elapsed < self.seconds else 1.0
        return min(of_the_time, rounds / _FEWEST_ROUNDS)

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return max(
            len(self.tally.rounds(name, key_of("stream", self.sizes[0]), "gb_per_s")) for name in (MEMORY, *self.names)
        )

    def usable(self) -> list[str]:
        """Give the communicators that could be measured."""
        return [name for name in self.names if self.tally.median(name, "round_trip_free", "median_us") is not None]

    def _visits(self) -> list[Visit]:
        visits = [
            visit
            for name in self.names
            for visit in (
                Visit(Entrant(name, "tasklink.bench.ours:CommunicatorWire", name), self._wire_orders(), _VISIT_SECONDS),
                Visit(Entrant(name, "tasklink.bench.ours:Runs", name), _run_orders(), _VISIT_SECONDS),
            )
        ]
        memory = Entrant(MEMORY, "tasklink.bench.copying:MemoryCopy")
        return [*visits, Visit(memory, self._array_orders(), _VISIT_SECONDS)]

    def _wire_orders(self) -> list[dict[str, Any]]:
        orders: list[dict[str, Any]] = [
            {"key": f"round_trip_{place}", "item": "round_trips", "count": 500, "warm": 100, "placement": place}
            for place in placements()
            if place in (FREE, SAME)
        ]
        orders.append({"key": "messages", "item": "messages", "count": 10_000, "placement": FREE})
        return orders + self._array_orders()

    def _array_orders(self) -> list[dict[str, Any]]:
        streams = [
            {"key": key_of("stream", size), "item": "stream", "bytes": size, "count": _count(size), "placement": FREE}
            for size in self.sizes
        ]
        transfers = [
            {
                "key": key_of("transfer", size),
                "item": "transfers",
                "bytes": size,
                "count": max(3, _count(size) // 4),
                "placement": FREE,
            }
            for size in self.all_sizes
        ]
        return streams + transfers


def key_of(item: str, size: int) -> str:
    """Say what the results for arrays of a size are called."""
    return f"{item}_{size}"


def _count(size: int) -> int:
    """How many arrays of a size are sent: enough to be long for a clock, and not more than a person waits for."""
    return min(200, max(4, 96 * MIB // size))


def _run_orders() -> list[dict[str, Any]]:
    return [
        {"key": "first_message", "item": "first_message", "count": 5, "placement": FREE},
        {"key": "noop_task", "item": "noop", "count": 5, "placement": FREE},
    ]
