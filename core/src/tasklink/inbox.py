"""The messages of a run, for those who are interested: kept for its result, and given to whoever follows it live."""

from __future__ import annotations

import threading
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasklink.message import Message


class Inbox:
    """Takes messages from one thread, and gives them to any number of others.

    Args:
        keep: whether to remember them all; if not, a follower gets those that come after it began.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._kept: list[Message] = []
        self._count = 0
        # By weak reference: nothing is put aside for a follower that nobody asks any more. In a list, since a WeakSet
        # takes longer to be found empty than all the rest of `put`.
        self._followers: list[weakref.ref[SimpleQueue[Message | None]]] = []
        self._over = False
        self._lock = threading.Lock()

    def put(self, message: Message) -> None:
        """Take in a message."""
        with self._lock:
            self._count += 1
            if self._keep:
                self._kept.append(message)
            self._give(message)

    def close(self) -> None:
        """Say that no more will come."""
        with self._lock:
            self._over = True
            self._give(None)
            self._followers.clear()

    def follow(self) -> Iterator[Message]:
        """Give every message as it comes, the kept ones first; ends with the run."""
        follower: SimpleQueue[Message | None] = SimpleQueue()
        with self._lock:
            for message in self._kept:
                follower.put(message)
            if self._over:
                follower.put(None)
            else:
                self._followers = [reference for reference in self._followers if reference() is not None]
                self._followers.append(weakref.ref(follower))
        return iter(follower.get, None)

    def _give(self, message: Message | None) -> None:
        for reference in self._followers:
            follower = reference()
            if follower is not None:
                follower.put(message)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages that were kept, in order."""
        return tuple(self._kept)

    @property
    def count(self) -> int:
        """How many messages came."""
        return self._count
