"""What no input may cause, whatever the target: code that runs, memory that the input does not pay for.

Whoever looks at one input does it within `harmless`. The hook stays in the process for good, which is why targets run
in processes of their own, never in that of pytest.
"""

import ctypes
import os
import resource
import sys
from contextlib import contextmanager
from time import monotonic

from tasklink.errors import BrokenError, EndOfMessages, ProtocolError

MIB = 1 << 20
HUGE_PAGE = 2 << 20  # what the first byte takes of a buffer that is said to be large, and has no limit: see `landing`
_READS = 40

# What it takes to have foreign code run. A target imports all that is imported late before it looks at an input.
_FORBIDDEN = frozenset({
    "code.__new__", "compile", "ctypes.dlopen", "exec", "function.__new__", "import", "marshal.loads", "os.exec",
    "os.fork", "os.posix_spawn", "os.system", "pickle.find_class", "subprocess.Popen",
})  # fmt: skip

_seen = []
_watching = False


def _note(event, arguments):
    if _watching and event in _FORBIDDEN:
        _seen.append((event, repr(arguments)[:200]))


sys.addaudithook(_note)
# Large memory goes back to the system, and is not kept for the next input: mallopt(3), M_MMAP_THRESHOLD.
ctypes.CDLL(None).mallopt(-3, 256 << 10)
# Linux forgets on demand how large a process has been.
_high_water = os.open("/proc/self/clear_refs", os.O_WRONLY)


@contextmanager
def harmless(most):
    """Fail when the block runs or imports something, or takes more than `most` bytes of memory and 1 MiB."""
    global _watching  # noqa: PLW0603 - an audit hook belongs to the process, and cannot be taken away
    os.write(_high_water, b"5")
    before = _largest()
    _watching = True
    try:
        yield
    finally:
        _watching = False
        taken = _largest() - before
        seen = _seen[:]
        _seen.clear()
    # Noted, not raised, by the hook: what is looked at may catch what it does not know.
    assert not seen, f"an input made this happen: {seen}"
    assert taken <= most + MIB, f"{taken} bytes of memory, where {most} and {MIB} are allowed"


def messages_of(end):
    """Read what an end has, for a while: it may have more than that, and a peer may write for ever."""
    for _ in range(_READS):
        begin = monotonic()
        try:
            message = end.read(0)
        except (TimeoutError, EndOfMessages, ProtocolError, BrokenError):
            return
        finally:
            assert monotonic() - begin < 5, "it was not to wait"
        assert sum(map(len, message.buffers)) >= 0
        assert len(repr(message)) < 2000
        yield message


def _largest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
