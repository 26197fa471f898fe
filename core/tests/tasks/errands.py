"""What Tasks do in the tests, in processes of their own. It imports no test library."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading

from tasklink import current_task
from tasklink.errors import ForkedError


def length(data: bytes) -> int:
    """How long it is."""
    return len(data)


def in_process() -> tuple[str, str, str]:
    """What a process knows of itself."""
    return sys.argv[0], sys.path[0], type(in_process).__name__


def terminate_oneself_while_reporting() -> None:
    """Be terminated by a thread, at any moment of a report."""
    task = current_task()
    main = threading.main_thread().ident
    assert main is not None
    reported = threading.Event()

    def terminate() -> None:
        reported.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    number = 0
    while True:
        task.report((number, bytes(100_000)))
        number += 1
        if number == 20:
            reported.set()


def terminate_oneself() -> None:
    """Be terminated, and clean up."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        print("cleaned up")


def leave_a_thread() -> str:
    """Return while a thread has still something to say, and a daemon waits for ever."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    # Late enough to come after the return, mostly; were it early, the test would not notice.
    threading.Timer(0.05, lambda: current_task().report("late")).start()
    return "returned"


def print_and_die() -> None:
    """Print a line, and be killed."""
    print("the last line")
    os.kill(os.getpid(), signal.SIGKILL)


def close_everything() -> None:
    """Report, close all descriptors, and report again."""
    current_task().report("before")
    os.closerange(3, 100)
    current_task().report("after")


def fork_and_return() -> str:
    """Return from both processes after a fork."""
    pid = os.fork()
    if pid == 0:
        try:
            current_task().report("from the child")
        except ForkedError:
            return "child"
    os.waitpid(pid, 0)
    return "parent"


def exit_with(code: int) -> None:
    """Exit."""
    sys.exit(code)


def visible_to_others() -> bytes:
    """What any user sees of this process, and any program that it starts is given."""
    seen = b""
    for what in ("cmdline", "environ"):
        with open(f"/proc/self/{what}", "rb") as file:
            seen += file.read()
    return seen


def report_at_exit() -> str:
    """Report now, and when the process ends."""
    task = current_task()
    task.report("while running")
    atexit.register(task.report, "at exit")
    return "returned"
