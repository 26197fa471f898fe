"""A Task in Python on a terminal: output over `pty`, messages over another communicator, and each as it is alone."""

import hashlib
import os
import random
import re
import signal
import sys

import pytest
import sample_tasks

from tasklink import Executor, Status, TaskSpec, current_task, hookimpl
from tasklink.errors import ConfigError
from tasklink.registry import Registry

FLOOD = 1_000_000


class Output:
    """An observer that keeps what was printed, and by whom."""

    def __init__(self):
        self.chunks = []

    @hookimpl
    def tasklink_output_received(self, task, stream, data):
        """Keep it."""
        self.chunks.append((task.communicators, stream, data))

    def of(self, stream):
        """All that came over one stream."""
        return b"".join(data for _, name, data in self.chunks if name == stream)


@pytest.fixture(params=["unix", "pipe", "shm", "zmq"])
def pair(request):
    """The terminal in front of each communicator for messages."""
    return ["pty", request.param]


def look_around():
    """Say what this Task finds, on all ways at once."""
    print("\x1b[32mgreen\x1b[0m", os.isatty(1), os.get_terminal_size(1).columns)
    print("complaint", os.isatty(2), file=sys.stderr)
    current_task().report({"answer": 42})
    return os.environ["TERM"], sys.stdin.read(), os.isatty(0)


def print_a_lot():
    """Print what is no text, and report beside it."""
    data = random.Random(1).randbytes(FLOOD)
    for begin in range(0, FLOOD, 100_000):
        rest = memoryview(data)[begin : begin + 100_000]
        current_task().report(begin)
        while rest:
            rest = rest[os.write(1, rest) :]
    return hashlib.sha256(data).hexdigest()


def print_and_be_killed(count):
    """Print and report in turn, then die at once."""
    for number in range(count):
        current_task().report(number)
        print("line", number)
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_its_own_way(pair):
    """Output comes from a terminal, colours kept; result and messages as ever; input is as empty as ever."""
    output = Output()
    with Executor(pair, observers=[output], settings={"pty": {"columns": 99, "term": "vt220"}}) as executor:
        result = executor.run(look_around)
    assert result.value_or_raise() == ("vt220", "", False)
    assert [(message.contents, message.communicator) for message in result.messages] == [({"answer": 42}, pair[1])]
    assert result.stdout == output.of("stdout") == b"\x1b[32mgreen\x1b[0m True 99\n"
    assert result.stderr == output.of("stderr") == b"complaint True\n"
    assert {names for names, _, _ in output.chunks} == {tuple(pair)}
    assert result.communicators["pty"].bytes == len(result.stdout + result.stderr)
    assert result.lost == 0


def test_a_flood(pair):
    """1 MB of anything is captured to the byte while messages pass beside it."""
    output = Output()
    with Executor(pair, observers=[output]) as executor:
        result = executor.run(print_a_lot)
    assert hashlib.sha256(output.of("stdout")).hexdigest() == result.value_or_raise()
    assert [message.contents for message in result.messages] == list(range(0, FLOOD, 100_000))


def test_killed(pair):
    """What was printed and reported before SIGKILL is there, all of it and in order."""
    with Executor(pair) as executor:
        result = executor.run(print_and_be_killed, count=500)
    assert result.status is Status.CRASHED
    assert result.stdout == b"".join(b"line %d\n" % number for number in range(500))
    if Registry().get(pair[1]).capabilities.delivery == "write":
        assert [message.contents for message in result.messages] == list(range(500))


def test_the_same_task_as_without():
    """Only the config changes: a Task gives over a terminal what it gives over pipes."""
    results = []
    for communicators in (["pipe"], ["pty", "pipe"], ["pipe", "pty"], ["unix", "pty"]):
        with Executor(communicators) as executor:
            results.append(executor.run(sample_tasks.MixedTalk, count=50))
    for result in results:
        assert (result.status, result.lost, result.stdout) == (Status.COMPLETED, 0, results[0].stdout)
        assert len(result.messages) == len(results[0].messages)


def test_a_traceback_is_told_apart():
    """Errors have a terminal of their own: what failed is still known from the end of stderr."""
    with Executor(["pty", "unix"]) as executor:
        result = executor.run(os.abort)
    assert result.status is Status.CRASHED
    assert b"Aborted" in result.stderr
    assert result.stdout == b""


@pytest.mark.parametrize("stdin", ["empty", "terminal"])
@pytest.mark.parametrize("prefix", [(), ("nice",)])
def test_standard_input(stdin, prefix):
    """Behind a prefix the Task learns there whom it talks with; in front of none it is what the settings say."""
    with Executor(["unix", "pty"], settings={"pty": {"stdin": stdin}}) as executor:
        result = executor.run(TaskSpec(run=look_around, prefix=prefix))
    assert result.value_or_raise() == ("xterm-256color", "", stdin == "terminal" and not prefix)
    assert re.search(rb"green.* True 80\n", result.stdout)


def test_messages_on_standard_output():
    """What needs standard output for its messages cannot have it as a terminal, and that is said before the start."""
    for communicators in (["pipe", "pty"], ["pty", "pipe"]):
        with Executor(communicators, settings={"pipe": {"in_band": True}}) as executor:
            with pytest.raises(ConfigError, match="'pipe' and 'pty' both need descriptor 1"):
                executor.run("os:getpid")
            assert executor.run(["echo", "a command"]).stdout == b"a command\n"
