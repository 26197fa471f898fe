"""The Task's side in the named mode: it is handed the memory over a socket to which it has proved its key.

Part of the Task side: standard library, Python 3.9.
"""

from __future__ import annotations

import os
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SO_RCVTIMEO, SOL_SOCKET, socket
from struct import pack, unpack

from tasklink.errors import BrokenError
from tasklink.rendezvous.task_side import reach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.communicator import Address

COUNT = 4  # the memory and three sockets
HERE_YOU_ARE = b"shm1"


def receive(address: Address) -> tuple[int, ...]:
    """Go to the rendezvous and give the descriptors that are handed over there.

    Raises:
        BrokenError: nobody listens there, or what listens hands over something else.
        AuthenticationError: one of the two sides could not prove that it holds the key.
        TimeoutError: the Executor did not answer in time.
    """
    timeout = address.details["timeout"]
    assert isinstance(timeout, (int, float))
    connection = socket(fileno=reach(address))
    try:
        connection.setblocking(True)
        connection.setsockopt(SOL_SOCKET, SO_RCVTIMEO, pack("ll", int(timeout), int(timeout % 1 * 1e6) + 1))
        try:
            data, ancillary, _, _ = connection.recvmsg(len(HERE_YOU_ARE), CMSG_SPACE(4 * COUNT), MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise TimeoutError("the Executor has not handed over its memory in time") from None
        except OSError as error:
            raise BrokenError(f"the Executor has not handed over its memory: {error}") from error
    finally:
        connection.close()
    found: tuple[int, ...] = ()
    for level, kind, body in ancillary:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            found += unpack(f"{len(body) // 4}i", body[: len(body) // 4 * 4])
    if data != HERE_YOU_ARE or len(found) != COUNT:
        for descriptor in found:
            os.close(descriptor)
        raise BrokenError(f"the Executor has handed over {len(found)} descriptors instead of {COUNT}")
    return found
