"""The pair within one process as a subject: it shows what a check asks for apart from bytes, kernels and processes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from tasklink.memory import MemoryCommunicator
from tasklink.testing.check import Skipped
from tasklink.testing.subject import Pair, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasklink.communicator import Communicator

_CAPACITY = 1 << 20


@attrs.define(eq=False)
class MemorySubject(Subject):
    """A `MemoryCommunicator`, which has no Listener: both ends are made at once."""

    kind: type[Communicator] = MemoryCommunicator
    settings: Any = None
    one_process: str = "it lives within one process"

    def inject(self, end: Communicator, data: bytes) -> None:
        """Refuse: messages are handed over, and there is nothing below them.

        Raises:
            Skipped: always.
        """
        raise Skipped("its messages are handed over within one process: there are no bytes below it")

    @contextmanager
    def pair(self) -> Iterator[Pair]:
        """Make both ends; closed at the end."""
        pair = Pair(*MemoryCommunicator.pair(_CAPACITY))
        try:
            yield pair
        finally:
            self.close(*pair)

    def shares_output(self) -> bool:
        """There is no Task that prints."""
        return False
