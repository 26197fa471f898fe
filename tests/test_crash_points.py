"""Killed at its Nth system call, for every N: no place in a run where what was accepted can be lost, or come twice.

`strace` sends the signal as the call begins. The interpreter's own calls are among those that are counted.
"""

import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from tasklink import Executor, Status, TaskSpec

TASKS = Path(__file__).parent / "tasks"
SIZES = (0, 0, 200_000, 0, 3 << 20, 0)

EVERYDAY = {
    "unix": [("write", 3), ("writev", 1), ("writev", 4)],
    "pipe": [("write", 4), ("writev", 2), ("writev", 7)],
    "shm": [("sendmsg", 1), ("sendto", 2), ("ftruncate", 2)],
    "zmq": [("write", 8), ("sendto", 5), ("futex", 4)],
}
CALLS = ["write", "writev", "sendto", "sendmsg", "futex", "ftruncate", "mmap", "munmap"]


@pytest.fixture(scope="module", autouse=True)
def strace():
    """The program, where it is installed and may trace."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed, which kills a process at a system call: see `which strace`")
    command = [program, "-qq", "-e", "inject=close:error=EBADF:when=9999", "true"]
    attempt = subprocess.run(command, check=False, capture_output=True)
    if attempt.returncode != 0:
        pytest.skip(f"strace may not trace here; see for yourself: {' '.join(command)}: {attempt.stderr!r}")
    return program


class Sweep:
    """Runs a Task that is killed at some system call, and looks at what is there of it."""

    def __init__(self, executor, strace, folder, *, accepted_is_delivered):
        self._executor = executor
        self._strace = strace
        self._ledger = folder / "ledger"
        self._python = folder / "python"
        self._accepted_is_delivered = accepted_is_delivered

    def kill_at(self, call, number):
        """Give how many messages arrived; None when the Task made no so many of these calls."""
        self._ledger.write_bytes(bytes(8))
        kill = f"-f -qq -o /dev/null -e trace={call} -e inject={call}:signal=SIGKILL:when={number}"
        self._python.write_text(f'#!/bin/sh\nexec {self._strace} {kill} {sys.executable} "$@"\n')
        self._python.chmod(0o755)
        spec = TaskSpec(
            run="doomed_tasks:account", python=self._python, env={"PYTHONPATH": str(TASKS)}, timeout=30, grace=0.1
        )
        result = self._executor.run(spec, ledger=str(self._ledger), sizes=SIZES)
        accepted = int.from_bytes(self._ledger.read_bytes(), sys.byteorder)
        arrived = [(number, len(data)) for number, data in (message.contents for message in result.messages)]
        assert arrived == list(enumerate(SIZES))[: len(arrived)]
        assert len(arrived) <= accepted + 1
        assert result.lost == 0
        if result.status is Status.COMPLETED:
            assert (result.value, len(arrived)) == ("value", len(SIZES))
        else:
            assert result.status in {Status.NOT_STARTED, Status.CRASHED}
            assert result.signal_name == "SIGKILL"
            assert len(arrived) >= accepted or not self._accepted_is_delivered
        return len(arrived) if result.signal_name == "SIGKILL" else None


@pytest.fixture
def sweep(alone, strace, tmp_path):
    """A sweep over one communicator."""
    with Executor(alone) as executor:
        yield Sweep(executor, strace, tmp_path, accepted_is_delivered=alone != ["zmq"])


def test_some_crash_points(sweep, alone):
    """F01: where it is most likely to matter."""
    arrived = [sweep.kill_at(*point) for point in EVERYDAY[alone[0]]]
    assert any(number is not None for number in arrived)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_every_crash_point(sweep, record_property):
    """F01: everywhere. Each call is swept until the Task twice makes no more of them."""
    seen = []
    for call in CALLS:
        spared = 0
        for number in count(1):
            arrived = sweep.kill_at(call, number)
            seen.append(arrived)
            spared += arrived is None
            if spared == 2:
                break
    killed = [number for number in seen if number is not None]
    record_property("runs", len(killed))
    assert {0, len(SIZES)} < set(killed)  # it was killed before the first one, after the last one, and in between
