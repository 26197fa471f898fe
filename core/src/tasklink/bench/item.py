"""What is measured between two processes: both halves of each item.

The host asks, and the child serves. An order says what, how often and where: a dictionary of plain values, which goes
to the child over the very channel that is measured. The clock is the monotonic one, which all processes of a machine
share.

Whatever arrives is looked at: of a large array one byte of each page, since memory that nobody touches costs nothing.

Standard library only. numpy is used where it is installed; its arrays are what people send.
"""

from __future__ import annotations

import os
import pickle
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tasklink.bench.statistic import median, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasklink.bench.contender import Wire

    Order = Mapping[str, Any]
    Values = dict[str, float]

SMALL = {"step": 12, "loss": 0.25, "name": "fit"}
"""What a small message holds."""

FREE, SPLIT, SAME = "free", "split", "same"
"""Where the two processes run: wherever the scheduler likes, on two CPUs, on one."""

_PAGE = 4096
# From here on every page is touched; below, the touching would be what is measured.
_LARGE = 1 << 20
_MARK = 1
_BUSY_SECONDS = 1e-3
_ALL_CPUS = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()


class NotAvailableError(Exception):
    """This contender does not do that; the text says why."""


# Where


def placements() -> tuple[str, ...]:
    """Say which placements this machine allows."""
    if not _ALL_CPUS:
        return (FREE,)
    return (FREE, SPLIT, SAME) if len(_ALL_CPUS) > 1 else (FREE, SAME)


def take_place(placement: str, side: int) -> None:
    """Bind this process, with all the threads that it has, to where it shall run.

    Args:
        placement: one of `placements`.
        side: 0 for the host, 1 for the child.
    """
    if not _ALL_CPUS:
        return
    cpus = sorted(_ALL_CPUS)
    chosen = {FREE: cpus, SPLIT: [cpus[-1] if side else cpus[0]], SAME: cpus[:1]}[placement]
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - no Path is needed of them
        try:
            os.sched_setaffinity(int(thread), chosen)
        except ProcessLookupError:
            pass  # it has ended meanwhile


# What


def prepare(order: Order) -> None:
    """Import what arrays need, so that it is not a part of the first one."""
    if "bytes" in order:
        pickle.loads(pickle.dumps(make_array(8), 5))


def make_array(nbytes: int) -> Any:
    """Make an array: of numpy, or memory that is pickled as its arrays are."""
    return as_array(bytearray(bytes([_MARK])) * nbytes)


def as_array(memory: bytearray | memoryview) -> Any:
    """Make an array over memory, without copying it."""
    try:
        import numpy as np  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        return pickle.PickleBuffer(memory)
    return np.frombuffer(memory, np.float64 if len(memory) % 8 == 0 else np.uint8)


def look_at(contents: Any, nbytes: int) -> None:
    """See that an array has come whole, and that its memory is there.

    Raises:
        ValueError: it is not what was sent.
    """
    view = memoryview(contents).cast("B")
    if len(view) != nbytes or not view[0] == view[-1] == _MARK:
        raise ValueError(f"an array of {nbytes} bytes arrived as {len(view)} bytes that are not the same")
    if nbytes >= _LARGE:
        bytes(view[::_PAGE])


# The items. `ask` runs in the host, `serve` in the child.


def _ask_round_trips(wire: Wire, order: Order) -> Values:
    for _ in range(order["warm"]):
        wire.write(SMALL)
        wire.read()
    times = []
    for _ in range(order["count"]):
        begun = perf_counter()
        wire.write(SMALL)
        wire.read()
        times.append(perf_counter() - begun)
    return {"median_us": median(times) * 1e6, "p99_us": percentile(times, 99) * 1e6}


def _serve_round_trips(wire: Wire, order: Order) -> None:
    for _ in range(order["warm"] + order["count"]):
        wire.write(wire.read())


def _ask_messages(wire: Wire, order: Order) -> Values:
    for _ in range(order["count"]):
        wire.read()
    ended = perf_counter()
    return {"per_s": order["count"] / (ended - wire.read())}


def _serve_messages(wire: Wire, order: Order) -> None:
    begun = perf_counter()
    for _ in range(order["count"]):
        wire.write(SMALL)
    wire.write(begun)


def _ask_busy_writes(wire: Wire, order: Order) -> Values:
    for _ in range(order["count"]):
        wire.read()
    middle, late = wire.read()
    return {"median_us": middle * 1e6, "p99_us": late * 1e6}


def _serve_busy_writes(wire: Wire, order: Order) -> None:
    """Compute for a millisecond, say so, compute on: as a Task that reports its steps."""
    times = []
    for _ in range(order["count"]):
        until = perf_counter() + _BUSY_SECONDS
        while perf_counter() < until:
            pass
        begun = perf_counter()
        wire.write(SMALL)
        times.append(perf_counter() - begun)
    wire.write([median(times), percentile(times, 99)])


def _ask_stream(wire: Wire, order: Order) -> Values:
    nbytes, count = order["bytes"], order["count"]
    arrivals = []
    for _ in range(count):
        look_at(wire.read(), nbytes)
        arrivals.append(perf_counter())
    begun = wire.read()
    gigabytes = nbytes / 1e9
    values = {
        "first_gb_per_s": gigabytes / (arrivals[0] - begun),
        "gb_per_s": gigabytes * count / (arrivals[-1] - begun),
    }
    # The second half: by then all memory has been touched, and buffers are as large as they get.
    half = count // 2
    if half:
        values["steady_gb_per_s"] = gigabytes * (count - half) / (arrivals[-1] - arrivals[half - 1])
    return values


def _serve_stream(wire: Wire, order: Order) -> None:
    array = make_array(order["bytes"])
    begun = perf_counter()
    for _ in range(order["count"]):
        wire.write(array)
    wire.write(begun)


def _ask_transfers(wire: Wire, order: Order) -> Values:
    for _ in range(order["count"]):
        look_at(wire.read(), order["bytes"])
        wire.write(perf_counter())
    first, middle = wire.read()
    return {"first_us": first * 1e6, "median_us": middle * 1e6}


def _serve_transfers(wire: Wire, order: Order) -> None:
    array = make_array(order["bytes"])
    _time_transfers(wire, order["count"], lambda: array)


def _ask_handovers(wire: Wire, order: Order) -> Values:
    reason = wire.read()
    if reason:
        raise NotAvailableError(reason)
    values = _ask_transfers(wire, order)
    return {**values, "gb_per_s": order["bytes"] / values["median_us"] / 1e3}


def _serve_handovers(wire: Wire, order: Order) -> None:
    """As transfers, but of memory that the contender gave: filling it is the Task's own work, and is not counted."""

    def make() -> Any:
        memory = wire.allocate(order["bytes"])
        memory[:] = pattern
        return as_array(memory)

    pattern = bytes([_MARK]) * order["bytes"]
    try:
        wire.allocate(_PAGE)
    except NotAvailableError as error:
        wire.write(str(error))
        return
    wire.write("")
    _time_transfers(wire, order["count"], make)


def _time_transfers(wire: Wire, count: int, make: Callable[[], Any]) -> None:
    times = []
    for _ in range(count):
        array = make()
        begun = perf_counter()
        wire.write(array)
        del array
        times.append(wire.read() - begun)
    wire.write([times[0], median(times[1:] or times)])


def _ask_memory(wire: Wire, order: Order) -> Values:
    meter = _Meter()
    array = wire.read()
    look_at(array, order["bytes"])
    ours = meter.extra()
    wire.write("seen")
    theirs = wire.read()
    size = order["bytes"]
    return {
        "receiver_private_x": ours[0] / size,
        "receiver_shared_x": ours[1] / size,
        "sender_private_x": theirs[0] / size,
        "sender_shared_x": theirs[1] / size,
    }


def _serve_memory(wire: Wire, order: Order) -> None:
    array = make_array(order["bytes"])
    meter = _Meter()
    wire.write(array)
    wire.read()  # by now all of it was sent, also by who sends in the background
    wire.write(list(meter.extra()))


def _ask_flatness(wire: Wire, order: Order) -> Values:
    nbytes, count = order["bytes"], order["count"]
    begun = 0
    for number in range(count):
        look_at(wire.read(), nbytes)
        if number == count // 10:  # by then it is as large as it needs to be
            begun = _resident()
    return {"receiver_growth_mib": (_resident() - begun) / _LARGE, "sender_growth_mib": wire.read() / _LARGE}


def _serve_flatness(wire: Wire, order: Order) -> None:
    array = make_array(order["bytes"])
    begun = 0
    for number in range(order["count"]):
        wire.write(array)
        if number == order["count"] // 10:
            begun = _resident()
    wire.write(_resident() - begun)


class _Meter:
    """How much memory was taken since it was made: at the peak, private and shared apart.

    The kernel keeps the peak of all resident memory (VmHWM), which can be reset. Shared pages stay mapped for as long
    as their channel lives, so what is shared at the end was so at the peak; the rest of the peak is private.
    """

    def __init__(self) -> None:
        try:
            with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 - a Path would say no more
                file.write("5")
        except OSError as error:
            raise NotAvailableError(f"this system does not tell the peak of memory: {error}") from error
        status = _status()
        self._resident = status["VmRSS"]
        self._shared = status["RssShmem"]

    def extra(self) -> tuple[int, int]:
        """Give the bytes that were taken: private, and shared."""
        status = _status()
        shared = max(0, status["RssShmem"] - self._shared)
        return max(0, status["VmHWM"] - self._resident - shared), shared


def _resident() -> int:
    return _status()["VmRSS"]


def _status() -> dict[str, int]:
    """Read what the kernel says of the memory of this process, in bytes."""
    with open("/proc/self/status") as file:  # noqa: PTH123 - as above
        pairs = (line.split() for line in file if line.startswith(("VmHWM", "VmRSS", "RssShmem")))
        return {pair[0].rstrip(":"): int(pair[1]) * 1024 for pair in pairs}


ASK: dict[str, Callable[[Wire, Order], Values]] = {
    "round_trips": _ask_round_trips,
    "messages": _ask_messages,
    "busy_writes": _ask_busy_writes,
    "stream": _ask_stream,
    "transfers": _ask_transfers,
    "handovers": _ask_handovers,
    "memory": _ask_memory,
    "flatness": _ask_flatness,
}

SERVE: dict[str, Callable[[Wire, Order], None]] = {
    "round_trips": _serve_round_trips,
    "messages": _serve_messages,
    "busy_writes": _serve_busy_writes,
    "stream": _serve_stream,
    "transfers": _serve_transfers,
    "handovers": _serve_handovers,
    "memory": _serve_memory,
    "flatness": _serve_flatness,
}
