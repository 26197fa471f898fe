"""Both ends of the zmq communicator: frames in ZeroMQ messages, numbered and confirmed.

What ZeroMQ has taken is not delivered: it lies in a queue of this process, and is lost with it. So every unit (see
`unit`) has a number, the reader says up to which it has taken them, and `close` waits until all are. Confirmations
travel with what goes the other way; on their own only where they are asked for, once a MiB.

A message larger than WHOLE_BYTES goes in pieces, few of which are under way at a time: all that was queued behind a
whole one, a cancel too, would come after it. Of the smaller ones, up to `high_water` bytes may be under way.

What wakes whom: a reader waits on a Watch, which `fileno` shows: the descriptors of the exchange, the lifeline, and a
bell for what another thread has taken in. A writer that must wait has a bell of its own, so that no news meant for one
is taken by another. Nobody waits with a lock, except for its turn to read.

A signal handler may raise at any moment. The unit that was being sent is sent again then, under its number: whoever has
got it drops it. On the reading side it may cost the channel, but never gives wrong messages.

Part of the Task side: Python 3.9, the standard library, and pyzmq, which is imported when a channel is opened.
"""

from __future__ import annotations

import os
from _thread import TIMEOUT_MAX, RLock
from collections import deque
from time import monotonic

from tasklink import framing
from tasklink.communicator import Address, Capabilities, FramedCommunicator
from tasklink.doorbell import Doorbell
from tasklink.errors import BrokenError, BusyError, EndOfMessages, ProtocolError
from tasklink_zmq import unit as units
from tasklink_zmq.outbox import Outbox, Parcel
from tasklink_zmq.unit import Unit, header
from tasklink_zmq.watch import Watch, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Callable, ClassVar, Protocol, Union

    from tasklink.communicator import Listener
    from tasklink.errors import CommunicatorError
    from tasklink.message import Message
    from tasklink_zmq.exchange import Exchange
    from tasklink_zmq.settings import ZmqSettings

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
# A body up to this size goes in one part with its head: to copy it is quicker than to send another part.
SMALL_BYTES = 8 << 10
# Up to this size a message goes in one piece, each buffer of which arrives in the memory that it keeps.
WHOLE_BYTES = 17 << 20
# Pieces of one message that may be under way.
PIECES_AHEAD = 8
# What a unit costs beside its bytes, on both sides.
OVERHEAD = 256
# To read the rest of what a dead peer has sent may take so long.
LAST_WORDS = 1.0
_GONE = "the peer is gone"


class Limits:
    """What both ends keep to; made from the settings, and handed over with the address.

    Attributes:
        high_water: bytes under way in one direction.
        linger: how long `close` waits for confirmations (seconds).
        patience: how long a lost connection may take to come back (seconds); 0 where a connection is lost only when
            its peer is.
    """

    __slots__ = ("high_water", "linger", "patience")

    def __init__(self, high_water: int, linger: float, patience: float) -> None:
        self.high_water = high_water
        self.linger = linger
        self.patience = patience


class ZmqCommunicator(FramedCommunicator):
    """Messages over ZeroMQ: a DEALER socket in the Task, a ROUTER in the Executor.

    Args:
        exchange: the socket; this communicator is one of its users from now on.
        peer: the name of the peer on a ROUTER; empty on a DEALER.
        limits: as the Listener has them.
        lifeline: a connected socket, which this owns; the system closes its other end when the peer dies. -1: none.
        alarm: for whoever waits on `fileno`, where a lost connection may come back; this owns it.

    Attributes:
        limits, peer: as above.
        welcome: the Executor has answered this Task.
        when_met: called once, when the peer has said hello.
    """

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        crosses_hosts=True, survives_launcher=True, multi_peer=True, delivery="flush"
    )
    settings: ClassVar[str] = "tasklink_zmq.settings:ZmqSettings"

    def __init__(
        self, exchange: Exchange, peer: bytes, limits: Limits, lifeline: int = -1, alarm: Alarm | None = None
    ) -> None:
        self._watch = Watch()
        self._bell = Doorbell()
        super().__init__()
        self._alarm = alarm
        self.welcome = False
        self.when_met: Callable[[], object] | None = None
        self.limits = limits
        self.peer = peer
        self._exchange = exchange
        self._lifeline = lifeline
        self._lines = [*exchange.descriptors, lifeline] if lifeline >= 0 else list(exchange.descriptors)
        self._outbox = Outbox(limits.high_water)
        self._sent = 0  # the last unit that has gone out for certain
        self._rung = False
        self._self_served = False  # the reader itself takes in what comes
        self._flushed = False  # closing has come so far that everything may be released
        self._released = False
        self._connected = not peer  # a ROUTER can only answer
        self._lost_until: float | None = None  # the connection is lost, and may come back until then
        self._dying_until: float | None = None  # the peer is dead, and its last words may come until then
        self._inbox: deque[Unit] = deque()
        self._arrived = 0  # the number of the last unit that came,
        self._taken = 0  # and of the last one that was read
        self._asked_for = 0  # the peer wants to know when this one was
        self._ended = False  # nothing more will come
        self._decoder = framing.FrameDecoder()
        self._messages: Iterator[Message] = iter(())
        self._failure: CommunicatorError | None = None
        self._writers: list[Doorbell] = []  # of the threads that wait to write
        self._reading = RLock()
        self._large = RLock()
        for descriptor in (*self._lines, self._bell.fileno()):
            self._watch.add(descriptor)
        if alarm is not None:
            self._watch.add(alarm.fileno())
        exchange.join(peer, self)

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

    def receive(self, timeout: float | None) -> Message:
        """Wait for one frame; see `FramedCommunicator.receive`."""
        deadline = _deadline(timeout)
        self._exchange.check_thread()
        _take(self._reading, deadline)
        try:
            return self._next_message(deadline)
        finally:
            self._reading.release()
            if self._flushed:
                self._release()

    def _next_message(self, deadline: float | None) -> Message:
        while True:
            message = next(self._messages, None)
            if message is not None:
                self.check_usable()
                return message
            unit = self._next_unit()
            if unit is None:
                self._wait_to_read(deadline)
                continue
            try:
                if unit.kind == units.MESSAGE:
                    return framing.decode(unit.buffers())
                self._messages = iter(self._decoder.feed(unit.parts[0] if unit.parts else unit.rest))
            except (BrokenError, ProtocolError) as error:
                self._failure = type(error)(*error.args)
                raise
            if deadline is not None and monotonic() >= deadline and not self._inbox:
                raise TimeoutError("no whole message has come in time")

    def _next_unit(self) -> Unit | None:
        """The next unit, or None if there is nothing to read now."""
        with self._exchange.lock:
            self.check_usable()
            if self._failure is not None:
                raise self._failure
            if not self._inbox:
                self._self_served = True
                self._exchange.pump()
                self._look_after_peer()
                self._self_served = False
            if self._inbox:
                unit = self._inbox.popleft()
                self._taken = unit.number
                if self._asked_for and self._taken >= self._asked_for:
                    self._acknowledge()
                return unit
            if self._failure is not None:
                raise self._failure
            if self._ended:
                self._decoder.finish()
                raise EndOfMessages
            if self._rung:
                self._bell.clear()
                self._rung = False
            return None

    def _acknowledge(self) -> None:
        self._asked_for = 0
        self._say(units.TAKEN)

    def _wait_to_read(self, deadline: float | None) -> None:
        """Wait until something may be there to read; whoever calls tries again.

        Raises:
            TimeoutError, ClosedError: as `Communicator.read`.
        """
        now = monotonic()
        # Of these the first two are short, and their end shows in no descriptor.
        ends = [end for end in (self._dying_until, self._lost_until, deadline) if end is not None]
        ready = self._watch.wait(min(ends) - now if ends else None)
        self.check_usable()
        if ready:
            if self._lifeline in ready:
                with self._exchange.lock:
                    self._hung_up()
        elif deadline is not None and monotonic() >= deadline:
            raise TimeoutError("no message came in time")

    # What the exchange brings: with its lock

    def arrived(self, first: bytes, parts: list[memoryview]) -> None:
        """Take in what the peer has sent."""
        try:
            unit = Unit(first, parts)
            if self._outbox.unconfirmed and unit.taken:
                self._confirmed(unit.taken)
        except (ProtocolError, ValueError) as error:
            self._fail(ProtocolError(f"the peer does not keep to the protocol: {error}"))
            return
        if unit.kind in (units.MESSAGE, units.FRAMES):
            self._put(unit)
        elif unit.kind == units.ASK:
            self._asked(unit.number)
        elif unit.kind == units.END:
            self._finish(unit.number)
        elif unit.kind in (units.HELLO, units.WELCOME):
            self.greeted(unit)

    def _put(self, unit: Unit) -> None:
        if unit.broken_off or unit.number <= self._arrived:
            return  # it will be, or was, sent again
        if unit.number > self._arrived + 1:
            if not self.limits.patience:
                self._fail(BrokenError(f"units {self._arrived + 1} to {unit.number - 1} were lost on the way"))
            return  # the connection was lost, and they will be sent again
        self._arrived = unit.number
        if self._closed:
            return
        if unit.asking:
            self._asked_for = unit.number
        self._inbox.append(unit)
        self._ring()

    def _asked(self, number: int) -> None:
        self._asked_for = max(self._asked_for, number)
        if self._taken >= number:
            self._acknowledge()

    def _confirmed(self, taken: int) -> None:
        for parcel in self._outbox.confirm(taken):
            if parcel.parts:
                self._exchange.recycle(parcel.parts)
        self._wake_writers()

    def _finish(self, number: int) -> None:
        if number > self._arrived:
            self._fail(BrokenError(f"the peer closed with {number - self._arrived} units that never came"))
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._connected = False
        self._ring()
        self._wake_writers()

    def _ring(self) -> None:
        """Have `fileno` show that there is something to read, unless it is the reader who has found it."""
        if not (self._rung or self._self_served):
            self._rung = True
            self._bell.ring()

    def _fail(self, error: CommunicatorError) -> None:
        self._failure = self._failure or error
        self._end()

    def _wake_writers(self) -> None:
        for bell in self._writers:
            bell.ring()

    # The peer's life: with the lock of the exchange

    def _hung_up(self) -> None:
        """The other end of the lifeline is closed: the peer is dead, or has closed its end."""
        if self._dying_until is None:
            self._watch.drop(self._lifeline)
            self._lines.remove(self._lifeline)
            self._dying_until = monotonic() + LAST_WORDS
            self._look_after_peer()

    def _look_after_peer(self) -> None:
        if self._ended:
            return
        now = monotonic() if self._dying_until is not None or self._lost_until is not None else 0.0
        if self._dying_until is not None and (now >= self._dying_until or not self._still_reachable()):
            self._exchange.pump()
            self._end()
        elif self._lost_until is not None and now >= self._lost_until:
            self._fail(BrokenError(f"{_GONE}: its connection was lost, and did not come back in time"))

    def _still_reachable(self) -> bool:
        """Whether the rest of what a dead peer has sent is still being read. Only a ROUTER can tell."""
        return bool(self.peer) and self._say(units.TAKEN)

    def lost(self) -> None:
        """Take note that the connection is lost; it may come back."""
        if not self._ended and self._lost_until is None:
            self._connected = False
            self._lost_until = monotonic() + self.limits.patience
            if self._alarm is not None:
                self._alarm.set(self.limits.patience)

    def greeted(self, unit: Unit) -> None:
        """The peer is there, for the first time or again: what it has not got it gets now."""
        self._connected = True
        self._lost_until = None
        if self._alarm is not None:
            self._alarm.clear()
        if unit.kind == units.WELCOME:
            self.welcome = True
        elif self.limits.patience:
            self._say(units.WELCOME)
        when_met, self.when_met = self.when_met, None
        if when_met is not None:
            when_met()
        self._send_again(unit.taken)

    def greet(self) -> None:
        """Say hello, as the Task does on every connection."""
        self._say(units.HELLO)

    # Writing

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Send one frame, a large one in pieces; see `FramedCommunicator.send`."""
        deadline = _deadline(timeout)
        self._exchange.check_thread()
        size = sum(map(len, buffers))
        head = len(buffers[0])
        try:
            if size <= SMALL_BYTES:
                kind = units.MESSAGE if len(buffers) <= 2 else units.FRAMES
                self._post(Parcel(kind, head, b"".join(buffers), (), size), deadline)
            elif not all(map(len, buffers)):  # an empty part has a meaning of its own: see Unit.broken_off
                self._post(Parcel(units.FRAMES, 0, b"", [b"".join(buffers)], size), deadline)
            elif size <= WHOLE_BYTES:
                self._post(Parcel(units.MESSAGE, head, bytes(buffers[0]), buffers[1:], size), deadline)
            else:
                self._send_pieces(buffers, deadline)
        finally:
            if self._flushed:
                self._release()

    def _send_pieces(self, buffers: list[Buffer], deadline: float | None) -> None:
        _take(self._large, deadline)
        numbers: deque[int] = deque([0] * PIECES_AHEAD, maxlen=PIECES_AHEAD)
        try:
            for frame in framing.split(buffers):
                parcel = Parcel(units.FRAMES, 0, b"", [b"".join(frame)], sum(map(len, frame)))
                numbers.append(self._post(parcel, deadline, numbers[0]))
        except BaseException:
            if numbers[-1] and not (self._ended or self._closed):  # the reader is not to wait for the rest
                with self._exchange.lock:
                    self._dispatch(Parcel(units.FRAMES, 0, framing.GIVEN_UP, (), 0))
            raise
        finally:
            self._large.release()

    def _post(self, parcel: Parcel, deadline: float | None, earlier: int = 0) -> int:
        """Send a unit as soon as there is room, and unit `earlier` is confirmed; gives its number."""
        parcel.size += OVERHEAD
        while True:
            with self._exchange.lock:
                self._check_writable()
                if self._may_send(parcel.size, earlier):
                    parcel.parts = [self._exchange.frame(part) for part in parcel.parts]
                    return self._dispatch(parcel)
            self._wait_to_write(parcel.size, earlier, deadline)

    def _may_send(self, size: int, earlier: int) -> bool:
        if self._outbox.has_room(size, earlier):
            return True
        self._exchange.pump()
        return self._outbox.has_room(size, earlier)

    def _dispatch(self, parcel: Parcel) -> int:
        asking = self._outbox.add(parcel)
        if self._sent + 1 == parcel.number:
            self._transmit(parcel, asking=asking)
        else:
            self._send_again(self._sent)
        return parcel.number

    def _send_again(self, number: int) -> None:
        """Send what comes after this number: the connection was lost, or a signal handler has interrupted us."""
        for parcel in self._outbox.after(number):
            self._transmit(parcel, asking=True)

    def _transmit(self, parcel: Parcel, *, asking: bool) -> None:
        if self._connected:
            first = header(
                parcel.kind, parcel.number, self._taken, cut=parcel.cut, count=len(parcel.parts), asking=asking
            )
            if self._exchange.transmit(self.peer, first + parcel.rest, parcel.parts):
                self._sent = parcel.number
            else:
                self._unreachable()
        else:
            self._sent = parcel.number  # all that is not confirmed is sent when the peer says hello

    def _say(self, kind: int, number: int = 0) -> bool:
        """Send a word that is not numbered."""
        return self._exchange.transmit(self.peer, header(kind, number, self._taken))

    def _unreachable(self) -> None:
        if self.limits.patience:
            self.lost()
        else:
            self._connected = False
            if self._dying_until is None:
                self._dying_until = monotonic() + LAST_WORDS
            self._ring()

    def _check_writable(self) -> None:
        self.check_usable()
        if self._ended or self._dying_until is not None:
            raise BrokenError(_GONE)

    def _wait_to_write(self, size: int, earlier: int, deadline: float | None) -> None:
        """Wait until there may be room; whoever calls tries again."""
        bell = Doorbell()
        try:
            with self._exchange.lock:
                self._check_writable()
                if self._may_send(size, earlier):
                    return
                self._writers.append(bell)
                self._say(units.ASK, self._outbox.number)
                if self._may_send(size, earlier):
                    return
            rest = None if deadline is None else deadline - monotonic()
            if rest is not None and rest <= 0:
                raise TimeoutError("the peer did not take the message in time")
            ready = wait([*self._lines, bell.fileno()], rest)
            if self._lifeline in ready:
                with self._exchange.lock:
                    self._hung_up()
        finally:
            with self._exchange.lock:
                if bell in self._writers:
                    self._writers.remove(bell)
            bell.close()

    # Closing

    def shut(self) -> None:
        """Wait until the peer has what was written, then release everything; see `FramedCommunicator.shut`."""
        if self.forked:  # the context is the parent's: even to close it here would speak for it
            self._close_descriptors()
            return
        if self._exchange.lock._is_owned():  # type: ignore[attr-defined]  # as in `check_thread`
            self._flushed = True  # by a signal handler, which cannot wait for what it interrupted: that one releases
            return
        deadline = monotonic() + self.limits.linger
        with self._exchange.lock:
            self._bell.ring()
            self._wake_writers()
            self._inbox.clear()
        unconfirmed = self._flush(deadline)
        with self._exchange.lock:
            if self._connected:
                self._say(units.END, self._outbox.number)
            self._connected = False
        self._flushed = True
        self._release()
        if unconfirmed:
            _warn(unconfirmed, self.limits.linger)

    def abandon(self) -> None:
        """Close at once: there is nobody to wait for."""
        self._end()
        self.close()

    def _release(self) -> None:
        """Let go of everything when no thread uses it any more."""
        if self._reading._is_owned() or self._exchange.lock._is_owned():  # type: ignore[attr-defined]  # as in `shut`
            return
        with self._reading:  # its thread is awake, and on its way out
            if self._released:
                return
            self._released = True
            self._exchange.leave(self.peer)
            self._exchange.release(LAST_WORDS)
            self._close_descriptors()

    def _flush(self, deadline: float) -> int:
        """Wait for confirmations; gives how many units of a living peer's are missing at the end."""
        asked = False
        with self._exchange.lock:
            self._send_again(self._sent)
        while True:
            with self._exchange.lock:
                self._exchange.pump()
                if self._lifeline in self._lines and wait([self._lifeline], 0):
                    self._hung_up()
                if self._ended or self._dying_until is not None or not self._outbox.unconfirmed:
                    return 0
                if monotonic() >= deadline:
                    return self._outbox.unconfirmed
                if not asked and self._connected:
                    asked = True
                    if not self._say(units.ASK, self._outbox.number):
                        self._unreachable()
                    continue  # for it may have been answered while we asked
            wait(self._lines, deadline - monotonic())

    def _close_descriptors(self) -> None:
        self._watch.close()
        self._bell.close()
        if self._alarm is not None:
            self._alarm.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)


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


def _warn(unconfirmed: int, linger: float) -> None:
    import warnings  # noqa: PLC0415 - not needed by a Task whose messages arrive

    text = f"zmq: {unconfirmed} messages or pieces were not confirmed within {linger:g} s, and may be lost"
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def _take(lock: RLock, deadline: float | None) -> None:
    if lock._is_owned():  # type: ignore[attr-defined]  # what threading.Condition asks, too
        raise BusyError("a signal handler or a finalizer interrupted this thread in the same call; use another thread")
    rest = -1.0 if deadline is None else min(max(0.0, deadline - monotonic()), TIMEOUT_MAX)
    if not lock.acquire(True, rest):
        raise TimeoutError("other threads kept the communicator busy")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout
