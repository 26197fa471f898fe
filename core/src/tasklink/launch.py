"""How the process of a Task is called: its arguments, and the handover that tells it whom to talk to.

The handover is a pickled dictionary behind its length. It holds the keys of the channels, so it goes through a
descriptor that only this process inherits: an anonymous file, read once. Arguments and environment can be read by
others, and are inherited by every program that the Task starts.

A Task may be started by a launcher (`srun`, `mpirun`, `ssh`): the prefix of its arguments. Launchers pass standard
input on, and descriptors seldom, so behind any prefix the handover comes on standard input. The programs that become
what they start, such as `nice`, are known by name, and descriptors may be used behind them. That is believed of the
first word only. So the Task looks whether it has what was meant for it, and says so if not: in `nice srun` it has not.
"""

from __future__ import annotations

import os
import shlex
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

TRANSPARENT = frozenset({
    "chrt", "env", "ionice", "nice", "nohup", "numactl", "prlimit", "setarch", "setpriv", "stdbuf", "taskset",
})  # fmt: skip
"""Programs that become, by exec(2) and with all their descriptors, the command that they are given."""


@attrs.frozen(kw_only=True)
class Invitation:
    """What a Task is told before the first message.

    Attributes:
        label: what the Task is called; its `sys.argv[0]`.
        channels: name, class and address of each communicator, the preferred one first.
        routes: from a kind of message to the communicator that carries it.
        encoding: the number of the codec for contents.
        folders: put in front of the Task's `sys.path`.
        prefix: what stands in front of the Task's arguments.
        remedies: by the name of a communicator, what to do if the prefix does not pass its descriptors on.
    """

    label: str
    channels: Sequence[tuple[str, type[Communicator], Address]]
    routes: Mapping[str, str] = attrs.field(factory=dict)
    encoding: int = codec.PICKLE
    folders: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    remedies: Mapping[str, str] = attrs.field(factory=dict)

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
            "expected": self._expected() if self.prefix else [],
            "communicators": [
                (name, f"{kind.__module__}:{kind.__qualname__}", address.details, address.descriptors, address.key)
                for name, kind, address in self.channels
            ],
        }
        _, (body,) = codec.encode(contents)
        return len(body).to_bytes(8, "little") + body

    def _expected(self) -> list[tuple[int, int, int, str]]:
        """Which descriptors the Task should have, what they are, and what is to be said if it has not."""
        expected = []
        for name, _, address in self.channels:
            for descriptor in address.descriptors:
                status = os.fstat(descriptor)
                text = (
                    f"descriptor {descriptor}, which communicator {name!r} needs, did not come through the prefix; "
                    f"{self.remedies[name]}. prefix = {list(self.prefix)}"
                )
                expected.append((descriptor, status.st_dev, status.st_ino, text))
        return expected


def passes_descriptors(prefix: Sequence[str]) -> bool:
    """Whether a Task behind this prefix may be expected to have the descriptors that were meant for it.

    >>> passes_descriptors([]), passes_descriptors(["/usr/bin/nice", "-n5"]), passes_descriptors(["srun", "-n1"])
    (True, True, False)
    """
    return not prefix or Path(prefix[0]).name in TRANSPARENT


def behind(prefix: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Put arguments behind a prefix.

    `ssh` joins what it gets with blanks, and has a shell on the other side split it again: for that they are quoted.

    >>> behind(["nice"], ["echo", "a b"]), behind(["ssh", "node1"], ["echo", "a b"])
    (['nice', 'echo', 'a b'], ['ssh', 'node1', 'echo', "'a b'"])
    """
    if prefix and Path(prefix[0]).name == "ssh":
        arguments = [shlex.quote(argument) for argument in arguments]
    return [*prefix, *arguments]


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
        rest = memoryview(data)
        while rest:  # one write takes 2 GiB at most
            rest = rest[os.write(descriptor, rest) :]
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
