"""Starting and reaping a child, whatever it is for; on real processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tasklink.child import reap_child, spawn, unreaped
from tasklink.sentinel import wait_for_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("clean")


@contextmanager
def spawned(
    *argv: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    standard: Mapping[int, int] = {},
    inherited: Sequence[int] = (),
) -> Iterator[tuple[int, int]]:
    """A child and what tells of its end; killed and reaped when the context ends, unless it was."""
    pid, end = spawn(argv, env=env, cwd=cwd, standard=standard, inherited=inherited)
    try:
        yield pid, end
    finally:
        if unreaped(end):
            os.kill(pid, signal.SIGKILL)
            reap_child(pid, end)
        os.close(end)


def output(*argv: str, descriptor: int = 1, inherited: Sequence[int] = (), **options: object) -> bytes:
    """All that a child writes to a standard descriptor."""
    reader, writer = os.pipe()
    with spawned(*argv, standard={descriptor: writer}, inherited=inherited, **options):  # type: ignore[arg-type]
        os.close(writer)
        written = b"".join(iter(lambda: os.read(reader, 65536), b""))
    os.close(reader)
    return written


class TestSpawn:
    """What a child has from its start."""

    def test_it_leads_a_session_and_a_group(self) -> None:
        """Its pid is the number of its session and of its group, as soon as there is a pid to be had."""
        for _ in range(20):
            with spawned("sleep", "60") as (pid, _):
                assert (os.getsid(pid), os.getpgid(pid)) == (pid, pid)

    def test_standard_descriptors(self, python: tuple[str, ...]) -> None:
        """0, 1 and 2 are what was asked for; a 0 that was not is empty, and not our own."""
        own, reader = os.dup(0), os.memfd_create("input")
        os.pwrite(reader, b"ours", 0)
        os.dup2(reader, 0)
        try:
            code = "import sys; sys.stderr.write(repr(sys.stdin.read()))"
            assert output(*python, code, descriptor=2) == b"''"
            with spawned(*python, "import sys; sys.exit(sys.stdin.read())", standard={0: reader, 2: reader}) as child:
                assert reap_child(*child) == 1
            assert os.pread(reader, 100, 0) == b"oursours\n"
        finally:
            os.dup2(own, 0)
            os.close(own)
            os.close(reader)

    def test_descriptors_are_those_that_were_named(self, python: tuple[str, ...]) -> None:
        """An inherited descriptor keeps its number; no other one of ours is there."""
        given, other = os.pipe()
        os.set_inheritable(other, True)
        code = "import os; print(*(n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)))"
        there = output(*python, code, inherited=[given])
        assert sorted(there.split()) == sorted(str(n).encode() for n in (0, 1, 2, given))
        os.close(given)
        os.close(other)

    def test_signals_are_at_their_defaults(self) -> None:
        """SIGPIPE, which Python ignores, is not ignored in a child; what is handled here is not either."""
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            lines = output("grep", "-E", "SigBlk|SigIgn", "/proc/self/status").splitlines()
            # 32 and 33 are glibc's own; where a library has cancelled a thread, a child ignores the first.
            own = 1 << 31 | 1 << 32
            assert [int(line.split()[1], 16) & ~own for line in lines] == [0, 0]
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_signals_that_are_held_back_here(self) -> None:
        """What is blocked in the thread that starts the child is blocked in the child."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            blocked = output("grep", "SigBlk", "/proc/self/status").split()[1]
            assert int(blocked, 16) == 1 << (signal.SIGUSR1 - 1)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def test_environment_and_directory(self, tmp_path: Path) -> None:
        """They are those that were asked for, and no others."""
        assert output("/usr/bin/env", env={"A": "1"}) == b"A=1\n"
        assert output("pwd", cwd=tmp_path) == os.fsencode(tmp_path) + b"\n"

    @pytest.mark.parametrize(("argv", "error"), [(["no-such-command"], FileNotFoundError), (["a\0b"], ValueError)])
    def test_command_that_cannot_be_run(self, argv: list[str], error: type[Exception]) -> None:
        """The error is that of Popen, and nothing is left behind."""
        with pytest.raises(error):
            spawn(argv, standard={}, inherited=())

    def test_end_that_cannot_be_watched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A child of which no descriptor is to be had is not left running."""

        def refuse(pid: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
        with pytest.raises(OSError, match="Too many open files"):
            spawn(["sleep", "60"], standard={}, inherited=())


class TestReap:
    """The end of a child, and who takes its status."""

    @pytest.mark.parametrize(
        ("code", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", -9), ("kill -40 $$", -40)]
    )
    def test_status(self, code: str, status: int) -> None:
        """It is waited for; an exit code is as it is, the number of a signal negative. It is there once."""
        with spawned("sh", "-c", code) as (pid, end):
            assert unreaped(end)
            assert reap_child(pid, end) == status
            assert not unreaped(end)
            assert reap_child(pid, end) is None

    def test_ended_and_unreaped(self) -> None:
        """A child that has ended keeps its pid, and to ask does not take its status."""
        with spawned("sh", "-c", "exit 3") as (pid, end):
            assert wait_for_ends([end], 5)
            assert unreaped(end)
            assert unreaped(end)
            assert reap_child(pid, end) == 3

    def test_somebody_else_took_it(self) -> None:
        """The status is unknown, rather than 0, and the pid no longer the child's."""
        with spawned("sh", "-c", "exit 3") as (pid, end):
            os.waitpid(-1, 0)
            assert not unreaped(end)
            assert reap_child(pid, end) is None

    def test_sigchld_ignored(self, run_host: Callable[[str], str]) -> None:
        """Where the kernel reaps every child at once, the end is still noticed, at whatever moment it came."""
        host = """
import os, signal
from tasklink.child import reap_child, spawn, unreaped
from tasklink.sentinel import wait_for_ends
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(20):
    pid, end = spawn(["true"], standard={}, inherited=())
    assert wait_for_ends([end], 5)
    assert reap_child(pid, end) is None
    assert not unreaped(end)
    os.close(end)
"""
        assert run_host(host) == ""

    def test_no_descriptor_of_a_child(self) -> None:
        """A descriptor that is closed, or is another thing, speaks of no child."""
        reader, writer = os.pipe()
        os.close(writer)
        assert not unreaped(reader)
        assert reap_child(os.getpid(), reader) is None
        os.close(reader)
        assert not unreaped(reader)

    def test_popen_does_not_interfere(self) -> None:
        """The next Popen, which reaps what others left running, leaves ours alone."""
        with spawned("sh", "-c", "exit 3") as (pid, end):
            assert wait_for_ends([end], 5)
            with subprocess.Popen(["true"]) as other:
                other.wait()
            assert reap_child(pid, end) == 3
