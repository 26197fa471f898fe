"""Whole runs over pipes, inherited and in band, straight and through launchers that pass nothing but 0, 1 and 2."""

from __future__ import annotations

import base64
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasklink import Executor, Status, TaskSpec, current_task
from tasklink.errors import ConfigError
from tasklink.sentinel import open_end, wait_for_ends
from tasklink.testing.tally import Tally, fresh_tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklink import TaskResult

# As srun and mpirun do: it passes 0, 1 and 2 on, and nothing else.
LAUNCHER = (sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)")

# As those do that stand on another machine: it reads and writes for the Task, in portions of its own.
RELAY = (
    sys.executable,
    "-c",
    """
import os, select, subprocess, sys
task = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
ways = {0: task.stdin.fileno(), task.stdout.fileno(): 1}
poll = select.poll()
for source in ways:
    poll.register(source, select.POLLIN)
portion = 1
while ways:
    for source, _ in poll.poll():
        portion = portion % 997 + 1
        data = os.read(source, portion)
        if data:
            os.write(ways[source], data)
        else:
            poll.unregister(source)
            if source == 0:
                task.stdin.close()
            del ways[source]
    if task.stdout.fileno() not in ways:
        break
sys.exit(task.wait())
""",
)

MODES = [
    pytest.param(False, (), id="inherited"),
    pytest.param(True, (), id="in band"),
    pytest.param(False, ("nice",), id="inherited through nice"),
    pytest.param(True, LAUNCHER, id="in band through a launcher"),
    pytest.param(True, RELAY, id="in band through a relay"),
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


def run(
    task: Callable[..., object], *, in_band: bool, prefix: tuple[str, ...] = (), **parameters: object
) -> TaskResult:
    """Run a Task over pipes."""
    with Executor("pipe", settings={"pipe": {"in_band": in_band}}) as executor:
        return executor.run(TaskSpec(run=task, prefix=prefix), **parameters)


class TestModes:
    """The same Task, whichever way its messages go."""

    @pytest.mark.parametrize(("in_band", "prefix"), MODES)
    def test_a_task(self, in_band: bool, prefix: tuple[str, ...]) -> None:
        """It runs, talks, prints on both streams, and has an empty standard input."""

        def task(value: object) -> object:
            current_task().report(sys.stdin.read())
            current_task().report(os.read(0, 10))
            print("printed")
            print("complained", file=sys.stderr)
            return value

        result = run(task, in_band=in_band, prefix=prefix, value={"a": [1]})
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, {"a": [1]}, 0), result.error
        assert [message.contents for message in result.messages] == ["", b""]
        assert (result.stdout, result.stderr) == (b"printed\n", b"complained\n")

    @pytest.mark.parametrize(("in_band", "prefix"), MODES)
    @pytest.mark.parametrize("size", [1000, 1 << 20])
    def test_large_messages(self, in_band: bool, prefix: tuple[str, ...], size: int) -> None:
        """Parameters and results of any size get there and back."""
        payload = os.urandom(size)
        assert run(lambda value: value, in_band=in_band, prefix=prefix, value=payload).value_or_raise() == payload

    @pytest.mark.parametrize(("in_band", "prefix"), MODES)
    def test_killed_after_the_last_write(self, in_band: bool, prefix: tuple[str, ...]) -> None:
        """What was written, and printed, before SIGKILL is delivered, all of it and in order."""

        def task() -> None:
            for number in range(200):
                current_task().report((number, bytes(number * 10)))
                os.write(1, b"%d\n" % number)
            os.kill(os.getpid(), signal.SIGKILL)

        result = run(task, in_band=in_band, prefix=prefix)
        assert result.status is Status.CRASHED
        assert [message.contents for message in result.messages] == [(n, bytes(n * 10)) for n in range(200)]
        assert result.stdout == b"".join(b"%d\n" % number for number in range(200))

    @pytest.mark.parametrize(("in_band", "prefix"), MODES)
    def test_killed_at_any_moment(self, in_band: bool, prefix: tuple[str, ...], tmp_path: Path) -> None:
        """Every message whose write had returned is delivered, once and in order; the next one may be, too."""
        path = tmp_path / "tally"
        moments = random.Random(1)

        def task() -> None:
            counts = Tally.at(path)
            current_task().report(os.getpid())
            for number in itertools.count():
                current_task().report((number, bytes(number % 5000)))
                counts.accepted = number + 1

        for _ in range(5):
            with Executor("pipe", settings={"pipe": {"in_band": in_band}}) as executing, fresh_tally(path) as tally:
                future = executing.submit(TaskSpec(run=task, prefix=prefix))
                pid = next(future.messages()).contents
                time.sleep(moments.uniform(0, 0.02))
                os.kill(pid, signal.SIGKILL)  # type: ignore[arg-type]
                result = future.result()
                accepted = tally.accepted
            numbers = [message.contents[0] for message in result.messages[1:]]  # type: ignore[index]
            assert (result.status, numbers) == (Status.CRASHED, list(range(len(numbers))))
            assert accepted <= len(numbers) <= accepted + 1

    @pytest.mark.parametrize(("in_band", "prefix"), MODES)
    def test_signals(self, in_band: bool, prefix: tuple[str, ...]) -> None:
        """The Executor reaches the Task while it runs."""

        def task() -> list[object]:
            return [current_task().received(30).contents for _ in range(100)]

        with Executor("pipe", settings={"pipe": {"in_band": in_band}}) as executor:
            future = executor.submit(TaskSpec(run=task, prefix=prefix))
            for number in range(100):
                future.signal("number", number)
            assert future.result().value == list(range(100))

    @pytest.mark.parametrize("in_band", [False, True])
    @pytest.mark.parametrize("prefix", [(), ("nice",), LAUNCHER])
    def test_a_command(self, in_band: bool, prefix: tuple[str, ...]) -> None:
        """A command is not spoken to: its standard input is empty, its output is captured, in either mode."""
        command = ("sh", "-c", "cat; echo out; echo err >&2")
        with Executor("pipe", settings={"pipe": {"in_band": in_band}}) as executor:
            result = executor.run(TaskSpec(command=command, prefix=prefix))
        assert (result.status, result.stdout, result.stderr) == (Status.COMPLETED, b"out\n", b"err\n")


class TestInBand:
    """Messages between the lines of output."""

    @pytest.mark.parametrize("prefix", [(), LAUNCHER])
    def test_ten_megabytes_of_noise(self, prefix: tuple[str, ...], tmp_path: Path) -> None:
        """Threads and a grandchild print while a thousand messages go each way: all of both is whole and in order."""

        def task(size: int) -> int:
            def noise(writer: int) -> None:
                for number in range(size // 100):
                    os.write(1, b"%d %08d %s\n" % (writer, number, b"x" * 88))

            program = (
                "import os\n"
                f"for number in range({size} // 100):\n"
                "    os.write(1, b'3 %08d %s\\n' % (number, b'x' * 88))"
            )
            with subprocess.Popen([sys.executable, "-c", program]) as grandchild:
                threads = [threading.Thread(target=noise, args=(writer,)) for writer in range(3)]
                for thread in threads:
                    thread.start()
                for number in range(1000):
                    message = current_task().received(60)
                    assert message.contents == bytes(number * 7)
                    current_task().report(message.contents)
                for thread in threads:
                    thread.join()
            return grandchild.returncode

        size = 2_500_000
        whole = tmp_path / "stdout"
        with (
            Executor("pipe", settings={"pipe": {"in_band": True}}) as executor,
            ThreadPoolExecutor(1) as pool,
        ):
            future = executor.submit(TaskSpec(run=task, prefix=prefix, stdout=whole), size=size)
            pool.submit(lambda: [future.signal("echo", bytes(number * 7)) for number in range(1000)])
            result = future.result()
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, 0, 0), result.error
        assert [message.contents for message in result.messages] == [bytes(number * 7) for number in range(1000)]
        lines = whole.read_bytes().splitlines(keepends=True)
        expected = [[b"%d %08d %s\n" % (writer, n, b"x" * 88) for n in range(size // 100)] for writer in range(4)]
        assert [[line for line in lines if line[:1] == b"%d" % writer] for writer in range(4)] == expected
        assert len(lines) == 4 * (size // 100)

    def test_output_that_looks_like_messages(self) -> None:
        """Frames, pickles and heads with the wrong key are text."""
        text = b"TL\x01\x01" + bytes(100) + b"\x80\x05cos\nsystem\n." + os.urandom(16) + b"\x05\x00hello" + b"\xff" * 40

        def task(data: bytes) -> None:
            os.write(1, data)

        assert run(task, in_band=True, prefix=LAUNCHER, data=text).stdout == text

    def test_long_writes(self) -> None:
        """A print of a megabyte, during which messages are sent by another thread, comes out in one piece."""

        def task() -> None:
            def print_much() -> None:
                for letter in b"abc":
                    sys.stdout.buffer.write(bytes([letter]) * (1 << 20))
                sys.stdout.flush()

            printing = threading.Thread(target=print_much)
            printing.start()
            while printing.is_alive():
                current_task().report(b"meanwhile")
            printing.join()

        with Executor("pipe", settings={"pipe": {"in_band": True}}, observers=[]) as executor:
            result = executor.run(TaskSpec(run=task))
        assert result.status is Status.COMPLETED, result.error
        assert result.stdout == b"c" * (1 << 20)

    def test_the_task_closes_its_standard_descriptors(self) -> None:
        """Its messages do not depend on them."""

        def task() -> str:
            for descriptor in range(3):
                os.close(descriptor)
            current_task().report("still here")
            os._exit(7)

        result = run(task, in_band=True)
        assert [message.contents for message in result.messages] == ["still here"]
        assert (result.status, result.exit_code) == (Status.CRASHED, 7)

    def test_a_grandchild_keeps_standard_output(self) -> None:
        """The run ends with the Task, and all that it said has been heard."""

        def task() -> int:
            print("printed", flush=True)
            return subprocess.Popen(["sleep", "60"], start_new_session=True).pid

        result = run(task, in_band=True)
        assert (result.status, result.stdout) == (Status.COMPLETED, b"printed\n")
        os.kill(result.value, signal.SIGKILL)
        assert result.duration < 10

    def test_programs_of_the_task_have_nothing_of_it(self) -> None:
        """What a Task starts has 0, 1 and 2, and no channel."""

        def task() -> list[str]:
            program = "import os; print(*os.listdir('/dev/fd'))"
            return subprocess.run(  # -I: without what tests add to every Python
                [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, close_fds=False
            ).stdout.split()

        assert sorted(run(task, in_band=True).value_or_raise()) == ["0", "1", "2", "3"]  # 3 is that of listdir

    def test_a_fork_cannot_speak_for_the_task(self) -> None:
        """A forked child gets a clear error, and its prints come through."""

        def task() -> str:
            pid = os.fork()
            if pid == 0:
                try:
                    current_task().report("from the child")
                except Exception as error:  # noqa: BLE001 - which one it is, is what is tested
                    os.write(1, type(error).__name__.encode())
                os._exit(0)
            os.waitpid(pid, 0)
            current_task().report("from the parent")
            return "done"

        result = run(task, in_band=True)
        assert ([m.contents for m in result.messages], result.stdout) == (["from the parent"], b"ForkedError")

    def test_standard_output_is_a_terminal(self) -> None:
        """A launcher that makes a terminal of it is found out, and the error says so."""
        terminal = (
            "import pty, subprocess, sys; ours, theirs = pty.openpty();"
            "sys.exit(subprocess.run(sys.argv[1:], stdout=theirs).returncode)"
        )
        result = run(lambda: 1, in_band=True, prefix=(sys.executable, "-c", terminal))
        assert result.status is Status.NOT_STARTED
        assert "standard output is a terminal" in str(result.error)

    def test_the_executor_goes(self) -> None:
        """The Task ends when its standard input does."""
        program = (
            "from tasklink import Executor, TaskSpec\n"
            "def task():\n"
            "    import os, time\n"
            "    os.write(1, b'%d' % os.getpid())\n"
            "    time.sleep(60)\n"
            "class Shout:\n"
            "    from tasklink import hookimpl\n"
            "    @hookimpl\n"
            "    def tasklink_output_received(self, task, stream, data):\n"
            "        print(data.decode(), flush=True)\n"
            "Executor('pipe', settings={'pipe': {'in_band': True}}, observers=[Shout()]).run(task)\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as executor:
            assert executor.stdout is not None
            try:
                end = open_end(int(executor.stdout.readline()))
            finally:
                executor.kill()
        try:
            assert wait_for_ends([end], 1)
        finally:
            os.close(end)


class TestPrefix:
    """Programs in front of the Task, and what they pass on."""

    def test_a_launcher_that_may_pass_none(self) -> None:
        """Before anything is started the error says what to set."""
        with pytest.raises(ConfigError, match=r"set in_band = true in \[communicators\.pipe\], or leave 'pipe' out"):
            run(lambda: 1, in_band=False, prefix=LAUNCHER)

    def test_ssh(self, tmp_path: Path) -> None:
        """It has a shell split its arguments again: they are quoted for that."""
        ssh = tmp_path / "ssh"
        ssh.write_text('#!/bin/sh\nhost=$1\nshift\nexec sh -c "$*"\n')
        ssh.chmod(0o755)
        prefix = (str(ssh), "far")
        assert run(lambda value: value * 2, in_band=True, prefix=prefix, value=4).value_or_raise() == 8
        with Executor("pipe") as executor:
            result = executor.run(TaskSpec(command=("echo", "a  b", "$HOME;", "it's"), prefix=prefix))
        assert result.stdout == b"a  b $HOME; it's\n"

    def test_a_long_handover(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a Task is told may be longer than a pipe holds."""
        monkeypatch.setattr(sys, "path", [*sys.path, *(f"/nowhere/{number}/" + "x" * 200 for number in range(500))])
        for in_band, prefix in ((True, LAUNCHER), (True, ("nice",)), (False, ("nice",)), (True, ())):
            with Executor("pipe", settings={"pipe": {"in_band": in_band, "capacity": 4096}}) as executor:
                result = executor.run(TaskSpec(run=lambda: len(sys.path), prefix=prefix))
                assert result.value_or_raise() > 500


class TestKey:
    """Nobody but the Task knows what its chunks begin with."""

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_it_is_nowhere_to_be_seen(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Not in arguments or environment of any process, not in logs, output or reprs."""
        drawn: list[bytes] = []
        draw = os.urandom

        def urandom(count: int) -> bytes:
            drawn.append(draw(count))
            return drawn[-1]

        def task() -> list[bytes]:
            grandchild = subprocess.Popen(["sleep", "60"])
            pids = [str(grandchild.pid), "self", str(os.getppid())]
            seen = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in ("cmdline", "environ")]
            grandchild.kill()
            grandchild.wait()
            return [*seen, repr(dict(os.environ)).encode()]

        monkeypatch.setattr(os, "urandom", urandom)
        with caplog.at_level(0):
            result = run(task, in_band=True, prefix=LAUNCHER)
        seen = b"\n".join([*result.value_or_raise(), result.stdout, result.stderr, repr(result).encode()])
        seen += caplog.text.encode() + Path("/proc/self/environ").read_bytes() + Path("/proc/self/cmdline").read_bytes()
        secrets = [secret for secret in drawn if len(secret) == 15]
        assert secrets
        for secret in secrets:
            for form in (secret, secret.hex().encode(), base64.b64encode(secret), repr(secret).encode()[2:-1]):
                assert form not in seen
