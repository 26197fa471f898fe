"""How the process of a Task is called, and what it is told before the first message."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tasklink
from tasklink import codec
from tasklink.communicator import Address
from tasklink.launch import TRANSPARENT, Invitation, anonymous_file, behind, passes_descriptors, python_arguments

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.usefixtures("clean")


def unpacked(handover: bytes) -> dict[str, Any]:
    """What a Task reads in a handover."""
    length = int.from_bytes(handover[:8], "little")
    assert len(handover) == 8 + length
    contents = pickle.loads(handover[8:])
    assert isinstance(contents, dict)
    return contents


class TestInvitation:
    """What stands in the handover."""

    def test_everything_a_task_must_know(self, wires: ModuleType) -> None:
        """Whom to talk to and how, what it is called, and where its modules are."""
        invitation = Invitation(
            label="count",
            channels=[("wire", wires.Wire, Address({"port": 5}, (7,), b"secret"))],
            routes={"log": "wire"},
            encoding=codec.JSON,
            folders=("/data/run17",),
        )
        assert unpacked(invitation.pack(foreign=False)) == {
            "label": "count",
            "path": sys.path,
            "folders": ["/data/run17"],
            "routes": {"log": "wire"},
            "codec": codec.JSON,
            "rank": 0,
            "expected": [],
            "communicators": [("wire", "wires:Wire", {"port": 5}, (7,), b"secret")],
        }

    def test_a_foreign_interpreter(self) -> None:
        """Its path is its own."""
        assert unpacked(Invitation(label="count", channels=[]).pack(foreign=True))["path"] is None

    def test_the_current_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The empty entry of our path means the folder that is ours now; the Task may have another one."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", ["", "/lib"])
        assert unpacked(Invitation(label="", channels=[]).pack(foreign=False))["path"] == [str(tmp_path), "/lib"]

    def test_it_is_read_without_anything_of_ours(self, wires: ModuleType) -> None:
        """An interpreter that has not even its own site-packages reads it."""
        handover = Invitation(label="count", channels=[("wire", wires.Wire, Address())]).pack(foreign=True)
        code = "import pickle, sys; print(sorted(pickle.loads(sys.stdin.buffer.read()[8:])))"
        done = subprocess.run([sys.executable, "-S", "-I", "-c", code], input=handover, capture_output=True, check=True)
        assert b"communicators" in done.stdout

    def test_behind_a_prefix(self, wires: ModuleType) -> None:
        """The Task can tell whether it has what was meant for it, and what to say if it has not."""
        read, write = os.pipe()
        invitation = Invitation(
            label="count",
            channels=[("wire", wires.Wire, Address(descriptors=(read,)))],
            prefix=("nice",),
            remedies={"wire": "leave 'wire' out"},
        )
        ((descriptor, device, inode, text),) = unpacked(invitation.pack(foreign=False))["expected"]
        status = os.fstat(read)
        assert (descriptor, device, inode) == (read, status.st_dev, status.st_ino)
        assert "leave 'wire' out" in text
        os.close(read)
        os.close(write)


class TestPrefix:
    """What stands before the arguments."""

    @pytest.mark.parametrize("name", sorted(TRANSPARENT))
    def test_transparent(self, name: str) -> None:
        """What becomes its command passes descriptors on, wherever it is installed."""
        assert passes_descriptors([f"/usr/bin/{name}", "-x"])

    @pytest.mark.parametrize("name", ["srun", "mpirun", "ssh", "docker", "sudo", "/opt/nice/run"])
    def test_launchers(self, name: str) -> None:
        """Of anything else it is not believed."""
        assert not passes_descriptors([name])

    def test_ssh(self) -> None:
        """What a shell on the other side would split or expand is quoted; any other prefix gets it as it is."""
        hard = ["a b", "$HOME", "'", ""]
        assert behind(("/usr/bin/ssh", "host"), hard)[2:] == ["'a b'", "'$HOME'", "''\"'\"''", "''"]
        assert behind(("srun",), hard) == ["srun", *hard]


class TestAnonymousFile:
    """The handover's way."""

    @pytest.mark.parametrize("size", [0, 1, 65_537, 20_000_000])
    @pytest.mark.parametrize("memfd", [True, False])
    def test_bytes(self, size: int, memfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reader gets all of them from the start, more than a pipe would hold too."""
        if not memfd:
            monkeypatch.delattr(os, "memfd_create")
        data = os.urandom(size)
        descriptor = anonymous_file(data)
        try:
            assert not os.get_inheritable(descriptor)
            with os.fdopen(os.dup(descriptor), "rb") as file:
                assert file.read() == data
        finally:
            os.close(descriptor)

    def test_no_room(self) -> None:
        """Where it cannot be written, its descriptor is closed."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                anonymous_file(bytes(2000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class TestArguments:
    """An interpreter that becomes a Task."""

    def test_nothing_is_said_there(self) -> None:
        """The arguments name the interpreter, the place of this package and a descriptor; no key, no Task."""
        interpreter, option, code = python_arguments("/opt/python", 7, None)
        assert (interpreter, option) == ("/opt/python", "-c")
        assert str(Path(tasklink.__file__).parent.parent) in code
        assert code.endswith("main(7)")

    @pytest.mark.parametrize("name", ["struct", "os", "tasklink", "select"])
    def test_a_folder_of_traps(self, tmp_path: Path, name: str) -> None:
        """A file in the current folder is not taken for a module of Python's, or of ours."""
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a trap')")
        arguments = python_arguments(sys.executable, 0, None)
        done = subprocess.run(arguments, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.stderr == b"tasklink: the Executor ended before it had said what to run\n"

    def test_a_path_with_quotes(self, tmp_path: Path) -> None:
        """Any name of a bundle is the name of a bundle."""
        bundle = tmp_path / 'it\'s "quoted" \\ and {braced} \udce9.zip'
        code = python_arguments(sys.executable, 0, bundle)[2].partition(";from")[0]
        done = subprocess.run(
            [sys.executable, "-c", f"{code};print(ascii(sys.path[0]))"], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == ascii(str(bundle))
