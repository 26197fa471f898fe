"""Whose process is at the other end of a connected Unix socket: the kernel says so, the peer has no part in it.

The Executor's side only.
"""

from __future__ import annotations

import socket
import sys
from struct import Struct

import attrs


@attrs.frozen
class Credentials:
    """A process, as it was when it connected.

    Attributes:
        pid: its number; 0 where it lives in another PID namespace.
        uid: its effective user.
    """

    pid: int
    uid: int


if sys.platform == "darwin":
    # sys/un.h and sys/ucred.h: SOL_LOCAL, LOCAL_PEERCRED, LOCAL_PEERPID; struct xucred of 16 groups.
    _SOL_LOCAL, _PEERCRED, _PEERPID = 0, 1, 2
    _XUCRED = Struct("IIhxx16I")

    def peer_of(connection: socket.socket) -> Credentials:
        """Ask for the credentials of the peer.

        Raises:
            OSError: it is gone.
        """
        pid = connection.getsockopt(_SOL_LOCAL, _PEERPID)
        uid = _XUCRED.unpack(connection.getsockopt(_SOL_LOCAL, _PEERCRED, _XUCRED.size))[1]
        return Credentials(pid, uid)

else:
    _UCRED = Struct("iII")

    def peer_of(connection: socket.socket) -> Credentials:
        """Ask for the credentials of the peer.

        Raises:
            OSError: it is gone.
        """
        pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Credentials(pid, uid)
