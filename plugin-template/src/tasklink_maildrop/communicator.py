"""Both ends of the maildrop communicator. Part of the Task side: standard library only, Python 3.9.

A message is a file. When it is written, its number goes through a named pipe; so what is in the pipe are the messages
that wait, in their order, the pipe's descriptor is what a reader waits on, and its end is the end of the peer.

    to-executor/bell, to-task/bell       the named pipes
    to-executor/17                       a message

What makes it keep the contract:

* A file is whole before its number is in the pipe, and it is not the writer's any more then: whoever is killed at any
  moment leaves whole messages, or a file that nobody was told of.
* A number takes RECORD_BYTES of a pipe that holds one page. So 16 messages wait at most, and then the writer does.
* Files are written outside of all locks: a small message overtakes a large one.
* Each side has a hold on the directory. The last one removes it, after it has read what the other one had written.
"""

from __future__ import annotations

import fcntl
import os
import select
from _thread import RLock
from itertools import count

from tasklink import framing
from tasklink.communicator import Address, Capabilities, FramedCommunicator
from tasklink.doorbell import Doorbell
from tasklink.errors import BrokenError, EndOfMessages, ProtocolError
from tasklink.rendezvous.hold import Hold
from tasklink.turn import alone, deadline_of, is_mine, rest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Union

    from tasklink.communicator import Listener
    from tasklink.message import Message
    from tasklink_maildrop.settings import MaildropSettings

    Buffer = Union[bytes, bytearray, memoryview]

TO_EXECUTOR = "to-executor"
TO_TASK = "to-task"
BELL = "bell"
RECORD_BYTES = 256  # up to PIPE_BUF a pipe takes all of it or nothing
LARGEST = (1 << 64) - 1  # number
HELLO = bytes(RECORD_BYTES)

_PIPE_BYTES = 4096
_LONGEST_POLL = 1_000_000.0  # seconds; poll(2) counts milliseconds in a C int
_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux; Python 3.10


class MaildropCommunicator(FramedCommunicator):
    """Messages as files in a directory.

    Args:
        incoming: the directory that this end reads from, with its pipe; the same for outgoing.
        outgoing: the directory that it writes to.
        reader: the pipe to read from; owned from now on, as the others.
        writer: the pipe to write to.
        hold: this end's share in the directory above both.
    """

    api: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(survives_launcher=True)
    settings: ClassVar[str] = "tasklink_maildrop.settings:MaildropSettings"
    subject: ClassVar[str] = "tasklink_maildrop.subject:MaildropSubject"

    def __init__(self, incoming: str, outgoing: str, *, reader: int, writer: int, hold: Hold) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._reader = reader
        self._writer = writer
        self._hold = hold
        if _F_SETPIPE_SZ is not None:
            fcntl.fcntl(writer, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._files = count(1)
        self._records: list[bytes] = []  # read from the pipe; the first one's message is still to be given
        self._bell = Doorbell()
        self._rung = False  # by `shut`, which does not need it any more
        self._reading = RLock()
        self._ringing = RLock()
        super().__init__()  # last: what was never whole has nothing to close

    @classmethod
    def listen(cls, settings: MaildropSettings) -> Listener:
        """Make the directory; see `Communicator.listen`."""
        from tasklink_maildrop.listener import MaildropListener  # noqa: PLC0415 - the Executor's side only

        return MaildropListener(settings)

    @classmethod
    def connect(cls, address: Address) -> MaildropCommunicator:
        """Go to the directory, and say that we are there; see `Communicator.connect`."""
        directory = str(address.details["directory"])
        incoming, outgoing = (os.path.join(directory, name) for name in (TO_TASK, TO_EXECUTOR))
        opened: list[int] = []
        try:
            hold = Hold(directory)
            try:
                opened.append(os.open(os.path.join(incoming, BELL), os.O_RDONLY | os.O_NONBLOCK))
                opened.append(os.open(os.path.join(outgoing, BELL), os.O_WRONLY | os.O_NONBLOCK))
                os.write(opened[1], HELLO)
            except BaseException:
                for descriptor in opened:
                    os.close(descriptor)
                hold.close()
                raise
        except OSError as error:
            raise BrokenError(f"no Executor can be reached in {directory!r}: {error}") from error
        reader, writer = opened
        return cls(incoming, outgoing, reader=reader, writer=writer, hold=hold)

    def fileno(self) -> int:
        """The pipe that is read from; see `Communicator.fileno`."""
        self.check_usable()
        return self._reader

    def send(self, buffers: list[Buffer], timeout: float | None) -> None:
        """Write a file, then its number; see `FramedCommunicator.send`."""
        deadline = deadline_of(timeout)
        number = next(self._files)
        path = os.path.join(self._outgoing, str(number))
        try:
            with open(path, "xb") as file:
                file.writelines(buffers)
            alone(self._ringing, deadline, self._ring, number, deadline)
        except BaseException:
            _remove(path)  # if its number is in the pipe already, the reader finds that we gave up
            self.check_usable()  # where another thread has closed, the directory may be gone
            raise
        finally:
            self._release_if_shut()

    def _ring(self, number: int, deadline: float | None) -> None:
        record = number.to_bytes(RECORD_BYTES, "little")
        while True:
            self.check_usable()
            try:
                os.write(self._writer, record)
            except BlockingIOError:
                self._wait(self._writer, select.POLLOUT, deadline)
            except BrokenPipeError as error:
                raise BrokenError("the peer is gone") from error
            else:
                return

    def receive(self, timeout: float | None) -> Message:
        """Read a number, then its file; see `FramedCommunicator.receive`."""
        deadline = deadline_of(timeout)
        try:
            return alone(self._reading, deadline, self._next, deadline)
        finally:
            self._release_if_shut()

    def _next(self, deadline: float | None) -> Message:
        while True:
            self.check_usable()
            if not self._records:
                self._wait(self._reader, select.POLLIN, deadline)
                self._read_record()
            # What is none stays the first one: `read` raises the same again.
            message = _read(os.path.join(self._incoming, str(_number_of(self._records[0]))))
            del self._records[0]
            if message is not None:
                return message

    def _read_record(self) -> None:
        try:
            # One call of C code: were it two, a signal handler that raises between them would lose a message.
            self._records.extend(map(os.read, (self._reader,), (RECORD_BYTES,)))
        except BlockingIOError:
            return
        if not self._records[0]:
            self._records.clear()
            raise EndOfMessages

    def _wait(self, descriptor: int, event: int, deadline: float | None) -> None:
        """Wait until a pipe may be ready, or `close` was called; whoever calls tries again.

        Raises:
            TimeoutError: the deadline has passed.
        """
        rest = rest_of(deadline)
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._bell, select.POLLIN)
        ready = poll.poll(None if rest is None else min(max(0.0, rest), _LONGEST_POLL) * 1000)
        self.check_usable()
        if not ready and rest is not None and rest < _LONGEST_POLL:
            raise TimeoutError("the peer was not ready in time")

    def shut(self) -> None:
        """Wake every thread, then let go; see `FramedCommunicator.shut`."""
        if self.forked:  # the threads that have the locks do not exist here
            self._let_go()
            return
        self._bell.ring()
        self._rung = True
        self._release_if_shut()

    def _release_if_shut(self) -> None:
        # A signal handler that closes cannot wait for the call that it interrupted; that one comes by on its way out.
        if self._rung and not (is_mine(self._reading) or is_mine(self._ringing)):
            alone(self._reading, None, alone, self._ringing, None, self._let_go)

    def _let_go(self) -> None:
        if self._writer >= 0:
            os.close(self._reader)
            os.close(self._writer)
            self._reader = self._writer = -1
            self._bell.close()
            self._hold.close()


def _number_of(record: bytes) -> int:
    number = int.from_bytes(record, "little")
    if len(record) != RECORD_BYTES or number > LARGEST:
        raise ProtocolError(f"{len(record)} bytes came through the pipe that are not the number of a message")
    return number


def _read(path: str) -> Message | None:
    """Read a message and remove its file; None where its writer has given it up."""
    decoder = framing.FrameDecoder()
    messages: list[Message] = []
    try:
        with open(path, "rb", buffering=0) as file:
            # Large arrays are read into the memory that they will own.
            while length := file.readinto(decoder.get_buffer()):
                messages += decoder.received(length)
    except FileNotFoundError:
        return None
    decoder.finish()
    if len(messages) != 1:
        raise ProtocolError(f"a file holds {len(messages)} messages instead of one")
    _remove(path)
    return messages[0]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # it was not made, or has been read
