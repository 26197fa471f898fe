"""What can be set, in the config under `[communicators.connection]`. The Executor's side only."""

import attrs

from tasklink.config import Duration, Size


@attrs.frozen(kw_only=True)
class ConnectionSettings:
    """Settings of the connection communicator.

    Attributes:
        room: how many bytes wait on each side before a writer does.
        linger: how long `close` waits for a peer that does not read (seconds).
        named: the Task connects to a socket in a private directory, and proves a key, instead of inheriting a socket.
        connect_timeout: with named, how long either side waits for the other one's proof (seconds).
    """

    room: Size = Size(1 << 20)
    linger: Duration = Duration(5.0)
    named: bool = False
    connect_timeout: Duration = Duration(10.0)
