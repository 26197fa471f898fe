"""Output that nobody controls: captured to the byte, whatever it is, and never in the way."""

import hashlib
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tasklink import Executor, Status, TaskSpec, hookimpl
from tasklink.output import TAIL_BYTES


class Digest:
    """An observer that adds up what is captured."""

    def __init__(self):
        self.sums = {"stdout": hashlib.sha256(), "stderr": hashlib.sha256()}
        self.sizes = {"stdout": 0, "stderr": 0}

    @hookimpl
    def tasklink_output_received(self, stream, data):
        """Add some bytes."""
        self.sums[stream].update(data)
        self.sizes[stream] += len(data)


AWKWARD = {
    "not UTF-8": b"\xff\xfe\x80 \xc3(",
    "carriage returns": b"10 %\r20 %\r30 %\r",
    "NUL": b"a\0b\0\0c",
    "terminal control": b"\x1b[2J\x1b]0;title\x07",
    "looks like a frame": b"TL\x01\x01\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\x7f",
    "looks like a pickle": b"cos\nsystem\n(S'true'\ntR.",
    "no newline": b"x" * 300_000,
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_bytes(executor, name, tmp_path):
    """Whatever is printed arrives to the byte: in the tail, at observers, and in the file."""
    data = AWKWARD[name]
    (tmp_path / "data").write_bytes(data)
    spec = TaskSpec(command=("sh", "-c", f"cat {tmp_path}/data; cat {tmp_path}/data >&2"), stdout=tmp_path / "out")
    result = executor.run(spec)
    assert (result.status, result.stdout, result.stderr) == (Status.COMPLETED, data, data)
    assert (tmp_path / "out").read_bytes() == data


def test_flood_on_stderr(protocol):
    """10 MB on stderr while nobody reads stdout: no hang, and as quick as `communicate`."""
    command = ["sh", "-c", "head -c 10000000 /dev/zero >&2; echo done"]
    begin = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    reference = time.monotonic() - begin
    digest = Digest()
    with Executor(protocol, observers=[digest]) as executor:
        begin = time.monotonic()
        result = executor.run(command)
        duration = time.monotonic() - begin
    assert (result.status, result.stdout) == (Status.COMPLETED, b"done\n")
    assert digest.sizes == {"stdout": 5, "stderr": 10_000_000}
    assert result.stderr == bytes(TAIL_BYTES)
    assert duration < reference + 0.5


def test_a_line_of_a_gibibyte():
    """A line of 1 GiB arrives to the byte, and costs the Executor no more than 64 MiB."""
    script = f"""
        import hashlib, resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_output import Digest
        from tasklink import Executor
        digest = Digest()
        with Executor("unix", observers=[digest]) as executor:
            executor.run(["true"])
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = executor.run(["sh", "-c", "head -c 1073741824 /dev/zero | tr '\\\\0' x"])
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(result.status, digest.sizes["stdout"], digest.sums["stdout"].hexdigest(), (after - before) // 1024)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    status, size, digest, extra = run.stdout.split()
    expected = hashlib.sha256()
    for _ in range(1024):
        expected.update(b"x" * (1 << 20))
    assert (status, int(size), digest) == ("completed", 1 << 30, expected.hexdigest())
    assert int(extra) <= 64


@pytest.mark.parametrize("own_session", [False, True])
def test_grandchild_keeps_the_output_open(executor, own_session):
    """A grandchild that holds stdout for a minute does not prolong the run."""
    begin = time.monotonic()
    result = executor.run("sample_tasks:leave_a_child", own_session=own_session)
    elapsed = time.monotonic() - begin
    assert (result.value, result.stdout) == ("done", b"before\n")
    assert elapsed - result.duration < 0.25


def test_a_flood_that_outlives_the_task(executor):
    """A descendant in a session of its own that prints for ever is read for a moment, and left."""
    begin = time.monotonic()
    result = executor.run(["sh", "-c", "setsid yes & sleep 0.1"])
    elapsed = time.monotonic() - begin
    assert result.status is Status.COMPLETED
    assert result.stdout.startswith((b"y\n", b"\ny"))
    assert elapsed - result.duration < 0.5
    # Its pipe is closed now: SIGPIPE has ended it, and nothing is left to clean up.


def test_output_is_there_before_the_crash(executor):
    """What was printed before a crash is there, although stdout is no terminal."""
    result = executor.run("sample_tasks:print_and_die")
    assert (result.status, result.stdout) == (Status.CRASHED, b"the last words\n")
