"""What a worker does in each fault: functions of how it sends, and of a file for what must outlive it.

Standard library only: every kind of worker imports this.
"""

import os
import signal
import subprocess
import threading
from pathlib import Path
from time import monotonic

MIB = 1 << 20


class Poison:
    """Can be pickled, and cannot be unpickled."""

    def __reduce__(self):
        """Say how it is made again: not at all."""
        return _refuse, ()


def _refuse():
    raise ValueError("this object cannot be made again")


def killed(send, note):
    """Send something, and be killed while sending something large."""
    send("one")
    Path(note).write_text(repr(monotonic() + 0.1), encoding="ascii")
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        send(bytes(300 * MIB))


def exits_at_once(send, note):
    """Send a result, and leave without another word."""
    send(bytes(50 * MIB))
    os._exit(0)


def without_result(send, note):
    """Leave before there is a result."""
    os._exit(0)


def poison(send, note):
    """Send something that cannot be made again, between two things that can."""
    send("one")
    send(Poison())
    send("three")


def unsendable(send, note):
    """Send what cannot be sent, and say what came of it."""
    try:
        send(threading.Lock())
    except Exception:  # noqa: BLE001 - each way has its own
        send("refused")


def leaves_a_child(send, note):
    """Give a result, and leave a process behind."""
    child = subprocess.Popen(["sleep", "300"])
    Path(note).write_text(str(child.pid), encoding="ascii")
    send("done")


def works_on(send, note):
    """Work for a long time."""
    Path(note).write_text(str(os.getpid()), encoding="ascii")
    send("begun")
    threading.Event().wait(300)
