"""The numbers of messages: what order they are in, and which of them are missing.

Every message gets a number when it is written, and says after which number it may be delivered (`after`): normally
the last one whose write had returned. So the reader restores the order whichever way each message came, while two
messages that were written at the same time do not wait for each other; and a cancel, which says 0, waits for nothing.

`after` stands for all numbers up to it, so while an old message is still being written, younger ones that were written
already cannot be named without it. Those that went the same way need not be named, because every communicator keeps
its order. For those that went another way it is: the order matters more than not to wait.

A message that was lost for good is waited for until its sender says so (`Ledger.give_up`), or nothing can come any
more (`Ledger.settle`). To conclude it from anything less, as that nothing comes while others do, would be to guess.

The reader trusts its peer with nothing but its contents. What waits for a missing message is bounded, and beyond the
bounds the order is given up rather than memory.

This module does no I/O. It is part of the Task side.
"""

from __future__ import annotations

from _thread import RLock

from tasklink.errors import BusyError, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from tasklink.message import Message

    Way = Hashable

# What waits for a missing message: as much as fast ones may bring while a slow one is at a large message.
HELD_MESSAGES = 1 << 16
HELD_BYTES = 64 << 20
# A sender that leaves out more than this does not number its messages, whatever it does.
MOST_GAPS = 1 << 18


class Before:
    """What had been written when a message was begun while others were under way.

    Args:
        all_up_to: every message up to this number.
        last_by_way: beyond that, the highest number for each communicator; a way stands for its communicator.
    """

    __slots__ = ("_all", "_last_by_way")

    def __init__(self, all_up_to: int, last_by_way: dict[Way, int]) -> None:
        self._all = all_up_to
        self._last_by_way = last_by_way

    def number_for(self, way: Way) -> int:
        """After which number the message may be delivered if it takes this way."""
        after = self._all
        for other, last in self._last_by_way.items():
            if last > after and other is not way:
                after = last
        return after


class Numbers:
    """The numbers of what is written, and which of them are under way. For any number of threads.

    A signal handler may raise between any two bytecodes. A number is drawn by one store, which says whose it is. Who
    draws calls `give_up` when anything is raised, and that asks whether it was.

    Attributes:
        gaps: numbers that nobody will use, of which the reader has not been told.
    """

    def __init__(self) -> None:
        self.gaps: list[int] = []
        self._lock = RLock()
        self._last = 0
        self._under_way: dict[int, Message | None] = {}  # None: it is a gap
        self._last_by_way: dict[Way, int] = {}  # the highest that has been written, for each

    def draw(self, message: Message) -> int | Before:
        """Give a message a new number; says after which one it may be delivered, a Before if that depends on the way.

        Raises:
            BusyError: a signal handler has interrupted this thread in here.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]  # what threading.Condition asks, too
            raise _busy()
        with self._lock:
            under_way = self._under_way
            message.sequence = number = self._last + 1
            before = Before(min(under_way) - 1, self._last_by_way.copy()) if under_way else number - 1
            under_way[number] = message  # now it is drawn, even if something is raised before the next line
            self._last = number
            return before

    def under_way(self, message: Message) -> bool:
        """Whether a message has a number that was not written with it."""
        return self._under_way.get(message.sequence) is message

    def written(self, message: Message, way: Way) -> None:
        """Take note that a message has been handed to a communicator."""
        number = message.sequence
        with self._lock:
            if number > self._last_by_way.get(way, 0):
                self._last_by_way[way] = number
            self._under_way.pop(number, None)

    def give_up(self, message: Message) -> None:
        """Make the number of a message a gap, if it is under way.

        It stays so until the reader has been told: nothing says that it comes after.
        """
        with self._lock:
            number = message.sequence
            if self._under_way.get(number) is message:  # else it was not drawn, and may be another's by now
                self._last = max(self._last, number)
                self.gaps.append(number)
                self._under_way[number] = None

    def take_gap(self, void: Message) -> bool:
        """Give one of the gaps to the message that tells the reader of it; False when there is none.

        Raises:
            BusyError: as `draw`.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]  # as above
            raise _busy()
        with self._lock:
            if not self.gaps:
                return False
            void.sequence = number = self.gaps[-1]
            self._under_way[number] = void
            self.gaps.pop()
            return True


def _busy() -> BusyError:
    return BusyError("a signal handler or a finalizer interrupted this thread in `write`; use another thread")


class Ledger:
    """What has come from one sender: restores the order, drops duplicates, knows what is missing.

    Attributes:
        last: the number of the last message, when it has been given. What comes after it, the Links say to each other.
        unacknowledged: how much has come since the sender was last told what had.
    """

    def __init__(self) -> None:
        self.last: int | None = None
        self.unacknowledged = 0
        self._next = 1  # one more than the highest number that has come
        self._gaps: list[tuple[int, int]] = []  # what has not come below it, in order: from, up to but without
        self._lost: list[tuple[int, int]] = []  # what the sender has said will not come, likewise; no gaps any more
        self._held: list[tuple[int, int, Message]] = []  # in the order of the numbers that they wait for
        self._held_bytes = 0

    @property
    def holds(self) -> bool:
        """Whether a message waits for one that is missing."""
        return bool(self._held)

    @property
    def complete(self) -> int:
        """Every message up to this number has come, or will not."""
        return self._gaps[0][0] - 1 if self._gaps else self._next - 1

    def enter(self, message: Message) -> bool:
        """Take note that a message has come; False when it had come before.

        Raises:
            ProtocolError: it is numbered as no Link numbers.
        """
        number = message.sequence
        if message.after >= number:
            raise ProtocolError(f"message {number} says that it comes after message {message.after}")
        if number < self._next:
            return self._fill(number)
        if number > self._next:
            if len(self._gaps) == MOST_GAPS:
                raise ProtocolError(f"message {number} came, and {MOST_GAPS} of those before it are missing")
            self._gaps.append((self._next, number))
        self._next = number + 1
        return True

    def hold(self, message: Message) -> list[Message]:
        """Keep a message that came too early; gives what is to be delivered because too much is kept."""
        from _bisect import insort_right  # noqa: PLC0415 - most links hold nothing

        insort_right(self._held, (message.after, message.sequence, message))
        self._held_bytes += message.nbytes
        if len(self._held) > HELD_MESSAGES or self._held_bytes > HELD_BYTES:
            return self.settle()
        return []

    def release(self, message: Message) -> list[Message]:
        """Give a message, and those that have waited for it."""
        return [message, *self._due()] if self._held else [message]

    def give_up(self, lost: Iterable[range]) -> list[Message]:
        """Wait no longer for what the sender says will not come; gives those that have waited for it."""
        for one in lost:
            if one.stop > self._next:
                self._gaps.append((self._next, one.stop))
                self._next = one.stop
            found = [(max(start, one.start), min(stop, one.stop)) for start, stop in self._gaps]
            found = [gap for gap in found if gap[0] < gap[1]]
            if len(self._lost) + len(found) > MOST_GAPS:
                break
            self._lost += found
            for start, stop in found:
                self._cut(self._gaps, start, stop)
        self._lost.sort()
        return self._due()

    def settle(self) -> list[Message]:
        """Give all that waits, in the order of its numbers."""
        held = sorted((message for _, _, message in self._held), key=lambda message: message.sequence)
        self._held.clear()
        self._held_bytes = 0
        return held

    def missing(self) -> list[range]:
        """The numbers that have not come, although a later one has, or the sender has said that they will not."""
        end = self._next if self.last is None else self.last
        return [range(start, min(stop, end)) for start, stop in sorted(self._gaps + self._lost) if start < end]

    def came(self, most_gaps: int) -> tuple[int, list[range]]:
        """Up to which number all has come but for some gaps: the number, and the gaps, which are so many at most."""
        highest = self._next - 1 if len(self._gaps) <= most_gaps else self._gaps[most_gaps][0] - 1
        return highest, [range(*gap) for gap in self._gaps[:most_gaps]]

    def _due(self) -> list[Message]:
        """Take those that have waited for nothing that is still to come."""
        from _bisect import bisect_right  # noqa: PLC0415 - as above

        count = bisect_right(self._held, (self.complete + 1,))
        released = [held for _, _, held in self._held[:count]]
        del self._held[:count]
        self._held_bytes -= sum(message.nbytes for message in released)
        return released

    def _fill(self, number: int) -> bool:
        return self._cut(self._gaps, number, number + 1) or self._cut(self._lost, number, number + 1)

    def _cut(self, gaps: list[tuple[int, int]], first: int, end: int) -> bool:
        """Take numbers out of the gap that they are in; False if they are in none."""
        from _bisect import bisect_right  # noqa: PLC0415 - as above

        index = bisect_right(gaps, (first, self._next)) - 1
        if index < 0 or first >= gaps[index][1]:
            return False
        start, stop = gaps[index]
        gaps[index : index + 1] = [gap for gap in ((start, first), (end, stop)) if gap[0] < gap[1]]
        return True


def spell(ranges: Iterable[range]) -> str:
    """Numbers as a text: `3-5 9-9`."""
    return " ".join(f"{one.start}-{one.stop - 1}" for one in ranges)


def numbers_in(text: str, most: int) -> list[range]:
    """The numbers of such a text; so many ranges at most, whatever it says.

    Raises:
        ValueError: it is none.
    """
    pairs = [one.partition("-") for one in text.split(maxsplit=most)[:most]]
    found = [range(_number(first), _number(last) + 1) for first, _, last in pairs]
    return [one for one in found if one]


def _number(text: str) -> int:
    if not (text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"{text[:_MOST_DIGITS]!r} is not the number of a message")
    return int(text)


_MOST_DIGITS = 20  # of 2**64
