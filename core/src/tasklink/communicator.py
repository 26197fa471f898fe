"""The plugin API: what a protocol is to tasklink.

A plugin offers one class, a `Communicator`, under its name in the entry-point group `tasklink.communicators`. The same
class serves both ends: the Executor calls `listen`, hands the `Address` to the process of the Task, and `accept`s;
the Task calls `connect`. From then on both ends only `write` and `read`.

Whoever moves buffers rather than objects derives from `FramedCommunicator`, which turns messages into lists of buffers
and back; whoever has file descriptors from `tasklink.stream.StreamCommunicator`, which needs nothing more. Whoever
derives from neither has a `Packer` for that.

The contract, for both ends. `tasklink verify` and `tasklink.testing` prove it clause by clause, by these numbers:

 1. Writing.
    1.1  `write` returns when the message survives the death of this process (`delivery="write"`), or when it is queued
         (`delivery="flush"`).
    1.2  It blocks while the peer is slow, so memory stays bounded.
    1.3  It keeps its time-out.
    1.4  After a `TimeoutError` the channel goes on, and the message is delivered once or not at all: a part of it may
         have been under way.
    1.5  It does not change the message, whose contents may be changed as soon as it has returned.
    1.6  `flush` returns when all that was written survives the death of this process. It waits no longer than `close`
         would, and raises `TimeoutError` then.
 2. Reading.
    2.1  `read` gives the messages of one writing thread in the order in which they were written.
    2.2  It gives each of them once.
    2.3  It gives them whole, whatever they hold and however large they are.
    2.4  Signal, `codec`, `sequence`, `after` and rank arrive with them, and as `sent_ns` the time of the `write`. Who
         has no `sequence` (0) gets the next one of its end, from 1.
    2.5  It keeps its time-out; 0 takes what is there.
    2.6  A `TimeoutError` loses nothing: the next `read` goes on.
    2.7  What was read is the reader's own, and may be changed.
 3. The end of the peer.
    3.1  `read` raises `EndOfMessages` after the last message of a peer that closed, each time it is called.
    3.2  So it does when the peer ended between two messages, however it ended. With `crosses_hosts` it may raise
         `BrokenError` for one that did not close: nobody can tell it from a line that was cut.
    3.3  It raises `BrokenError` when the peer ended within a message.
    3.4  Messages that had arrived before are given first.
    3.5  `write` raises `BrokenError` when the peer is gone, also where it waits.
    3.6  What is not a message raises `ProtocolError`; where a Task's output comes the same way, when that has ended.
    3.7  Such a failure is one channel's own: others go on, and the next peer is served.
 4. Urgency.
    4.1  A small message written while another thread writes a large one does not wait for the whole of it.
 5. The descriptor.
    5.1  `fileno` is readable when `read` has work: a message, or the end.
    5.2  After it was readable, call `read(timeout=0)` until it raises `TimeoutError`: more messages may have come at
         once. What is there then shows in `fileno` again; until then it is not readable.
 6. Closing.
    6.1  `close` may be called from any thread, any number of times. After it every other call raises `ClosedError`.
    6.2  A thread that waits in `read` or `write` is woken and raises `ClosedError`.
    6.3  What was written before is delivered.
    6.4  It ends, whatever the peer does.
    6.5  It gives back descriptors, threads, processes and files.
 7. Threads and signal handlers.
    7.1  `write` may be called from any number of threads at once.
    7.2  So may `read`.
    7.3  The two directions do not wait for each other.
    7.4  A signal handler may interrupt any call, and make any: it works, or raises `BusyError` at once. After its
         `close` the interrupted call raises `ClosedError`, unless it need not wait any more.
    7.5  What a signal handler raises comes out of the call. The message of a `write` is then delivered once or not at
         all, and no other is the worse; a `read` may lose its message, and may raise `BrokenError` from then on.
 8. Forks.
    8.1  In a forked child every call but `close` raises `ForkedError`.
    8.2  There `close` leaves the parent's channel alone.
 9. Programs.
    9.1  Descriptors are not inherited by the programs that a Task starts.
10. Contents.
    10.1 A message that cannot be encoded raises `EncodeError`, nothing of it is sent, and the channel goes on.
    10.2 One that cannot be decoded is delivered, and raises `DecodeError` when its contents are asked for; the channel
         goes on.
    10.3 Nothing is decoded before its contents are asked for.
    10.4 What was read can be written again as it came, though it cannot be decoded here.
11. Meeting.
    11.1 The details of an `Address` are small and can be written as JSON; its key is shown nowhere.
    11.2 `connect` raises an error of its own in time when nobody listens, or the key is another one.
    11.3 Strangers and their garbage keep nobody out.
    11.4 `accept` keeps its time-out and goes on after it, also when a peer died on its way; after `close` it raises
         `ClosedError`.
    11.5 Closing the Listener gives back what it holds, and leaves the communicators alone that it gave.
    11.6 What a Listener makes in the file system is this user's alone.
12. Capabilities are promises: a yes is kept, a no is refused in good order.
    12.1 What is larger than `max_message` raises `MessageTooLargeError`, and nothing of it is sent.
    12.2 With `zero_copy`, a large buffer from `allocate` reaches the reader without being copied; without it, it
         arrives all the same.
    12.3 With `captures_output`, `Listener.output` gives what the Task prints, byte by byte; without it, it is None.
    12.4 With `survives_launcher` an `Address` needs no descriptors, by itself or with `without_descriptors` set.
    12.5 With `multi_peer` a Listener accepts several peers; without it, a second `accept` raises an error of tasklink.
    12.6 What captures output is read, closed and forked as what carries messages: it keeps time-outs, shows work and
         the end, and gives everything back. To write to it raises an error of tasklink.
    12.7 After `refuse_larger` a larger message of the peer raises `ProtocolError` before there is memory for it; or it
         is given like any other, where that cannot be told beforehand. What is not larger comes as ever, and what is
         written has no limit.
13. The class.
    13.1 It states `api`, `capabilities` and `settings`, and has every method with the parameters of this interface.
    13.2 Its module imports nothing of the Executor's side.

The Task side of a plugin (this module, and the one that defines the class) imports the standard library only, runs on
Python 3.9, and weighs every import: a Task starts in 15 ms. That is why locks come from `_thread` here.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock
from abc import ABC, abstractmethod
from collections import deque
from itertools import count
from time import time_ns

from tasklink import fork, framing
from tasklink.errors import ClosedError, ForkedError, MessageTooLargeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Any, ClassVar, Self, Union

    from tasklink.message import Message

    Buffer = Union[bytes, bytearray, memoryview]

API = 1


class Capabilities:
    """What a communicator can do, as data: read by the Link to choose a route, by `tasklink plugins`, by the docs.

    Attributes:
        captures_output: it drains the Task's standard output and error.
        carries_messages: messages can be written; False for one that only captures output.
        zero_copy: large buffers reach the reader without being copied.
        crosses_hosts: the two ends may be on different machines.
        survives_launcher: it can work when a launcher (ssh, srun, mpirun) stands between the Executor and the Task
            and passes no file descriptors on; it may need a setting for that.
        multi_peer: one Listener accepts several peers (ranks).
        delivery: `"write"` when a message is delivered once `write` has returned, and can be read at once; `"flush"`
            when once `flush` or `close` has, and may take a moment to be read.
        max_message: the largest payload, which is all buffers of the contents together, in bytes; None for no limit.
    """

    __slots__ = (
        "captures_output", "carries_messages", "crosses_hosts", "delivery",
        "max_message", "multi_peer", "survives_launcher", "zero_copy",
    )  # fmt: skip
    captures_output: bool
    carries_messages: bool
    crosses_hosts: bool
    delivery: str
    max_message: int | None
    multi_peer: bool
    survives_launcher: bool
    zero_copy: bool

    def __init__(
        self,
        *,
        captures_output: bool = False,
        carries_messages: bool = True,
        zero_copy: bool = False,
        crosses_hosts: bool = False,
        survives_launcher: bool = False,
        multi_peer: bool = False,
        delivery: str = "write",
        max_message: int | None = None,
    ) -> None:
        values = locals()
        if delivery not in ("write", "flush"):
            raise ValueError(f"delivery is 'write' or 'flush', not {delivery!r}")
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("capabilities are a promise: they do not change")

    def as_dict(self) -> dict[str, bool | str | int | None]:
        """Every capability by its name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items())
        return f"Capabilities({values})"


class Address:
    """What the Task side needs to reach a Listener.

    Attributes:
        details: what JSON can hold; may be seen by anyone.
        descriptors: file descriptors that the process of the Task inherits, under the same numbers. Who starts the
            Task hands them over, inheritable or not; the Listener closes them on its side, in `accept` or `close`. In
            the Task they are `connect`'s own, which makes them uninheritable.
        key: a one-shot secret; never shown, and handed over through an inherited descriptor only.
    """

    __slots__ = ("descriptors", "details", "key")

    def __init__(
        self, details: Mapping[str, object] | None = None, descriptors: Sequence[int] = (), key: bytes = b""
    ) -> None:
        self.details = dict(details or {})
        self.descriptors = tuple(descriptors)
        self.key = key

    def __repr__(self) -> str:
        key = "none" if not self.key else "hidden"
        return f"<Address {self.details}, descriptors {self.descriptors}, key {key}>"


class Communicator(ABC):
    """One end of a two-way channel for messages. The module's docstring is the contract.

    Attributes:
        api: the version of this contract that the class was written for.
        capabilities: what it can do.
        settings: `"module:Class"` of its settings, an attrs class that only the Executor's side loads.
        subject: `"module:Class"` of what knows how it is checked, a `tasklink.testing.Subject` that only the kit loads;
            empty where it is checked like any other.
    """

    api: ClassVar[int] = API
    capabilities: ClassVar[Capabilities]
    settings: ClassVar[str]
    subject: ClassVar[str] = ""

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this protocol cannot be used on this machine and what to do about it; None when it can."""
        return None

    @classmethod
    @abstractmethod
    def listen(cls, settings: Any) -> Listener:
        """Open the Executor's side, before the Task is started.

        Args:
            settings: an instance of the class that `settings` names.

        Raises:
            OSError: the system refuses what it takes (descriptors, memory, a directory).
        """

    @classmethod
    @abstractmethod
    def connect(cls, address: Address) -> Communicator:
        """Open the Task's side.

        Raises:
            BrokenError: nobody listens there.
            AuthenticationError: the listener is not the one that made the address.
            TimeoutError: the listener does not answer.
        """

    @abstractmethod
    def write(self, message: Message, timeout: float | None = None) -> None:
        """Send a message.

        Args:
            message: what to send; it is not changed, and its contents may be changed as soon as this has returned,
                unless they lie in memory of `allocate`.
            timeout: seconds to wait for a slow peer, any number of them: infinite, too, or below 0, which is as 0;
                None: as long as it takes.

        Raises:
            EncodeError: the contents cannot be turned into bytes.
            MessageTooLargeError: they are larger than `capabilities.max_message`.
            TimeoutError: the peer did not take the message in time.
            BrokenError: the peer is gone.
            ClosedError: `close` was called on this side.
            ForkedError: this process is a fork of the one that opened the communicator.
            BusyError: a signal handler has interrupted a `write` of this thread, and a second one cannot begin.
        """

    def allocate(self, nbytes: int) -> memoryview:
        """Give new memory for a buffer that is to be written; `zero_copy` communicators need not copy what is in it.

        Such memory is the reader's as soon as a message with it was written: it is not to be changed any more.

        Args:
            nbytes: how many bytes; their values are not defined.

        Raises:
            OSError, MemoryError: there is no memory.
            ClosedError, ForkedError: as `write`.
        """
        return memoryview(bytearray(nbytes))

    def refuse_larger(self, nbytes: int) -> None:  # noqa: B027 - see its text
        """Have `read` raise ProtocolError for a larger message of the peer, before it is memory here.

        The Link asks for it where a Task is not trusted, before anything was read, and refuses itself what comes all
        the same: a plugin that cannot tell beforehand need not have it. See clause 12.7.

        Args:
            nbytes: the largest payload, which is all buffers of the contents together.
        """

    @abstractmethod
    def read(self, timeout: float | None = None) -> Message:
        """Wait for a message.

        Args:
            timeout: seconds to wait, as for `write`; 0: take what is there; None: as long as it takes.

        Raises:
            EndOfMessages: the peer has finished.
            TimeoutError: no message came in time.
            BrokenError: the peer ended within a message.
            ProtocolError: what came is not a message.
            ClosedError: `close` was called on this side.
            ForkedError: this process is a fork of the one that opened the communicator.
            BusyError: as `write`, for `read`.
        """

    def flush(self) -> None:  # noqa: B027 - most deliver on write, and have nothing to wait for
        """Wait until what was written is delivered: nothing to do for who delivers on write.

        Raises:
            TimeoutError: the peer did not confirm it in as long as `close` would wait for that.
            BrokenError: the peer is gone, and has not confirmed it.
            ClosedError, ForkedError, BusyError: as `write`.
        """

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable when `read` has work.

        Raises:
            ClosedError: `close` was called on this side.
        """

    @abstractmethod
    def close(self) -> None:
        """Close this end. Nothing that was written is lost.

        With `delivery="flush"` that is so for a peer that reads. For one that does not, this waits no longer than the
        plugin says, and then warns (RuntimeWarning) of what was not delivered.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Listener(ABC):
    """The Executor's side until its peer has come.

    Attributes:
        address: what the peer needs.
        output: captures the Task's standard output and error, where the communicator does that: a Listener of its own,
            whose communicator gives captured bytes as messages with the signals `vocabulary.STDOUT` and `STDERR`. A
            Listener that does nothing else is its own output.
        directories: what it has made in the file system, and removes itself; the Executor's guardian does so when the
            Executor is killed before.
        preamble: what the Task's standard input begins with, where it is this Listener's (0 is among the
            `standard_descriptors`). It is set before the Task starts; `accept` writes it before anything else goes
            there, and has the communicator ready when all of it was taken.
        without_descriptors: what to set, as `"named = true"`, for an Address that needs no descriptors; empty where
            nothing helps.
    """

    address: Address
    output: Listener | None = None
    directories: tuple[Path, ...] = ()
    preamble: bytes = b""
    without_descriptors: str = ""

    @property
    def standard_descriptors(self) -> Mapping[int, int]:
        """Which descriptors become 0, 1 and 2 of the Task."""
        return {}

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that the Task is started with, unless its own `env` sets them."""
        return {}

    @abstractmethod
    def accept(self, timeout: float | None = None) -> Communicator:
        """Give the communicator to the peer; called when its process has been started.

        The descriptors that the peer inherited are closed on this side, so that its death can be noticed.

        Raises:
            TimeoutError: no peer has come in time; `fileno` tells when to ask again.
            ClosedError: `close` was called.
        """

    def fileno(self) -> int | None:
        """A descriptor that is readable when `accept` has work; None where `accept` never has to wait."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Stop listening, and remove what was made for it; may be called again. Accepted communicators live on."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Packer:
    """Messages to bytes and back, for one end of a Communicator that is no `FramedCommunicator`.

    Args:
        max_message: as in `Capabilities`.
    """

    def __init__(self, max_message: int | None = None) -> None:
        self._largest = max_message
        self._numbers = count(1)

    def pack(self, message: Message) -> list[Buffer]:
        """Do all that `write` owes a message before its first byte goes out: encode, check, number and date it.

        Returns:
            one or several buffers, which are the message when they are joined. Those behind the first one may be the
            memory of the contents themselves: they are to be sent, or copied, before `write` returns.

        Raises:
            EncodeError, MessageTooLargeError: as `Communicator.write`.
        """
        number, buffers = message.encode()
        size = sum(map(len, buffers))
        if self._largest is not None and size > self._largest:
            raise MessageTooLargeError(f"a message of {size} bytes; its communicator takes {self._largest}")
        sequence = message.sequence or next(self._numbers)
        return framing.encode(buffers, number, message.signal, sequence, message.after, time_ns(), message.rank)

    @staticmethod
    def unpack(data: Buffer) -> Message:
        """Make the message of its bytes, as `read` gives it. Its contents are not decoded.

        Args:
            data: the joined buffers. What can be changed becomes the memory of the contents; other memory is copied.

        Raises:
            ProtocolError: the bytes are no message.
        """
        memory = memoryview(data)
        return framing.decode_joined(memoryview(bytearray(memory)) if memory.readonly else memory)


class FramedCommunicator(Communicator):
    """A Communicator for transports that move lists of buffers.

    A plugin implements `send`, `receive`, `fileno` and `shut`. This class encodes and decodes, numbers messages that no
    Link has numbered, and refuses work after `close` or a fork.

    Attributes:
        arrived: messages that were received before they are asked for, where one look brings many: `read` takes them
            from here first, and without a lock.
    """

    def __init__(self) -> None:
        self.arrived: deque[Message] = deque()
        self._process = os.getpid()
        self._generation = fork.generation
        self._closed = False
        self._closing = allocate_lock()
        self._numbers = count(1)
        self._largest = self.capabilities.max_message

    @abstractmethod
    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Send one frame.

        Args:
            buffers: what `framing.encode` made, the head first; or one: what `send_small` gets.
            timeout: as `Communicator.write`.

        Raises:
            TimeoutError, BrokenError, ClosedError: as `Communicator.write`.
        """

    def send_small(self, frame: bytes, timeout: float | None) -> None:
        """Send a whole message that `framing.encode_plain` made. Most are; who has a shorter way for them overrides it.

        Args:
            frame: its bytes; the contents are up to `framing.SMALL_BYTES` of them.
            timeout: as `Communicator.write`.

        Raises:
            TimeoutError, BrokenError, ClosedError: as `Communicator.write`.
        """
        self.send([frame], timeout)

    @abstractmethod
    def receive(self, timeout: float | None) -> Message:
        """Wait for one frame: what `framing.decode` makes of the buffers that were sent.

        Raises:
            EndOfMessages, TimeoutError, BrokenError, ProtocolError, ClosedError: as `Communicator.read`.
        """

    @abstractmethod
    def shut(self) -> None:
        """Release the transport; called once. In a forked child it must not end the parent's channel."""

    def leave(self) -> None:
        """Go on with `shut`: called on the way out of a `write` or `read` within which this end was closed.

        A signal handler that closes cannot wait for the call that it has interrupted.
        """

    def write(self, message: Message, timeout: float | None = None) -> None:
        """Encode a message and send it; see `Communicator.write`."""
        if self._closed or self._generation != fork.generation:
            self.check_usable()
        number, buffers = message.encode()
        if self._largest is not None:
            self._check_size(buffers)
        sequence = message.sequence or next(self._numbers)
        body, signal = buffers[0], message.signal
        try:
            if signal is None and len(buffers) == 1 and len(body) <= framing.SMALL_BYTES:
                frame = framing.encode_plain(body, number, sequence, message.after, time_ns(), message.rank)
                self.send_small(frame, timeout)
            else:
                frames = framing.encode(buffers, number, signal, sequence, message.after, time_ns(), message.rank)
                self.send(frames, timeout)
        finally:
            if self._closed:
                self.leave()

    def read(self, timeout: float | None = None) -> Message:
        """Wait for a message; see `Communicator.read`."""
        if self._closed or self._generation != fork.generation:
            self.check_usable()
        try:
            if self.arrived:
                try:
                    return self.arrived.popleft()
                except IndexError:
                    pass  # another thread was faster
            return self.receive(timeout)
        finally:
            if self._closed:
                self.leave()

    def flush(self) -> None:
        """Nothing is to be waited for; see `Communicator.flush`."""
        self.check_usable()

    def close(self) -> None:
        """Close this end; see `Communicator.close`."""
        if self._closing.acquire(False):  # and never released: whoever comes second has nothing to do
            self._closed = True
            self.shut()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self.forked or sys.is_finalizing():
            return
        import warnings  # noqa: PLC0415 - not needed by a Task that closes what it opened

        try:
            warnings.warn(f"a {type(self).__name__} was never closed", ResourceWarning, source=self, stacklevel=2)
        finally:  # also where warnings are errors
            self.close()

    def _check_size(self, buffers: list[Buffer]) -> None:
        size = sum(map(len, buffers))
        if self._largest is not None and size > self._largest:
            raise MessageTooLargeError(f"a message of {size} bytes; {type(self).__name__} takes {self._largest}")

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that opened the communicator."""
        return self._generation != fork.generation

    def check_usable(self) -> None:
        """Refuse work after `close` or a fork.

        Raises:
            ClosedError, ForkedError: as `Communicator.write`.
        """
        if self._closed:
            raise ClosedError(f"this {type(self).__name__} was closed")
        if self.forked:
            raise ForkedError(
                f"this {type(self).__name__} belongs to process {self._process}, of which this process "
                f"({os.getpid()}) is a fork; send from the parent, or start the child as a Task of its own"
            )
