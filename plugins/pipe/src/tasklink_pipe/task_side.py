"""The Task's end of the in-band mode: reads standard input, writes chunks to standard output.

The Task itself finds its standard input empty, as it always does, and prints to the same pipe as before.

Rules of this file: what is open in other processes too (in the launcher, in descendants) is theirs as much as ours, and
stays blocking. So nothing is read or written before poll(2) has said that it will not block: a chunk is not longer than
PIPE_BUF, for which poll(2) promises that.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

import os
import select
from _operator import sub

from tasklink.errors import BrokenError
from tasklink_pipe import in_band
from tasklink_pipe.communicator import PipeCommunicator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.communicator import Address
    from tasklink.framing import Buffer

_MOST_BUFFERS = 1023  # IOV_MAX, less the head


class InBandTaskSide(PipeCommunicator):
    """Messages on standard input and output.

    Args:
        reader: the Task's standard input, moved out of its way.
        writer: the same for its standard output.
        key: what each chunk begins with.
    """

    def __init__(self, reader: int, writer: int, key: bytes) -> None:
        blocking = [(descriptor, os.get_blocking(descriptor)) for descriptor in (reader, writer)]
        super().__init__(reader, writer)
        for descriptor, was in blocking:  # see the rules of this file
            os.set_blocking(descriptor, was)
        self._key = key
        self._readable = select.poll()
        self._readable.register(reader, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(writer, select.POLLOUT)

    def _read(self, deadline: float | None) -> None:
        while not self._readable.poll(0):
            self._wait(self._reader, select.POLLIN, deadline)
        self._drained = False
        super()._read(deadline)

    def _sent_at_once(self, frame: bytes, deadline: float | None) -> bool:
        return False  # it goes out in chunks

    def _write_some(self, taken: list[int], buffers: list[Buffer], deadline: float | None) -> None:
        if not self._writable.poll(0):
            self._wait(self._writer, select.POLLOUT, deadline)
            return  # and is called again
        size, parts = in_band.chunk(self._key, buffers[:_MOST_BUFFERS], select.PIPE_BUF)
        try:
            # One call, after which the bytes are written and counted, whatever a signal handler raises.
            taken.extend(map(sub, map(os.writev, (self._writer,), (parts,)), (in_band.HEAD_BYTES,)))
        except BlockingIOError:  # the launcher has made it non-blocking, and somebody else was faster than we
            return
        except OSError as error:
            if error.errno is None:
                raise  # by a signal handler, not by the system
            raise BrokenError(f"the peer is gone: {error}") from error
        if taken[-1] != size:
            raise BrokenError("standard output is not a pipe: a write to it was not done in one go")


def connect(address: Address) -> InBandTaskSide:
    """Take over standard input and output.

    Raises:
        BrokenError: standard output is a terminal, which changes what is written to it; or one of both is closed.
    """
    if os.isatty(1):
        raise BrokenError("standard output is a terminal, which does not carry messages; have the launcher make none")
    try:
        reader, writer = os.dup(0), os.dup(1)  # neither is inherited
    except OSError as error:
        raise BrokenError(f"standard input or output is closed: {error}") from error
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return InBandTaskSide(reader, writer, address.key)
