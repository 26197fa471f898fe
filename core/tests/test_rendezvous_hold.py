"""A private directory lives as long as anybody has a hold on it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tasklink.rendezvous.directory import PrivateDirectory, sweep
from tasklink.rendezvous.hold import Hold

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from tasklink.rendezvous.hold import Hold
hold = Hold(sys.argv[1])
print("holds", flush=True)
sys.stdin.read()
hold.close()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that has a hold on a directory until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def test_the_last_one_removes_it(tmp_path: Path) -> None:
    """Not its owner, if the peer still needs what is in it."""
    directory = PrivateDirectory(tmp_path, table="communicators.test")
    (directory.path / "message").write_text("for the peer")
    with holder(directory.path) as peer:
        directory.close()
        assert (directory.path / "message").read_text() == "for the peer"
        assert sweep(tmp_path) == 0
        peer.communicate()
    assert not directory.path.exists()


def test_a_peer_that_goes_first_leaves_it(tmp_path: Path) -> None:
    """Then its owner removes it, as ever."""
    with PrivateDirectory(tmp_path, table="communicators.test") as directory:
        with holder(directory.path) as peer:
            peer.communicate()
        assert directory.path.is_dir()
    assert not directory.path.exists()


@pytest.mark.parametrize("first", ["owner", "peer"])
def test_a_peer_that_is_killed_holds_nothing(first: str, tmp_path: Path) -> None:
    """The kernel gives its lock back: the owner removes the directory, or the next sweep does."""
    directory = PrivateDirectory(tmp_path, table="communicators.test")
    with holder(directory.path) as peer:
        if first == "owner":
            directory.close()
        peer.kill()
    directory.close()
    assert sweep(tmp_path) == (first == "owner")
    assert not directory.path.exists()


def test_a_forked_child_removes_nothing(tmp_path: Path) -> None:
    """It closes its copy, and the parent's hold stays."""
    with PrivateDirectory(tmp_path, table="communicators.test") as directory:
        hold = Hold(str(directory.path))
        child = os.fork()
        if child == 0:
            hold.close()
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        assert sweep(tmp_path) == 0
        hold.close()
        assert directory.path.is_dir()
    assert not directory.path.exists()


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """An error says so, and no descriptor stays open."""
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Hold(str(tmp_path / "gone"))
    assert sorted(os.listdir("/proc/self/fd")) == before
