"""How the communicator is checked by `tasklink.testing`: what can be wrong in its files and its pipe."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from tasklink.testing.subject import Subject
from tasklink_maildrop.communicator import RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasklink.communicator import Communicator


class MaildropSubject(Subject):
    """Bytes below it are a file; beside them stand numbers."""

    def inject(self, end: Any, data: bytes) -> None:
        """Put them where a message would be."""
        end.send([data], self.patience)

    def garbage(self) -> Mapping[str, Callable[[Communicator], None]]:
        """What may be in the pipe, and in a file, beside what is no frame."""
        return {
            **super().garbage(),
            "an empty file": partial(self.inject, data=b""),
            "a number that no file has": partial(_ring, record=b"\xff" * RECORD_BYTES),
            "half a number": partial(_ring, record=bytes(RECORD_BYTES // 2)),
        }


def _ring(end: Any, record: bytes) -> None:
    os.write(end._writer, record)
