"""What can be set, in the config under `[communicators.maildrop]`. The Executor's side only."""

from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class MaildropSettings:
    """Settings of the maildrop communicator.

    Attributes:
        directory: where the private directory is made; without it, in $XDG_RUNTIME_DIR if that is this user's own,
            else in the system's directory for temporary files.
    """

    directory: Path | None = None
