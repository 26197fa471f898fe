"""The writing half of a channel: sends units on a line, and hears on it which of them the peer has taken.

All of it is used with the lock of the writers.

What ZeroMQ has taken is not delivered: it lies in a queue of this process, and is lost with it. So the peer confirms
up to which position it has taken what was sent; `high_water` bytes may be unconfirmed, and `close` waits for the rest.

Most frames are small, and go the short way: while the position is below an edge, a frame is sent and counted, and no
more. At the edge, every LOOKED_AFTER bytes, we look at what the peer has said. Where a connection may be lost and made
again there is no short way: what is not confirmed is kept, and sent again.

The edge also says whether a signal handler has interrupted us: it is _IN_DOUBT from before a unit is sent until it is.
Then nobody knows whether the unit has gone out, or which parts of it: see `_settle`.

Sending copies. libzmq can also send from our memory, but then it tells a thread of pyzmq, with a context and
descriptors of its own that stay to the end of the process, when it has done; and the memory would have to stay as it is
until then, where `write` promises the opposite for the moment at which it returns, be it with a TimeoutError. So a
large buffer is copied into a frame that libzmq owns, and frames are used again: warm memory costs a sixth of fresh.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

from collections import deque

from zmq.backend import Frame, zmq_poll

from tasklink.errors import BrokenError, ProtocolError
from tasklink_zmq.control import ASK, END, GONE, OVERHEAD, SKIP, TAKEN, control, read_control
from tasklink_zmq.line import NOBLOCK, POLLIN, Again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Union

    from tasklink_zmq.line import Line

    Buffer = Union[bytes, bytearray, memoryview]

LOOKED_AFTER = 256 << 10
# A part up to this size is not worth a frame that is used again.
_SMALL_PART = 8 << 10
_SPARE_BYTES = 34 << 20
_MOST_ANSWERS = 1000  # at a time; a peer may answer for ever what nobody has asked
_NO_SHORT_WAY, _IN_DOUBT = -1, -2


class Outgoing:
    """Writes one line.

    Args:
        line: the line.
        high_water: how many bytes may be unconfirmed. A unit that is larger passes when it is alone.
        lasting: its connection may be lost and made again.

    Attributes:
        over: the peer takes nothing any more.
        deaf: it was waited for in vain, and has confirmed nothing since.
    """

    def __init__(self, line: Line, high_water: int, *, lasting: bool) -> None:
        self.over = False
        self.deaf = False
        self._reason = "the peer is gone"
        self._line = line
        self._send = line.socket.send
        self._poll = [(line.socket, POLLIN)]
        self._high_water = high_water
        self._lasting = lasting
        self._sent = 0  # the position behind the last unit,
        self._confirmed = 0  # and up to which the peer has confirmed
        self._edge = _NO_SHORT_WAY
        # Where a unit ends, and its parts: of those in frames of ours; of all that are not confirmed, if lasting.
        self._kept: deque[tuple[int, list[bytes | Frame]]] = deque()
        self._spare: dict[int, list[Frame]] = {}
        self._spare_bytes = 0

    @property
    def under_way(self) -> int:
        """How many bytes the peer has not confirmed."""
        return self._sent - self._confirmed

    @property
    def unconfirmed(self) -> int:
        """How many bytes the peer may still take."""
        return 0 if self.over or self._line.is_gone else self.under_way

    def send_small(self, frame: Buffer) -> bool:
        """Send a frame the short way; False where there is none now."""
        edge = self._edge
        sent = self._sent + len(frame) + OVERHEAD
        if sent > edge:
            return False
        self._edge = _IN_DOUBT
        self._sent = sent
        try:
            self._send(frame, NOBLOCK)
        except Again:
            return False  # there is no connection any more
        self._edge = edge
        return True

    def has_room(self, size: int, ahead: int) -> bool:
        """Whether a unit may be sent, so that not more than `ahead` bytes are unconfirmed; looks around first.

        Raises:
            BrokenError: the peer is gone.
        """
        self.look()
        if self.over or self._line.is_gone:
            raise BrokenError(self._reason)
        under_way = self.under_way
        return under_way == 0 or under_way + size + OVERHEAD <= min(ahead, self._high_water)

    def post(self, kind: int, buffers: Sequence[Buffer]) -> None:
        """Send a unit of several parts; there is room for it."""
        size = sum(map(len, buffers))
        frames = [bytes(buffer) if len(buffer) <= _SMALL_PART else self._frame(buffer) for buffer in buffers]
        parts = [control(kind, self._sent, len(frames)), *frames]
        self._edge = _IN_DOUBT
        self._sent += size + OVERHEAD
        if self._lasting or size > _SMALL_PART:
            self._kept.append((self._sent, parts))
        self._transmit(parts)
        self._set_edge()

    def _transmit(self, parts: list[bytes | Frame]) -> None:
        if not self._line.say(*parts) and not self._lasting:
            self.over = True
            raise BrokenError("the peer is gone")

    def _set_edge(self) -> None:
        if self._lasting or self.over:
            self._edge = _NO_SHORT_WAY
        else:
            self._edge = min(self._confirmed + self._high_water, self._sent + LOOKED_AFTER)

    def ask(self) -> None:
        """Have the peer say what it has taken; what it says is heard by `look`."""
        self._line.say(control(ASK))

    def end(self) -> None:
        """Say that nothing follows."""
        self._line.say(control(END, self._sent))

    # What comes back

    def look(self) -> None:
        """Hear what the peer has said, and see what has become of the connection."""
        if self._edge == _IN_DOUBT:
            self._settle()
        if self._line.look() and self._line.made > 1:
            self._send_again()
        for _ in range(_MOST_ANSWERS):
            if self.over or not zmq_poll(self._poll, 0):
                break
            try:
                self._hear(self._line.hear())
            except ProtocolError as error:
                self.over = True
                self._reason = f"the peer does not keep to what was agreed: {error}"
        self._set_edge()

    def _hear(self, part: bytes) -> None:
        kind, position, _ = read_control(part)
        if kind in (TAKEN, GONE):
            self.deaf = False
            self._confirm(min(position, self._sent))
            self.over = self.over or kind == GONE

    def _confirm(self, position: int) -> None:
        self._confirmed = max(self._confirmed, position)
        while self._kept and self._kept[0][0] <= position:
            for part in self._kept.popleft()[1]:
                if isinstance(part, Frame):
                    self._recycle(part)

    # After the unforeseen

    def _settle(self) -> None:
        """Go on after an exception of a signal handler: end what was begun, and say where we are.

        The unit that was being sent has gone out, or not; what matters is that it is counted the same on both sides.
        """
        self._line.say(b"")
        if self._lasting:
            self._sent = self._kept[-1][0] if self._kept else self._confirmed
            self._send_again()
        else:
            self._line.say(control(SKIP, self._sent))
        self._set_edge()

    def _send_again(self) -> None:
        """Send what is not confirmed; the peer drops what it has."""
        for _, parts in list(self._kept):
            self._transmit(parts)

    # Memory

    def _frame(self, buffer: Buffer) -> Frame:
        """Copy a buffer into memory of libzmq's."""
        spare = self._spare.get(len(buffer))
        if not spare:
            return Frame(buffer, copy=True)
        frame = spare.pop()
        self._spare_bytes -= len(frame)
        frame.buffer[:] = buffer
        return frame

    def _recycle(self, frame: Frame) -> None:
        size = len(frame)
        if self._spare_bytes + size > _SPARE_BYTES:
            self._spare.clear()
            self._spare_bytes = 0
        if size <= _SPARE_BYTES:
            self._spare.setdefault(size, []).append(frame)
            self._spare_bytes += size
