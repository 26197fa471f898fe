"""The reader of shared memory: an input is what a peer may do to the memory, and to the sockets beside it.

An input is a list of deeds, each of 4 bytes and what it needs: what to do, a number (1 byte), how many bytes follow
(2 bytes), and these. The peer is the Task, the reader the Executor, and both are looked at in the same process: what is
written is written to the mapping of the Task's end.

    0  publish a record of the kind and number that the deed's number says, with its bytes, behind the last one
    1  as 0, but for the length, which is what the first 4 bytes say
    2  write bytes at every fourth line of the ring
    3  write bytes into the header, at a word
    4  publish a SKIP, and begin again at the beginning
    5  send bytes over the socket, with as many descriptors as the number says (0 to 3): 1 and more are segments
    6  the Executor reads
    7  the Executor writes so many bytes
    8  the Executor lets go of what it has read

In the end the Task is gone, and the Executor reads what is left.
"""

import array
import os
import socket

import tasklink_shm.exporter  # noqa: F401 - it is imported when the first segment comes
from tasklink.communicator import Address
from tasklink.errors import BrokenError, ProtocolError
from tasklink.message import Message
from tasklink_shm import SharedMemoryCommunicator, layout
from tasklink_shm.pool import ANNOUNCEMENT, PLACE
from tasklink_shm.settings import SharedMemorySettings
from tests.fuzz import wire
from tests.fuzz.cut import chance_of
from tests.fuzz.oracle import HUGE_PAGE, harmless, messages_of

RING = 64 << 10

_DEEDS = 9
_SEGMENT = 8192
TOKENS = (
    b"TL\x01\x01", b"TL\x01\x02", b"TL\x01\x03\0\0\0\0\0\0\0\0\0\0\0\0", ANNOUNCEMENT.pack(1, 0),
    PLACE.pack(1, 0, 0, 16), PLACE.pack(0, 0, 0, 56),
)  # fmt: skip


def deed(what, number=0, data=b""):
    """Write a deed down."""
    return bytes([what, number]) + len(data).to_bytes(2, "little") + data


def mend(data, chance):
    """Make the input a list of deeds, with frames in its records whose numbers agree."""
    deeds = []
    for what, number, body in _deeds(data):
        if what == 0 and chance.randrange(4):
            begin = body.find(b"TL")
            if begin >= 0:
                body = body[:begin] + wire.mend(body[begin:], chance)  # noqa: PLW2901 - the same body, mended
        deeds.append(deed(what, number, body[: RING // 4]))
    return b"".join(deeds)


def _deeds(data):
    while len(data) >= 4:
        size = int.from_bytes(data[2:4], "little") % (RING // 4)
        yield data[0] % _DEEDS, data[1], data[4 : 4 + size]
        data = data[4 + size :]


def check(data):
    """Let a peer do all that; the reader gives messages or says what is wrong, and comes to an end."""
    listener = SharedMemoryCommunicator.listen(SharedMemorySettings(ring=RING))
    descriptors = [os.dup(descriptor) for descriptor in listener.address.descriptors]
    task = SharedMemoryCommunicator.connect(Address(listener.address.details, descriptors))
    with listener, task, listener.accept() as executor:
        # An Executor has a descriptor that tells of a time, a Task has none.
        if chance_of(data).randrange(2):
            executor._incoming.watch = None
        with harmless(HUGE_PAGE + 40 * len(data) + 2 * RING):
            peer = _Peer(task, executor)
            for what, number, body in _deeds(data):
                peer.do(what, number, body)
            task.close()
            peer.read()
            peer.kept.clear()


class _Peer:
    """One who holds the Task's end, and keeps no rules."""

    def __init__(self, task, executor):
        self._executor = executor
        self._line = task._bell.line
        self._mapping = task._memory.mapping
        self._words = task._memory.words
        lane = task._memory.lane(layout.TASK)
        self._begin, self._end = lane.begin, lane.end
        self._position = lane.begin
        self.kept = []
        self._deeds = (
            self._publish, self._publish_wrong, self._scribble, self._scribble_header, self._skip,
            self._send, lambda *_: self.read(), self._write, lambda *_: self.kept.clear(),
        )  # fmt: skip

    def do(self, what, number, data):
        """Do one thing."""
        self._deeds[what](number, data)

    def read(self):
        """Have the Executor read, for a while."""
        self.kept.extend(messages_of(self._executor))

    def _publish(self, number, data):
        self._record(number, len(data), data)

    def _publish_wrong(self, number, data):
        self._record(number, int.from_bytes(data[:4], "little"), data[4:])

    def _record(self, number, length, data):
        begin = self._position
        after = begin + 8 + len(data) + 63 & -64
        if after + layout.LINE > self._end:
            self._skip(0, b"")
            return
        self._mapping[begin + 8 : begin + 8 + len(data)] = data
        self._words[after >> 3] = 0
        self._words[begin >> 3] = length << 32 | (number >> 3) << 8 | number & 7
        self._position = after

    def _skip(self, _number, _data):
        self._words[self._position >> 3] = layout.SKIP
        self._position = self._begin

    def _scribble(self, number, data):
        place = self._begin + 4 * layout.LINE * number
        data = data[: self._end - place]
        self._mapping[place : place + len(data)] = data

    def _scribble_header(self, number, data):
        data = data[: layout.HEADER_BYTES - 8 * number]
        self._mapping[8 * number : 8 * number + len(data)] = data

    def _send(self, number, data):
        descriptors = [self._descriptor(which) for which in range(number % 4)]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._line.sendmsg([data], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass  # it is full, or the Executor is gone
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _descriptor(self, which):
        return layout.sealed_file(_SEGMENT) if which == 0 else os.open("/dev/null", os.O_RDONLY)

    def _write(self, number, _data):
        try:
            self._executor.write(Message(bytes(number * 200)), timeout=0)
        except (TimeoutError, ProtocolError, BrokenError):
            pass
