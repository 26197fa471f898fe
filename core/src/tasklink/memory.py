"""A pair of communicators within one process: for tests, and to run a Task's code without a process.

It has no bytes and no kernel below it, so it shows what the contract is apart from any protocol. What is written is
copied, because its writer may change it as soon as `write` has returned.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from tasklink import framing
from tasklink.communicator import Address, Capabilities, FramedCommunicator, Listener
from tasklink.doorbell import Doorbell
from tasklink.errors import BrokenError, ClosedError, EndOfMessages

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.framing import Buffer
    from tasklink.message import Message


class MemoryCommunicator(FramedCommunicator):
    """One end of a pair; made by `pair`."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    settings: ClassVar[str] = ""

    def __init__(self, outgoing: _Channel, incoming: _Channel) -> None:
        super().__init__()
        self._outgoing = outgoing
        self._incoming = incoming

    @classmethod
    def pair(cls, capacity: int = 64 << 20) -> tuple[MemoryCommunicator, MemoryCommunicator]:
        """Make two ends that talk to each other.

        Args:
            capacity: bytes that may wait in one direction before a writer has to.
        """
        there, back = _Channel(capacity), _Channel(capacity)
        return cls(there, back), cls(back, there)

    @classmethod
    def listen(cls, settings: object) -> Listener:
        """Refuse: there is no other process to wait for.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a MemoryCommunicator lives within one process; use MemoryCommunicator.pair()")

    @classmethod
    def connect(cls, address: Address) -> MemoryCommunicator:
        """Refuse: there is no other process to reach.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a MemoryCommunicator lives within one process; use MemoryCommunicator.pair()")

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Put a copy of the frame into the channel; see `FramedCommunicator.send`."""
        self._outgoing.put([bytearray(buffer) for buffer in buffers], timeout)

    def receive(self, timeout: float | None) -> Message:
        """Take a frame out of the channel; see `FramedCommunicator.receive`."""
        return framing.decode(self._incoming.get(timeout))

    def fileno(self) -> int:
        """Readable while the incoming channel holds something, or has ended."""
        self.check_usable()
        return self._incoming.bell.fileno()

    def shut(self) -> None:
        """End both directions; see `FramedCommunicator.shut`."""
        if self.forked:  # the bells ring in the parent too, and a lock may be held by a thread that does not exist here
            return
        self._outgoing.end_writing()
        self._incoming.end_reading()


class _Channel:
    """One direction: a queue of frames, bounded by its bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._frames: deque[list[Buffer]] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._writer_ended = False
        self._reader_ended = False
        self.bell = Doorbell()

    def put(self, frame: list[Buffer], timeout: float | None) -> None:
        size = sum(map(len, frame))
        with self._changed:
            # A frame larger than the capacity passes when it is alone.
            self._wait(lambda: not self._frames or self._waiting_bytes + size <= self._capacity, timeout)
            if self._writer_ended:
                raise ClosedError("this MemoryCommunicator was closed")
            if self._reader_ended:
                raise BrokenError("the peer has closed its end")
            self._frames.append(frame)
            self._waiting_bytes += size
            self.bell.ring()
            self._changed.notify_all()

    def get(self, timeout: float | None) -> list[Buffer]:
        with self._changed:
            self._wait(lambda: bool(self._frames), timeout)
            if self._reader_ended:
                raise ClosedError("this MemoryCommunicator was closed")
            if not self._frames:
                raise EndOfMessages
            frame = self._frames.popleft()
            self._waiting_bytes -= sum(map(len, frame))
            if not self._frames and not self._writer_ended:
                self.bell.clear()
            self._changed.notify_all()
            return frame

    def end_writing(self) -> None:
        with self._changed:
            self._writer_ended = True
            self.bell.ring()
            self._ended()

    def end_reading(self) -> None:
        with self._changed:
            self._reader_ended = True
            self._ended()

    def _ended(self) -> None:
        self._changed.notify_all()
        if self._writer_ended and self._reader_ended:
            self.bell.close()

    def _wait(self, ready: Callable[[], bool], timeout: float | None) -> None:
        wait = None if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        if not self._changed.wait_for(lambda: ready() or self._writer_ended or self._reader_ended, wait):
            raise TimeoutError("the peer was not ready in time")
