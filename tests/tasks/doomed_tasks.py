"""Tasks that end at a chosen moment, in a chosen way. Imported by the processes of Tasks.

Each keeps the number of messages that were accepted, whose `report` has returned, where its death does not reach.
"""

import atexit
import mmap
import os
import select
import signal
import sys
import threading

from tasklink import current_task, framing
from tasklink.link import Link

# How


def end_by(how):
    """End this thread's work, or the process. Only SIGSTOP returns, when the process was continued."""
    if how == "exception":
        raise RuntimeError("doomed")
    if how == "sys.exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(5)
    if how == "exec":
        os.execv("/bin/sh", ["sh", "-c", "echo another program"])
    # To this very thread: it goes no further, not by one instruction.
    signal.pthread_kill(threading.get_ident(), getattr(signal, how))


class Doom:
    """Ends whoever encodes it, or else whoever decodes it."""

    def __init__(self, how, *, at):
        self.how, self.at = how, at

    def __reduce__(self):
        if self.at == "decode":
            return end_by, (self.how,)
        end_by(self.how)
        return int, ()


# Where


class Reports:
    """Numbered reports, and the number of those that were accepted."""

    def __init__(self, ledger):
        with open(ledger, "r+b") as file:
            self._counts = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
        self._report = current_task().report

    def send(self, *more):
        self._report((self._counts[0], *more))
        self._counts[0] += 1


def at_start(how, reports):
    """It has ended before it got here: see `become_doomed`."""


at_handshake = at_start


def at_encode(how, reports):
    reports.send(Doom(how, at="encode"))


def at_mid_frame(how, reports):
    """Of a large message a part is with the kernel, or in shared memory, and the writer is about to go on."""
    split, writev = framing.split, os.writev
    moments = []

    def split_and_end(*arguments):
        for number, piece in enumerate(split(*arguments)):
            if number == 2:
                end()
            yield piece

    def writev_and_end(descriptor, buffers):
        if sum(map(len, buffers)) > select.PIPE_BUF:  # less than that is written whole or not at all
            if not moments:
                moments.append("half is written")
                return writev(descriptor, halved(buffers))
            end()
        return writev(descriptor, buffers)

    def end():
        if "end" not in moments:
            moments.append("end")
            end_by(how)

    framing.split, os.writev = split_and_end, writev_and_end
    if "tasklink_shm.pool" in sys.modules:
        end_between_memory_and_ring(end)
    reports.send(bytes(18 << 20))


def halved(buffers):
    longest = max(buffers, key=len)
    before = buffers[: buffers.index(longest)]
    return [*before, memoryview(longest)[: len(longest) // 2]]


def end_between_memory_and_ring(end):
    from tasklink_shm.pool import Pool

    pack = Pool.pack

    def pack_and_end(*arguments):
        packed = pack(*arguments)
        end()
        return packed

    Pool.pack = pack_and_end


def at_between_frames(how, reports):
    end_by(how)


def at_decode(how, reports):
    _ = current_task().received(30).contents


def at_signal_handler(how, reports):
    """The handler strikes anywhere, most likely within `report`."""
    struck = []

    def strike(*_):
        struck.append(True)
        end_by(how)

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    while not struck:
        reports.send()


def at_result(how, reports):
    """Its result was sent, and nothing else."""
    finish = Link.finish

    def end_and_finish(link):
        end_by(how)
        finish(link)

    Link.finish = end_and_finish


def at_close(how, reports):
    """Everything was said, and the interpreter shuts down."""
    atexit.register(end_by, how)


BEFORE = 5


def doomed(where, how, ledger):
    """Report, and end. One that was stopped goes on when it is continued, and returns when it is cancelled."""
    cancelled = threading.Event()
    current_task().on("cancel", lambda _: cancelled.set())
    reports = Reports(ledger)
    for _ in range(BEFORE):
        reports.send()
    globals()[f"at_{where.replace(' ', '_')}"](how, reports)
    if how == "SIGSTOP" and where not in {"result", "close"}:
        cancelled.wait(30)
    return "value"


# In place of an interpreter


def become_doomed(code):
    """Run the code that an Executor starts a Task with, and end before it can talk, or before it does."""
    where, how = os.environ["DOOM"].split()
    path, _, main = code.partition(";from tasklink.worker")
    if where == "start":
        end_by(how)
    exec(path, {})
    from tasklink import worker

    serve = worker.serve

    def end_and_serve(link, *, own_process):
        end_by(how)
        return serve(link, own_process=own_process)

    if where == "handshake":
        worker.serve = end_and_serve
    exec(f"from tasklink.worker{main}", {})


def account(ledger, sizes):
    """Report messages of these sizes."""
    reports = Reports(ledger)
    for size in sizes:
        reports.send(bytes(size))
    return "value"
