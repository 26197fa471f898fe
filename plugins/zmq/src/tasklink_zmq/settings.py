"""What can be set for ZeroMQ, in the config under `[communicators.zmq]`."""

from pathlib import Path

import attrs

from tasklink.config import Duration, Size
from tasklink.errors import ConfigError

LEAST_HIGH_WATER = 1 << 20
TRANSPORTS = ("ipc", "tcp")


@attrs.frozen(kw_only=True)
class ZmqSettings:
    """Settings of the zmq communicator.

    Attributes:
        transport: "ipc": a socket in a private directory, on one machine. "tcp": a port, always encrypted, and open to
            the one key that was made for the run.
        host: with tcp, the numeric address to listen at, which is also where the Task goes. Beyond this machine:
            the address of the interface that the Task's machine can reach.
        directory: with ipc, where the private directory is made; without it, in $XDG_RUNTIME_DIR if that is this
            user's own, else in the system's directory for temporary files.
        high_water: how many bytes may be under way in each direction before their writer waits; at least 1 MiB.
        linger: how long `flush` and `close` wait for the peer to confirm what was written (seconds).
        connect_timeout: how long a Task tries to reach the Executor and to be let in (seconds).
        peer_timeout: with tcp, how long one whose machine has fallen silent is waited for (seconds); a connection that
            is lost may take as long to come back, but no longer than 2 s.
    """

    transport: str = "ipc"
    host: str = "127.0.0.1"
    directory: Path | None = None
    high_water: Size = Size(64 << 20)
    linger: Duration = Duration(5.0)
    connect_timeout: Duration = Duration(10.0)
    peer_timeout: Duration = Duration(10.0)

    def __attrs_post_init__(self) -> None:
        if self.transport not in TRANSPORTS:
            raise ConfigError(f"communicators.zmq.transport = {self.transport!r}: allowed are {', '.join(TRANSPORTS)}")
        if self.high_water < LEAST_HIGH_WATER:
            raise ConfigError(
                f"communicators.zmq.high_water = {self.high_water} bytes: allowed is {LEAST_HIGH_WATER} (1 MiB) or more"
            )
        _check_time("linger", self.linger, zero=True)
        _check_time("connect_timeout", self.connect_timeout)
        _check_time("peer_timeout", self.peer_timeout)


def _check_time(name: str, seconds: float, *, zero: bool = False) -> None:
    if seconds < 0 or (seconds == 0 and not zero):
        raise ConfigError(f"communicators.zmq.{name} = {seconds:g} s: allowed is {'0' if zero else 'more than 0'} s up")
