"""Segments on the side that reads: mapped once, given away in views, and released when the last view is gone.

An array that came in a segment is a view of memory that the writer still has mapped. It is writable, as arrays are that
came any other way: it is the reader's until it lets go of it. A writer that keeps to the rules does not touch it
meanwhile; one that does not can change the array under its reader, never more. So whatever is *decoded* is copied out
of a segment first: the head here, a body by who has read in the head that it will be decoded. Bytes that are sent as
they are stay where they are, like arrays: to copy a gigabyte here would keep all waiting that comes behind it.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

import os
from _socket import SCM_RIGHTS, SOL_SOCKET
from itertools import count
from mmap import MAP_SHARED, mmap
from struct import unpack

from tasklink.errors import BrokenError, ProtocolError
from tasklink_shm.copying import POPULATE_READ, populate
from tasklink_shm.layout import SLOTS, check_sealed, new_fence
from tasklink_shm.pool import ANNOUNCEMENT, PLACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tasklink_shm.bell import Bell
    from tasklink_shm.exporter import Exporter
    from tasklink_shm.layout import Lane, Memory

# So much of a new segment is mapped at once (10 ms). All that comes behind it waits for that, signals too; the rest is
# mapped as it is touched, which takes as long where it is only read.
_POPULATED = 256 << 20


class _Slot:
    """The segment in a slot, and what came in it.

    Attributes:
        number: of the segment; 0: there is none.
        mapping: of the segment.
        received: how many messages came in this slot.
        live: those that have views, by a number of their own.
    """

    __slots__ = ("live", "mapping", "number", "received")

    def __init__(self) -> None:
        self.number = 0
        self.mapping: mmap | None = None
        self.received = 0
        self.live: dict[int, Exporter] = {}


class Shelf:
    """The segments that a side has received. Used by the thread that reads; released by any.

    Args:
        memory: both sides'.
        lane: the direction that is read.
        yard: rung when a segment has been received or released.
    """

    def __init__(self, memory: Memory, lane: Lane, yard: Bell) -> None:
        self._words: memoryview | None = memory.words
        self._received = lane.received
        self._released = lane.released
        self._short = lane.short
        self._yard = yard
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._arrived: dict[int, tuple[int, int]] = {}  # slot and descriptor of announced segments, by number
        self._keys = count()
        self._fence = new_fence()
        self._exporter: type[Exporter] | None = None

    def announce(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Take in the descriptor of a segment.

        Raises:
            ProtocolError: it is none.
            BrokenError: this process had no descriptor left for it.
        """
        found: list[int] = []
        for level, kind, body in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                found += unpack(f"{len(body) // 4}i", body[: len(body) // 4 * 4])
        if len(data) == ANNOUNCEMENT.size and not found:
            raise BrokenError("a segment of shared memory cannot be taken: this process has no descriptors left")
        if len(data) != ANNOUNCEMENT.size or len(found) != 1 or len(self._arrived) >= SLOTS:
            for descriptor in found:
                os.close(descriptor)
            raise ProtocolError(f"{len(data)} bytes and {len(found)} descriptors announce no segment")
        number, slot = ANNOUNCEMENT.unpack(data)
        if number in self._arrived or slot >= SLOTS:
            os.close(found[0])
            raise ProtocolError(f"a segment of number {number} in slot {slot} of {SLOTS} was announced")
        self._arrived[number] = (slot, found[0])

    def unpack(self, number: int, data: bytes, hear: Callable[[], None]) -> list[Any]:
        """Give the buffers of a message: head, and what stands in the record, copied, the large ones as views.

        Args:
            number: how many buffers there are.
            data: the record.
            hear: takes in what has been sent over the socket.

        Raises:
            ProtocolError: the record refers to what is not there.
            BrokenError: the system has no room for a segment.
        """
        inline = PLACE.size * number
        if inline > len(data):
            raise ProtocolError(f"a record of {len(data)} bytes has no room for {number} places")
        buffers: list[Any] = []
        views: dict[int, memoryview] = {}  # of this message, by slot
        for index in range(number):
            segment, slot, offset, length = PLACE.unpack_from(data, PLACE.size * index)
            if segment:
                if slot not in views:
                    views[slot] = self._view(segment, slot, hear)
                view = views[slot]
                if offset + length > len(view) or self._slots[slot].number != segment:
                    raise ProtocolError(
                        f"a buffer of {length} bytes at {offset} of segment {segment} in slot {slot}, which has "
                        f"{len(view)} bytes and holds segment {self._slots[slot].number}"
                    )
                part = view[offset : offset + length]
            else:
                if inline + length > len(data):
                    raise ProtocolError(f"a record of {len(data)} bytes has no {length} bytes at {inline}")
                part = memoryview(data)[inline : inline + length]
                inline += length
            # A body is only read; what follows it becomes the memory of arrays, which shall be writable.
            buffers.append(
                bytes(part) if index == 0 else part if segment else (bytes if index == 1 else bytearray)(part)
            )
        return buffers

    def forget(self, slot: int, number: int, hear: Callable[[], None]) -> None:
        """Let go of a segment, which may never have been used.

        Raises:
            ProtocolError: there is no such segment.
        """
        if number and slot < SLOTS and self._slots[slot].number == number:
            self._slots[slot].mapping = None
            self._slots[slot].number = 0
            return
        if number not in self._arrived:
            hear()
        if self._arrived.get(number, (-1, -1))[0] != slot:
            raise ProtocolError(f"segment {number} is to be forgotten, which was never announced for slot {slot}")
        os.close(self._arrived.pop(number)[1])

    def close(self) -> None:
        """Let go of all segments; the memory of those that have views goes with the last of these."""
        self._words = None
        for _, descriptor in self._arrived.values():
            os.close(descriptor)
        self._arrived.clear()
        for slot in self._slots:
            slot.mapping = None

    def _view(self, number: int, index: int, hear: Callable[[], None]) -> memoryview:
        """Give a view of a whole segment: received now, and released when all that is made of the view is gone."""
        if index >= SLOTS:
            raise ProtocolError(f"a segment in slot {index}; there are {SLOTS}")
        slot = self._slots[index]
        if slot.number != number:
            if number not in self._arrived:
                hear()
            self._map(number, index)
        assert slot.mapping is not None
        assert self._exporter is not None
        key = next(self._keys)
        slot.live[key] = exporter = self._exporter(slot.mapping, len(slot.mapping), lambda: self._release(index, key))
        slot.received += 1
        words = self._words
        assert words is not None
        words[self._received + index] = slot.received
        self._fence()
        self._tell(words)
        return exporter.view()

    def _map(self, number: int, index: int) -> None:
        from tasklink_shm.exporter import Exporter  # noqa: PLC0415 - 0.5 ms, and most Tasks get no array

        self._exporter = Exporter
        expected, descriptor = self._arrived.pop(number, (-1, -1))
        if expected != index:
            if descriptor >= 0:
                os.close(descriptor)
            raise ProtocolError(f"segment {number} in slot {index} was never announced")
        try:
            size = check_sealed(descriptor)
            filled = os.fstat(descriptor).st_blocks * 512
            mapping = mmap(descriptor, size, MAP_SHARED)
        except (OSError, ValueError, OverflowError) as error:
            raise BrokenError(f"there is no room for segment {number}: {error}") from error
        finally:
            os.close(descriptor)
        populate(mapping, min(filled, size, _POPULATED), POPULATE_READ)
        self._slots[index].number = number
        self._slots[index].mapping = mapping

    def _release(self, index: int, key: int) -> None:
        """The last view of a message is gone. Called by any thread, between any two bytecodes of it."""
        slot = self._slots[index]
        slot.live.pop(key, None)
        words = self._words
        if words is None:
            return
        fence = new_fence()  # one of its own: several threads may be here at a time
        fence()  # what its readers have read, they have read
        released = -1
        while released != slot.received - len(slot.live):  # another thread may have come to an older result
            released = words[self._released + index] = slot.received - len(slot.live)
        fence()
        self._tell(words)

    def _tell(self, words: memoryview) -> None:
        """Wake a writer that waits for a segment."""
        if words[self._short]:
            try:
                self._yard.ring()
            except BrokenError:
                pass  # the bell will say so as well, behind all that the peer has written
