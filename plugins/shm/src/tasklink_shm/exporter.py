"""To know when the last view of some memory is gone.

Whoever makes an array of a memoryview, or a slice of an array, makes another view, which does not hold the first one:
it holds what stands below all of them, the object whose memory it is. For a mapping that object is the mmap, which is
the same for all messages. So each message gets an object of its own on top of it: an array of ctypes, which is made in
a microsecond, can be referred to weakly, and holds the mapping.

Part of the Task side: standard library, Python 3.9. `_ctypes` is what `ctypes` wraps, which takes 2 ms.
"""

from __future__ import annotations

import _ctypes
from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import Any, Union

    Buffer = Union[bytes, bytearray, memoryview]


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "B"


class _Address(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


class _Size(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"  # size_t, where there is a memfd


class _Memmove(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL  # which is without the interpreter's lock
    _restype_ = None
    _argtypes_ = (_Address, _Address, _Size)


_memmove: Any = _Memmove(_ctypes._memmove_addr)  # type: ignore[attr-defined]


def memmove(target: mmap, begin: int, source: memoryview) -> None:
    """Copy what can be written to a place of a mapping, without the interpreter's lock."""
    place, part = _Byte.from_buffer(target, begin), _Byte.from_buffer(source)  # while they live, nobody unmaps it
    _memmove(_ctypes.addressof(place), _ctypes.addressof(part), len(source))


class Exporter:
    """Memory of a mapping, and a call when nobody looks at it any more.

    Args:
        mapping: it is held as long as there is a view.
        size: of the mapping, in bytes.
        gone: called, by whichever thread it is, when the last view is gone.
    """

    __slots__ = ("_address", "_block", "_reference", "_size")

    def __init__(self, mapping: mmap, size: int, gone: Callable[[], object]) -> None:
        # The type is made once for each size.
        self._block: Any = (_Byte * size).from_buffer(mapping)
        self._address = _ctypes.addressof(self._block)
        self._size = size
        self._reference = ref(self._block, lambda _: gone())

    def view(self) -> memoryview:
        """Give the first view, from which all others are made. Can be called once."""
        block, self._block = self._block, None
        return memoryview(block).cast("B")

    def offset_of(self, buffer: Buffer) -> int | None:
        """Where a buffer begins that lies in this memory; None for any other, and for one that cannot be written."""
        try:
            address = _ctypes.addressof(_Byte.from_buffer(buffer))
        except (TypeError, ValueError):
            return None
        offset = address - self._address
        return offset if offset >= 0 and offset + len(buffer) <= self._size else None
