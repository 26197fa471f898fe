"""Both ends of the zmq communicator: two lines between them, one for each direction.

A line has a ZeroMQ socket of its own at each end. Its writing half (`outgoing`) is used with the lock of the writers,
its reading half (`incoming`) with that of the readers, so neither direction takes anything from the other; and the
halves of a line say to each other what was taken. Each channel has a context of its own: it shares nothing with others.

Where a lost connection may come back (tcp), what was lost is sent again by who is in a call of this communicator, as
the Executor always is: there is no thread that does so behind its back.

Who waits, waits with the lock of its direction, on all that may end the wait, a bell that `close` rings among it.
Three locks order the writers, as in `tasklink.stream`: `_large` lets one message at a time be in pieces; a unit is sent
under `_writing`; and who has a whole message holds `_small` while it waits for `_writing`, so that after each piece it
is its turn. A message larger than WHOLE_BYTES, over tcp WHOLE_BYTES_TCP, goes in pieces, few of which are under way at
a time: all that was queued behind a whole one, a cancel too, would come after it.

A signal handler may raise at any moment. What was being sent then arrives or not, and everything else does (see
`outgoing`); on the reading side it may cost the channel, but never gives wrong messages.

Part of the Task side: Python 3.9, the standard library, and pyzmq, which is imported when a channel is opened.
"""

from __future__ import annotations

from _thread import RLock
from time import monotonic

from tasklink import framing
from tasklink.communicator import Address, Capabilities, FramedCommunicator
from tasklink.doorbell import Doorbell
from tasklink.errors import BrokenError
from tasklink.turn import alone, deadline_of, is_mine
from tasklink_zmq.control import HELLO, PARTS, STREAM, WELCOME, control, credential, read_control
from tasklink_zmq.watch import Watch, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Protocol, Union

    from tasklink.communicator import Listener
    from tasklink.message import Message
    from tasklink_zmq.incoming import Incoming
    from tasklink_zmq.line import Line
    from tasklink_zmq.outgoing import Outgoing
    from tasklink_zmq.settings import ZmqSettings
    from tasklink_zmq.wiring import Wiring

    Buffer = Union[bytes, bytearray, memoryview]

    class Alarm(Protocol):
        """What becomes readable at a time."""

        def fileno(self) -> int:
            """The descriptor."""

        def set(self, seconds: float) -> None:
            """Become readable in so many seconds."""

        def clear(self) -> None:
            """Become unreadable."""

        def close(self) -> None:
            """Release the descriptor."""


# libzmq before 4.3.3 can be stopped by anyone who connects: CVE-2020-15166.
LEAST_LIBZMQ = (4, 3, 3)
# A message up to this size goes in one part: to copy it is quicker than to send another part.
SMALL_BYTES = 8 << 10
# Up to this size it goes in one unit, each buffer of which arrives in the memory that it keeps.
WHOLE_BYTES = 17 << 20
# Over tcp only up to this size: what a stranger claims to send there is made room for before libzmq knows who it is.
WHOLE_BYTES_TCP = framing.PIECE_BYTES
# How much of one message in pieces may be under way.
PIECES_AHEAD = 4 << 20


class Limits:
    """What both ends keep to; made from the settings, and handed over with the address.

    Attributes:
        high_water: bytes under way in one direction.
        linger: how long `flush` and `close` wait for confirmations (seconds).
        patience: as of a `Line`.
    """

    __slots__ = ("high_water", "linger", "patience")

    def __init__(self, high_water: int, linger: float, patience: float) -> None:
        self.high_water = high_water
        self.linger = linger
        self.patience = patience


class ZmqCommunicator(FramedCommunicator):
    """Messages over ZeroMQ.

    Args:
        wiring: the two lines, and what belongs to them; this owns it.
        limits: as the Listener has them.
        alarm: for whoever waits on `fileno`, where a lost connection may come back; this owns it.
    """

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        crosses_hosts=True, survives_launcher=True, multi_peer=True, delivery="flush"
    )
    settings: ClassVar[str] = "tasklink_zmq.settings:ZmqSettings"
    subject: ClassVar[str] = "tasklink_zmq.subject:ZmqSubject"

    def __init__(self, wiring: Wiring, limits: Limits, alarm: Alarm | None = None) -> None:
        from tasklink_zmq.incoming import Incoming  # noqa: PLC0415 - imports pyzmq, which may be missing
        from tasklink_zmq.outgoing import Outgoing  # noqa: PLC0415 - as above

        self._watch = Watch()
        self._bell = Doorbell()  # for who reads,
        self._closing_bell = Doorbell()  # and for who waits to write: it rings once
        super().__init__()
        self._wiring = wiring
        self._limits = limits
        self._alarm = alarm
        lasting = limits.patience > 0
        self._whole = WHOLE_BYTES_TCP if lasting else WHOLE_BYTES
        self._incoming: Incoming = Incoming(wiring.incoming, limits.high_water, lasting=lasting)
        self._outgoing: Outgoing = Outgoing(wiring.outgoing, limits.high_water, lasting=lasting)
        self.arrived = self._incoming.arrived
        self._given_up = False  # on a message in pieces, and the peer has not been told yet
        self._unfinished = False  # a signal handler has closed this, and could not wait for what it interrupted
        self._released = False
        self._met: set[Line] = set()
        self._reading = RLock()
        self._large = RLock()
        self._small = RLock()
        self._writing = RLock()
        # The news of the other line matter only where its connection can come back: then all must be sent again.
        lines = (wiring.incoming.descriptor, wiring.incoming.news, *wiring.door)
        for descriptor in (*lines, self._bell.fileno(), *((wiring.outgoing.news,) if lasting else ())):
            self._watch.add(descriptor)
        if alarm is not None:
            self._watch.add(alarm.fileno())
        self._bell.ring()  # what has come by now may not show any more

    @classmethod
    def unavailable(cls) -> str | None:
        """Say so when pyzmq is missing, or its libzmq is too old; see `Communicator.unavailable`."""
        return missing()

    @classmethod
    def listen(cls, settings: ZmqSettings) -> Listener:
        """Make the meeting place; see `Communicator.listen`."""
        from tasklink_zmq.listener import open_listener  # noqa: PLC0415 - the Executor's side only

        return open_listener(settings)

    @classmethod
    def connect(cls, address: Address) -> ZmqCommunicator:
        """Go to the meeting place and prove the key; see `Communicator.connect`."""
        reason = missing()
        if reason is not None:
            raise BrokenError(f"communicator 'zmq' cannot be used by this Task: {reason}")
        from tasklink_zmq.task_side import reach  # noqa: PLC0415 - imports pyzmq, which may be missing

        return reach(address)

    def fileno(self) -> int:
        """Readable when `read` has work; see `Communicator.fileno`."""
        self.check_usable()
        return self._watch.fileno()

    # Reading

    def refuse_larger(self, nbytes: int) -> None:
        """Refuse what comes in pieces by the first one; see `Communicator.refuse_larger`."""
        self._incoming.refuse_larger(nbytes)

    def receive(self, timeout: float | None) -> Message:
        """Wait for one frame; see `FramedCommunicator.receive`."""
        deadline = deadline_of(timeout)
        return alone(self._reading, deadline, self._next_message, deadline)

    def _next_message(self, deadline: float | None) -> Message:
        incoming, arrived = self._incoming, self.arrived
        while True:
            self.check_usable()
            if arrived:
                try:
                    return arrived.popleft()
                except IndexError:
                    pass  # another thread was faster
            if not incoming.quiet:
                incoming.take_in()
                if not (arrived or incoming.quiet) and deadline is not None and monotonic() >= deadline:
                    # In a large message: the caller has other things to do, and is told when to come back.
                    self._bell.ring()
                    raise TimeoutError("no whole message has come in time")
            else:
                if incoming.over:
                    self._outgoing.over = True
                    incoming.check_end()
                self._wait_to_read(deadline)

    def _wait_to_read(self, deadline: float | None) -> None:
        """Wait until something may be there to read; whoever calls tries again.

        Raises:
            TimeoutError, ClosedError: as `Communicator.read`.
        """
        until = self._wiring.incoming.lost_until  # shows in no descriptor, if it is sooner
        if until is None or (deadline is not None and deadline < until):
            until = deadline
        ready = self._watch.wait(None if until is None else until - monotonic())
        if self._wiring.incoming.descriptor in ready:
            self._incoming.quiet = False
        if len(ready) > 1 or (ready and self._incoming.quiet):
            self._attend(ready)
        elif not ready and deadline is not None and monotonic() >= deadline:
            raise TimeoutError("no message came in time")

    def _attend(self, ready: set[int]) -> None:
        """See to what is not a message."""
        if self._bell.fileno() in ready:
            self._bell.clear()
            self._incoming.quiet = False
        self._wiring.answer(ready)
        if self._wiring.incoming.news in ready:
            self._incoming.look()
            self._set_alarm()
        if self._alarm is not None and self._alarm.fileno() in ready:
            self._alarm.clear()
        if self._wiring.outgoing.news in ready and not is_mine(self._writing):
            try:
                alone(self._writing, 0.0, self._outgoing.look)
            except TimeoutError:
                pass  # who has it will look

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            until = self._wiring.incoming.lost_until
            if until is None:
                self._alarm.clear()
            else:
                self._alarm.set(until - monotonic())

    # Writing

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Send one frame, a large one in pieces; see `FramedCommunicator.send`."""
        if len(buffers) > 1 or not self._sent_at_once(buffers[0]):
            self._send_in_turn(buffers, deadline_of(timeout))

    def _sent_at_once(self, frame: Buffer) -> bool:
        """Send a small frame, if nobody else is writing and there is room; False if it is still to be sent."""
        lock = self._writing
        if is_mine(lock):
            return False
        try:
            if not lock.acquire(False):
                return False
            try:
                return self._outgoing.send_small(frame)
            finally:
                lock.release()
        except BaseException:
            if is_mine(lock):  # it was raised between acquire and try
                lock.release()
            raise

    def _send_in_turn(self, buffers: list[Buffer], deadline: float | None) -> None:
        size = sum(map(len, buffers))
        if size <= SMALL_BYTES:
            alone(self._small, deadline, self._send_unit, PARTS, [b"".join(buffers)], deadline)
        elif size > self._whole:
            alone(self._large, deadline, self._send_pieces, buffers, deadline)
        elif not all(map(len, buffers)):  # an empty part has a meaning of its own: see control
            alone(self._small, deadline, self._send_unit, STREAM, [b"".join(buffers)], deadline)
        else:
            alone(self._small, deadline, self._send_unit, PARTS, buffers, deadline)

    def _send_pieces(self, buffers: list[Buffer], deadline: float | None) -> None:
        try:
            for piece in framing.split(buffers):
                alone(self._small, deadline, _let_others_go_first)
                self._send_unit(STREAM, piece, deadline, PIECES_AHEAD)
        except BaseException:
            self._given_up = True
            raise

    def _send_unit(self, kind: int, buffers: Sequence[Buffer], deadline: float | None, ahead: int = 1 << 62) -> None:
        alone(self._writing, deadline, self._post, kind, buffers, deadline, ahead)

    def _post(self, kind: int, buffers: Sequence[Buffer], deadline: float | None, ahead: int) -> None:
        self._make_room(sum(map(len, buffers)), ahead, deadline)
        if self._given_up:
            self._outgoing.post(STREAM, [framing.GIVEN_UP])
            self._given_up = False
        self._outgoing.post(kind, buffers)

    def _make_room(self, size: int, ahead: int, deadline: float | None) -> None:
        """Wait until a unit of this size may be sent, so that not more than `ahead` bytes are unconfirmed."""
        asked = -1  # on which connection
        while True:
            self.check_usable()
            if self._outgoing.has_room(size, ahead):
                return
            if asked != self._wiring.outgoing.made:
                asked = self._wiring.outgoing.made
                self._outgoing.ask()  # and look again: to ask may have swallowed the news of what was said
            elif deadline is not None and monotonic() >= deadline:
                raise TimeoutError("the peer did not take the message in time")
            else:
                self._wait_for_word(deadline, self._closing_bell.fileno())

    def _wait_for_word(self, deadline: float | None, *others: int) -> None:
        """Wait until the peer may have said something, or is given up."""
        line = self._wiring.outgoing
        ends = [end for end in (line.lost_until, deadline) if end is not None]
        descriptors = [line.descriptor, line.news, *self._wiring.door, *others]
        self._wiring.answer(wait(descriptors, min(ends) - monotonic() if ends else None))

    def flush(self) -> None:
        """Wait until the peer has confirmed what was written; see `Communicator.flush`."""
        self.check_usable()
        deadline = monotonic() + self._limits.linger
        try:
            alone(self._writing, deadline, self._make_room, 0, 0, deadline)
        except TimeoutError:
            self._outgoing.deaf = True
            raise TimeoutError(self._unconfirmed_text(self._outgoing.unconfirmed)) from None
        except BrokenError:
            if self._outgoing.under_way:
                raise
        finally:
            if self._closed:
                self.leave()

    # The first words

    def is_met(self, proof: bytes) -> bool:
        """Whether the Task has said hello on both lines; then it is welcomed, and may write.

        Raises:
            BrokenError: it is gone, or somebody else has spoken.
        """
        self._wiring.answer(set(self._wiring.door))
        for line in (self._wiring.incoming, self._wiring.outgoing):
            line.look()
            heard = line.hear() if line not in self._met else b""
            if heard:
                if read_control(heard)[0] != HELLO or credential(heard) != proof:
                    raise BrokenError("somebody else has come")
                self._met.add(line)
            elif line.is_gone:
                raise BrokenError("the peer is gone")
        if len(self._met) < 2:
            return False
        self._wiring.outgoing.say(control(WELCOME))
        return True

    # Closing

    def shut(self) -> None:
        """Wait until the peer has what was written, then release everything; see `FramedCommunicator.shut`."""
        if self.forked:  # the context is the parent's: even to close it here would speak for it
            self._close_descriptors()
            return
        self._bell.ring()
        self._closing_bell.ring()
        if is_mine(self._reading) or is_mine(self._writing):
            self._unfinished = True
            return
        self._release()

    def abandon(self) -> None:
        """Close at once: there is nobody to wait for."""
        self._outgoing.over = True
        self.close()

    def leave(self) -> None:
        """Release everything if `shut` could not; see `FramedCommunicator.leave`."""
        if self._unfinished:
            self._release()

    def _release(self) -> None:
        if not (is_mine(self._reading) or is_mine(self._writing)):
            alone(self._reading, None, alone, self._writing, None, self._finish)

    def _finish(self) -> None:
        """Let go of everything; every other thread is awake, and on its way out."""
        if self._released:
            return
        self._released = True
        try:
            self._incoming.leave()
            unconfirmed = self._last_confirmations(monotonic() + self._limits.linger)
            self._outgoing.end()
            self._incoming.look()  # which may know already that the peer is gone
        finally:
            self._wiring.close()
            self._close_descriptors()
        if unconfirmed:
            _warn(self._unconfirmed_text(unconfirmed))

    def _last_confirmations(self, deadline: float) -> int:
        """Wait for them; gives how many bytes of a living peer's are missing at the end."""
        asked = -1
        while True:
            self._outgoing.look()
            unconfirmed = self._outgoing.unconfirmed
            if not unconfirmed or self._outgoing.deaf or monotonic() >= deadline:
                return unconfirmed
            if asked != self._wiring.outgoing.made:
                asked = self._wiring.outgoing.made
                self._outgoing.ask()
            else:
                self._wait_for_word(deadline)

    def _unconfirmed_text(self, unconfirmed: int) -> str:
        seconds = f"{self._limits.linger:g} s"
        return f"zmq: messages of up to {unconfirmed} bytes were not confirmed within {seconds}, and may be lost"

    def _close_descriptors(self) -> None:
        self._watch.close()
        self._bell.close()
        self._closing_bell.close()
        if self._alarm is not None:
            self._alarm.close()


def missing() -> str | None:
    """What this interpreter lacks to speak ZeroMQ, and what to do about it; None if it can."""
    import sys  # noqa: PLC0415 - for the text of an error

    try:
        import zmq  # noqa: PLC0415 - a third of a Task's start: not before it is needed
    except ImportError as error:
        return f"pyzmq cannot be imported ({error}): {sys.executable} -m pip install pyzmq"
    if zmq.zmq_version_info() < LEAST_LIBZMQ:
        least = ".".join(map(str, LEAST_LIBZMQ))
        return (
            f"libzmq {zmq.zmq_version()} has known holes, {least} or later is needed: "
            f"{sys.executable} -m pip install --upgrade pyzmq"
        )
    return None


def _warn(text: str) -> None:
    import warnings  # noqa: PLC0415 - not needed by a Task whose messages arrive

    warnings.warn(text, RuntimeWarning, stacklevel=4)


def _let_others_go_first() -> None:
    pass
