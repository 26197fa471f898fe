"""What is measured: by the name of an item, its orders, in groups that have a fresh pair of processes each."""

import attrs

from tasklink.bench.item import FREE, placements
from tasklink.bench.session import KIB, MIB, key_of

ARRAYS = {64 * KIB: 2000, MIB: 300, 16 * MIB: 32, 256 * MIB: 6, 1024 * MIB: 1}
"""How many arrays of each size are sent, the cold ones included."""

LATENCIES = {256: 200, 4 * KIB: 200, 64 * KIB: 100, MIB: 50, 16 * MIB: 10, 256 * MIB: 3}


@attrs.frozen
class Extent:
    """How much is measured.

    Attributes:
        scale: how many of the messages; 1 for all.
        largest: bytes of the largest array.
    """

    scale: float = 1.0
    largest: int = 1024 * MIB

    def count(self, number, share=1.0, least=1):
        """How many of so many."""
        return max(least, round(number * self.scale * share))

    def size(self, nbytes):
        """How large an array is that is to be so large."""
        return min(nbytes, self.largest)


def _order(key, item, **details):
    return {"key": key, "item": item, "placement": FREE, **details}


def _rtt(extent, share):
    count, warm = extent.count(2000, share, 20), extent.count(200, share, 5)
    yield [
        {**_order(f"rtt_{placement}", "round_trips", count=count, warm=warm), "placement": placement}
        for placement in placements()
    ]


def _messages(extent, share):
    yield [_order("messages", "messages", count=extent.count(50_000, share))]


def _busy(extent, share):
    yield [_order("busy", "busy_writes", count=extent.count(300, least=5))]


def _arrays(extent, share):
    for size, number in ARRAYS.items():
        if size <= extent.largest:
            yield [_order(key_of("stream", size), "stream", bytes=size, count=extent.count(number))]


def _latency(extent, share):
    yield [
        _order(key_of("transfer", size), "transfers", bytes=size, count=extent.count(number, least=2))
        for size, number in LATENCIES.items()
        if size <= extent.largest
    ]


def _warm(extent, share):
    yield [_order("warm", "stream", bytes=extent.size(256 * MIB), count=extent.count(12, least=2))]


def _handover(extent, share):
    yield [_order("handover", "handovers", bytes=extent.size(16 * MIB), count=extent.count(40, least=2))]


def _memory(extent, share):
    yield [_order("memory", "memory", bytes=extent.size(256 * MIB))]


def _flat(extent, share):
    yield [_order("flat", "flatness", bytes=extent.size(MIB), count=extent.count(10_000, least=20))]


def _start(extent, share):
    yield [_order("start", "first_message", count=extent.count(10))]


def _noop(extent, share):
    yield [_order("noop", "noop", count=extent.count(20))]


def _parallel(extent, share):
    count = extent.count(64, least=2)
    yield [_order(f"at_once_{number}", "at_once", parallel=number, count=count) for number in (1, 8, 64)]


def _capture(extent, share):
    yield [_order("capture", "capture", lines=extent.count(3_000_000))]


ITEMS = {
    "rtt": _rtt,
    "messages": _messages,
    "busy": _busy,
    "arrays": _arrays,
    "latency": _latency,
    "warm": _warm,
    "handover": _handover,
    "start": _start,
    "noop": _noop,
    "parallel": _parallel,
    "capture": _capture,
    "memory": _memory,
    "flat": _flat,
}
"""By name: what gives the groups of orders, for an extent and a peer's share."""

ONCE = frozenset({"memory", "flat"})
"""What comes to the same each time."""
