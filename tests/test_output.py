"""Output that nobody controls: captured to the byte, whatever it is, and never in the way."""

import hashlib
import os
import select
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tasklink import Executor, Status, TaskSpec, hookimpl, supervision
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
    """F51, F52: whatever is printed arrives to the byte: in the tail, at observers, and in the file."""
    data = AWKWARD[name]
    (tmp_path / "data").write_bytes(data)
    spec = TaskSpec(command=("sh", "-c", f"cat {tmp_path}/data; cat {tmp_path}/data >&2"), stdout=tmp_path / "out")
    result = executor.run(spec)
    assert (result.status, result.stdout, result.stderr) == (Status.COMPLETED, data, data)
    assert (tmp_path / "out").read_bytes() == data


def test_flood_on_stderr(protocol, record_property):
    """F50: 10 MB on stderr while nobody reads stdout: no hang, and as quick as `communicate`."""
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
    record_property("seen", f"{max(0.0, duration - reference):.2f} s more than `subprocess.run` for 10 MB")
    assert duration < reference + 0.5


@pytest.mark.timed
def test_a_gibibyte_on_both_streams(record_property):
    """F50: 1 GiB on stdout and on stderr at once arrives, at 200 MB/s each and more."""
    digest = Digest()
    flood = "head -c 1073741824 /dev/zero"
    with Executor("unix", observers=[digest]) as executor:
        result = executor.run(["sh", "-c", f"{flood} & {flood} >&2; wait"])
    assert digest.sizes == {"stdout": 1 << 30, "stderr": 1 << 30}
    rate = (1 << 30) / result.duration / 1e6
    record_property("seen", f"{result.duration:.1f} s for 1 GiB on each")
    assert rate > 200


def test_a_line_of_a_gibibyte(record_property):
    """F51: a line of 1 GiB arrives to the byte, and costs the Executor no more than 64 MiB."""
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
    record_property("seen", f"{extra} MiB of memory")


# How often, and how long a run may go on after the end of its Task: 250 ms, unless other tests run beside it.
HELD_UP = [
    (1, 3),
    pytest.param(10, 0.25, marks=pytest.mark.timed),
    pytest.param(100, 3, marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]


@pytest.mark.parametrize(("runs", "seconds"), HELD_UP)
@pytest.mark.parametrize("own_session", [False, True])
def test_grandchild_keeps_the_output_open(executor, record_property, own_session, runs, seconds):
    """F07: a grandchild that holds stdout for a minute does not prolong the run."""
    delays = []
    for _ in range(runs):
        begin = time.monotonic()
        result = executor.run("sample_tasks:leave_a_child", own_session=own_session)
        delays.append(time.monotonic() - begin - result.duration)
        assert (result.value, result.stdout) == ("done", b"before\n")
    note(record_property, delays)
    assert max(delays) < seconds


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("runs", "seconds"), HELD_UP)
def test_a_flood_that_outlives_the_task(executor, record_property, tmp_path, *, runs, seconds, left):
    """F08: a descendant in a session of its own that prints for ever is ended; or read for a moment, and left."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    flood = f"setsid sh -c 'yes | head -c 100000; echo > {begun}; exec yes' & cat {begun}"
    delays = []
    for _ in range(runs):
        begin = time.monotonic()
        result = executor.run(TaskSpec(command=["sh", "-c", flood], leave_descendants=left))
        delays.append(time.monotonic() - begin - result.duration)
        assert result.status is Status.COMPLETED
        assert result.stdout.count(b"y") >= 50_000
        # Its pipe is closed now: SIGPIPE has ended it, and nothing is left to clean up.
    note(record_property, delays)
    assert max(delays) < seconds


def test_a_flood_that_is_faster_than_its_reader(monkeypatch):
    """F08: where the pipe of a Task that has ended is never empty, a number of bytes ends the reading."""
    monkeypatch.setattr(supervision, "DRAINED_OUTPUT", 4 << 20)
    monkeypatch.setattr(supervision, "MESSAGES_AT_ONCE", 4)  # before it is seen that the Task has ended
    sizes = []

    class Slow:
        @hookimpl
        def tasklink_output_received(self, task, data):
            if not sizes:  # the Task ends first
                end = os.pidfd_open(task.pid)
                select.select([end], [], [], 10)
                os.close(end)
            sizes.append(len(data))
            time.sleep(0.002)  # the pipe fills meanwhile

    with Executor("unix", observers=[Slow()]) as executor:
        result = executor.run(TaskSpec(command=["sh", "-c", "setsid yes & exec sleep 0.05"], leave_descendants=True))
    assert result.status is Status.COMPLETED
    assert sum(sizes) <= (4 << 20) + 6 * max(sizes)


def note(record_property, delays):
    """Hand over how long runs, whose Task had ended, were held up: see `tests.faults`."""
    record_property("runs", len(delays))
    record_property("seen", f"{1e3 * max(delays):.1f} ms after the end at worst")


def test_lines_of_many_writers(executor, record_property):
    """F54: six processes print lines of up to 4096 bytes at once: each arrives whole, those of a process in order."""
    result = executor.run("sample_tasks:print_from_processes", writers=6, lines=60)
    assert result.value == [0] * 6
    lines = [line.split(b" ") for line in result.stdout.splitlines()]
    for writer in range(6):
        numbers = [int(number) for who, number, _ in lines if int(who) == writer]
        assert numbers == list(range(60))
    assert all(set(rest) <= {ord(".")} for _, _, rest in lines)
    record_property("runs", len(lines))


@pytest.mark.parametrize("seconds", [0.3, pytest.param(10.0, marks=pytest.mark.soak)])
def test_standard_descriptors_are_closed(executor, record_property, seconds):
    """F56: a Task that has closed 0, 1 and 2 goes on and returns, and nobody is busy with waiting for it."""
    begin = time.thread_time()
    result = executor.run("sample_tasks:work_without_standard_descriptors", seconds=seconds)
    busy = time.thread_time() - begin
    assert (result.value, [message.contents for message in result.messages]) == ("done", ["still here"])
    if seconds > 1:
        record_property("seen", f"{100 * busy / seconds:.1f} % of a processor")
    assert busy < 0.2 + 0.015 * seconds  # the rest is the run itself


def test_output_is_there_before_the_crash(executor):
    """F55: what was printed before a crash is there, although stdout is no terminal."""
    result = executor.run("sample_tasks:print_and_die")
    assert (result.status, result.stdout) == (Status.CRASHED, b"the last words\n")
