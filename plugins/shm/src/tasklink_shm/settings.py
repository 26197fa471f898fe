"""What can be set for shared memory, in the config under `[communicators.shm]`."""

from pathlib import Path

import attrs

from tasklink.config import Duration, Size

_PAGE = 4096


def _is_ring(_: object, attribute: "attrs.Attribute[Size]", value: int) -> None:
    if not 64 << 10 <= value <= 1 << 30 or value % _PAGE:
        raise ValueError(f"{attribute.name!r} must be a multiple of 4 KiB from 64 KiB to 1 GiB: {value}")


@attrs.frozen(kw_only=True)
class SharedMemorySettings:
    """Settings of the shm communicator.

    Attributes:
        ring: how much each direction holds before its writer waits (bytes); taken from the system at the start. A
            message of up to a quarter of it, 64 KiB at most, passes through it in one go.
        segment: from this size on a buffer of a message, as the memory of an array, travels in a segment of its own
            and is not copied by the reader (bytes).
        pool: how much the segments of one direction may hold (bytes). It is taken as it is needed, and given back when
            it was not used for 5 seconds. What finds no room goes through the ring and is copied.
        fallback: when the system has no memory for a segment, send through the ring instead; if false, `write` raises
            OSError.
        spin: how long a reader looks again and again before it sleeps (seconds), when messages come quickly and a CPU
            is to spare. 0: never.
        quiet: for how long after a message a reader looks twice in a millisecond, so that its writer need not wake
            it (seconds). 0: it is woken for every message.
        named: the Task is handed the memory at a socket in a private directory instead of inheriting it. For launchers
            (srun, mpirun on one node) that pass no descriptors on.
        directory: where that private directory is made; without it, in $XDG_RUNTIME_DIR if that is this user's own,
            else in the system's directory for temporary files.
        connect_timeout: how long a Task tries to reach the Executor and to be let in (seconds).
    """

    ring: Size = attrs.field(default=Size(512 << 10), validator=_is_ring)
    segment: Size = attrs.field(default=Size(64 << 10), validator=attrs.validators.ge(Size(4 << 10)))
    pool: Size = Size(2 << 30)
    fallback: bool = True
    spin: Duration = attrs.field(default=Duration(150e-6), validator=attrs.validators.le(Duration(1.0)))
    quiet: Duration = attrs.field(default=Duration(5e-3), validator=attrs.validators.le(Duration(1.0)))
    named: bool = False
    directory: Path | None = None
    connect_timeout: Duration = Duration(10.0)

    def options(self) -> dict[str, object]:
        """What both sides need to know."""
        return {name: getattr(self, name) for name in ("segment", "pool", "fallback", "spin", "quiet")}
