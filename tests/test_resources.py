"""When there is too little of something: what is refused is refused by name, what runs goes on, and nothing is left.

Limits are real ones (setrlimit, a full file system in a mount namespace of its own), in processes of their own.
"""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from tasklink import Executor, Status, TaskSpec, communicator, hookimpl

TASKS = Path(__file__).parent / "tasks"

pytestmark = pytest.mark.timeout(120)  # in a process of its own, a test may wait for the first one of a busy machine

# All ways to talk with a Task, and how many free descriptors are enough for one more run.
WAYS = {
    "unix": ("unix", {}, 24),
    "unix-named": ("unix", {"named": True}, 40),
    "pipe": ("pipe", {}, 24),
    "shm": ("shm", {}, 40),
    "zmq": ("zmq", {}, 80),
}
# These have a place in the file system.
NAMED = {"unix": {"named": True}, "shm": {"named": True}, "zmq": {}}

# With a small budget, in MiB, for what is under way.
SLIM = [
    ("unix", {"buffer": "4 MiB"}, 4),
    ("pipe", {"capacity": "1 MiB"}, 1),
    ("shm", {"pool": "32 MiB"}, 33),
    ("zmq", {"high_water": "8 MiB"}, 8),
]
PINGS = 40

namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="a mount namespace takes root, unshare(1), and a system that allows it",
)


def host(code, *arguments, wrapper=(), **environment):
    """Run a program that uses tasklink in a process of its own; what it prints as JSON."""
    head = f"import sys; sys.path[:0] = [{str(TASKS)!r}]; arguments = sys.argv[1:]\n"
    command = [*wrapper, sys.executable, "-W", "error", "-c", head + textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=110, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-4000:]}"
    return json.loads(done.stdout)


class TestDescriptors:
    """No descriptor left, wherever it is that one is wanted."""

    @pytest.mark.parametrize(
        "way", [way if way in {"pipe", "zmq"} else pytest.param(way, marks=pytest.mark.soak) for way in WAYS]
    )
    def test_the_ladder(self, way, request):
        """With 0 to 20 free ones and with enough: a run succeeds, or EMFILE is told; no process of ours aborts.

        A Task that runs meanwhile is unharmed, and not one descriptor or child is left by what failed.
        """
        name, settings, enough = WAYS[way]
        soak = "soak" in request.config.getoption("-m").replace("not soak", "")
        steps = range(21) if soak else [0, 2, 5, 9, 14, 20]
        outcomes = host(LADDER, name, json.dumps(settings), json.dumps([*steps, enough]))
        assert outcomes.pop() == "completed"
        assert set(outcomes) <= {"completed", "not started", "EMFILE"}
        assert outcomes[0] != "completed"


LADDER = """
    import json, os, resource
    from tasklink import Executor, Status
    from tasklink.errors import TaskNotStartedError
    name, settings, steps = arguments[0], json.loads(arguments[1]), json.loads(arguments[2])
    outcomes = []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with Executor(name, settings={name: settings}, grace="50 ms") as executor:
        assert executor.run("os:getpid").status is Status.COMPLETED  # with all that is imported and opened once
        patient = executor.submit("scarce_tasks:Patient")
        assert next(iter(patient.messages())).signal == "ready"
        before = sorted(os.listdir("/proc/self/fd"))
        for free in steps:
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + 200, hard))
            while len(taken) < 200 and (not taken or taken[-1] < max(map(int, before)) + 150):
                taken.append(os.dup(0))
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))
            for descriptor in taken[len(taken) - free:]:
                os.close(descriptor)
            try:
                result = executor.run("os:getpid")
                text = str(result.error)
                assert result.error is None or "descriptor" in text or "open files" in text, text
                outcomes.append(str(result.status))
            except OSError as error:
                outcomes.append(os.strerror(error.errno) == "Too many open files" and "EMFILE" or repr(error))
            finally:
                for descriptor in taken[:len(taken) - free]:
                    os.close(descriptor)
            now = sorted(os.listdir("/proc/self/fd"))
            assert now == before, (free, now, before)
        patient.signal("stop")
        result = patient.result(20)
        assert (result.status, result.value) == (Status.COMPLETED, 0), result.error
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        raise SystemExit(f"a child is left: {os.waitpid(-1, 0)}")
    except ChildProcessError:
        pass
    print(json.dumps(outcomes))
"""


class TestProcesses:
    """No further process, or no further thread."""

    @pytest.mark.skipif(os.geteuid() != 0, reason="takes another user, whom RLIMIT_NPROC holds for; only root has one")
    def test_none_is_allowed(self):
        """RLIMIT_NPROC: the run says that it was not started, and why; with processes to be had the next one runs.

        It is the kernel that says EAGAIN, to fork as to a new thread: for a moment this process is another user's.
        """
        assert host(NO_PROCESS) == ["not started", "no more processes are allowed", "completed"] * 3


NO_PROCESS = """
    import json, os, resource, threading
    from tasklink import Executor
    NOBODY = 65534
    told = []
    with Executor("unix") as executor:
        executor.run("os:getpid")
        executor.run(["/no/such/program"])  # with all that an error needs to be told
        before = sorted(os.listdir("/proc/self/fd"))
        limits = resource.getrlimit(resource.RLIMIT_NPROC)
        def run():
            resource.setrlimit(resource.RLIMIT_NPROC, (0, limits[1]))
            os.setresuid(NOBODY, NOBODY, 0)
            try:
                return executor.run(["true"])
            finally:
                os.setresuid(0, 0, 0)
                resource.setrlimit(resource.RLIMIT_NPROC, limits)
        for number in range(3):
            # In the main thread, which needs one more for a moment; and in another one, which needs none.
            if number == 2:
                results = []
                thread = threading.Thread(target=lambda: results.append(run()))
                thread.start()
                thread.join()
                (result,) = results
            else:
                result = run()
            text = "no more processes are allowed"
            told += [str(result.status), text if text in str(result.error) else repr(result.error)]
            assert sorted(os.listdir("/proc/self/fd")) == before
            told.append(str(executor.run(["true"]).status))
    print(json.dumps(told))
"""


class TestMemory:
    """No memory, and no room in files."""

    @pytest.mark.parametrize("way", WAYS)
    def test_none_for_a_copy(self, way):
        """RLIMIT_AS in the Task: a large message arrives, or raises an error there; the next one arrives."""
        name, settings, _ = WAYS[way]
        with Executor(name, settings={name: settings}) as executor:
            result = executor.run("scarce_tasks:with_little_memory", size=24 << 20)
        assert result.status is Status.COMPLETED, result.error
        *large, small = [bytes(message.contents) for message in result.messages]
        assert small == b"after"
        assert (result.value, large) in [("sent", [bytes(24 << 20)]), ("MemoryError", []), ("OSError", [])]
        assert result.lost == 0

    @pytest.mark.parametrize("way", WAYS)
    def test_small_files(self, way):
        """RLIMIT_FSIZE in the Task, which holds for memory that is a file, too: all the same everything arrives."""
        name, settings, _ = WAYS[way]
        with Executor(name, settings={name: settings}) as executor:
            result = executor.run("scarce_tasks:with_small_files", size=8 << 20)
        assert (result.status, result.value) == (Status.COMPLETED, "sent"), result.error
        assert [len(message.contents) for message in result.messages] == [8 << 20, 5]

    @namespaces
    def test_full_file_systems(self, tmp_path):
        """/dev/shm and the folder for temporary files are full: what needs no place there runs, the others name it.

        Also a full disk under the file for the output: OSError, the Task is ended, and nothing is left.
        """
        told = host(FULL, tmp_path, json.dumps(NAMED), wrapper=MOUNT, TMPDIR=str(tmp_path), WHERE=str(tmp_path))
        assert told["runs"] == {"unix": "completed", "pipe": "completed", "shm": "completed"}
        for name, text in told["refused"].items():
            assert f"no directory can be made in {str(tmp_path)!r} (No space left on device)" in text
            assert f"name another place: `directory` in [communicators.{name}]" in text
        assert told["output"] == [28, []]


MOUNT = [
    "unshare", "--mount", "sh", "-c",
    "mount -t tmpfs -o size=1m,nr_inodes=4 none /dev/shm && mount -t tmpfs -o size=64k,nr_inodes=8 none $WHERE && "
    'exec "$@"', "sh",
]  # fmt: skip

FULL = """
    import json, os
    from pathlib import Path
    import psutil
    from tasklink import Executor, TaskSpec
    from tasklink.errors import ConfigError
    folder, named = Path(arguments[0]), json.loads(arguments[1])
    told = {"runs": {}, "refused": {}}
    (folder / "output").touch()
    for place in (Path("/dev/shm"), folder):
        try:
            for number in range(100):
                (place / f"full{number}").write_bytes(bytes(1 << 16))
        except OSError as error:
            assert error.errno == 28
    for name in ("unix", "pipe", "shm"):
        with Executor(name) as executor:
            result = executor.run("builtins:bytes", source=bytes(3 << 20))
            assert result.value == bytes(3 << 20), result.error
            told["runs"][name] = str(result.status)
    for name, settings in named.items():
        with Executor(name, settings={name: settings}) as executor:
            try:
                executor.run("os:getpid")
            except ConfigError as error:
                told["refused"][name] = str(error)
    with Executor("unix") as executor:
        try:
            executor.run(TaskSpec(command=["sh", "-c", "head -c 300000 /dev/zero; sleep 50"], stdout=folder / "output"))
        except OSError as error:
            left = [child.name() for child in psutil.Process().children(recursive=True)]
            told["output"] = [error.errno, [name for name in left if name in ("sh", "head", "sleep")]]
    print(json.dumps(told))
"""


class TestPlaces:
    """A folder for temporary files that is of no use, or odd."""

    def test_too_long(self, tmp_path):
        """The error names the path, its length, the limit and the setting; nothing is left there."""
        name = "unix"
        place = tmp_path / ("x" * 110)
        place.mkdir()
        told = host(PLACE, name, json.dumps(NAMED[name]), TMPDIR=str(place), XDG_RUNTIME_DIR="")
        assert told.startswith(f"ConfigError: '{place}/tasklink-")
        assert "bytes; the path of a Unix socket has at most 107 here" in told
        assert f"`directory` in [communicators.{name}]" in told
        assert list(place.iterdir()) == []

    @pytest.mark.parametrize("odd", ["line\nbreak 'and' \"quotes\" größe %s{}$HOME"])
    def test_odd(self, odd):
        """Whatever its name is made of, it serves."""
        folder = Path("/tmp") / f"{os.getpid()}-{odd}"
        folder.mkdir()
        try:
            told = host(PLACE, "unix", json.dumps(NAMED["unix"]), TMPDIR=str(folder), XDG_RUNTIME_DIR="")
            assert told == "completed"
            assert list(folder.iterdir()) == []
        finally:
            shutil.rmtree(folder)

    @namespaces
    @pytest.mark.parametrize("name", ["zmq", pytest.param("shm", marks=pytest.mark.soak)])
    def test_read_only(self, name, tmp_path):
        """A file system that is mounted read-only: what would be made there is refused by name."""
        remount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none "$TMPDIR" && exec "$@"', "sh"]
        settings = json.dumps({**NAMED[name], "directory": str(tmp_path)})  # tempfile itself would look elsewhere
        told = host(PLACE, name, settings, wrapper=remount, TMPDIR=str(tmp_path), XDG_RUNTIME_DIR="")
        assert told.startswith(f"ConfigError: no directory can be made in {str(tmp_path)!r} (Read-only file system)")


PLACE = """
    import json
    from tasklink import Executor
    from tasklink.errors import ConfigError
    name, settings = arguments[0], json.loads(arguments[1])
    with Executor(name, settings={name: settings}) as executor:
        try:
            result = executor.run("os:getpid")
            told = str(result.error or result.status)
        except ConfigError as error:
            told = f"ConfigError: {error}"
    print(json.dumps(told))
"""


class TestTime:
    """Clocks that jump, and processes that stand still."""

    @pytest.mark.parametrize("jump", [3600, -3600])
    def test_the_clock_is_set(self, jump, monkeypatch, record_property):
        """The clock of the wall jumps an hour at each look, on both sides: time limits are neither early nor late."""
        start = time.time_ns()
        looks = iter(range(10**9))

        def jumping():
            return start + next(looks) * jump * 1_000_000_000

        real = time.time
        for module in [time, *(module for name, module in sys.modules.items() if name.startswith("tasklink"))]:
            for name in [name for name, value in vars(module).items() if value is real]:  # whatever it is called there
                monkeypatch.setattr(module, name, lambda: jumping() / 1e9)
        monkeypatch.setattr(time, "time_ns", jumping)
        monkeypatch.setattr(communicator, "time_ns", lambda: abs(jumping()) % (1 << 63))
        with Executor("unix", grace="100 ms") as executor:
            assert executor.run("scarce_tasks:whatever_the_clock_says", seconds=0.1).status is Status.COMPLETED
            late = executor.run(TaskSpec(run="scarce_tasks:whatever_the_clock_says", timeout=0.5), seconds=60)
        assert late.status is Status.TIMED_OUT
        record_property("seen", f"{late.duration:.2f} s for a time-out of 0.5 s")
        assert 0.5 <= late.duration < 5  # what is left of it is the end of the process

    @pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=pytest.mark.soak)])
    def test_stopped_and_continued(self, seconds):
        """A Task that is stopped in the midst of its messages is not taken for dead: all of them come afterwards."""
        with contextlib.ExitStack() as opened:
            futures = []
            for name, settings, _ in WAYS.values():
                executor = opened.enter_context(Executor(name, settings={name: settings}))
                futures.append(executor.submit("scarce_tasks:Counting"))
            pids = []
            for future in futures:
                assert next(iter(future.messages())).contents == 0
                pids.append(future._run._process.pid)
                os.killpg(pids[-1], signal.SIGSTOP)
            concurrent.futures.wait(futures, timeout=seconds)
            assert not [future for future in futures if future.done()]
            for pid in pids:
                os.killpg(pid, signal.SIGCONT)
            for future in futures:
                future.signal("stop", timeout=10)
                result = future.result(30)
                assert (result.status, result.lost) == (Status.COMPLETED, 0)
                assert [message.contents for message in result.messages] == list(range(result.value))


class TestBothWays:
    """Both sides have much to say."""

    @pytest.mark.parametrize("mebibytes", [32, pytest.param(1024, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
    @pytest.mark.parametrize("way", WAYS)
    def test_nobody_listens_first(self, way, mebibytes):
        """Each side writes all that it has before it looks at what has come: no deadlock, and everything arrives."""
        name, settings, _ = WAYS[way]
        with Executor(name, settings={name: settings}) as executor:
            spec = TaskSpec(run="scarce_tasks:BothWays", keep_messages=False)
            future = executor.submit(spec, count=mebibytes)
            messages = future.messages()
            assert next(messages).signal == "ready"
            for _ in range(mebibytes):
                future.signal("data", bytes(1 << 20), timeout=50)
            result = future.result(300)
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, mebibytes, 0)
        assert sum(len(message.contents) for message in messages) == mebibytes << 20

    @pytest.mark.parametrize(("name", "settings", "budget"), SLIM)
    def test_a_reader_that_is_stopped(self, name, settings, budget, record_property):
        """Who writes to it waits when the budget is full, and holds no more than that and 32 MiB; nothing is lost."""
        process = psutil.Process()
        with Executor(name, settings={name: settings}) as executor:
            future = executor.submit("scarce_tasks:Patient")
            assert next(iter(future.messages())).signal == "ready"
            os.killpg(future._run._process.pid, signal.SIGSTOP)
            before, sent = process.memory_info().rss, 0
            with pytest.raises(TimeoutError):
                while sent < 200:
                    future.signal("data", bytes(1 << 20), timeout=0.3)
                    sent += 1
            grown = (process.memory_info().rss - before) / 2**20
            record_property("seen", f"{max(0.0, grown):.0f} MiB more memory")
            os.killpg(future._run._process.pid, signal.SIGCONT)
            future.signal("stop", timeout=20)
            result = future.result(30)
        assert sent < 3 * budget + 32  # the system may hold more than it was asked to, and a stop takes a moment
        assert grown < budget + 32
        assert (result.status, result.lost) == (Status.COMPLETED, 0)
        assert result.value in {sent, sent + 1}  # the one that ran out of time may have been under way

    @pytest.mark.timed
    @pytest.mark.parametrize(("name", "settings"), [(name, settings) for name, settings, _ in SLIM])
    def test_signals_to_a_task_that_cannot_write(self, name, settings, record_property):
        """F30: nobody reads what it reports, and it waits; signals to it are there within 100 ms."""
        stuck, gate = threading.Event(), threading.Event()

        class Stuck:
            @hookimpl
            def tasklink_message_received(self, message):
                stuck.set()
                gate.wait(50)

        with Executor(name, settings={name: settings}, observers=[Stuck()]) as executor:
            future = executor.submit(TaskSpec(run="scarce_tasks:Talkative", keep_messages=False))
            try:
                assert stuck.wait(20)
                for _ in range(PINGS):
                    future.signal("ping", timeout=20)
                    time.sleep(0.01)  # a pace, no more
            finally:
                gate.set()
            future.signal("stop", timeout=20)
            result = future.result(50)
        assert (result.status, result.lost) == (Status.COMPLETED, 0), result.error
        late, reports = zip(*result.value, strict=True)
        assert len(late) == PINGS
        assert len(set(reports[-10:])) == 1  # it could not write any more
        record_property("runs", PINGS)
        record_property("seen", f"{max(late):.1f} ms for a signal beside a channel that is full")
        assert max(late) < 100

    @pytest.mark.timed
    @pytest.mark.parametrize(("name", "settings"), [(name, settings) for name, settings, _ in SLIM])
    def test_signals_of_a_task_that_does_not_read(self, name, settings, record_property):
        """F30: what is sent to it waits; its own signals are there within 100 ms, and a cancel ends it in its grace."""
        late = []

        class Clock:
            @hookimpl
            def tasklink_message_received(self, message):
                if message.signal == "ping":
                    late.append((time.time_ns() - message.sent_ns) / 1e6)

        with Executor(name, settings={name: settings}, observers=[Clock()], grace="200 ms") as executor:
            future = executor.submit(TaskSpec(run="scarce_tasks:Unwilling", parameters={"pings": PINGS}))
            messages = future.messages()
            assert next(messages).signal == "ready"
            with pytest.raises(TimeoutError):
                for _ in range(300):
                    future.signal("data", bytes(1 << 20), timeout=0.2)
            os.kill(future._run._process.pid, signal.SIGUSR1)
            for _ in range(PINGS):
                assert next(messages).signal == "ping"
            begin = time.monotonic()
            future.cancel("enough")
            result = future.result(50)
            took = time.monotonic() - begin
        assert result.status is Status.CANCELLED
        record_property("runs", PINGS)
        record_property("seen", f"{max(late):.1f} ms for a signal beside a channel that is full")
        record_property("seen", f"{took:.2f} s for a cancel that it cannot hear, with a grace of 0.2 s")
        assert max(late) < 100
        assert took < 1
