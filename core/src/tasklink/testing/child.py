"""A process that the kit has started: connects as a Task does, does an errand, and says how it went.

It is told by a handover: a pickle behind its length, read from a descriptor. What it says goes over a connection of its
own, beside the channel that is checked. It ends when its errand does, or when it takes far too long.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from tasklink.communicator import Address

if TYPE_CHECKING:
    from tasklink.communicator import Communicator

_LIFE_IN_PATIENCES = 45.0  # longer than anybody waits for it; then there is nobody


class Peer:
    """What an errand works with.

    Attributes:
        end: the Task's end of the channel; None for an errand that makes both ends.
        control: the connection to who started this process; None where nothing could be inherited.
    """

    def __init__(self, end: Any, control: Connection[Any, Any] | None) -> None:
        self.end = end
        self.control = control

    def say(self, kind: str, value: object) -> None:
        """Say something: a `"value"`, or that and why the errand has `"failed"` or was `"skipped"`."""
        if self.control is not None:
            self.control.send((kind, value))

    def hear(self) -> Any:
        """Wait for what is said by who started this process.

        Raises:
            EOFError: nobody is there, or never was.
        """
        if self.control is None:
            raise EOFError("this process has inherited no connection")
        return self.control.recv()


def main(descriptor: int) -> None:
    """Do what the handover says.

    Args:
        descriptor: where the handover is read from.
    """
    kind, told, errand, arguments, patience, control, stacks = pickle.loads(_read_handover(descriptor))
    if stacks is not None:
        os.set_inheritable(stacks, False)
        faulthandler.register(signal.SIGUSR2, stacks, all_threads=True)
    faulthandler.dump_traceback_later(patience * _LIFE_IN_PATIENCES, exit=True)
    peer = Peer(None, None if control is None else Connection(control))
    if control is not None:
        os.set_inheritable(control, False)
    try:
        peer.end = _connect(kind, told)
        peer.say("value", errand(peer, *arguments))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told to who started this process
        name = type(error).__name__
        if name == "Skipped":
            peer.say("skipped", str(error))
        elif name == "ConformanceError":
            peer.say("failed", str(error))
        else:
            peer.say("failed", f"in another process: {traceback.format_exc(limit=-6)}")


def _connect(kind: type[Communicator] | None, told: Any) -> Communicator | None:
    return None if kind is None else kind.connect(Address(*told))


def _read_handover(descriptor: int) -> bytes:
    """Read it and not a byte more: the channel may begin behind it."""
    size = int.from_bytes(_read(descriptor, 8), "little")
    return _read(descriptor, size)


def _read(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(descriptor, count - len(data))
        if not more:
            raise EOFError("the handover ends early")
        data += more
    return data
