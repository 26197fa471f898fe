"""faster-fifo: a ring in shared memory each way."""

from collections import deque

from tasklink.bench.item import NotAvailableError
from tests.benchmarks.peers.standard import Spawned

_LARGEST = 256 << 20
_SECONDS = 60.0


class Fifo(Spawned):
    """Its queue, read many at a time."""

    requires = ("faster_fifo",)

    def __init__(self, outgoing, incoming):
        import faster_fifo_reduction  # noqa: F401 - it teaches multiprocessing how to hand a queue over

        self._outgoing, self._incoming = outgoing, incoming
        self._arrived = deque()

    @classmethod
    def ends(cls, context, largest):
        """Two queues, each of them large enough for two messages."""
        import faster_fifo
        import faster_fifo_reduction  # noqa: F401 - as above

        if largest > _LARGEST:
            raise NotAvailableError("a queue of that size takes too long to make")
        there, back = (faster_fifo.Queue(max_size_bytes=max(1_000_000, 2 * largest + 4096)) for _ in range(2))
        return (there, back), (back, there)

    def write(self, contents):
        """Put it."""
        self._outgoing.put(contents, timeout=_SECONDS)

    def read(self):
        """Take the next of those that have come."""
        if not self._arrived:
            self._arrived.extend(self._incoming.get_many(timeout=_SECONDS))
        return self._arrived.popleft()
