"""An observer that notes when and how much."""

from __future__ import annotations

from time import perf_counter

from tasklink.hooks import hookimpl


class Watch:
    """Notes what comes.

    Attributes:
        message_at: when the last message came.
        lines, bytes: how much output came.
    """

    def __init__(self) -> None:
        self.message_at = 0.0
        self.lines = 0
        self.bytes = 0

    @hookimpl
    def tasklink_message_received(self) -> None:
        """Note the time."""
        self.message_at = perf_counter()

    @hookimpl
    def tasklink_output_received(self, data: bytes) -> None:
        """Count."""
        self.lines += data.count(b"\n")
        self.bytes += len(data)
