"""The Task's standard output and error, as bytes.

Rules of this file: output is bytes. Nothing here looks into them, so nothing in them can hurt: no line is too long, no
character wrong, and a text that looks like a message is a text. Both streams are read whenever there is something to
read, from the start of the process to its end, so a Task never waits for somebody to read what it prints.

The Executor's side only.
"""

from __future__ import annotations

import fcntl
import os
import selectors
from _thread import RLock
from collections import deque
from io import FileIO
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tasklink import vocabulary
from tasklink.codec import RAW
from tasklink.communicator import Address, Capabilities, Communicator, FramedCommunicator, Listener
from tasklink.doorbell import Doorbell
from tasklink.errors import ClosedError, CommunicatorError, EndOfMessages
from tasklink.message import Message
from tasklink.turn import alone, deadline_of, is_mine, rest_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tasklink.communicator import Buffer

_SIGNALS = {1: vocabulary.STDOUT, 2: vocabulary.STDERR}
# Much more at once would not stay in the processor's cache; much less takes longer to hand on than to read.
_READ_BYTES = 1 << 18
_SMALLEST_PIPE = 4096

_LONGEST_WAIT = 86_400.0  # seconds; epoll(7) counts milliseconds in a C int

TAIL_BYTES = 1 << 20
"""How much of each stream's end a result holds, in bytes."""
# What comes in small portions is kept in chunks of up to this size.
_JOINED_BYTES = 1 << 15


class OutputListener(Listener):
    """Makes a pipe for each stream of the Task that is to be captured.

    Args:
        streams: which of the Task's descriptors: 1, 2 or both.
        capacity: how much each pipe holds before the Task waits (bytes), as far as the system allows.
    """

    def __init__(self, streams: tuple[int, ...] = (1, 2), capacity: int = _READ_BYTES) -> None:
        self.address = Address()
        self.output = self
        self._readers: dict[int, int] = {}
        self._writers: dict[int, int] = {}
        try:
            for stream in streams:
                self._readers[stream], self._writers[stream] = os.pipe()
                set_capacity(self._readers[stream], capacity)
        except OSError:
            self.close()
            raise

    @property
    def standard_descriptors(self) -> Mapping[int, int]:
        """The writing ends, by the descriptor of the Task that each becomes."""
        return self._writers

    def accept(self, timeout: float | None = None) -> OutputCommunicator:
        """Give the reading ends away, and close the writing ends: the Task has its own now."""
        if not self._readers:
            raise ClosedError("this Listener was closed, or its output has been accepted")
        _close_all(self._writers)
        readers, self._readers = self._readers, {}
        return OutputCommunicator({reader: _SIGNALS[stream] for stream, reader in readers.items()})

    def close(self) -> None:
        """Close what was not given away."""
        _close_all(self._writers)
        _close_all(self._readers)


class OutputCommunicator(FramedCommunicator):
    """Reads what a Task prints. It carries no messages.

    Args:
        streams: by descriptor, which it owns from now on: the signal that its bytes arrive under.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(captures_output=True, carries_messages=False)
    settings: ClassVar[str] = ""

    def __init__(self, streams: Mapping[int, str]) -> None:
        self._streams = dict(streams)
        self._ready: list[int] = []  # in turn, so that a flood on one does not keep the other one waiting
        self._reading = RLock()
        self._bell = Doorbell()
        self._rung = False  # by `shut`, which does not need it any more
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        for descriptor in streams:
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        super().__init__()

    @classmethod
    def listen(cls, settings: Any) -> Listener:
        """Make the pipes; see `Communicator.listen`."""
        return OutputListener()

    @classmethod
    def connect(cls, address: Address) -> Communicator:
        """Refuse: a Task prints, it does not connect to its output.

        Raises:
            CommunicatorError: always.
        """
        raise CommunicatorError("captured output carries no messages; add a communicator that does")

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Refuse: output comes from the Task only.

        Raises:
            CommunicatorError: always.
        """
        raise CommunicatorError("captured output carries no messages; add a communicator that does")

    def receive(self, timeout: float | None) -> Message:
        """Wait for output of either stream; see `FramedCommunicator.receive`."""
        deadline = deadline_of(timeout)
        try:
            return alone(self._reading, deadline, self._next, deadline)
        finally:
            if self._rung:
                self._release()

    def _next(self, deadline: float | None) -> Message:
        while self._streams:
            if not self._ready:
                self._ready = self._wait(deadline)
                self.check_usable()
            descriptor = self._ready.pop(0)
            data = _read(descriptor)
            if data:
                return Message.encoded(RAW, [data], self._streams[descriptor])
            if data is not None:
                self._forget(descriptor)
        self.check_usable()
        raise EndOfMessages

    def _wait(self, deadline: float | None) -> list[int]:
        """Wait until there is output; none where `close` was called.

        Raises:
            TimeoutError: the deadline has passed.
        """
        while True:
            rest = rest_of(deadline)
            ready = self._selector.select(None if rest is None else min(max(0.0, rest), _LONGEST_WAIT))
            if ready:
                return [key.fd for key, _ in ready if key.fd in self._streams]
            if rest is not None and rest <= 0:
                raise TimeoutError("the Task printed nothing in time")

    def fileno(self) -> int:
        """Readable while either stream is; see `Communicator.fileno`."""
        self.check_usable()
        return self._selector.fileno()

    def shut(self) -> None:
        """Wake who reads, then let go: a program that still prints gets EPIPE; see `FramedCommunicator.shut`."""
        if self.forked:  # who has the lock does not exist here
            self._let_go()
            return
        self._bell.ring()
        self._rung = True
        self._release()

    def _release(self) -> None:
        # A signal handler that closes cannot wait for the `read` that it interrupted; that one comes by on its way out.
        if not is_mine(self._reading):
            alone(self._reading, None, self._let_go)

    def _let_go(self) -> None:
        # Nothing is taken out of the selector, which a fork shares with its parent.
        while self._streams:
            os.close(self._streams.popitem()[0])
        if self._selector.get_map() is not None:
            self._selector.close()
            self._bell.close()

    def _forget(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        del self._streams[descriptor]
        os.close(descriptor)


def set_capacity(pipe: int, capacity: int) -> None:
    """Let a pipe hold as much as the system allows, up to `capacity` bytes.

    A user past /proc/sys/fs/pipe-user-pages-soft, or asking for more than pipe-max-size, is refused with EPERM.
    """
    command = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux only
    while command is not None and capacity >= _SMALLEST_PIPE:
        try:
            fcntl.fcntl(pipe, command, capacity)
        except PermissionError:
            capacity //= 2
        else:
            return


class OutputKeeper:
    """Keeps the end of a stream, and writes all of it to a file if there is one.

    A context manager: the file is open within it.

    Args:
        path: the file, made anew; None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._chunks: deque[bytes | bytearray] = deque()
        self._size = 0  # of all chunks

    def keep(self, data: bytes) -> None:
        """Take in what was printed.

        Raises:
            OSError: the file cannot be written.
        """
        last = self._chunks[-1] if self._chunks else b""
        if isinstance(last, bytearray) and len(last) + len(data) <= _JOINED_BYTES:
            last += data
        else:  # a large chunk is kept as it is: to copy all that is printed would take as long as to read it
            self._chunks.append(data if len(data) > _JOINED_BYTES // 2 else bytearray(data))
        self._size += len(data)
        while self._size - len(self._chunks[0]) >= TAIL_BYTES:
            self._size -= len(self._chunks.popleft())
        rest = memoryview(data)
        while self._file is not None and rest:
            rest = rest[self._file.write(rest) :]

    @property
    def tail(self) -> bytes:
        """The last of the stream, at most `TAIL_BYTES`."""
        return b"".join(self._chunks)[-TAIL_BYTES:]

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = FileIO(os.fspath(self._path), "w", opener=_open_to_append)  # as text, for the error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _open_to_append(path: str, flags: int) -> int:
    """Both streams may go to one file: each writes behind what the other one has written."""
    return os.open(path, flags | os.O_APPEND, 0o666)


def _read(descriptor: int) -> bytes | None:
    """Read what is there: nothing at the end, None if it was a false alarm."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        # A pseudo-terminal says EIO when its last user has gone; there is nothing more to read in any case.
        return b""


def _close_all(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
