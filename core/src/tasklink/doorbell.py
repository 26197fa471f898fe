"""A descriptor that one thread makes readable to wake another one.

An eventfd where the system has it (one descriptor, no buffer to fill up), else a pipe.
"""

from __future__ import annotations

import os


class Doorbell:
    """Readable from `ring` to `clear`, however often it was rung."""

    __slots__ = ("_reader", "_writer")

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._reader

    def ring(self) -> None:
        """Make the descriptor readable."""
        try:
            os.write(self._writer, (1).to_bytes(8, "little"))
        except BlockingIOError:
            pass  # it has been rung so often that it holds no more: readable it is

    def clear(self) -> None:
        """Make the descriptor unreadable until the next `ring`."""
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass  # nobody has rung

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)
