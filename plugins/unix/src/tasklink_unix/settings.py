"""What can be set for Unix sockets, in the config under `[communicators.unix]`."""

from pathlib import Path

import attrs

from tasklink.config import Duration, Size


@attrs.frozen(kw_only=True)
class UnixSettings:
    """Settings of the unix communicator.

    Attributes:
        buffer: how much each direction holds before its writer waits (bytes). The system may allow less.
        named: the Task connects to a socket in a private directory instead of inheriting one end of a pair. For
            launchers (srun, mpirun on one node, a container with the directory mounted) that pass no descriptors on.
        directory: where that private directory is made; without it, in $XDG_RUNTIME_DIR if that is this user's own,
            else in the system's directory for temporary files.
        connect_timeout: how long a Task tries to reach the Executor and to be let in (seconds).
    """

    buffer: Size = Size(4 << 20)
    named: bool = False
    directory: Path | None = None
    connect_timeout: Duration = Duration(10.0)
