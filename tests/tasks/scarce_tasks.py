"""Tasks for a machine that has too little of something. Imported by the processes of Tasks."""

import resource
import signal
import threading
import time

from tasklink import Task, current_task

MIB = 1 << 20


class Patient(Task):
    """Says that it is there, and waits for `stop`; what it has heard until then it counts."""

    def run(self):
        self.signal("ready")
        heard = 0
        while self.received(timeout=50).signal != "stop":
            heard += 1
        return heard


class Counting(Task):
    """Report one number after the other until `stop` comes; gives how many those were."""

    def run(self):
        number = 0
        while True:
            self.report(number)
            number += 1
            try:
                self.received(timeout=0.001)
            except TimeoutError:
                continue
            return number


def with_little_memory(size):
    """Report something for which there is no second copy in the address space; then something small."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    data = bytes(size)
    resource.setrlimit(resource.RLIMIT_AS, (used + size + size // 2, resource.RLIM_INFINITY))
    try:
        current_task().report(data)
        outcome = "sent"
    except (OSError, MemoryError) as error:
        outcome = type(error).__name__
    current_task().report(b"after")
    return outcome


def with_small_files(size):
    """Report something larger than a file may be; then something small."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
    current_task().report(bytes(size))
    current_task().report(b"after")
    return "sent"


class BothWays(Task):
    """Reports so many MiB before it looks at what was sent to it; gives how much that was."""

    def run(self, count):
        self.signal("ready")
        for _ in range(count):
            self.report(bytes(MIB))
        return sum(len(self.received(timeout=50).contents) for _ in range(count)) // MIB


def whatever_the_clock_says(seconds):
    """Sleep while the clock of the wall jumps an hour at each look."""
    jumps = iter(range(10**9))
    time.time = lambda: (next(jumps) % 2) * 7200 - 3600 + 1e9
    time.sleep(seconds)
    return "slept"


class Talkative(Task):
    """Report mebibytes until `stop` comes; gives how late each `ping` was in ms, and how much it had reported then."""

    def run(self):
        late, reports, over = [], 0, threading.Event()
        self.on("ping", lambda ping: late.append(((time.time_ns() - ping.sent_ns) / 1e6, reports)))
        self.on("stop", lambda _: over.set())
        while not over.is_set():
            self.report(bytes(1 << 20))
            reports += 1
        return late


class Unwilling(Task):
    """Does not come back from its first `data`; when SIGUSR1 comes, says `ping` so many times."""

    def run(self, pings):
        told, never = threading.Event(), threading.Event()
        signal.signal(signal.SIGUSR1, lambda *_: told.set())
        self.on("data", lambda _: never.wait())
        self.signal("ready")
        told.wait()
        for _ in range(pings):
            self.signal("ping")
            time.sleep(0.005)
        never.wait()
