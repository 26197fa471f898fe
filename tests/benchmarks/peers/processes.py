"""What a Task is compared with: processes and their output, by the means of Python alone."""

import multiprocessing
import os
import pickle
import selectors
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from time import perf_counter

from tasklink.bench.contender import Contender
from tasklink.bench.errand import printing
from tasklink.bench.item import NotAvailableError
from tasklink.bench.ours import captured
from tasklink.bench.statistic import median
from tests.benchmarks.peers.pools import small

INTERPRETER = [sys.executable, "-c", "import pickle, socket, struct, threading"]
_SPEAKING = (
    "import pickle, socket, struct, sys\n"
    "with socket.socket(fileno=int(sys.argv[1])) as end:\n"
    "    body = pickle.dumps({'step': 12, 'loss': 0.25, 'name': 'fit'}, 5)\n"
    "    end.sendall(struct.pack('<Q', len(body)) + body)\n"
)


class _Means(Contender):
    """Measures what it has a method for."""

    @classmethod
    def start(cls, variant, largest):
        """Nothing has to be started."""
        return cls()

    def measure(self, order):
        """Carry out an order."""
        item = getattr(self, f"_{order['item']}", None)
        if item is None:
            raise NotAvailableError("it does not do that")
        return item(order)

    def close(self):
        """Nothing is left open."""


class Interpreter(_Means):
    """subprocess.run of an interpreter that imports what any of its kind needs, and ends."""

    def _noop(self, order):
        return _timed(order["count"], lambda: subprocess.run(INTERPRETER, check=True))

    def _at_once(self, order):
        begun = perf_counter()
        with ThreadPoolExecutor(order["parallel"]) as pool:
            for future in [pool.submit(subprocess.run, INTERPRETER, check=True) for _ in range(order["count"])]:
                future.result()
        return {"per_s": order["count"] / (perf_counter() - begun)}


class FirstOfPool(_Means):
    """A new ProcessPoolExecutor, until its first result is there."""

    def _first_message(self, order):
        times = []
        for _ in range(order["count"]):
            begun = perf_counter()
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(small).result()
                times.append(perf_counter() - begun)
        return {"median_ms": median(times) * 1e3}


class FirstOfSocket(_Means):
    """A child with one end of a socket pair, until its first message is there."""

    def _first_message(self, order):
        times = []
        for _ in range(order["count"]):
            begun = perf_counter()
            ours, theirs = socket.socketpair()
            arguments = [sys.executable, "-c", _SPEAKING, str(theirs.fileno())]
            with ours, subprocess.Popen(arguments, pass_fds=[theirs.fileno()]):
                theirs.close()
                with ours.makefile("rb") as file:
                    file.read(8)
                    pickle.load(file)
                times.append(perf_counter() - begun)
        return {"median_ms": median(times) * 1e3}


class Selecting(_Means):
    """Popen with pipes, a selector, os.read: all that a supervisor needs at least."""

    def _capture(self, order):
        lines = nbytes = 0
        begun = perf_counter()
        with (
            subprocess.Popen(printing(order["lines"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
            selectors.DefaultSelector() as selector,
        ):
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    lines += data.count(b"\n")
                    nbytes += len(data)
        return captured(order["lines"], lines, nbytes, perf_counter() - begun)


class Communicating(_Means):
    """Popen.communicate."""

    def _capture(self, order):
        begun = perf_counter()
        with subprocess.Popen(printing(order["lines"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            data, _ = process.communicate()
        return captured(order["lines"], data.count(b"\n"), len(data), perf_counter() - begun)


def _timed(count, work):
    times = []
    for _ in range(count):
        begun = perf_counter()
        work()
        times.append(perf_counter() - begun)
    return {"median_ms": median(times) * 1e3}
