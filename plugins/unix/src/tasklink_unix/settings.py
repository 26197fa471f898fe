"""What can be set for Unix sockets, in the config under `[communicators.unix]`."""

import attrs

from tasklink.config import Size


@attrs.frozen(kw_only=True)
class UnixSettings:
    """Settings of the unix communicator.

    Attributes:
        buffer: how much each direction holds before its writer waits (bytes). The system may allow less.
    """

    buffer: Size = Size(4 << 20)
