"""Both ends of the connection communicator. Part of the Task side: standard library only, Python 3.9.

A `multiprocessing.connection.Connection` moves blocks of bytes, and waits for as long as it takes. So each end has two
threads: one sends what is queued, the other one receives, and rings a bell. Whoever writes or reads waits for these
threads, with a time-out of its own. The blocks, by their first byte:

    WHOLE   a message, as a Packer makes it
    BEGIN   a message comes in parts: how many bytes it has
    PART    the next bytes of it
    DROP    the rest of it will not come
    SOON    the next block is a long one

Messages up to QUEUED_BYTES are copied and queued. Larger ones are sent part by part from where they are, while their
writer waits, and the queue goes on between two parts.

SOON tells the death of a peer that came to send the length of a block, and no more of it, from its orderly end: a
Connection reports both as EOFError. Blocks up to TOGETHER_BYTES it sends with their length, in one go.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
import threading
import time
import warnings
from collections import deque
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

from tasklink.communicator import Address, Capabilities, Communicator, Packer
from tasklink.errors import AuthenticationError, BrokenError, ClosedError, EndOfMessages, ForkedError, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, Union

    from acme_connection.settings import ConnectionSettings
    from tasklink.communicator import Listener
    from tasklink.message import Message

    Buffer = Union[bytes, bytearray, memoryview]

WHOLE, BEGIN, PART, DROP, SOON = b"W", b"B", b"P", b"D", b"S"

TOGETHER_BYTES = 16384
QUEUED_BYTES = PART_BYTES = 256 << 10
LARGEST_BLOCK = 1 << 20

_END_SECONDS = 5.0  # within which a thread ends that was woken

_SIZE = struct.Struct("<Q")


class ConnectionCommunicator(Communicator):
    """Messages over a connection of multiprocessing.

    Args:
        end: one of a pair of sockets; owned from now on.
        room: how many bytes wait in each queue before a writer does.
        linger: how many seconds `close` waits for a peer that does not read.
    """

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(delivery="flush", survives_launcher=True)
    settings: ClassVar[str] = "acme_connection.settings:ConnectionSettings"
    subject: ClassVar[str] = "acme_connection.subject:ConnectionSubject"

    def __init__(self, end: socket.socket, room: int, linger: float) -> None:
        self._process = os.getpid()
        self._room = room
        self._linger = linger
        self._packer = Packer(self.capabilities.max_message)
        self._end = end
        self._connection: Connection[Any, Any] = Connection(os.dup(end.fileno()))
        self._pipe: tuple[int, ...] = os.pipe()
        self._bell, self._ringer = self._pipe
        self._closed = False
        self._closers = count()
        self._gone: BaseException | None = None  # why nothing can be written any more
        self._last: Exception | None = None  # what `read` raises when everything was given
        self._changed = threading.Condition()  # for all that follows
        self._queue: deque[bytes] = deque()  # a block for each message
        self._queued_bytes = 0
        self._queued = self._sent = 0  # messages, since the beginning
        self._large: deque[_Large] = deque()
        self._turn_of_large = False
        self._idle = False  # nothing is being sent
        self._inbox: deque[tuple[Message, int]] = deque()
        self._inbox_bytes = 0
        names = {"send": self._send, "receive": self._receive}
        self._threads = [
            threading.Thread(target=target, name=f"acme {name}", daemon=True) for name, target in names.items()
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def listen(cls, settings: ConnectionSettings) -> Listener:
        """Make a pair of sockets, or a door; see `Communicator.listen`."""
        if settings.named:
            from acme_connection.door import DoorListener

            return DoorListener(settings)
        from acme_connection.listener import ConnectionListener

        return ConnectionListener(settings)

    @classmethod
    def connect(cls, address: Address) -> ConnectionCommunicator:
        """Take over the inherited socket, or go to the door; see `Communicator.connect`."""
        details = address.details
        room, linger = int(str(details["room"])), float(str(details["linger"]))
        if "door" in details:
            return cls(_knock(str(details["door"]), address.key, float(str(details["patience"]))), room, linger)
        (descriptor,) = address.descriptors
        os.set_inheritable(descriptor, False)
        try:
            end = socket.socket(fileno=descriptor)
        except OSError as error:
            raise BrokenError(f"descriptor {descriptor} is no socket of an Executor: {error}") from error
        return cls(end, room, linger)

    # Writing

    def write(self, message: Message, timeout: float | None = None) -> None:
        """Queue a message, or send it in parts; see `Communicator.write`."""
        self._check()
        buffers = self._packer.pack(message)
        size = sum(map(len, buffers))
        deadline = None if timeout is None else time.monotonic() + timeout
        if size > QUEUED_BYTES:
            self._write_large(_Large(buffers, size), deadline)
            return
        block = b"".join((WHOLE, *buffers))
        with self._changed:
            self._wait(lambda: not self._queue or self._queued_bytes + size <= self._room, deadline)
            self._check_writable()
            self._queue.append(block)
            self._queued += 1
            self._queued_bytes += size
            self._changed.notify_all()

    def _write_large(self, large: _Large, deadline: float | None) -> None:
        with self._changed:
            self._check_writable()
            large.after = self._queued
            self._large.append(large)
            self._changed.notify_all()
            try:
                self._wait(lambda: large.done, deadline)
                if not large.done:
                    self._check_writable()
            finally:
                if not large.done:
                    large.give_up()
                    if not large.begun and large in self._large:
                        self._large.remove(large)
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until the peer's system has all of it; see `Communicator.flush`."""
        self._check()
        with self._changed:
            self._wait(self._has_sent_all, time.monotonic() + self._linger)
            self._check_writable()

    def _has_sent_all(self) -> bool:
        return self._idle and not self._queue and not self._large

    def _wait(self, ready: Callable[[], bool], deadline: float | None) -> None:
        """Wait until something is so, or this end is of no more use."""
        rest = None if deadline is None else min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
        if not self._changed.wait_for(lambda: ready() or self._closed or self._gone is not None, rest):
            raise TimeoutError("the peer did not take the message in time")

    def _check_writable(self) -> None:
        self._check()
        if self._gone is not None:
            raise BrokenError("the peer is gone") from self._gone

    # Reading

    def read(self, timeout: float | None = None) -> Message:
        """Take the next message that has come; see `Communicator.read`."""
        self._check()
        wait = None if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        with self._changed:
            if not self._changed.wait_for(lambda: self._inbox or self._last is not None or self._closed, wait):
                raise TimeoutError("no message came in time")
            self._check()
            if not self._inbox:
                assert self._last is not None
                raise type(self._last)(*self._last.args)
            message, size = self._inbox.popleft()
            self._inbox_bytes -= size
            if not self._inbox and self._last is None:
                os.read(self._bell, 1)
            self._changed.notify_all()
            return message

    def fileno(self) -> int:
        """A pipe with a byte in it while there is something to read; see `Communicator.fileno`."""
        self._check()
        return self._bell

    # The thread that sends

    def _send(self) -> None:
        try:
            while block := self._take():
                if len(block) > TOGETHER_BYTES:
                    self._connection.send_bytes(SOON)
                self._connection.send_bytes(block)
            self._end.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)

    def _take(self) -> bytes:
        """Wait for what is to be sent next; nothing when this end was closed, and all was sent."""
        with self._changed:
            while True:
                # It must not overtake what its writer had queued before; apart from that, it and the queue take turns.
                large = self._large[0] if self._large and self._large[0].after <= self._sent else None
                if large is not None and (self._turn_of_large or not self._queue):
                    self._turn_of_large = False
                    block = large.next_block()
                    if large.done:
                        self._large.popleft()
                        self._changed.notify_all()
                    return block
                if self._queue:
                    self._turn_of_large = True
                    block = self._queue.popleft()
                    self._sent += 1
                    self._queued_bytes -= len(block) - len(WHOLE)
                    self._changed.notify_all()
                    return block
                if self._closed:
                    return b""
                self._idle = True
                self._changed.notify_all()
                self._changed.wait()
                self._idle = False

    def _lose(self, error: BaseException) -> None:
        with self._changed:
            self._gone = error
            self._queue.clear()
            self._large.clear()
            self._changed.notify_all()

    # The thread that receives

    def _receive(self) -> None:
        last: Exception
        try:
            for message, size in self._arriving():
                with self._changed:
                    self._changed.wait_for(lambda: self._inbox_bytes < self._room or self._closed)
                    if self._closed:
                        return
                    if not self._inbox:
                        self._ring()
                    self._inbox.append((message, size))
                    self._inbox_bytes += size
                    self._changed.notify_all()
        except ProtocolError as error:  # what goes the other way is not concerned
            last = error
        except (EndOfMessages, BrokenError) as error:
            last = error
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - no memory, a fault of ours: whoever reads is told, and waits no more
            last = BrokenError(f"nothing can be received any more: {error!r}")
            self._lose(error)
        with self._changed:
            self._last = last
            self._ring()
            self._changed.notify_all()

    def _ring(self) -> None:
        try:
            os.write(self._ringer, b"!")
        except OSError:
            pass  # somebody has closed all descriptors of this process; who waits in `read` is told all the same

    def _arriving(self) -> Iterator[tuple[Message, int]]:
        """Each message that comes, and how large it is.

        Raises:
            EndOfMessages, BrokenError, ProtocolError: as `read`.
        """
        parts: bytearray | None = None
        size = 0
        soon = False
        while True:
            block = self._next_block(within=soon or parts is not None)
            kind, rest = block[:1], memoryview(block)[1:]
            soon = kind == SOON
            if kind == WHOLE:
                yield Packer.unpack(rest), len(rest)
            elif kind == BEGIN and len(rest) == _SIZE.size:
                parts = bytearray()
                (size,) = _SIZE.unpack(rest)
            elif kind == PART and parts is not None and len(parts) + len(rest) <= size:
                parts += rest
                if len(parts) == size:
                    yield Packer.unpack(parts), size
                    parts = None
            elif kind == DROP:
                parts = None
            elif not soon:
                raise ProtocolError(f"a block of {len(block)} bytes begins with {kind!r}, and has no place there")

    def _next_block(self, *, within: bool) -> bytes:
        try:
            return self._connection.recv_bytes(LARGEST_BLOCK)
        except (EOFError, ConnectionResetError):
            if within:
                raise BrokenError("the peer ended within a message") from None
            raise EndOfMessages from None
        except OSError as error:
            if not self._connection.readable:  # which is how it says that a length is too large
                raise ProtocolError(f"what came is no block of ours: {error}") from error
            raise BrokenError(f"the peer ended within a block: {error}") from error

    # The end

    def close(self) -> None:
        """Send what is queued, as long as the peer takes it; see `Communicator.close`."""
        if os.getpid() != self._process:  # the threads are the parent's, and whoever has the lock
            self._let_go()
            return
        # Whoever is second leaves it to the first, a signal handler too that has interrupted that one: it would
        # wait for a thread that waits for the lock which is held below.
        if next(self._closers):
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        sending, receiving = self._threads
        sending.join(self._linger)
        late = sending.is_alive()
        hang_up(self._end)  # which wakes both threads
        for thread in (sending, receiving):
            thread.join(_END_SECONDS)  # who closes all descriptors of a process leaves nothing to wake them by
        self._let_go()
        if late:
            text = f"the peer has not taken all that was written within {self._linger:g} s (connection.linger)"
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _let_go(self) -> None:
        self._closed = True
        closing: list[Callable[[], object]] = [self._connection.close, self._end.close]
        closing += [partial(os.close, end) for end in self._pipe]
        self._pipe = ()
        for close in closing:
            try:
                close()
            except OSError:
                pass  # it has been closed so

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise ForkedError(f"this {type(self).__name__} belongs to process {self._process}, not to this fork of it")
        if self._closed:
            raise ClosedError(f"this {type(self).__name__} was closed")


class _Large:
    """A message that is sent in parts, while its writer waits.

    Attributes:
        after: how many messages of the queue go first.
        begun: a part of it is under way.
        done: all of it was copied, to be sent.
    """

    def __init__(self, buffers: list[Buffer], size: int) -> None:
        self.after = 0
        self.begun = False
        self.done = False
        self._parts = _cut(buffers)
        self._next = BEGIN + _SIZE.pack(size)

    def next_block(self) -> bytes:
        """Give the next part, and copy the one behind it."""
        self.begun = True
        block = self._next
        self._next = next(self._parts, b"")
        self.done = not self._next
        return block

    def give_up(self) -> None:
        """Let go of its memory; what is left is to say so to the peer."""
        self._parts = iter(())
        self._next = DROP


def _cut(buffers: list[Buffer]) -> Iterator[bytes]:
    part = bytearray(PART)
    for buffer in buffers:
        rest = memoryview(buffer)
        while rest:
            room = PART_BYTES - len(part)
            part += rest[:room]
            rest = rest[room:]
            if len(part) == PART_BYTES:
                yield bytes(part)
                part = bytearray(PART)
    if len(part) > len(PART):
        yield bytes(part)


def hang_up(end: socket.socket) -> None:
    """End both directions, so that whoever waits for them is woken."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was faster


def _knock(door: str, key: bytes, patience: float) -> socket.socket:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.settimeout(patience)
        end.connect(door)
        end.settimeout(None)
        prove(end, key, patience, first=True)
    except TimeoutError:
        end.close()
        raise TimeoutError(f"the Executor behind {door!r} has not answered within {patience:g} s") from None
    except (OSError, EOFError) as error:
        end.close()
        raise BrokenError(f"no Executor can be reached at {door!r}: {error!r}") from error
    except BaseException:
        end.close()
        raise
    return end


def prove(end: socket.socket, key: bytes, patience: float, *, first: bool) -> None:
    """Prove the key to the other side, and have it do so.

    Args:
        end: a socket that is connected.
        key: what both sides have.
        patience: how many seconds all of it may take.
        first: this side asks first.

    Raises:
        AuthenticationError: the other side has not got it.
        TimeoutError: it is silent.
        OSError, EOFError: it is gone, or says something else.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        hang_up(end)

    connection: Connection[Any, Any] = Connection(os.dup(end.fileno()))
    clock = threading.Timer(patience, give_up)
    clock.daemon = True
    clock.start()
    try:
        for step in (deliver_challenge, answer_challenge) if first else (answer_challenge, deliver_challenge):
            step(connection, key)
    except (multiprocessing.AuthenticationError, AssertionError, ValueError) as error:
        raise AuthenticationError(f"the other side has not got the key: {error}") from None
    except (OSError, EOFError):
        if late.is_set():
            raise TimeoutError("the other side is silent") from None
        raise
    finally:
        clock.cancel()
        clock.join()
        connection.close()
