"""Where every thread of other processes stands: what a hang is told with.

Whoever is started with the `environment` of a `Stacks`, and is a Python, writes down the stacks of all its threads when
it is told to by SIGQUIT, as a Java machine does; the kernel delivers that to whatever the process hangs in. Nothing of
a program has to be changed for it: Python imports `sitecustomize` before anything else, if there is one on its path.

They are written into a named pipe, which needs no descriptor to be inherited. Whoever does not catch the signal, as a
program that is no Python, is left in peace.
"""

from __future__ import annotations

import faulthandler
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

_SIGNAL = signal.SIGQUIT
_FIRST_LINE_SECONDS = 2.0
_NEXT_LINE_SECONDS = 0.2
_MOST_SECONDS = 10.0
# For whatever Python it is; one that cannot write its stacks must not be harmed by that.
_SITECUSTOMIZE = """\
import os
try:
    import faulthandler
    faulthandler.register({number}, os.open({pipe!r}, os.O_WRONLY | os.O_NONBLOCK), all_threads=True)
except Exception:
    pass
"""


class Stacks:
    """A place into which other processes write their stacks. A context manager: it is closed at the end.

    Attributes:
        environment: what to start a process with, beside its other variables.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tasklink-stacks-"))
        self._lock = threading.Lock()
        pipe = self._folder / "stacks"
        os.mkfifo(pipe, 0o600)
        # For both: it has no end when one that wrote has closed it.
        self._descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        text = _SITECUSTOMIZE.format(number=int(_SIGNAL), pipe=str(pipe))
        (self._folder / "sitecustomize.py").write_text(text, encoding="utf-8")
        path = [str(self._folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {"PYTHONPATH": os.pathsep.join(path)}

    def of(self, pids: Iterable[int]) -> str:
        """Say where every thread of these processes stands, and of this one. From any thread."""
        with self._lock:  # or one would read what was written for another
            return "\n".join([_ours(), *map(self._of, pids)])

    def close(self) -> None:
        """Remove the place."""
        os.close(self._descriptor)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _of(self, pid: int) -> str:
        name = f"process {pid} ({_command(pid)})"
        if not _would_tell(pid):
            return f"{name} does not say where it stands"
        try:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, _SIGNAL)
        except ProcessLookupError:
            return f"{name} is gone"
        return f"{name}:\n{self._read() or '(it says nothing)'}"

    def _read(self) -> str:
        """Read until nothing has come for a while: nobody says that this was all."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        text = b""
        until = time.monotonic() + _MOST_SECONDS
        while time.monotonic() < until and poll.poll(1000 * (_NEXT_LINE_SECONDS if text else _FIRST_LINE_SECONDS)):
            text += os.read(self._descriptor, 1 << 16)
        return text.decode("utf-8", "backslashreplace")


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have, and so on. None where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            status = entry.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has just ended
        parent = int(status.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found[1:]


def _ours() -> str:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return f"this process, {os.getpid()}:\n{file.read().decode('utf-8', 'backslashreplace')}"


def _would_tell(pid: int) -> bool:
    """Whether the signal is caught there: else it would be the end of the process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return sys.platform != "linux"
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (_SIGNAL - 1) & 1)


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "backslashreplace").split("\0")
    except OSError:
        return "?"
    return " ".join(words)[:100].strip()
