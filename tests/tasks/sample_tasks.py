"""Tasks that the tests run. Imported by the processes of Tasks, so it imports no test library."""

import array
import gc
import itertools
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
from tasklink.errors import BusyError


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


def hear_one():
    """Give the contents of the first signal."""
    return current_task().received(timeout=30).contents


def hear_for(seconds):
    """Give the contents of all signals that come in this time."""
    end = time.monotonic() + seconds
    heard = []
    while (rest := end - time.monotonic()) > 0:
        try:
            heard.append(current_task().received(rest).contents)
        except TimeoutError:
            break
    return heard


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


class Heavy(Task):
    """Sends one large message after the other, without end: it is always within one."""

    def run(self, size):
        data = bytes(size)
        self.signal("ready")
        while True:
            self.report(data)


class Accounting(Task):
    """Reports, and keeps the numbers of reports that were accepted and flushed where its death does not reach.

    Without end, or else `last` times; then it closes its channel, which flushes them, and waits.
    """

    def run(self, tally, size=0, last=None):
        from tasklink.testing.tally import Tally  # not everywhere, as where tasklink itself is not installed

        counts = Tally.at(tally)
        self.signal("ready")
        while counts.accepted != last:
            self.report((counts.accepted, bytes(size)))
            counts.accepted += 1
        close_channel()
        counts.flushed = counts.accepted
        signal.pause()


def close_channel():
    """Close what this Task talks over, which flushes it."""
    current_task()._conversation._write.__self__.close()


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


def end_by(how, count=3, size=1000, flush=False):
    """Report `count` times, then end in some way."""
    task = current_task()
    for number in range(count):
        task.report((number, bytes(size)))
    if flush:
        close_channel()
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


def for_ever():
    while True:
        pass


def report_poison():
    """Report what cannot be unpickled in any time, then something else, and be killed."""

    class Poison:
        def __reduce__(self):
            return for_ever, ()

    current_task().report(Poison())
    current_task().report("after it")
    os.kill(os.getpid(), signal.SIGKILL)


def die_beside_a_fork():
    """Fork a child that lives on, with all that this process has open, and be killed."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def print_and_die():
    """Print, and be killed."""
    print("the last words")
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_child(own_session):
    """Leave a grandchild behind that keeps stdout and stderr open."""
    print("before", flush=True)
    subprocess.Popen(["sleep", "60"], start_new_session=own_session)
    return "done"


def print_from_processes(writers, lines):
    """Print lines of up to 4096 bytes, from several processes at once."""
    children = []
    for writer in range(writers):
        child = os.fork()
        if child == 0:
            for number in range(lines):
                head = b"%d %d " % (writer, number)
                os.write(1, head.ljust(len(head) + 37 * number % (4095 - len(head)), b".") + b"\n")
            os._exit(0)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def work_without_standard_descriptors(seconds):
    """Close 0, 1 and 2, as a daemon does, and go on for a while."""
    os.closerange(0, 3)
    time.sleep(seconds)
    current_task().report("still here")
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


def digest_of_an_array(array):
    """Say what came, and how much more memory this process needed than it has at the least."""
    import hashlib
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return hashlib.sha256(array).hexdigest(), peak


def answer_while_sending(size):
    """Send so many bytes, and be sent as much, while each `ping` is answered; give how late these were, in ns."""
    task = current_task()
    late = []
    came = threading.Event()

    def answer(message):
        late.append(time.time_ns() - message.sent_ns)
        task.signal("pong")

    task.on("ping", answer)
    task.on("large", lambda message: came.set())
    task.signal("ready")
    task.report(bytes(size))
    came.wait(50)
    task.received(50)  # all pings have come before this one
    return late


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


def message_from_thread(threads, count):
    task = current_task()
    run_at_once([lambda name=name: [task.report((name, number)) for number in range(count)] for name in range(threads)])


def run_at_once(functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def message_from_everywhere(count):
    """Report from threads, from finalizers and from a signal handler; give how many of each were accepted."""
    task = current_task()
    accepted = {"thread": 0, "finalizer": 0, "handler": 0}
    refused = []
    lock = threading.RLock()

    def report(kind, number):
        try:
            task.report((kind, number))
        except BusyError as error:  # it interrupted a report of the same thread
            refused.append(error)
        else:
            with lock:
                accepted[kind] += 1

    class Circle:
        def __init__(self, number):
            self.number, self.itself = number, self

        def __del__(self):
            report("finalizer", self.number)

    def work(first):
        for number in range(first, first + count):
            report("thread", number)
            Circle(number)  # what refers to itself is finalized in the midst of something else
            logging.getLogger("lab").warning("number %d", number)

    numbers = itertools.count()
    over = []

    def strike(*_):
        report("handler", next(numbers))
        if not over:  # one at a time: where all threads want to write, it may have to wait
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    gc.set_threshold(10)
    try:
        run_at_once([lambda first=first: work(first) for first in range(0, 4 * count, count)])
        work(4 * count)
        gc.collect()
    finally:
        over.append(True)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return accepted, len(refused)


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
