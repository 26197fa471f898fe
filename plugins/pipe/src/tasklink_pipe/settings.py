"""What can be set for pipes, in the config under `[communicators.pipe]`."""

import attrs

from tasklink.config import Size


@attrs.frozen(kw_only=True)
class PipeSettings:
    """Settings of the pipe communicator.

    Attributes:
        capacity: how much each pipe of messages holds before its writer waits (bytes). What the system does not allow
            is rounded down to what it does.
        in_band: frames travel on the Task's standard input and output instead of pipes of their own. For launchers
            (ssh, srun, mpirun) that pass no descriptors on.
    """

    capacity: Size = Size(1 << 20)
    in_band: bool = False
