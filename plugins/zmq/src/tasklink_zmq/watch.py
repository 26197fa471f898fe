"""One descriptor that is readable when any of several is: what a communicator shows to whoever waits for it.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

import select
import sys
from select import POLLIN

_LONGEST_POLL = 1_000_000.0  # seconds; poll(2) counts milliseconds in a C int

if sys.platform == "darwin":

    class Watch:
        """A set of descriptors."""

        def __init__(self) -> None:
            self._queue = select.kqueue()

        def fileno(self) -> int:
            """Readable when any of them is."""
            return self._queue.fileno()

        def add(self, descriptor: int) -> None:
            """Take in another one."""
            self._queue.control([select.kevent(descriptor, select.KQ_FILTER_READ, select.KQ_EV_ADD)], 0)

        def drop(self, descriptor: int) -> None:
            """Leave one out from now on."""
            self._queue.control([select.kevent(descriptor, select.KQ_FILTER_READ, select.KQ_EV_DELETE)], 0)

        def wait(self, seconds: float | None) -> set[int]:
            """Wait until some are readable, or hung up; gives them."""
            events = self._queue.control(None, 16, None if seconds is None else max(seconds, 0.0))
            return {event.ident for event in events}

        def close(self) -> None:
            """Release the descriptor."""
            self._queue.close()

else:

    class Watch:
        """A set of descriptors."""

        def __init__(self) -> None:
            self._epoll = select.epoll()

        def fileno(self) -> int:
            """Readable when any of them is."""
            return self._epoll.fileno()

        def add(self, descriptor: int) -> None:
            """Take in another one."""
            self._epoll.register(descriptor, select.EPOLLIN)

        def drop(self, descriptor: int) -> None:
            """Leave one out from now on."""
            self._epoll.unregister(descriptor)

        def wait(self, seconds: float | None) -> set[int]:
            """Wait until some are readable, or hung up; gives them."""
            events = self._epoll.poll(None if seconds is None else min(max(seconds, 0.0), _LONGEST_POLL))
            return {descriptor for descriptor, _ in events}

        def close(self) -> None:
            """Release the descriptor."""
            self._epoll.close()


def wait(descriptors: list[int], seconds: float | None) -> set[int]:
    """Wait until some of these are readable, or hung up; gives them."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, POLLIN)
    events = poll.poll(None if seconds is None else min(max(seconds, 0.0), _LONGEST_POLL) * 1000)
    return {descriptor for descriptor, _ in events}
