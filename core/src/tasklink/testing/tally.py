"""Counts that survive who keeps them: what a Task has done, until the very moment of its death.

They are in a file that is mapped by both sides. Whoever is killed leaves them as they were after its last instruction:
nothing has to be sent or flushed. Standard library only, and light: Tasks keep them.
"""

from __future__ import annotations

import mmap
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_WORD = 8


def _word(number: int, text: str) -> Any:
    def get(self: Tally) -> int:
        return self.words[number]

    def put(self: Tally, value: int) -> None:
        self.words[number] = value

    return property(get, put, doc=text)


class Tally:
    """What a Task has done.

    Args:
        descriptor: of the file, at least `Tally.SIZE` bytes, zero at first; it may be closed afterwards.
    """

    begun: int = _word(0, "1 as soon as the Task runs.")
    accepted: int = _word(1, "How many messages were accepted: the call that sends one has returned.")
    flushed: int = _word(2, "How many of them were flushed: the channel was closed, and that has returned.")
    printed: int = _word(3, "How many lines were printed.")
    died: int = _word(4, "When the Task began to end, in ns of the monotonic clock; 0: it has not.")
    SIZE = 5 * _WORD

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)
        self.words = memoryview(self._memory).cast("Q")

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Tally:
        """Go on with the counts in a file that `fresh_tally` has made."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the memory; whatever maps it as well still counts."""
        self.words.release()
        self._memory.close()


@contextmanager
def fresh_tally(path: str | os.PathLike[str]) -> Iterator[Tally]:
    """Begin new counts in a file; it is removed at the end."""
    with open(path, "xb") as file:  # noqa: PTH123 - pathlib takes 20 ms to import
        file.write(bytes(Tally.SIZE))
    tally = Tally.at(path)
    try:
        yield tally
    finally:
        tally.close()
        os.unlink(path)  # noqa: PTH108 - as above
