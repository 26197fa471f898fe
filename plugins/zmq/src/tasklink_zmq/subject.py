"""How the communicator is checked by `tasklink.testing`: what can be wrong on a line."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tasklink.testing.subject import Subject
from tasklink.turn import alone
from tasklink_zmq.control import PARTS, STREAM, TAKEN, WELCOME, control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasklink.communicator import Communicator


class ZmqSubject(Subject):
    """Bytes below it are those of a message in pieces; beside them stand frames and control parts."""

    def inject(self, end: Any, data: bytes) -> None:
        """Send them as pieces of a message."""
        end._send_unit(STREAM, [data], None)

    def garbage(self) -> Mapping[str, Callable[[Communicator], None]]:
        """What may come on a line beside what is no frame."""
        taken = control(TAKEN)
        words: dict[str, tuple[bytes, ...]] = {
            "a frame that is none": (b"TL" + b"\xff" * 99,),
            "a control part that is cut": (taken[:-1],),
            "a control part of no kind": (bytes([WELCOME + 1]) + taken[1:],),
            "a control part of another version": (taken[:1] + b"\xff" + taken[2:],),
            "a unit that has fewer parts than it says": (control(PARTS, 0, 3), b"TL", b"TL"),
        }
        return {**super().garbage(), **{name: partial(_say, parts=parts) for name, parts in words.items()}}


def _say(end: Any, parts: tuple[bytes, ...]) -> None:
    """Say something on the line that `end` writes."""
    alone(end._writing, None, end._wiring.outgoing.say, *parts)
