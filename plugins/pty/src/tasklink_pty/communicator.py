"""The pty communicator: reads what programs print on a terminal. It has no Task side.

A Task, or any program, that asks finds a terminal: it writes line by line, with colours, as wide as the settings say.
What there is to know of its other end is in `listener`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar

from tasklink.output import OutputCommunicator

if TYPE_CHECKING:
    from tasklink.communicator import Listener
    from tasklink.message import Message
    from tasklink_pty.settings import PtySettings

# What is used up now may be there when it is needed.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})


class PtyCommunicator(OutputCommunicator):
    """Reads what a Task prints, through one pseudo-terminal or two. It carries no messages.

    Output ends when nobody has the terminal any more. The kernel tells that by the error EIO, with which nothing is
    lost: all that was printed is read before.
    """

    api: ClassVar[int] = 1
    settings: ClassVar[str] = "tasklink_pty.settings:PtySettings"

    @classmethod
    def unavailable(cls) -> str | None:
        """Say why there are no pseudo-terminals here; see `Communicator.unavailable`."""
        try:
            ends = os.openpty()
        except OSError as error:
            if error.errno in _PASSING:
                return None
            return (
                f"the system gives no pseudo-terminal ({error.strerror}); in a container or a chroot, have devpts "
                "mounted at /dev/pts and /dev/ptmx there"
            )
        for end in ends:
            os.close(end)
        return None

    @classmethod
    def listen(cls, settings: PtySettings) -> Listener:
        """Make the terminals; see `Communicator.listen`."""
        from tasklink_pty.listener import PtyListener  # noqa: PLC0415 - which imports this module

        return PtyListener(settings)

    def _next(self, deadline: float | None) -> Message:
        """Wait for output.

        Linux carries what is printed from one end of a terminal to the other in a thread of its own, and only then
        says that there is something to read. A read waits for that. So before the answer is that nothing has come,
        everything was asked by reading: of a Task that was killed the last word counts.
        """
        try:
            return super()._next(deadline)
        except TimeoutError:
            self._ready = list(self._streams)
            return super()._next(deadline)
