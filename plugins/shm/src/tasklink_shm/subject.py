"""How the communicator is checked by `tasklink.testing`: what can be wrong in the memory that both sides share."""

from __future__ import annotations

from functools import partial
from struct import pack
from typing import TYPE_CHECKING, Any

from tasklink.testing.subject import Subject
from tasklink.turn import alone
from tasklink_shm.layout import FORGET, MESSAGE, PARCEL, PARTS, SKIP, STREAM
from tasklink_shm.pool import ANNOUNCEMENT, PLACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasklink.communicator import Communicator

_NO_KIND = 99
_TOO_LARGE = (1 << 32) - 1


class SharedMemorySubject(Subject):
    """Bytes below it are those of a message in pieces; beside them stand records and announcements."""

    def inject(self, end: Any, data: bytes) -> None:
        """Put them into the ring as pieces of a message."""
        alone(end._large, None, end._outgoing.put, STREAM, 0, [data], None)

    def garbage(self) -> Mapping[str, Callable[[Communicator], None]]:
        """What a peer may scribble into the ring, and send over the socket, beside what is no frame."""
        records = {
            "a record of no kind": (_NO_KIND, 0, 100, b""),
            "a record that is larger than its ring": (MESSAGE, 0, _TOO_LARGE, b""),
            "a record that is no frame": (MESSAGE, 0, 99, b"\xff" * 99),
            "a record that skips to nowhere": (SKIP, 1, 0, b""),
            "parts without their lengths": (PARTS, 1000, 8, bytes(8)),
            "parts that are longer than their record": (PARTS, 2, 32, pack("<QQ", 1 << 63, 1 << 62)),
            "a parcel without its places": (PARCEL, 1000, 8, bytes(8)),
            "a buffer in a segment that nobody has announced": (PARCEL, 1, PLACE.size, PLACE.pack(7, 1, 0, 1000)),
            "a buffer in a slot that there is not": (PARCEL, 1, PLACE.size, PLACE.pack(7, 1000, 0, 1000)),
            "an unknown segment to forget": (FORGET, 1, 8, pack("<Q", 7)),
        }
        news = {
            "an announcement without a segment": b"?" * (ANNOUNCEMENT.size + 1),
            "half an announcement": b"?" * (ANNOUNCEMENT.size - 1),
        }
        return {
            **super().garbage(),
            **{name: partial(_scribble, record=record) for name, record in records.items()},
            **{name: partial(_announce, data=data) for name, data in news.items()},
        }


def _scribble(end: Any, record: tuple[int, int, int, bytes]) -> None:
    """Put a record where the next one would be, and wake the reader."""
    kind, number, size, data = record
    memory, place = end._memory, end._outgoing.position
    memory.mapping[place + 8 : place + 8 + len(data)] = data
    memory.words[place >> 3] = size << 32 | number << 8 | kind
    end._bell.ring()


def _announce(end: Any, data: bytes) -> None:
    end._bell.line.send(data)
