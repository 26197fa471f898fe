"""A descriptor for selectors, readable when the peer has rung and at a time that was set.

An attentive reader is not woken: it looks twice in a millisecond. Who waits in a selector cannot do that, so a timer
does it. The Executor's side only.
"""

from __future__ import annotations

import select
from contextlib import ExitStack, closing

from tasklink.rendezvous.timer import Timer


class Watch:
    """Stands for a socket and a timer.

    Args:
        descriptor: of the socket; it stays its owner's.

    Raises:
        OSError: there is no descriptor left.
    """

    def __init__(self, descriptor: int) -> None:
        with ExitStack() as opened:
            self._epoll = opened.enter_context(closing(select.epoll(flags=select.EPOLL_CLOEXEC)))
            self._timer = opened.enter_context(closing(Timer()))
            self._epoll.register(descriptor, select.EPOLLIN)
            self._epoll.register(self._timer.fileno(), select.EPOLLIN)
            opened.pop_all()
        self._set = False

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._epoll.fileno()

    def set(self, seconds: float) -> None:
        """Make it readable in so many seconds; for as long not because of a time that was set before."""
        self._set = True
        self._timer.set(seconds)

    def clear(self) -> None:
        """Forget the time."""
        if self._set:
            self._set = False
            self._timer.clear()

    def close(self) -> None:
        """Release the descriptors."""
        self._epoll.close()
        self._timer.close()
