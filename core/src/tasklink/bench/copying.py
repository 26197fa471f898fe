"""What no one beats who copies: the memory itself."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Self

from tasklink.bench.contender import Contender
from tasklink.bench.item import NotAvailableError, take_place
from tasklink.bench.statistic import median

if TYPE_CHECKING:
    from tasklink.bench.item import Order, Values


class MemoryCopy(Contender):
    """Copies arrays within one process: into memory that was never touched, and then again and again."""

    @classmethod
    def start(cls, variant: str, largest: int) -> Self:
        """Nothing has to be started."""
        return cls()

    def measure(self, order: Order) -> Values:
        """Copy as often as the others send.

        Raises:
            NotAvailableError: it is not about arrays.
        """
        if order["item"] not in ("stream", "transfers", "handovers"):
            raise NotAvailableError("a copy is no message")
        take_place(order["placement"], 0)
        nbytes = order["bytes"]
        source = memoryview(bytearray(b"\1") * nbytes)
        times = [_copy_into_new(source)]
        target = memoryview(bytearray(nbytes))
        target[:] = source
        for _ in range(max(3, order["count"])):
            begun = perf_counter()
            target[:] = source
            times.append(perf_counter() - begun)
        first, steady = times[0], median(times[1:])
        if order["item"] == "transfers":
            return {"first_us": first * 1e6, "median_us": steady * 1e6}
        rate = nbytes / 1e9
        return {"first_gb_per_s": rate / first, "steady_gb_per_s": rate / steady, "gb_per_s": rate / steady}

    def close(self) -> None:
        """Nothing is left open."""


def _copy_into_new(source: memoryview) -> float:
    begun = perf_counter()
    bytes(source)
    return perf_counter() - begun
