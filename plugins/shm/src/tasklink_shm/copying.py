"""Work on much memory that lets the other threads run: or a signal would wait for the array that another one writes.

Slices of a mapping are assigned, and its pages asked for, with the interpreter's lock held. `memmove` of the C library
does without it, called through `_ctypes`, which is what `ctypes` wraps; but only what can be written has an address
there. All else is done in slices, between which others run.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap

# madvise(2), Linux 5.14: all page faults of a range in one call.
POPULATE_READ = 22
POPULATE_WRITE = 23

# Half a millisecond to copy: less than others notice, and as much as it takes to import `_ctypes`.
_SHORT = 4 << 20
# Copied at a time (25 ms). What is larger than most of the cache, the C library writes past it, half as fast again
# (glibc's `non_temporal_threshold`); smaller slices would go through the cache.
_SLICE = 256 << 20


def copy(target: mmap, begin: int, source: memoryview) -> None:
    """Copy bytes to a place of a mapping."""
    if len(source) <= _SHORT:
        target[begin : begin + len(source)] = source
        return
    from tasklink_shm.exporter import memmove  # noqa: PLC0415 - most Tasks copy nothing large

    for done in range(0, len(source), _SLICE):  # a signal handler runs between two of them as well
        part = source[done : done + _SLICE]
        if part.readonly:
            target[begin + done : begin + done + len(part)] = part
        else:
            memmove(target, begin + done, part)


def populate(mapping: mmap, size: int, how: int) -> None:
    """Have the system map the pages of so many bytes from the beginning, which are there, before they are touched."""
    try:
        for begin in range(0, size, _SLICE):
            mapping.madvise(how, begin, min(_SLICE, size - begin))
    except OSError:
        pass  # an older kernel: they come one by one
