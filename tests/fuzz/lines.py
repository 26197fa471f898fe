"""The lines of zmq: an input is what a peer may say on both, beside messages, before it has said hello and after.

An input begins with a byte that says how the channel is (1: its connection may come back, 2: the peer has said hello)
and goes on as a list of deeds, each of 4 bytes and what it needs: what to do, a number (1 byte), how many bytes follow
(2 bytes), and these. The peer is the Task, who is looked at is the Executor.

    0  say a control part of the kind that the number says, with a count and a position (4 and 8 bytes), and the rest
    1  say bytes, and that more parts follow when the number is odd
    2  as 0, on the line that the Executor writes
    3  as 1, on that line
    4  send a unit as it should be, the bytes in as many parts as the number says; a frame of its own if that is none
    5  the Executor reads
    6  the Executor writes so many bytes
    7  the Executor flushes

In the end the Executor reads what is left, and closes. The sockets are real, their connections are within the process.
"""

import mmap  # noqa: F401 - for what is said to be large
import warnings

import zmq
from zmq.backend import Context, Socket

import tasklink_zmq.incoming
import tasklink_zmq.outgoing  # noqa: F401 - imported when the first channel is made
from tasklink import codec, framing
from tasklink.errors import BrokenError, ProtocolError
from tasklink.message import Message
from tasklink_zmq.communicator import Limits, ZmqCommunicator
from tasklink_zmq.control import GONE, HELLO, OVERHEAD, PARTS, SKIP, STREAM, TAKEN, WELCOME, control
from tasklink_zmq.line import MORE, NOBLOCK, Line
from tests.fuzz import wire
from tests.fuzz.oracle import harmless, messages_of

_DEEDS = 8
_HIGH_WATER = 1 << 20
_PROOF = bytes(range(16))
_LASTING, _MET = 1, 2

_SMALL = b"".join(framing.encode([b"contents"], codec.RAW))
TOKENS = (_SMALL, control(HELLO) + _PROOF, control(TAKEN, 1 << 63), control(SKIP, (1 << 64) - 1), control(GONE))


def deed(what, number=0, data=b""):
    """Write a deed down."""
    return bytes([what, number]) + len(data).to_bytes(2, "little") + data


def mend(data, chance):
    """Make the input a list of deeds, with frames in its units whose numbers agree."""
    deeds = [data[:1] or b"\2"]
    for what, number, body in _deeds(data[1:]):
        if what == 4 and chance.randrange(4):
            begin = body.find(b"TL")
            if begin >= 0:
                body = body[:begin] + wire.mend(body[begin:], chance)  # noqa: PLW2901 - the same body, mended
        deeds.append(deed(what, number, body[:4096]))
    return b"".join(deeds)


def _deeds(data):
    while len(data) >= 4:
        size = int.from_bytes(data[2:4], "little") % 4096
        yield data[0] % _DEEDS, data[1], data[4 : 4 + size]
        data = data[4 + size :]


def check(data):
    """Let a peer say all that; the Executor gives messages or says what is wrong, and comes to an end."""
    lasting = bool(data[:1] and data[0] & _LASTING)
    with warnings.catch_warnings(), harmless(60 * len(data) + 4 * _HIGH_WATER):
        warnings.simplefilter("ignore")  # of what was not confirmed
        wiring = _Wiring(lasting)
        executor = ZmqCommunicator(wiring, Limits(_HIGH_WATER, 0.0, float(lasting)))
        try:
            peer = _Peer(wiring, executor, met=bool(data[:1] and data[0] & _MET))
            for what, number, body in _deeds(data[1:]):
                peer.do(what, number, body)
            peer.read()
        finally:
            executor.close()
            wiring.end()


class _Wiring:
    """Two lines, and the peer's ends of them."""

    def __init__(self, lasting):
        self.door = []
        self._context = Context(0)  # within a process no thread is needed
        self.incoming, self.outgoing = (Line(self._context, int(zmq.PAIR), float(lasting)) for _ in range(2))
        self.peers = []
        for place, line in (("inproc://incoming", self.incoming), ("inproc://outgoing", self.outgoing)):
            line.socket.bind(place)
            socket = Socket(self._context, int(zmq.PAIR))
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.LINGER, 0)
            socket.connect(place)
            self.peers.append(socket)

    def answer(self, ready):
        """Nobody is at the door."""

    def close(self):
        self.incoming.close(0)
        self.outgoing.close(0)

    def end(self):
        for socket in self.peers:
            socket.close(0)
        self._context.term()


class _Peer:
    """One who has been let in, and keeps no rules."""

    def __init__(self, wiring, executor, *, met):
        self._executor = executor
        self._met = False
        self._position = 0
        self._to_reader, self._to_writer = wiring.peers
        self._deeds = (
            self._say_control, self._say, self._answer_control, self._answer, self._send_unit,
            lambda *_: self.read(), self._write, lambda *_: self._flush(),
        )  # fmt: skip
        if met:
            for socket in wiring.peers:
                socket.send(control(HELLO) + _PROOF, NOBLOCK)
            assert self._is_met()

    def do(self, what, number, data):
        """Do one thing."""
        self._deeds[what](number, data)

    def _is_met(self):
        """Whether it was let in; by its proof, on both lines, and nothing else."""
        if not self._met:
            try:
                self._met = self._executor.is_met(_PROOF)
            except (BrokenError, ProtocolError):
                pass
        return self._met

    def _say_control(self, number, data, *, to=None):
        position, parts = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:12], "little")
        (to or self._to_reader).send(control(number % (WELCOME + 2), position, parts) + data[12:], NOBLOCK)

    def _say(self, number, data, *, to=None):
        (to or self._to_reader).send(data, MORE if number & 1 else NOBLOCK)

    def _answer_control(self, number, data):
        self._say_control(number, data, to=self._to_writer)

    def _answer(self, number, data):
        self._say(number, data, to=self._to_writer)

    def _send_unit(self, number, data):
        size = max(1, len(data) // max(1, number % 8))
        parts = [data[begin : begin + size] for begin in range(0, len(data), size)]
        if number % 8:
            self._to_reader.send(control(STREAM if number & 8 else PARTS, self._position, len(parts)), MORE)
        for part in parts[:-1]:
            self._to_reader.send(part, MORE)
        self._to_reader.send(parts[-1] if parts else b"", NOBLOCK)
        self._position += len(data) + OVERHEAD

    def read(self):
        """Have the Executor read, for a while."""
        if not self._is_met():
            return
        for _ in messages_of(self._executor):
            pass

    def _write(self, number, _data):
        if self._is_met():
            try:
                self._executor.write(Message(bytes(number * 200)), timeout=0)
            except (TimeoutError, BrokenError):
                pass

    def _flush(self):
        if self._is_met():
            try:
                self._executor.flush()
            except (TimeoutError, BrokenError):
                pass
