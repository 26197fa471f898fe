"""Both ends of the shm communicator. Part of the Task side: standard library only.

A small message is a record in a ring (`outgoing`, `incoming`), a large buffer travels in a segment (`pool`, `shelf`),
and a large message for which there is no segment goes through the ring in pieces: as the stream of frames that
`framing.split` makes, between whose records those of other messages stand. What stands where is said in `layout`, how
one side wakes the other in `bell`.

Who writes a large message has the turn of `_large`; but for a moment for each record, all others may write meanwhile.
"""

from __future__ import annotations

import os
from _thread import RLock

from tasklink import codec, framing
from tasklink.communicator import Address, Capabilities, FramedCommunicator
from tasklink.errors import ClosedError, CommunicatorError, ProtocolError
from tasklink.spin import Spin
from tasklink.turn import alone, deadline_of, is_mine
from tasklink_shm import layout
from tasklink_shm.bell import Bell
from tasklink_shm.incoming import Incoming
from tasklink_shm.layout import FORGET, PARCEL, STREAM, TASK, Memory
from tasklink_shm.outgoing import Outgoing
from tasklink_shm.pool import Pool
from tasklink_shm.shelf import Shelf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, ClassVar, Union

    from tasklink.communicator import Listener
    from tasklink_shm.settings import SharedMemorySettings

    Buffer = Union[bytes, bytearray, memoryview]

    from tasklink_shm.watch import Watch

# Bytes that are sent as they are, up to this size, are copied when they come, which takes a millisecond: who keeps them
# keeps no segment then. Whatever comes behind more would have to wait too long.
_COPIED = 4 << 20


class SharedMemoryCommunicator(FramedCommunicator):
    """Messages through memory that both sides have mapped.

    Args:
        side: whose end this is: `layout.EXECUTOR` or `layout.TASK`.
        descriptors: of the memory and the three sockets, as `open_pair` makes them; owned from now on.
        options: the settings that both sides need: `segment`, `pool`, `fallback`, `spin`, `quiet`.

    Raises:
        ProtocolError: the memory is not what `layout.create` makes.
        OSError: the system refuses.
    """

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(zero_copy=True, survives_launcher=True)
    settings: ClassVar[str] = "tasklink_shm.settings:SharedMemorySettings"
    subject: ClassVar[str] = "tasklink_shm.subject:SharedMemorySubject"

    def __init__(self, side: int, descriptors: Sequence[int], options: Mapping[str, Any]) -> None:
        descriptor, *lines = descriptors
        try:
            memory = Memory(descriptor)
            there, back = memory.lane(side), memory.lane(1 - side)
            words = memory.words
            self._bell = Bell(words, lines.pop(0), back.asleep, there.asleep, self._check)
            self._gate = Bell(words, lines.pop(0), there.full, back.full, self._check)
            self._yard = Bell(words, lines.pop(0), there.short, back.short, self._check)
        finally:
            for unused in (descriptor, *lines):
                os.close(unused)
        self._outgoing = Outgoing(memory, there, self._bell, self._gate, self._check)
        self._pool = Pool(
            memory, there, self._outgoing, bell=self._bell, yard=self._yard,
            threshold=options["segment"], limit=options["pool"], check=self._check,
        )  # fmt: skip
        self.send_small = self._outgoing.send_small  # type: ignore[method-assign] # as a method, one call more
        self._shelf = Shelf(memory, back, self._yard)
        self._incoming = Incoming(
            memory, back, self._bell, self._gate, outgoing=self._outgoing,
            spin=Spin(options["spin"]), quiet=options["quiet"],
            others=self, check=self._check,
        )  # fmt: skip
        self._memory: Memory | None = memory
        self._fallback = options["fallback"]
        self._told = False  # that there is no memory for segments
        self._decoder: framing.FrameDecoder | None = None  # of what comes in pieces
        # Of a message in pieces: the records of the frame that is written, and where those are that were. Both are
        # replaced in one go, and an exception of a signal handler costs no count. What is left is written later.
        self._frame: tuple[list[bytes], list[int]] = ([], [])
        self._large = RLock()
        self._watch: Watch | None = None
        self._released = False
        super().__init__()  # last: what was never whole has nothing to close

    @classmethod
    def unavailable(cls) -> str | None:
        """Say why there is no shared memory here; see `Communicator.unavailable`."""
        return layout.unavailable()

    @classmethod
    def listen(cls, settings: SharedMemorySettings) -> Listener:
        """Make the memory; see `Communicator.listen`."""
        from tasklink_shm.listener import open_listener  # noqa: PLC0415 - the Executor's side only

        return open_listener(settings)

    @classmethod
    def connect(cls, address: Address) -> SharedMemoryCommunicator:
        """Map the memory that was inherited, or that is handed over at a rendezvous; see `Communicator.connect`."""
        descriptors = address.descriptors
        if not descriptors:
            from tasklink_shm.handing import receive  # noqa: PLC0415 - with hmac behind it

            descriptors = receive(address)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        return cls(TASK, descriptors, address.details)

    def watch_with(self, watch: Watch) -> None:
        """Have another descriptor stand for this end, which tells of a time as well; owned from now on."""
        self._watch = self._incoming.watch = watch

    def fileno(self) -> int:
        """See `Communicator.fileno`."""
        self.check_usable()
        number = self._bell.line.fileno() if self._watch is None else self._watch.fileno()
        assert isinstance(number, int)
        return number

    # Writing

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Write a record, or a large message; see `FramedCommunicator.send`."""
        if not self._outgoing.send(buffers, timeout):
            deadline = deadline_of(timeout)
            alone(self._large, deadline, self._send_large, buffers, deadline)

    def allocate(self, nbytes: int) -> memoryview:
        """Give memory that the peer can see: what is built in it is sent without a copy; see `Communicator.allocate`.

        It is the reader's once it was sent: whoever changes it then changes what the reader has. It is in use until
        the reader has released it, and nobody on this side has a view of it any more.

        Raises:
            OSError: there is no memory left, and `fallback` is not set.
        """
        self.check_usable()
        memory = None
        if nbytes > 0:
            try:
                memory = alone(self._large, None, self._pool.allocate, nbytes)
            except OSError as error:
                self._do_without(error)
        return memoryview(bytearray(nbytes)) if memory is None else memory

    def _send_large(self, buffers: list[Buffer], deadline: float | None) -> None:
        self._check()
        try:
            packed = self._pool.pack(buffers, deadline)
        except (TimeoutError, CommunicatorError):
            raise
        except OSError as error:
            self._do_without(error)
            packed = None
        if packed is None:
            self._send_pieces(buffers, deadline)
            return
        parts, segments = packed
        published: list[int] = []
        try:
            self._outgoing.put(PARCEL, len(buffers), parts, deadline, published=published)
        except BaseException:
            if not published:  # else its reader sees the segments, whatever a signal handler raises here
                self._pool.unsend(segments)
            raise

    def _send_pieces(self, buffers: list[Buffer], deadline: float | None) -> None:
        most = self._outgoing.most
        self._write_stream(deadline)  # what was left when one was given up: its reader waits for the rest
        try:
            for frame in framing.split(buffers, most - framing.PREFIX.size):
                data = b"".join(frame)  # a piece is one record; only a head with very many buffers is more
                self._frame = ([data[begin : begin + most] for begin in range(0, len(data), most)], [])
                self._write_stream(deadline)
        except BaseException:
            records, published = self._frame
            rest = records[len(published) :] if published else []  # a frame that was not begun need not be ended
            self._frame = ([*rest, framing.GIVEN_UP], [])
            raise

    def _write_stream(self, deadline: float | None) -> None:
        records, published = self._frame
        while len(published) < len(records):
            record = records[len(published)]
            self._outgoing.put(STREAM, 0, [record], deadline, last=True, published=published)

    def _do_without(self, error: OSError) -> None:
        """There is no memory for segments: say so once, or raise."""
        if not self._fallback or error.errno is None:
            raise error
        if not self._told:
            try:
                import logging  # noqa: PLC0415 - rare, and 5 ms
            except (ImportError, OSError):
                return  # no descriptor is left even for that
            self._told = True
            logging.getLogger("tasklink_shm").warning(
                "no shared memory for large buffers (%s): they go through the ring in pieces, and are copied", error
            )

    # Reading

    def receive(self, timeout: float | None) -> Any:
        """Read the next message; see `FramedCommunicator.receive`."""
        return self._incoming.receive(timeout)

    def record(self, kind: int, number: int, data: bytes) -> Any:
        """Understand a record that is not a message in one place; gives the message that it completes, or None.

        Raises:
            ProtocolError: it is none of ours.
            BrokenError: the system has no room for what it refers to.
        """
        if kind == PARCEL:
            message = framing.decode(self._shelf.unpack(number, data, self._incoming.hear_all))
            assert message.buffers is not None
            if message.codec != codec.RAW or message.nbytes <= _COPIED:  # what is decoded nobody may change meanwhile
                message.buffers[0] = codec.copied(message.buffers[0])
            return message
        if kind == STREAM:
            return self._next_piece(data)
        if kind == FORGET:
            self._shelf.forget(number, int.from_bytes(data[:8], "little"), self._incoming.hear_all)
            return None
        raise ProtocolError(f"a record has kind {kind}; known are 1 to {FORGET}")

    def descriptors(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Take in what came over the socket beside the ringing."""
        self._shelf.announce(data, ancillary)

    def finish(self) -> None:
        """Take note that nothing more will come.

        Raises:
            BrokenError: the peer ended within a message.
        """
        if self._decoder is not None:
            self._decoder.finish()

    def _next_piece(self, data: bytes) -> Any:
        if self._decoder is None:
            self._decoder = framing.FrameDecoder()
        frames = self._decoder.feed(data)
        if len(frames) > 1:
            raise ProtocolError(f"a piece of a message ends {len(frames)} messages; it can end one")
        return frames[0] if frames else None

    # The end

    def close(self) -> None:
        """Close this end; see `Communicator.close`."""
        interrupted = is_mine(self._large) or self._outgoing.in_use
        if len(self._frame[1]) < len(self._frame[0]) and not (self._closed or self.forked or interrupted):
            try:
                self._write_stream(deadline_of(0))
            except (TimeoutError, CommunicatorError):
                pass  # a full ring, or the peer is gone: it is told that a message is not whole
        super().close()

    def shut(self) -> None:
        """Wake and wait out every thread, then let go of the memory; see `FramedCommunicator.shut`."""
        if self.forked:  # the threads that hold the locks do not exist here, and the sockets are the parent's, too
            self._let_go()
            return
        self._gate.hang_up()
        self._yard.hang_up()
        self.leave()

    def leave(self) -> None:
        """Let go of everything when no thread uses it any more; see `FramedCommunicator.leave`."""
        if is_mine(self._large) or self._outgoing.in_use or self._incoming.in_use:
            return
        with self._large:
            # First nobody writes any more, then the reader is told that it has all.
            self._outgoing.close()
            if self._released:
                return
            self._bell.arm()  # a peer that goes on writing rings, and hears that nobody is here
            self._bell.hang_up()
            self._incoming.stop()
            self._let_go()

    def _let_go(self) -> None:
        if self._released:
            return
        self._released = True
        self._shelf.close()
        self._pool.close()
        for bell in (self._bell, self._gate, self._yard):
            bell.close()
        if self._watch is not None:
            self._watch.close()
        # The memory goes with the last who looks at it: a thread that has just written, an array that is released.
        self._memory = None

    def _check(self) -> None:
        """Refuse to wait any longer when this end was closed."""
        if self._closed:
            raise ClosedError(f"this {type(self).__name__} was closed")


def open_pair(ring: int) -> tuple[list[int], list[int]]:
    """Make the memory and the sockets of two ends; gives the descriptors of each.

    Raises:
        OSError: there is no memory or no descriptor left.
    """
    from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair  # noqa: PLC0415 - the Executor's side only

    ours = [layout.create(ring)]
    theirs: list[int] = []
    try:
        theirs.append(os.dup(ours[0]))
        for _ in range(3):
            one, other = socketpair(AF_UNIX, SOCK_SEQPACKET)
            ours.append(one.detach())
            theirs.append(other.detach())
    except BaseException:
        for descriptor in ours + theirs:
            os.close(descriptor)
        raise
    return ours, theirs
