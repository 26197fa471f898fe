"""What stands where in the memory that both sides share, and how it is made and looked at.

    page 0      magic, size of a ring, and for each direction the words by which the two sides tell each other things
    ring 0      records from the Executor to the Task
    ring 1      records from the Task to the Executor

Each word has one meaning and, but for the flags of sleepers, one side that writes it. It is 8 bytes, aligned, and is
read and written by one load or store: indexing a memoryview of the format `Q` is that; struct.pack_into is not, for it
puts zeros there first.

A record begins at a multiple of 64 bytes with the word that publishes it: kind, a number, and how many bytes follow.
0 says that nothing has been published there yet.

**Memory order.** A record is written first and its word last, and read in the opposite order. x86-64 keeps the order
of stores, and of loads. Other machines do not, and there a fence stands between payload and word on both sides. A fence
from Python: to release a lock and take it again. The release is an atomic operation with release semantics, the taking
one with acquire semantics. What stands before a release is done before it, what stands behind an acquire after it, and
a release is done before an acquire that follows it: on ARMv8 by rule (`[L]; po; [A]` is barrier-ordered-before), on
x86-64 since both have the LOCK prefix. So all that stands before the pair is done before all that stands behind it, a
store before a load too. That is what sleeping needs on every machine: who wants to sleep sets its flag and then looks
once more, who has published looks at the flag afterwards; without the fence both may look too early.

**Trust.** The memory is a sealed memfd, filled at once: it cannot become shorter, so no access ends in SIGBUS, and
cannot run out later. What the other side has written there is copied once, then checked, then used.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

import mmap as _mmap
import os
import sys
from _thread import allocate_lock
from fcntl import fcntl
from mmap import MAP_SHARED, mmap

from tasklink.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

EXECUTOR = 0
TASK = 1

# Kinds of records. The number beside the kind: what it counts is said here.
MESSAGE = 1  # a message of two buffers, head and body; 0
PARTS = 2  # a message of more buffers; how many. Their lengths stand first.
PARCEL = 3  # a message with buffers in segments; how many buffers. Where each is stands first.
STREAM = 4  # the next bytes of a stream of frames: a large message in pieces; 0
SKIP = 5  # nothing, and the next record is at the beginning of the ring; 0
FORGET = 6  # a segment that will not be used again; its slot

HEADER_BYTES = 4096
LINE = 64
SLOTS = 32  # for segments, in each direction

# What a side sees that was closed: no record, no flag.
NOTHING = memoryview(bytearray(8)).cast("Q")

# Whether stores, and loads, may pass each other: see "Memory order".
WEAKLY_ORDERED = os.uname().machine not in ("x86_64", "i686", "i386")

_MAGIC = int.from_bytes(b"TLshm\x00\x00\x01", "little")
_FIRST_WORD = 8
_WORDS_A_DIRECTION = 96

# Of <linux/fcntl.h>; the fcntl module has them only where it was built with a libc of 2018.
_F_ADD_SEALS = 1033
_F_GET_SEALS = 1034
_F_SEAL_SEAL = 1
_F_SEAL_SHRINK = 2
_F_SEAL_GROW = 4
SEALS = _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW

_POPULATE = getattr(_mmap, "MAP_POPULATE", 0)  # Python 3.10; without it pages come as they are touched


class Lane:
    """One direction: where its ring is, and the indexes of its words.

    Attributes:
        begin: where its ring begins in the memory.
        end: where its ring ends.
        asleep: the reader is to be woken when there is a record (set by the reader, taken back by either side).
        read: up to where the reader has read (the reader's).
        full: the writer is to be woken when there is room (set by the writer, taken back by either side).
        short: the writer is to be woken when a segment has been received or released (as `full`).
        received: `SLOTS` words: how many messages in this segment the reader has received (the reader's).
        released: `SLOTS` words: how many of them it needs no more (the reader's).
    """

    __slots__ = ("asleep", "begin", "end", "full", "read", "received", "released", "short")

    def __init__(self, direction: int, ring: int) -> None:
        self.begin = HEADER_BYTES + direction * ring
        self.end = self.begin + ring
        first = _FIRST_WORD + direction * _WORDS_A_DIRECTION
        # What is written often by different sides is kept on different lines of the cache.
        self.asleep, self.read, self.full, self.short = (first + 8 * line for line in range(4))
        self.received = first + 32
        self.released = self.received + SLOTS


class Memory:
    """The shared memory, mapped.

    Attributes:
        mapping: all of it.
        words: all of it, as words of 8 bytes.
        ring: bytes of a ring.
    """

    __slots__ = ("mapping", "ring", "words")

    def __init__(self, descriptor: int) -> None:
        size = check_sealed(descriptor)
        self.mapping = mmap(descriptor, size, MAP_SHARED | _POPULATE)
        self.words = memoryview(self.mapping).cast("Q")
        magic, self.ring = self.words[0], self.words[1]
        if magic != _MAGIC:
            raise ProtocolError(f"shared memory begins with {_MAGIC:#x}; here is {magic:#x}")
        if size != HEADER_BYTES + 2 * self.ring or self.ring % HEADER_BYTES:
            raise ProtocolError(f"shared memory of {size} bytes says that it has two rings of {self.ring}")

    def lane(self, direction: int) -> Lane:
        """The ring that a side writes, `EXECUTOR` or `TASK`."""
        return Lane(direction, self.ring)


def create(ring: int) -> int:
    """Make the memory for two rings of so many bytes, a multiple of 4096; gives its descriptor.

    Raises:
        OSError: there is no descriptor or no memory left.
    """
    size = HEADER_BYTES + 2 * ring
    descriptor = sealed_file(size)
    try:
        os.posix_fallocate(descriptor, 0, size)  # now, as an error; not later, as SIGBUS
        header = memoryview(bytearray(HEADER_BYTES)).cast("Q")
        header[0], header[1] = _MAGIC, ring
        for direction in (EXECUTOR, TASK):
            lane = Lane(direction, ring)
            header[lane.read] = lane.begin
            header[lane.asleep] = 1  # nobody looks yet: the first record rings
        os.pwrite(descriptor, header, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sealed_file(size: int) -> int:
    """Make a file in memory that nobody can make longer or shorter; gives its descriptor.

    Raises:
        OSError: the system refuses.
    """
    descriptor: int = _memfd_create("tasklink", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl(descriptor, _F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_sealed(descriptor: int) -> int:
    """See that what a descriptor refers to cannot become shorter; gives its size.

    Raises:
        ProtocolError: it can, or is no such file at all.
    """
    try:
        seals = fcntl(descriptor, _F_GET_SEALS)
    except OSError:  # only files in memory have seals
        seals = 0
    if seals & SEALS != SEALS:
        raise ProtocolError(f"shared memory has the seals {SEALS:#x}; this has {seals:#x}, and its size may change")
    return os.fstat(descriptor).st_size


def new_fence() -> Callable[[], None]:
    """Make a fence: a function that orders memory, for one thread at a time. See "Memory order"."""
    lock = allocate_lock()
    release, acquire = lock.release, lock.acquire

    def fence() -> None:
        acquire(False)  # it is taken already, unless this was interrupted the last time
        release()
        acquire(False)

    return fence


def unavailable() -> str | None:
    """Why there is no shared memory of this kind here; None when there is."""
    if sys.platform != "linux":
        return f"it needs sealed files in memory, which {sys.platform} does not have; use 'unix' or 'pipe'"
    if not hasattr(os, "memfd_create"):
        return "this Python was built without os.memfd_create; use another build of Python, or 'unix' or 'pipe'"
    return None


def _memfd_create(name: str, flags: int) -> Any:
    try:
        return os.memfd_create(name, flags)
    except AttributeError:
        raise OSError("this Python was built without os.memfd_create") from None
