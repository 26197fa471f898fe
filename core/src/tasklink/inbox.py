"""The messages of a run, for those who are interested: kept for its result, and given to whoever follows it live."""

from __future__ import annotations

import threading
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING

from tasklink.errors import LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasklink.message import Message

MESSAGE_BYTES = 512
"""What a message takes beside its contents: what it counts for more where a limit is set."""


class Inbox:
    """Takes messages from one thread, and gives them to any number of others.

    Args:
        keep: whether to remember them all; if not, a follower gets those that come after it began.
        most: how many bytes are kept, for all or for a follower that has not taken them yet, before no more is taken
            in; None for any number. It bounds memory at that and one message.
    """

    def __init__(self, *, keep: bool, most: int | None = None) -> None:
        self._keep = keep
        self._most = most
        self._kept: list[Message] = []
        self._kept_bytes = 0  # where there is a limit
        self._count = 0
        # By weak reference: nothing is put aside for a follower that nobody asks any more. In a list, since a WeakSet
        # takes longer to be found empty than all the rest of `put`.
        self._followers: list[weakref.ref[_Follower]] = []
        self._over = False
        self._lock = threading.Lock()

    def put(self, message: Message) -> None:
        """Take in a message.

        Raises:
            LimitExceededError: as many bytes as are allowed are kept, and nobody has taken them.
        """
        with self._lock:
            size = 0
            if self._most is not None:
                size = message.nbytes + MESSAGE_BYTES
                self._make_sure_of_room(self._most)
            self._count += 1
            if self._keep:
                self._kept.append(message)
                self._kept_bytes += size
            self._give(message, size)

    def close(self) -> None:
        """Say that no more will come."""
        with self._lock:
            self._over = True
            self._give(None, 0)
            self._followers.clear()

    def follow(self) -> Iterator[Message]:
        """Give every message as it comes, the kept ones first; ends with the run."""
        follower = _Follower()
        with self._lock:
            for message in self._kept:
                follower.put(message, 0)  # what is kept for all is counted as that
            if self._over:
                follower.put(None, 0)
            else:
                self._followers = [reference for reference in self._followers if reference() is not None]
                self._followers.append(weakref.ref(follower))
        return iter(follower.take, None)

    def _give(self, message: Message | None, size: int) -> None:
        for reference in self._followers:
            follower = reference()
            if follower is not None:
                follower.put(message, size)

    def _make_sure_of_room(self, most: int) -> None:
        followers = [follower for reference in self._followers if (follower := reference()) is not None]
        kept = max([self._kept_bytes, *(follower.waiting for follower in followers)])
        if kept >= most:
            raise LimitExceededError(
                f"{self._count} messages came, of which {kept} bytes are kept; the limit is {most}, `limits.kept` of "
                "the Task; keep_messages = false keeps none for the result"
            )

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages that were kept, in order."""
        return tuple(self._kept)

    @property
    def count(self) -> int:
        """How many messages came."""
        return self._count


class _Follower:
    """What one who follows has not taken yet.

    Attributes:
        waiting: how many bytes that is, where there is a limit.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._queue: SimpleQueue[tuple[Message | None, int]] = SimpleQueue()
        self._lock = threading.Lock()

    def put(self, message: Message | None, size: int) -> None:
        self._count(size)
        self._queue.put((message, size))

    def take(self) -> Message | None:
        message, size = self._queue.get()
        self._count(-size)
        return message

    def _count(self, change: int) -> None:
        if change:
            with self._lock:
                self.waiting += change
