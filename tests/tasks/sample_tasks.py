"""Tasks that the tests run. Imported by the processes of Tasks, so it imports no test library."""

import array
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings

from tasklink import Task, current_task
from tasklink.testing.tally import Tally


class Point:
    """Something with an identity of its own, to travel as an object."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    __hash__ = None


class MixedTalk(Task):
    """Says one of everything, in a known order, and returns an object."""

    def run(self, count=20):
        for number in range(count):
            self.progress(number, count, f"step {number}")
            self.report({"number": number, "point": Point(number, -number)})
            if number % 5 == 0:
                self.signal("milestone", number)
            if number % 7 == 0:
                self.report(array.array("d", [number] * 40_000))
            print("line", number)
        self.log("nearly there", "warning")
        return {"count": count, "point": Point(1, 2), "bytes": b"\x00\xff" * 100}


class Echo(Task):
    """Answers each signal with one of the same name; `stop` ends it."""

    def run(self):
        self.signal("ready")
        answered = 0
        while True:
            message = self.received(timeout=30)
            if message.signal == "stop":
                return answered
            answered += 1
            self.signal(message.signal, message.contents)


class Patient(Task):
    """Works until it is cancelled, and then returns in good order."""

    def run(self):
        self.signal("ready")
        heard = threading.Event()
        self.on("cancel", lambda message: heard.set())
        heard.wait(30)
        return self.cancel_reason


class Stubborn(Task):
    """Never looks at `cancelled`, but cleans up when it is terminated."""

    def run(self, marker):
        self.signal("ready")
        try:
            while True:
                time.sleep(30)
        finally:
            with open(marker, "w") as file:
                file.write("cleaned up")


class Deaf(Task):
    """Ignores everything that can be ignored."""

    def run(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.signal("ready")
        while True:
            time.sleep(30)


class Polite(Task):
    """Says that it was asked to end, and does not."""

    def run(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.on("cancel", lambda message: self.signal("told"))
        self.signal("ready")
        while True:
            time.sleep(30)


class Ticking(Task):
    """Reports without end, fast, until somebody stops it."""

    def run(self, size=0):
        self.signal("ready")
        number = 0
        while True:
            self.report((number, bytes(size)))
            number += 1


class Accounting(Task):
    """Reports, and keeps the numbers of reports that were accepted and flushed where its death does not reach.

    Without end, or else `last` times; then it closes its channel, which flushes them, and waits.
    """

    def run(self, tally, size=0, last=None):
        counts = Tally.at(tally)
        self.signal("ready")
        while counts.accepted != last:
            self.report((counts.accepted, bytes(size)))
            counts.accepted += 1
        self._conversation._write.__self__.close()
        counts.flushed = counts.accepted
        signal.pause()


def add(a, b):
    return a + b


def report_and_print():
    current_task().report("from a function")
    print("printed")
    sys.stderr.write("complained\n")
    return os.getpid()


def hear_a_cancel_while_sending(size):
    """Say whether a cancel was heard before the whole of a large message was sent."""
    task = current_task()
    order = []
    task.on("cancel", lambda message: order.append("heard"))
    data = bytes(size)
    task.signal("sending")
    task.report(data)
    order.append("sent")
    while not task.cancelled:  # it is on its way by now
        time.sleep(0.001)
    return order[0]


def hear_what_comes_first():
    """Say whether a cancel or a large signal comes first."""
    task = current_task()
    first = queue.SimpleQueue()
    task.on("cancel", first.put)
    task.on("large", first.put)
    task.signal("ready")
    return first.get(timeout=50).signal.removeprefix("tasklink.")


def chain_of_errors():
    try:
        {}["missing key"]
    except KeyError as error:
        raise ValueError("the table has no peaks") from error


class OddError(Exception):
    """An exception that pickles, and cannot be unpickled."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def odd_error():
    raise OddError(1, 2)


def speak_in_every_way():
    logging.getLogger("lab.detector").warning("channel %d is hot", 7)
    logging.basicConfig(level=logging.INFO)
    logging.info("calibrated")
    warnings.warn("old format", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="helper")
    thread.start()
    thread.join()


def end_by(how, count=3, size=1000):
    """Report `count` times, then end in some way."""
    task = current_task()
    for number in range(count):
        task.report((number, bytes(size)))
    if how == "return":
        return None
    if how == "sys.exit":
        sys.exit(0)
    if how == "sys.exit(3)":
        sys.exit(3)
    if how == "os._exit":
        os._exit(0)
    if how == "os._exit(5)":
        os._exit(5)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise ValueError(how)


def print_and_die():
    """Print, and be killed."""
    print("the last words")
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_child(own_session):
    """Leave a grandchild behind that keeps stdout and stderr open."""
    print("before", flush=True)
    subprocess.Popen(["sleep", "60"], start_new_session=own_session)
    return "done"


def leave_daemons(how):
    """Start three that leave the Task's group, report their pids, then end in some way."""
    in_a_session = subprocess.Popen(["sleep", "60"], start_new_session=True).pid
    in_a_group = subprocess.Popen(["sleep", "60"], process_group=0).pid
    # Twice forked: its parent has ended, and it has nothing open.
    forks = "(setsid sleep 60 >/dev/null 2>&1 </dev/null & echo $!)"
    twice_forked = int(subprocess.run(["sh", "-c", forks], capture_output=True, check=True).stdout)
    current_task().report([in_a_session, in_a_group, twice_forked])
    end_by(how, count=0)


def leave_daemons_to_another_task():
    """Have a Task of this Task start daemons, report their pids, and wait to be killed."""
    from tasklink import Executor, TaskSpec  # the Executor's side, which no other Task here needs

    with Executor("unix") as executor:
        result = executor.run(TaskSpec(run="sample_tasks:leave_daemons", leave_descendants=True), how="return")
        current_task().report(result.messages[0].contents)
        signal.pause()


def big_bytes(size):
    return bytes(bytearray(range(256))) * (size // 256)


def big_array(megabytes):
    import numpy

    return numpy.arange(megabytes << 17, dtype=numpy.float64)


def peak_memory_of_big_array(megabytes):
    """Report how much memory reporting an array costs beside the array."""
    import resource

    import numpy

    values = numpy.arange(megabytes << 17, dtype=numpy.float64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    current_task().report(values)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def report_beside_a_gibibyte():
    """Send 1 GiB from one thread, and a signal from another while that is under way."""
    task = current_task()
    large = threading.Thread(target=task.report, args=(bytes(1 << 30),))
    large.start()
    time.sleep(0.05)  # not for correctness: were it not under way yet, the signal would be first all the more
    task.signal("beside")
    large.join()


def fork_and_report():
    """Try to report from a fork."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            current_task().report("from the child")
            os.write(write, b"reported")
        except Exception as error:
            os.write(write, type(error).__name__.encode())
        os._exit(0)
    os.wait()
    current_task().report("from the parent")
    return os.read(read, 100).decode()


def open_descriptors_of_a_program():
    """List the descriptors that a program started by the Task has."""
    return subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, check=True).stdout.split()


def return_a_lambda():
    return lambda number: number + 1


def return_a_lock():
    return threading.Lock()


def handler_that_raises():
    task = current_task()
    task.on("poke", lambda message: 1 / 0)
    task.signal("ready")
    return task.received(timeout=30).contents


def listen_late():
    """Set up a handler for signals that have come long before."""
    task = current_task()
    last = threading.Event()
    task.on("last", lambda message: last.set())
    last.wait(30)
    heard = []
    task.on("early", lambda message: heard.append(message.contents))
    return heard, task.received(timeout=30).signal


def report_from_a_handler_while_paused():
    """Report from the handler of the pause itself."""
    task = current_task()
    task.on("pause", lambda message: task.report("pausing"))
    task.signal("ready")
    while not task.cancelled:
        task.progress(1)
        time.sleep(0.001)


def rest_while_paused():
    """Report steadily; the pause shows in the gap."""
    task = current_task()
    task.signal("ready")
    number = 0
    while not task.cancelled:
        task.report(number)
        number += 1
        time.sleep(0.005)
    return number


def report_every_millisecond(count):
    """Compute, as a Task that reports its steps."""
    report = current_task().report
    for number in range(count):
        until = time.perf_counter() + 1e-3
        while time.perf_counter() < until:
            pass
        report(number)


def modules_of_the_task_side():
    return sorted(sys.modules), sys.version_info[:2]


def message_from_thread():
    task = current_task()
    threads = [
        threading.Thread(target=lambda name=name: [task.report((name, number)) for number in range(200)])
        for name in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def late_thread():
    """Return while a thread of ours still reports."""
    task = current_task()

    def report_late():
        time.sleep(0.05)
        task.report("late")

    threading.Thread(target=report_late).start()
    return "returned"


def close_everything():
    os.closerange(3, 100)
    try:
        current_task().report("unheard")
    except Exception:
        return None
