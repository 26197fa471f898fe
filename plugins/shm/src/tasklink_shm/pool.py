"""Segments: memory in which large buffers travel. The writing side, which makes them, fills them, and uses them again.

A segment is a sealed file in memory. Its descriptor is sent once; the reader maps it once and gives arrays that are
views of it. The reader counts, in shared memory, how many messages it has received in each segment and how many of them
it needs no more. When that many were sent, the segment is free, and the next message finds it warm: writing to it
is a copy at the speed of memory. A reader who keeps what it got keeps the segment. Then

 * as long as something sent has not been received, the reader is behind and is waited for, as for room in a ring;
 * when it has received everything and holds it, the pool grows, up to its limit;
 * and what does not fit then goes through the ring in pieces, which costs the reader a copy.

The first bytes of a segment are written with pwrite(2): no page faults, half the time, and no memory left is an error
code, not SIGBUS. What has been filled before is written through a mapping: see `copying`.

Memory can also be handed out before there is a message, by `allocate`. A message that refers to such memory carries
only where it is. A segment is not used again before the views of the one who asked for it are gone, too.

What nobody has used for a while is given back to the system.

Part of the Task side: standard library, Python 3.9. `_ctypes` is what `ctypes` wraps; `allocate` alone imports it.
"""

from __future__ import annotations

import os
from _socket import MSG_DONTWAIT, MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET
from itertools import count
from mmap import MAP_SHARED, mmap
from struct import Struct, pack
from time import monotonic

from tasklink.errors import BrokenError
from tasklink.turn import rest_of
from tasklink_shm.copying import POPULATE_WRITE, copy, populate
from tasklink_shm.layout import FORGET, LINE, NOTHING, SLOTS, new_fence, sealed_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Union

    from tasklink_shm.bell import Bell
    from tasklink_shm.exporter import Exporter
    from tasklink_shm.layout import Lane, Memory
    from tasklink_shm.outgoing import Outgoing

    Buffer = Union[bytes, bytearray, memoryview]

# Where a buffer of a message is: 0 and its length, and it follows in the record; or the number of a segment, its slot
# and where it begins there.
PLACE = Struct("<QIxxxxQQ")
ANNOUNCEMENT = Struct("<QI")  # number and slot of the segment whose descriptor comes with it

SMALLEST = 256 << 10
# Sent and not received: so much, and at least two segments, may be under way before the reader is waited for.
_UNDER_WAY = 8 << 20
_IDLE_SECONDS = 5.0
_SWEEP_SECONDS = 1.0


class Segment:
    """A file in memory, on the side that writes it.

    Attributes:
        number: it is never given twice.
        slot: where the reader counts.
        size: bytes.
        filled: bytes, from the beginning, that the system has given memory for.
        loans: views of `allocate` that live.
        used: when it was last sent.
    """

    __slots__ = ("_mapping", "descriptor", "filled", "loans", "number", "size", "slot", "used")

    def __init__(self, number: int, slot: int, size: int) -> None:
        self.number = number
        self.slot = slot
        self.size = size
        self.filled = 0
        self.loans: dict[int, Exporter] = {}
        self.used = monotonic()
        self._mapping: mmap | None = None
        self.descriptor = sealed_file(size)

    def fill(self, offset: int, buffer: Buffer) -> None:
        """Copy a buffer to a place.

        Raises:
            OSError: there is no memory left.
        """
        view = memoryview(buffer)
        warm = min(len(view), max(0, self.filled - offset))
        if warm:
            copy(self.mapping(), offset, view[:warm])
        while warm < len(view):
            warm += os.pwrite(self.descriptor, view[warm:], offset + warm)
        self.filled = max(self.filled, offset + len(view))

    def mapping(self) -> mmap:
        """Its memory, as this side sees it.

        Raises:
            OSError: there is no room for it.
        """
        if self._mapping is None:
            self._mapping = mmap(self.descriptor, self.size, MAP_SHARED)
            populate(self._mapping, self.filled, POPULATE_WRITE)
        return self._mapping

    def close(self) -> None:
        """Let go of it; it lives on where somebody has a view of it."""
        os.close(self.descriptor)
        self._mapping = None


class Pool:
    """The segments of one direction. Used by one thread at a time: who has the turn to send a large message.

    Args:
        memory: both sides'.
        lane: the direction to write to.
        outgoing: writes the records.
        bell: over its socket descriptors are sent; rung when the reader is waited for.
        yard: rung when a segment has been received or released.
        threshold: from this size on a buffer travels in a segment.
        limit: bytes that all segments may hold.
        check: raises ClosedError when this side was closed.
    """

    def __init__(
        self, memory: Memory, lane: Lane, outgoing: Outgoing, *, bell: Bell, yard: Bell, threshold: int, limit: int,
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        self._words = memory.words
        self._received = lane.received
        self._released = lane.released
        self._outgoing = outgoing
        self._bell = bell
        self._yard = yard
        self._threshold = threshold
        self._limit = limit
        self._check = check
        self._fence = new_fence()
        self._numbers = 0
        self._keys = count()
        self._sent = [0] * SLOTS
        self._segments: dict[int, Segment] = {}  # by slot
        self._latest: Segment | None = None  # to be sent
        self._swept = self._now = monotonic()

    def pack(self, buffers: Sequence[Buffer], deadline: float | None) -> tuple[list[Buffer], list[Segment]] | None:
        """Bring the large buffers of a message into segments; None when there is no segment for them.

        Returns:
            the parts of its record, and the segments that it refers to, which count as sent from now on: who cannot
            send the record calls `unsend`.

        Raises:
            OSError: there is no memory left.
            TimeoutError, BrokenError, ClosedError: while waiting for a reader who is behind.
        """
        self.sweep()
        places = [PLACE.pack(0, 0, 0, len(buffer)) for buffer in buffers]
        used: dict[int, Segment] = {}
        copied: list[int] = []
        large = self._large(buffers)
        for index in large:
            segment, offset = self._on_loan(buffers[index])
            if segment is None:
                copied.append(index)
            else:
                places[index] = PLACE.pack(segment.number, segment.slot, offset, len(buffers[index]))
                used[segment.slot] = segment
        inline = [buffer for index, buffer in enumerate(buffers) if index not in large]
        if PLACE.size * len(buffers) + sum(map(len, inline)) > self._outgoing.most:
            return None
        if copied:
            segment = self._free(sum(_whole_lines(len(buffers[index])) for index in copied), deadline)
            if segment is None:
                return None
            offset = 0
            for index in copied:
                segment.fill(offset, buffers[index])
                places[index] = PLACE.pack(segment.number, segment.slot, offset, len(buffers[index]))
                offset += _whole_lines(len(buffers[index]))
            used[segment.slot] = segment
        for slot, segment in used.items():
            self._sent[slot] += 1
            segment.used = self._now
            self._latest = segment
        return [b"".join(places), *inline], list(used.values())

    def unsend(self, segments: list[Segment]) -> None:
        """Take back that a message was sent."""
        for segment in segments:
            self._sent[segment.slot] -= 1

    def allocate(self, nbytes: int) -> memoryview | None:
        """Hand out writable memory in a segment; None when there is none to be had.

        Raises:
            OSError: there is no memory left.
        """
        from tasklink_shm.exporter import Exporter  # noqa: PLC0415 - 0.5 ms that only who asks for memory pays

        self.sweep()
        segment = self._free(nbytes, None, waiting=False)
        if segment is None:
            return None
        if segment.filled < nbytes:
            os.posix_fallocate(segment.descriptor, 0, nbytes)
            segment.filled = nbytes
        loans, key = segment.loans, next(self._keys)
        loans[key] = loan = Exporter(segment.mapping(), segment.size, lambda: loans.pop(key, None))
        return loan.view()[:nbytes]

    def sweep(self) -> None:
        """Give back what nobody has used for a while."""
        now = self._now = monotonic()
        if now - self._swept > _SWEEP_SECONDS:
            self._swept = now
            for segment in [s for s in self._segments.values() if now - s.used > _IDLE_SECONDS and self._is_free(s)]:
                self._give_back(segment)

    def close(self) -> None:
        """Let go of all segments."""
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        self._words = NOTHING

    def _large(self, buffers: Sequence[Buffer]) -> set[int]:
        """Which buffers travel in segments: the large ones, or, if the others are too many for a record, all."""
        small = sum(len(buffer) for buffer in buffers if len(buffer) < self._threshold)
        threshold = self._threshold if PLACE.size * len(buffers) + small <= self._outgoing.most else 1
        return {index for index, buffer in enumerate(buffers) if index and len(buffer) >= threshold}

    # Free segments

    def _is_free(self, segment: Segment) -> bool:
        return not segment.loans and self._words[self._released + segment.slot] == self._sent[segment.slot]

    def _would_do(self, segment: Segment, nbytes: int) -> bool:
        more = max(0, nbytes - segment.filled)
        return segment.size >= nbytes and (not more or self._held() + more <= self._limit)

    def _is_under_way(self, segment: Segment) -> bool:
        return self._words[self._received + segment.slot] < self._sent[segment.slot]

    def _free(self, nbytes: int, deadline: float | None, *, waiting: bool = True) -> Segment | None:
        """Find or make a segment for so many bytes; None when the reader keeps what there is."""
        latest = self._latest
        if latest is not None and nbytes <= latest.filled <= 4 * nbytes and self._is_free(latest):
            return latest  # as it is mostly
        try:
            while True:
                self._check()
                before = self._progress()
                free = [s for s in self._segments.values() if self._would_do(s, nbytes) and self._is_free(s)]
                if free:
                    # One that has been filled as far as needed, else the smallest; of equal ones that used last.
                    return min(free, key=lambda s: (s.filled < nbytes, s.size, -s.used))
                under_way = [s for s in self._segments.values() if self._is_under_way(s)]
                behind = waiting and len(under_way) >= max(2, _UNDER_WAY // max(1, nbytes))
                if not behind and self._has_room(nbytes):
                    return self._new(nbytes)
                if not (waiting and under_way):
                    return None
                self._wait(before, deadline)
        finally:
            self._yard.disarm()

    def _wait(self, before: list[int], deadline: float | None) -> None:
        """Wait until the reader has received or released something that it had not before."""
        rest = rest_of(deadline)
        if rest is not None and rest <= 0:
            raise TimeoutError("the peer did not take what is on its way to it in time")
        self._yard.arm()
        self._fence()
        if self._progress() == before:
            self._bell.ring()  # its reader may look only now and then: see `incoming`
            self._yard.sleep(rest)

    def _progress(self) -> list[int]:
        return self._words[self._received : self._released + SLOTS].tolist()

    def _has_room(self, nbytes: int) -> bool:
        """Whether another segment may be made; those of other sizes that are free have to go for it."""
        if nbytes > self._limit:
            return False
        free = sorted((s for s in self._segments.values() if self._is_free(s)), key=lambda s: s.used)
        while len(self._segments) == SLOTS or self._held() + nbytes > self._limit:
            if not free:
                return False
            self._give_back(free.pop(0))
        return True

    def _held(self) -> int:
        return sum(segment.filled for segment in self._segments.values())

    def _new(self, nbytes: int) -> Segment:
        size = max(SMALLEST, 1 << (nbytes - 1).bit_length())
        slot = next(slot for slot in range(SLOTS) if slot not in self._segments)
        self._numbers += 1
        segment = Segment(self._numbers, slot, size)
        try:
            self._announce(segment)
        except BaseException:
            segment.close()
            raise
        self._segments[slot] = segment
        return segment

    def _announce(self, segment: Segment) -> None:
        """Send the descriptor: before any record that refers to it."""
        rights: list[Any] = [(SOL_SOCKET, SCM_RIGHTS, pack("i", segment.descriptor))]
        announcement = ANNOUNCEMENT.pack(segment.number, segment.slot)
        try:
            self._bell.line.sendmsg([announcement], rights, MSG_DONTWAIT | MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise BrokenError(f"the peer is gone: {error}") from error

    def _give_back(self, segment: Segment) -> None:
        try:
            self._outgoing.put(FORGET, segment.slot, [segment.number.to_bytes(8, "little")], monotonic())
        except TimeoutError:
            return  # a full ring: another time
        del self._segments[segment.slot]
        self._latest = None
        segment.close()

    # Memory on loan

    def _on_loan(self, buffer: Buffer) -> tuple[Segment | None, int]:
        """In which of the segments that are on loan a buffer lies, and where."""
        for segment in self._segments.values():
            if segment.loans:
                offset = next(iter(segment.loans.values())).offset_of(buffer)
                if offset is not None:
                    return segment, offset
        return None, 0


def _whole_lines(length: int) -> int:
    return length + LINE - 1 & -LINE
