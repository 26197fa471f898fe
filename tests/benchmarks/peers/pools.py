"""Pools of processes: what is sent is the result of a call. They choose their own processes, so they run free only."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter

from tasklink.bench.contender import Contender
from tasklink.bench.item import FREE, SMALL, NotAvailableError, look_at, make_array, prepare
from tasklink.bench.statistic import median, percentile

_arrays = {}


def same(contents):
    """Give back what was sent."""
    return contents


def small():
    """Give a small message."""
    return SMALL


def array(nbytes):
    """Give an array, always the same one."""
    if nbytes not in _arrays:
        _arrays[nbytes] = make_array(nbytes)
    return _arrays[nbytes]


def began(nbytes):
    """Make the array, and give the time."""
    array(nbytes)
    return perf_counter()


class Pool(Contender):
    """ProcessPoolExecutor, with one process that was spawned."""

    def __init__(self):
        self._pool = self.make()
        self._pool.submit(same, None).result()

    @staticmethod
    def make():
        """Make a pool of one process."""
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    @classmethod
    def start(cls, variant, largest):
        """Start it."""
        return cls()

    def measure(self, order):
        """Carry out what a pool can do."""
        item = getattr(self, f"_{order['item']}", None)
        if item is None or order["placement"] != FREE:
            raise NotAvailableError("that is no matter of a pool")
        prepare(order)
        return item(order)

    def _round_trips(self, order):
        times = []
        for _ in range(order["count"]):
            begun = perf_counter()
            self._pool.submit(same, SMALL).result()
            times.append(perf_counter() - begun)
        return {"median_us": median(times) * 1e6, "p99_us": percentile(times, 99) * 1e6}

    def _messages(self, order):
        begun = perf_counter()
        for future in [self._pool.submit(small) for _ in range(order["count"])]:
            future.result()
        return {"per_s": order["count"] / (perf_counter() - begun)}

    def _stream(self, order):
        nbytes, count, arrivals = order["bytes"], order["count"], []
        begun = self._pool.submit(began, nbytes).result()
        futures = [self._pool.submit(array, nbytes) for _ in range(count)]
        for _ in range(count):
            look_at(futures.pop(0).result(), nbytes)
            arrivals.append(perf_counter())
        rate = nbytes / 1e9
        return {"first_gb_per_s": rate / (arrivals[0] - begun), "gb_per_s": rate * count / (arrivals[-1] - begun)}

    def _transfers(self, order):
        times = []
        self._pool.submit(began, order["bytes"]).result()
        for _ in range(order["count"]):
            begun = perf_counter()
            look_at(self._pool.submit(array, order["bytes"]).result(), order["bytes"])
            times.append(perf_counter() - begun)
        return {"first_us": times[0] * 1e6, "median_us": median(times[1:] or times) * 1e6}

    def close(self):
        """End it."""
        self._pool.shutdown()


class Loky(Pool):
    """loky, with one process."""

    requires = ("loky",)

    @staticmethod
    def make():
        """Make a pool of one process."""
        import loky

        return loky.ProcessPoolExecutor(1)
