"""The reading half of a channel: takes in what the peer's writing half sends, and confirms it on the same line.

All of it is used with the lock of the readers. What a peer has sent and nobody has read lies in libzmq's queue: a few
small messages are taken out of it at a time, and confirmed when they are; so the peer's high-water mark bounds them.

A signal handler that raises while a part is being received may take it with it. Then the channel is broken (`_midway`):
it never gives wrong messages.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

from collections import deque

from zmq.backend import zmq_poll

from tasklink import framing
from tasklink.errors import BrokenError, EndOfMessages, ProtocolError
from tasklink_zmq.control import ASK, END, GONE, OVERHEAD, PARTS, SKIP, STREAM, TAKEN, control, read_control
from tasklink_zmq.line import NOBLOCK, POLLIN, Again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmq.backend import Frame

    from tasklink.errors import CommunicatorError
    from tasklink.message import Message
    from tasklink_zmq.line import Line

_AT_ONCE = 128  # messages that are taken in at a time
# Bytes, but never more than a quarter of what the peer may have under way. Each time wakes four threads: arrays of
# 1 MiB flow a sixth faster than if each were confirmed. Of a message in pieces its writer has few under way.
_CONFIRMED_EVERY = 8 << 20
_PIECES_CONFIRMED_EVERY = 1 << 20
_FRAME = b"T"  # what a frame begins with; a control part is less


class Incoming:
    """Reads one line.

    Args:
        line: the line.
        high_water: how many bytes the peer may have unconfirmed.
        lasting: its connection may be lost and made again: what was not confirmed is then sent again.

    Attributes:
        arrived: messages to be read; whoever takes one off needs no lock.
        quiet: nothing is there, and what comes from now on shows in the descriptor of the line.
    """

    def __init__(self, line: Line, high_water: int, *, lasting: bool) -> None:
        self.arrived: deque[Message] = deque()
        self.quiet = False
        self._line = line
        self._lasting = lasting
        self._confirmed_every = min(_CONFIRMED_EVERY, high_water // 4)
        self._poll = [(line.socket, POLLIN)]  # quicker to ask than ZMQ_EVENTS, and the same
        self._decoder = framing.FrameDecoder()
        self._place = 0  # the position up to which all was taken,
        self._confirmed = 0  # and up to which the peer knows it
        # Where it is told next. The first message at once: an Executor often sends no other, and shall not have to wait
        # for word of it when its Task has died.
        self._due = 1
        self._asked = False
        self._midway = False
        self._end: int | None = None  # the position at which the peer has closed
        self._failure: CommunicatorError | None = None

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self._end is not None or self._line.is_gone

    def refuse_larger(self, nbytes: int) -> None:
        """Refuse what comes in pieces and is larger; what is whole is there before anybody can look at it."""
        self._decoder.refuse_larger(nbytes)

    def take_in(self) -> None:
        """Take in some of what has come, if anything has.

        Raises:
            BrokenError, ProtocolError: the channel is of no more use; what came before is in `arrived`.
        """
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)
        if self._midway:
            raise BrokenError("an exception, probably of a signal handler, interrupted the reading of a message")
        self._midway = True
        try:
            self._take_some()
        except (BrokenError, ProtocolError) as error:
            # A twin of the error, which holds no messages.
            self._failure = type(error)(*error.args)
            if not self.arrived:
                raise
        self._midway = False
        if self._asked or self._place >= self._due:
            self.confirm()

    def _take_some(self) -> None:
        receive, arrived, decode = self._line.socket.recv, self.arrived, framing.decode_joined
        try:
            part = receive(NOBLOCK)
            if part > _FRAME:
                more = zmq_poll(self._poll, 0)
                arrived.append(decode(part))
                self._place += len(part) + OVERHEAD
                if not more:
                    self.quiet = True
                    return
                # To be refused at the end of a burst costs less than to ask before each.
                for _ in range(_AT_ONCE):
                    part = receive(NOBLOCK)
                    if part < _FRAME:
                        break
                    arrived.append(decode(part))
                    self._place += len(part) + OVERHEAD
                else:
                    return
            self._hear(part)
        except Again:
            self.quiet = True

    def _hear(self, part: bytes) -> None:
        """Take in what begins with a control part."""
        if not part:
            return
        kind, position, count = read_control(part)
        if kind in (PARTS, STREAM):
            self._take_unit(kind, position, count)
        elif kind == SKIP:
            self._place = max(self._place, position)
        elif kind == ASK:
            self._asked = True
        elif kind == END:
            self._end = position

    def _take_unit(self, kind: int, begin: int, count: int) -> None:
        receive = self._line.socket.recv
        parts = [receive(NOBLOCK, False)]
        while parts[-1].more:
            parts.append(receive(NOBLOCK, False))
        if not len(parts[-1]):
            return  # its writer was interrupted
        if len(parts) != count:
            raise ProtocolError(f"a unit says it has {count} parts; it has {len(parts)}")
        if begin != self._place:
            self._misplaced(begin)
            return
        self._place = begin + sum(map(len, parts)) + OVERHEAD
        if kind == STREAM:
            for part in parts:
                self.arrived.extend(self._decoder.feed(part.buffer))
            self._asked = self._asked or self._place - self._confirmed >= _PIECES_CONFIRMED_EVERY
        else:
            self.arrived.append(_message(parts))

    def _misplaced(self, begin: int) -> None:
        if begin < self._place:
            self._asked = True  # it has come before, and that we said so was lost
        elif not self._lasting:
            raise BrokenError(f"{begin - self._place} bytes were lost on the way")
        # else they are sent again, and this after them

    def look(self) -> None:
        """See what has become of the connection."""
        self.quiet = False
        if self._line.look() and self._line.made > 1:
            self._asked = True  # what was said last may be lost

    def confirm(self) -> None:
        """Tell the peer what was taken."""
        self._asked = False
        self._confirmed = self._place
        self._due = self._place + self._confirmed_every
        self._say(TAKEN)

    def leave(self) -> None:
        """Tell the peer that nothing more will be taken."""
        self.confirm()
        self._say(GONE)

    def _say(self, kind: int) -> None:
        self.quiet = False  # to send may swallow the news of what has come
        self._line.say(control(kind, self._place))  # to who is gone no more need be said

    def check_end(self) -> None:
        """Say how it has ended, when all was read.

        Raises:
            EndOfMessages: the peer has closed, or died between two messages.
            BrokenError: it died within one, or its connection did not come back.
        """
        if self._end is not None:
            if self._end > self._place:
                raise BrokenError(f"the peer closed, and its last {self._end - self._place} bytes never came")
        elif not self._line.is_gone:
            return
        elif self._lasting:
            raise BrokenError("the peer is gone: its connection was lost, and did not come back in time")
        self._decoder.finish()
        raise EndOfMessages


def _message(parts: Sequence[Frame]) -> Message:
    if len(parts) == 1:
        return framing.decode_joined(parts[0].bytes)
    return framing.decode([parts[0].bytes, *[part.buffer for part in parts[1:]]])
