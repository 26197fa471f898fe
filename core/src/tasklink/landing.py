"""Where large buffers of a peer land: memory that is read into, and then belongs to the arrays over it.

Most of what such a buffer costs is the first touch of fresh memory, page by page: four times as much as to copy the
bytes. So memory is used again when the last array over it is gone, and what has to be fresh comes in huge pages.

Rules of this file:

* What a peer claims is not believed: memory grows with the bytes that have come, `_RESERVED_AT_ONCE` ahead at first,
  later as much again as is filled.
* The blocks of the last buffers, `_KEPT_BYTES` in a process at most, are kept for use again. One of them is free when
  nothing has a view of it any more: mmap counts its views, and refuses to be resized while there are any.
* A larger block than needed is given, and huge pages are asked for, where that takes at most a quarter more.
* The list of kept blocks is shared by all threads, and has no lock: each thing done to it is atomic, and a block that
  was taken out of it belongs to who took it.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

import sys

from tasklink.errors import BrokenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Union

    Block = Union[bytearray, mmap]

# From here a mapping of its own is better than the heap: it is not zeroed first, and grows without a copy.
_MAPPED_FROM = 1 << 20
# A buffer up to this size is reserved at once; a larger one starts with it and doubles.
_RESERVED_AT_ONCE = 8 << 20
_HUGE_PAGE = 2 << 20
_KEPT_BYTES = 64 << 20
_LOOKED_AT = 8  # blocks, for one buffer: each that is in use costs 0.5 us

_kept: list[mmap] = []


class Landing:
    """Memory for one buffer, filled from its beginning.

    Args:
        length: how many bytes the buffer has, as the peer says.

    Attributes:
        filled: how many of them have come; whoever writes into `free` adds them here.

    Raises:
        BrokenError: the system has no memory for it.
    """

    __slots__ = ("_block", "_length", "filled")

    def __init__(self, length: int) -> None:
        self._length = length
        self.filled = 0
        self._block: Block
        try:
            self._block = bytearray(length) if length < _MAPPED_FROM else _taken(length) or _mapped(length)
        except (OSError, MemoryError, OverflowError) as error:
            raise _no_memory(length, error) from None

    def free(self, limit: int) -> memoryview:
        """Where the next bytes belong. It is to be released before this is called again.

        Args:
            limit: how many at most; not more than are missing.

        Raises:
            BrokenError: the system has no memory for them.
        """
        size = len(self._block)
        if self.filled == size:
            assert not isinstance(self._block, bytearray)
            try:
                self._block.resize(min(2 * size, _size(self._length)))
            except OSError as error:
                raise _no_memory(self._length, error) from None
        return memoryview(self._block)[self.filled : self.filled + limit]

    def view(self) -> memoryview:
        """The whole buffer, which keeps the memory from being used for another one."""
        view = memoryview(self._block)[: self._length]
        if not isinstance(self._block, bytearray):
            _keep(self._block)
        return view


def _taken(length: int) -> mmap | None:
    """Take a block that fits, and that nobody has a view of any more, from those that are kept."""
    for _ in range(min(len(_kept), _LOOKED_AT)):
        try:
            block = _kept.pop(0)
        except IndexError:
            return None  # other threads were faster
        if length <= len(block) <= _most(length) and _is_free(block):
            return block
        _kept.append(block)
    return None


def _keep(block: mmap) -> None:
    """Keep a block for when its views are gone, instead of those that have been kept for longest."""
    # A larger one would drive out all the others. Elsewhere nothing tells whether there are views.
    if len(block) <= _KEPT_BYTES // 2 and sys.platform == "linux" and sys.implementation.name == "cpython":
        _kept.append(block)
        while sum(map(len, _kept)) > _KEPT_BYTES:
            del _kept[:1]  # no error where another thread has just taken the last one


def _is_free(block: mmap) -> bool:
    try:
        block.resize(len(block))
    except BufferError:
        return False
    return True


def _mapped(length: int) -> mmap:
    """Memory that is not counted before it is used."""
    import mmap  # noqa: PLC0415 - a Task that only writes saves 0.3 ms

    # mremap(2) moves the pages, not the bytes. Elsewhere the whole length is mapped at once: it is address space only,
    # and becomes memory page by page as bytes come.
    size = _size(length)
    first = min(size, _RESERVED_AT_ONCE) if sys.platform == "linux" else size
    # Private on purpose: a shared anonymous mapping faults beyond its first size when it was resized.
    block = mmap.mmap(-1, first, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size % _HUGE_PAGE == 0 and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            block.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # a kernel without them
    return block


def _size(length: int) -> int:
    """How much to map: whole huge pages if that does not waste too much. Then Linux aligns the mapping to them."""
    whole = -(-length // _HUGE_PAGE) * _HUGE_PAGE
    return whole if whole <= _most(length) else length


def _most(length: int) -> int:
    return length + length // 4


def _no_memory(length: int, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is None:
        return error  # it was raised by a signal handler, not by the system
    return BrokenError(f"there is no memory for the {length} bytes of a buffer that the peer sends: {error}")
