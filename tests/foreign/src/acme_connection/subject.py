"""How the communicator is checked by `tasklink.testing`: what the kit cannot know."""

from __future__ import annotations

import os
from typing import Any

from tasklink.testing import Subject


class ConnectionSubject(Subject):
    """How bytes get below it, and what it does not bear."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.uninterruptible = "its threads share a threading.Condition, whose lock an exception may leave taken"

    def inject(self, end: Any, data: bytes) -> None:
        """Write to its socket when its own thread has sent what was queued before."""
        end.flush()
        os.write(end._end.fileno(), data)

    def below(self, frame: bytes) -> bytes:
        """Give a block: its length as a Connection writes it, what it is, and the frame."""
        block = b"W" + frame
        return len(block).to_bytes(4, "big") + block
