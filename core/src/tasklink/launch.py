"""How the process of a Task is called: its arguments, and the handover that tells it whom to talk to.

The handover is a pickled dictionary behind its length. It holds the keys of the channels, so it goes through a
descriptor that only this process inherits: an anonymous file, read once. Arguments and environment can be read by
others, and are inherited by every program that the Task starts.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tasklink import codec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasklink.communicator import Address, Communicator

# Where this very package is: the Task must speak the same version.
_OURS = str(Path(__file__).parent.parent)


@attrs.frozen(kw_only=True)
class Invitation:
    """What a Task is told before the first message.

    Attributes:
        label: what the Task is called; its `sys.argv[0]`.
        channels: name, class and address of each communicator, the preferred one first.
        routes: from a kind of message to the communicator that carries it.
        encoding: the number of the codec for contents.
        folders: put in front of the Task's `sys.path`.
    """

    label: str
    channels: Sequence[tuple[str, type[Communicator], Address]]
    routes: Mapping[str, str] = attrs.field(factory=dict)
    encoding: int = codec.PICKLE
    folders: tuple[str, ...] = ()

    def pack(self, *, foreign: bool) -> bytes:
        """Make the bytes of the handover.

        Args:
            foreign: the interpreter is not ours: its `sys.path` stays its own.
        """
        path = [entry or str(Path.cwd()) for entry in sys.path]
        contents = {
            "label": self.label,
            "path": None if foreign else path,
            "folders": list(self.folders),
            "routes": dict(self.routes),
            "codec": self.encoding,
            "rank": 0,
            "communicators": [
                (name, f"{kind.__module__}:{kind.__qualname__}", address.details, address.descriptors, address.key)
                for name, kind, address in self.channels
            ],
        }
        (body,) = codec.encode(contents).buffers
        return len(body).to_bytes(8, "little") + body


def anonymous_file(data: bytes) -> int:
    """Put bytes into a file without a name, and give a descriptor that reads them from the start.

    Raises:
        OSError: there is no descriptor or no memory for it.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tasklink-handover", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def python_arguments(python: str, descriptor: int, bundle: Path | None) -> list[str]:
    """The arguments of an interpreter that becomes a Task.

    Args:
        python: the interpreter.
        descriptor: where it reads the handover.
        bundle: the zip of the Task side, for an interpreter that is not ours.
    """
    if bundle is None:
        # At the end, and without the current folder: a data folder may hold a file called struct.py.
        path = f"sys.path[:]=[*filter(None,sys.path),{_OURS!r}]"
    else:
        path = f"sys.path.insert(0,{str(bundle)!r})"
    return [python, "-c", f"import sys;{path};from tasklink.worker import main;main({descriptor})"]
