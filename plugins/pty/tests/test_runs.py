"""Whole runs of programs that know nothing of tasklink, as they are on every machine."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tasklink import Executor, Status, TaskSpec, hookimpl
from tasklink.errors import ConfigError
from tasklink.sentinel import open_end, wait_for_ends

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasklink import TaskResult

# More than any terminal holds, and less than is kept of a stream's end.
FLOOD = 1_000_000


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


class Listening:
    """An observer that has what was printed as soon as it was."""

    def __init__(self) -> None:
        self.came = threading.Condition()
        self.output = {"stdout": b"", "stderr": b""}

    @hookimpl
    def tasklink_output_received(self, stream: str, data: bytes) -> None:
        """Take it in."""
        with self.came:
            self.output[stream] += data
            self.came.notify_all()

    def wait_for(self, stream: str, data: bytes) -> bool:
        """Wait until it was printed."""
        with self.came:
            return self.came.wait_for(lambda: data in self.output[stream], 20)


def run(*command: str, env: dict[str, str] | None = None, **settings: Any) -> TaskResult:
    """Run a program on a terminal."""
    with Executor("pty", settings={"pty": settings}, timeout=20) as executor:
        return executor.run(TaskSpec(command=command, env=env or {}))


def python(code: str, **settings: Any) -> TaskResult:
    """Run some lines of Python as a program."""
    return run(sys.executable, "-c", code, **settings)


class TestPrograms:
    """What they make of it."""

    def test_isatty(self) -> None:
        """Output and error are terminals; input is empty, so that nothing waits for an answer."""
        result = python("import os, sys; print([os.isatty(n) for n in (0, 1, 2)], sys.stdin.read())")
        assert result.stdout == b"[False, True, True] \n"

    def test_colours(self) -> None:
        """`ls --color=auto` colours, by TERM, and leaves that to those who read it."""
        colours = {"LS_COLORS": "", "COLORTERM": "", "TERM": "vt100"}
        assert b"\x1b[" in run("ls", "--color=auto", "/", env={"LS_COLORS": "di=01;34"}).stdout
        assert b"\x1b[" not in run("ls", "--color=auto", "/", env={**colours, "TERM": "dumb"}).stdout

    @pytest.mark.parametrize(("columns", "lines"), [(1000, 1), (15, 40)])
    def test_width(self, tmp_path: Path, columns: int, lines: int) -> None:
        """`ls` writes as many columns as fit."""
        for number in range(40):
            (tmp_path / f"a-file-{number:02}").touch()
        result = run("ls", str(tmp_path), env={"COLUMNS": ""}, columns=columns)  # that would be asked first
        assert len(result.stdout.splitlines()) == lines

    def test_a_terminal_to_read_from(self) -> None:
        """`tty` names it, `stty` measures it, `cat` finds its end."""
        result = run("sh", "-c", "tty && stty size && cat && echo end", stdin="terminal", rows=7, columns=9)
        name, size, end = result.stdout.splitlines()
        assert name.startswith(b"/dev/")
        assert (size, end) == (b"7 9", b"end")

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("input()", b"EOFError"),
            ("import getpass; getpass.getpass()", b"EOFError"),
            ("open('/dev/tty')", b"OSError"),
        ],
    )
    def test_nobody_is_there(self, code: str, error: bytes) -> None:
        """Who asks somebody gets no answer, at once."""
        result = python(code, stdin="terminal")
        assert result.status is Status.FAILED
        assert error in result.stderr

    def test_pager(self) -> None:
        """A program that shows its output in a pager finds one that does not wait."""
        result = run("sh", "-c", 'seq 1000 | ${PAGER-"sleep 60"}')
        assert (result.status, len(result.stdout.splitlines())) == (Status.COMPLETED, 1000)

    def test_term(self) -> None:
        """It is what the settings say, and what the Task's own `env` says before them."""
        assert run("sh", "-c", "echo $TERM", term="vt100").stdout == b"vt100\n"
        assert run("sh", "-c", "echo $TERM", env={"TERM": "dumb"}).stdout == b"dumb\n"
        assert run("sh", "-c", "echo $TERM").stdout == b"xterm-256color\n"

    def test_order(self) -> None:
        """Together, both streams come as they were printed; separate, they are told apart."""
        script = "for n in 1 2 3; do echo out $n; echo err $n >&2; done"
        together = run("sh", "-c", script, stderr="together")
        assert together.stdout == b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
        assert together.stderr == b""
        for how in ("separate", "pipe"):
            apart = run("sh", "-c", script, stderr=how)
            assert (apart.stdout, apart.stderr) == (b"out 1\nout 2\nout 3\n", b"err 1\nerr 2\nerr 3\n")

    def test_failure(self) -> None:
        """The error of a program that fails ends with what it said."""
        result = run("sh", "-c", "echo the beam is off >&2; exit 3")
        assert "the beam is off" in str(result.error)


class TestLines:
    """When output comes."""

    def test_while_it_runs(self) -> None:
        """A line is there when it is printed, although the program goes on, and never flushes."""
        listening = Listening()
        with Executor("pty", observers=[listening]) as executor:
            future = executor.submit([sys.executable, "-c", "import time; print('ready'); time.sleep(60)"])
            assert listening.wait_for("stdout", b"ready\n")
            assert not future.done()
            future.cancel(grace=0)

    def test_the_stdio_of_c(self) -> None:
        """What a program would hold back from a pipe until it ends comes line by line."""
        listening = Listening()
        with Executor("pty", observers=[listening]) as executor:
            future = executor.submit(["sh", "-c", "{ echo a line; sleep 60; } | sed s/a/one/"])
            assert listening.wait_for("stdout", b"one line\n")
            future.cancel(grace=0)


class TestEnd:
    """What was printed is there to the last byte, and nothing is waited for."""

    def test_flood(self) -> None:
        """1 MB of anything, to the byte."""
        result = python(f"import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes({FLOOD}))")
        assert len(result.stdout) == FLOOD
        assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(random.Random(1).randbytes(FLOOD)).digest()

    def test_killed(self) -> None:
        """A program that kills itself with a grandchild on the terminal: the last word comes, the run ends.

        Linux tells of it late where somebody still has the terminal; without a look at what is there, one in thirty
        loses it.
        """
        script = "setsid sleep 20 & echo $!; head -c 20000 /dev/zero; printf 'the last word'; kill -9 $$"
        with Executor("pty") as executor:
            for _ in range(60):
                result = executor.run(["sh", "-c", script])
                pid, _, rest = result.stdout.partition(b"\n")
                psutil.Process(int(pid)).kill()
                assert result.status is Status.CRASHED
                assert rest == bytes(20000) + b"the last word"
                assert result.duration < 10

    def test_what_is_left_behind(self, tmp_path: Path) -> None:
        """It lives on, for nobody has sent it SIGHUP; and what it prints after the run is refused with an error."""
        gate, found = tmp_path / "gate", tmp_path / "found"
        os.mkfifo(gate)
        script = f"(read word < {gate}; echo too late || echo refused > {found}) & echo $!"
        with Executor("pty") as executor:
            result = executor.run(TaskSpec(command=("sh", "-c", script), leave_descendants=True))
        end = open_end(int(result.stdout))
        opened = os.open(gate, os.O_RDWR)  # which waits for no reader
        try:
            os.write(opened, b"go\n")
            assert wait_for_ends([end], 20)
        finally:
            os.close(opened)
            os.close(end)
        assert found.read_text() == "refused\n"

    def test_a_flood_that_outlives_it(self) -> None:
        """Who prints for ever from a session of its own is read for a moment, and then finds nobody."""
        begin = time.monotonic()
        with Executor("pty") as executor:
            result = executor.run(["sh", "-c", "setsid yes 2>/dev/null & echo $! >&2; sleep 0.1"])
        assert result.status is Status.COMPLETED
        assert time.monotonic() - begin - result.duration < 5
        with suppress(ProcessLookupError):
            end = open_end(int(result.stderr))
            try:
                assert wait_for_ends([end], 20)
            finally:
                os.close(end)

    def test_closed_by_the_program(self) -> None:
        """A daemon that gives the terminal up is waited for, without any output."""
        result = run("sh", "-c", "echo up; exec >/dev/null 2>&1; sleep 0.2; echo lost; exit 5")
        assert (result.stdout, result.exit_code) == (b"up\n", 5)


def test_a_task_in_python_needs_more() -> None:
    """It is refused before anything starts, and by who only checks, with what is missing."""
    with Executor("pty") as executor:
        for ask in (executor.run, executor.check):
            with pytest.raises(ConfigError, match=r"os:getpid: .*none of them carries messages.* such as 'unix'"):
                ask("os:getpid")
