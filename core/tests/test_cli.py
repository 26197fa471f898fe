"""The program, as its users see it: real processes, their exit codes, and what they print where."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from click.testing import CliRunner

from tasklink.cli import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Program = Callable[..., subprocess.CompletedProcess[str]]

TASKLINK = str(Path(sysconfig.get_path("scripts"), "tasklink"))
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("TASKLINK_")}

TASKS = """
import logging, os, signal, sys, time
from tasklink import Task, current_task

def add(a=1, b=2):
    return {"sum": a + b, "raw": b"\\xff"}

def speak():
    print("one\\ntwo\\x1b[2J")
    print("long" * 30)
    sys.stdout.write("no end")
    sys.stdout.flush()
    sys.stderr.write("three\\n")
    sys.stderr.flush()
    current_task().log("four", "warning")
    logging.getLogger("lab.io").error("five")
    current_task().report("six")

def day():
    return "\u65e5"

def fail():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ValueError("bad peak") from error

def crash():
    os.kill(os.getpid(), signal.SIGKILL)

def leave():
    sys.exit(0)

def wait():
    print("ready")
    time.sleep(60)

def cling():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready")
    while True:
        time.sleep(60)

def flood():
    while True:
        print("a line of a flood that nobody reads")

class Steps(Task):
    def run(self):
        self.progress(3, 12, note="chr3.bam")
        time.sleep(60)
"""

CONFIG = """
[tasks.add]
run = "lab:add"
[tasks.speak]
run = "lab:speak"
[tasks.day]
run = "lab:day"
[tasks.fail]
run = "lab:fail"
[tasks.crash]
run = "lab:crash"
[tasks.leave]
run = "lab:leave"
[tasks.wait]
run = "lab:wait"
[tasks.cling]
run = "lab:cling"
[tasks.flood]
run = "lab:flood"
[tasks.steps]
run = "lab:Steps"
[tasks.absent]
command = ["no-such-program"]
[tasks.late]
run = "lab:wait"
timeout = "300 ms"
grace = "100 ms"
[tasks.ls]
command = ["ls", "{folder}"]
parameters = { folder = "/" }
[tasks.deaf]
run = "lab:add"
communicators = ["deaf"]
[tasks.leaky]
run = "lab:speak"
communicators = ["leaky"]
"""

DEAF = """
from tasklink_unix import SocketCommunicator
class Plugin(SocketCommunicator):
    @classmethod
    def connect(cls, address):
        raise OSError("the cable is cut")
"""

LEAKY = """
from tasklink_unix import SocketCommunicator
class Plugin(SocketCommunicator):
    def write(self, message, timeout=None):
        if message.signal is not None:
            super().write(message, timeout)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with a config, its tasks, and some plugins that are installed for it."""
    (tmp_path / "lab.py").write_text(TASKS)
    (tmp_path / "lab.toml").write_text(CONFIG)
    install(tmp_path, "deaf", DEAF)
    install(tmp_path, "leaky", LEAKY)
    return tmp_path


def install(folder: Path, name: str, code: str) -> None:
    """Install a communicator below a folder."""
    site = folder / "site"
    about = site / f"tasklink_{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"tasklink_{name}.py").write_text(code)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tasklink-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[tasklink.communicators]\n{name} = tasklink_{name}:Plugin\n")


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return what the program is started with: nothing of ours, and the plugins of the folder."""
    return {**CLEAN, "PYTHONPATH": str(folder / "site"), **variables}


@pytest.fixture
def tasklink(lab: Path) -> Program:
    """Run the program in the folder of the lab."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TASKLINK, *arguments],
            cwd=lab,
            env=environment(lab, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@contextlib.contextmanager
def started(lab: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the program, and wait until its Task is at work; give the pid of the Task too."""
    with subprocess.Popen(
        [TASKLINK, "run", "lab.toml", *arguments],
        cwd=lab,
        env=environment(lab),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield program, read_until_ready(program)
        finally:
            program.kill()


def read_until_ready(program: subprocess.Popen[str]) -> int:
    """Read the news up to what the Task prints first; return its pid."""
    assert program.stderr is not None
    pid = 0
    for line in program.stderr:
        if match := re.search(r"started as process (\d+)", line):
            pid = int(match[1])
        if " | " in line:
            return pid
    raise AssertionError("the Task printed nothing")


class TestExitCodes:
    """Every code of the table in docs/cli.md."""

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["lab.toml", "add", "speak", "ls"], 0),
            (["lab.toml", "fail"], 1),
            (["lab.toml", "crash"], 1),
            (["lab.toml", "leave"], 1),
            (["lab.toml", "absent"], 1),
            (["lab.toml", "ls", "--set", "tasks.ls.parameters.folder=/no/such/folder"], 1),
            ([], 2),
            (["lab.toml", "--heartbeat", "often"], 2),
            (["lab.toml", "--no-such-option"], 2),
            (["no-such.toml"], 3),
            (["lab.toml", "no-such-task"], 3),
            (["lab.toml", "add", "--with", "carrier-pigeon"], 3),
            (["lab.toml", "add", "--set", "communicators.unix.bufer=3", "--with", "unix"], 3),
            (["lab.toml", "add", "--set", "no equals sign"], 3),
            (["lab.toml", "late"], 4),
            (["lab.toml", "deaf"], 5),
            (["lab.toml", "leaky"], 5),
            (["lab.toml", "add", "late", "fail"], 4),
        ],
        ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else str(value),
    )
    def test_run(self, tasklink: Program, arguments: list[str], code: int) -> None:
        """`tasklink run` exits with what became of its tasks; of several, the first that did not go well decides."""
        run = tasklink("run", *arguments)
        assert run.returncode == code, run.stderr

    @pytest.mark.parametrize(
        ("number", "code"),
        [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
        ids=["INT", "TERM", "HUP"],
    )
    @pytest.mark.parametrize("task", ["wait", "cling"])
    def test_signals(self, lab: Path, task: str, number: int, code: int) -> None:
        """Ctrl-C and its like end the program and its Task within a second, however the Task clings to life."""
        with started(lab, task) as (program, pid):
            begun = time.monotonic()
            program.send_signal(number)
            assert program.wait() == code
            assert time.monotonic() - begun < 1.0
            assert not psutil.pid_exists(pid)

    def test_where_an_exception_goes_no_further(self) -> None:
        """A signal that strikes within `__del__` is not lost; the second time it strikes where it is heard."""
        program = """if True:
            import os, signal, threading
            from tasklink.cli.interrupt import Interrupted, interruptible
            class Dying:
                def __del__(self):
                    os.kill(os.getpid(), signal.SIGINT)
            try:
                with interruptible():
                    Dying()
                    threading.Event().wait()
            except Interrupted as error:
                print(error.name)
        """
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("SIGINT\n", "", 0)

    def test_another_exception_on_the_way_out(self) -> None:
        """What takes the place of the interrupt is told, and the exit code is that of the signal all the same."""
        program = """if True:
            import os, signal
            from tasklink import cli
            def fail():
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                finally:
                    raise OSError("a fault")
            cli._run = fail
            cli.main()
        """
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 143
        assert done.stderr.endswith("OSError: a fault\n")

    def test_an_interrupted_run_has_results(self, lab: Path) -> None:
        """With --json, what was interrupted is told too, and so are the tasks that never began."""
        with started(lab, "wait", "add", "--json") as (program, _):
            program.send_signal(signal.SIGINT)
            document = json.loads(program.communicate()[0])
        assert document["exit_code"] == 130
        assert [task["status"] for task in document["tasks"]] == ["cancelled", "cancelled"]
        assert [task["pid"] is None for task in document["tasks"]] == [False, True]

    def test_nobody_reads_the_news(self, lab: Path, end_of: Callable[[int], int]) -> None:
        """Ctrl-C ends the program even when it waits for somebody to read what it prints."""
        with started(lab, "flood") as (program, pid):
            wait_until_asleep(program.pid)
            end = end_of(pid)
            begun = time.monotonic()
            program.send_signal(signal.SIGINT)
            assert program.wait() == 130
            assert time.monotonic() - begun < 1.0
            assert select.select([end], [], [], 1.0)[0]

    def test_a_second_signal_changes_nothing(self, lab: Path) -> None:
        """Ctrl-C pressed twice ends the program as once: what it asks for is under way."""
        with started(lab, "cling") as (program, pid):
            assert program.stderr is not None
            program.send_signal(signal.SIGINT)
            assert "SIGINT: ending 1 of 1" in program.stderr.readline()
            program.send_signal(signal.SIGINT)
            assert "cancelled" in program.communicate()[0]
            assert program.returncode == 130
            assert not psutil.pid_exists(pid)

    def test_a_signal_that_is_ignored_stays_so(self, lab: Path) -> None:
        """Under nohup, SIGHUP ends nothing."""
        with subprocess.Popen(
            ["nohup", TASKLINK, "run", "lab.toml", "late", "--set", "tasks.late.timeout='1 s'"],
            cwd=lab,
            env=environment(lab),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            read_until_ready(program)
            program.send_signal(signal.SIGHUP)
            assert program.wait() == 4

    def test_results_that_nobody_reads(self, lab: Path) -> None:
        """`tasklink … | true` is no error worth a traceback."""
        with subprocess.Popen(
            [TASKLINK, "plugins"], cwd=lab, env=environment(lab), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            program.stdout.close()
            assert program.stderr.read() == b""
            assert program.wait() == 1


def wait_until_asleep(pid: int) -> None:
    """Wait until every thread of a process waits in the kernel, and none of them has run meanwhile."""
    process = psutil.Process(pid)
    deadline = time.monotonic() + 10
    before = None
    while (now := process.cpu_times()[:2]) != before or process.status() != psutil.STATUS_SLEEPING:
        assert time.monotonic() < deadline
        before = now
        select.select([], [], [], 0.2)  # the kernel counts processor time in hundredths


class TestRun:
    """`tasklink run`."""

    def test_all_tasks_in_the_order_of_the_file(self, lab: Path, tasklink: Program) -> None:
        """Without names, every task runs, one after the other."""
        (lab / "lab.toml").write_text('[tasks.z]\nrun = "lab:add"\n[tasks.a]\nrun = "lab:add"\n')
        run = tasklink("run", "lab.toml")
        assert re.findall(r"(\w) +(started|completed)", run.stderr) == [
            ("z", "started"), ("z", "completed"), ("a", "started"), ("a", "completed"),
        ]  # fmt: skip
        assert [line.split()[0] for line in run.stdout.splitlines()] == ["task", "z", "a"]

    def test_at_a_time(self, lab: Path, tasklink: Program) -> None:
        """With `parallel`, as many run at a time."""
        (lab / "lab.toml").write_text('parallel = 2\n[tasks.z]\nrun = "lab:wait"\n[tasks.a]\nrun = "lab:wait"\n')
        run = tasklink("run", "lab.toml", "--set", "defaults.timeout='500 ms'", "--set", "defaults.grace='100 ms'")
        assert [word for _, word in re.findall(r"(\w) +(started|timed)", run.stderr)] == [
            "started", "started", "timed", "timed",
        ]  # fmt: skip

    def test_a_failure_does_not_keep_others_from_running(self, tasklink: Program) -> None:
        """All that was asked for is run, whatever becomes of it."""
        run = tasklink("run", "lab.toml", "fail", "add", "--json")
        assert [task["status"] for task in json.loads(run.stdout)["tasks"]] == ["failed", "completed"]

    def test_nothing_is_started_if_something_is_wrong(self, tasklink: Program) -> None:
        """A typo in the last name is told before the first task runs for hours."""
        for wrong in ("ad", "deaf"):
            run = tasklink("run", "lab.toml", "add", wrong, "--set", "tasks.deaf.communicators=['pigeon']")
            assert run.returncode == 3
            assert "started" not in run.stderr

    def test_json(self, tasklink: Program) -> None:
        """With --json, stdout is one document and nothing else; the news go to stderr all the same."""
        run = tasklink("run", "lab.toml", "add", "speak", "--json", "--set", "tasks.add.parameters.a=40")
        document = json.loads(run.stdout)
        add, speak = document["tasks"]
        assert document["config"] == "lab.toml"
        assert document["exit_code"] == 0
        assert add["value"] == {"sum": 42, "raw": {"not_json": "bytes", "text": "b'\\xff'"}}
        assert (speak["stderr"], speak["messages"]) == ("three\n", 1)
        assert speak["stdout"] == f"one\ntwo\x1b[2J\n{'long' * 30}\nno end"
        assert "completed" in run.stderr

    def test_with(self, tasklink: Program) -> None:
        """--with is the protocol, whatever the config and the environment say."""
        run = tasklink("run", "lab.toml", "add", "--json", "--with", "pipe", TASKLINK_COMMUNICATORS="unix")
        assert list(json.loads(run.stdout)["tasks"][0]["communicators"]) == ["pipe"]

    def test_lines(self, tasklink: Program) -> None:
        """Every line has the time and the task, and says whether the Task printed it; nothing of it can do harm."""
        run = tasklink("run", "lab.toml", "speak")
        lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in run.stderr.splitlines()]
        assert "speak | one" in lines
        assert "speak | two\\x1b[2J" in lines
        assert "speak | no end" in lines
        assert "speak ! three" in lines
        assert "speak   warning: four" in lines
        assert "speak   error: lab.io: five" in lines
        assert all(line.startswith("speak ") for line in lines if line)

    def test_errors_are_told_with_the_traceback_of_the_task(self, tasklink: Program) -> None:
        """What the Task raised, and where, with its cause; none of our own frames."""
        run = tasklink("run", "lab.toml", "fail")
        assert "fail raised ValueError: bad peak" in run.stdout
        assert re.search(
            r"\nfail raised ValueError: bad peak\n  Traceback.*ZeroDivisionError.*direct cause.*in fail\n.*"
            r"\n  ValueError: bad peak\n",
            run.stderr,
            re.DOTALL,
        )
        assert "worker.py" not in run.stderr

    def test_quiet(self, tasklink: Program) -> None:
        """With --quiet only results and errors are printed."""
        assert tasklink("run", "-q", "lab.toml", "speak").stderr == ""
        assert "bad peak" in tasklink("run", "-q", "lab.toml", "fail").stderr

    def test_heartbeat(self, tasklink: Program) -> None:
        """Where stderr is no terminal, a line says from time to time how far a Task is."""
        limits = ("--set", "tasks.steps.timeout=1", "--set", "tasks.steps.grace='100 ms'")
        run = tasklink("run", "lab.toml", "steps", "--heartbeat", "200 ms", *limits)
        assert re.search(r"^\d\d:\d\d:\d\d steps   25%, 3 of 12: chr3.bam$", run.stderr, re.MULTILINE)
        assert "25%" not in tasklink("run", "lab.toml", "steps", "--heartbeat", "0", *limits).stderr

    def test_a_config_without_tasks(self, lab: Path, tasklink: Program) -> None:
        """A file in which there is nothing to run says how to write a task."""
        (lab / "empty.toml").write_text("strict = false\n")
        run = tasklink("run", "empty.toml")
        assert run.returncode == 2
        assert "[tasks.NAME]" in run.stderr

    def test_whoever_reads_the_news_may_go(self, lab: Path) -> None:
        """`2>&1 | head`: the run goes on to its end when nobody reads stderr any more."""
        reader, writer = os.pipe()
        with subprocess.Popen(
            [TASKLINK, "run", "lab.toml", "speak"],
            cwd=lab,
            env=environment(lab),
            stdout=subprocess.PIPE,
            stderr=writer,
            text=True,
        ) as program:
            os.close(writer)
            os.close(reader)
            assert "completed" in program.communicate()[0]
            assert program.returncode == 0


class TestTerminal:
    """What a person at a terminal sees."""

    def test_bars_stand_below_what_tasks_print(self, lab: Path) -> None:
        """With rich there is a bar, and no line of a Task is torn by it, nor acts upon the terminal."""
        shown = at_terminal(lab, [TASKLINK, "run", "lab.toml", "steps", "speak", "--set", "parallel=2", *BRIEFLY])
        assert "━" in shown
        assert "25%, 3 of 12: chr3.bam" in shown
        assert "1 of 2 ended" in shown
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        assert "speak | two\\x1b[2J" in plain.splitlines()
        assert "speak | " + "long" * 30 in plain.splitlines()
        # There is room for the ^C of the terminal, which would push the bars up from a line of its own.
        assert max(len(row) for row in re.split(r"[\r\n]", plain) if "━" in row) <= 78
        assert "\x1b[2J" not in shown

    def test_without_rich(self, lab: Path) -> None:
        """Without rich there are lines, as in a file."""
        code = "import sys; sys.modules['rich'] = None; from tasklink.cli import main; main()"
        shown = at_terminal(
            lab, [sys.executable, "-c", code, "run", "lab.toml", "steps", *BRIEFLY, "--heartbeat", "0.2"]
        )
        assert "steps   25%, 3 of 12: chr3.bam" in shown
        assert "━" not in shown

    def test_a_dumb_terminal(self, lab: Path) -> None:
        """A terminal that cannot move its cursor gets lines too."""
        shown = at_terminal(lab, [TASKLINK, "run", "lab.toml", "speak"], TERM="dumb")
        assert "speak   warning: four" in shown
        assert "━" not in shown

    def test_tables_fit(self, lab: Path) -> None:
        """A table is cut at the edge of the terminal, and marked there."""
        shown = at_terminal(lab, [TASKLINK, "run", "-q", "lab.toml", "absent"])
        last = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()[-1]
        assert len(last) == 80
        assert last.endswith("…")


BRIEFLY = ("--set", "tasks.steps.timeout=1", "--set", "tasks.steps.grace='100 ms'")


def at_terminal(lab: Path, command: list[str], **variables: str) -> str:
    """Run a command at a terminal of 80 columns, and return all that it sent there."""
    ours, theirs = pty.openpty()
    variables = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **variables}
    with subprocess.Popen(
        command, cwd=lab, env=environment(lab, **variables), stdin=theirs, stdout=theirs, stderr=theirs
    ) as program:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while data := os.read(ours, 1 << 16):
                shown += data
        program.wait()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


class TestPlugins:
    """`tasklink plugins`."""

    def test_table(self, lab: Path, tasklink: Program) -> None:
        """Every plugin is listed; one that is broken says why, and disturbs nobody."""
        install(lab, "flag", "import semaphore_alphabet")
        run = tasklink("plugins")
        rows = [line.split() for line in run.stdout.splitlines()]
        assert run.returncode == 0
        assert rows[0][:4] == ["name", "kind", "package", "status"]
        assert ["flag", "communicator", "tasklink-flag", "1.0", "broken"] in rows
        assert ["unix", "communicator", "tasklink-unix"] in [row[:3] for row in rows]
        assert "No module named 'semaphore_alphabet'" in run.stdout

    def test_json(self, tasklink: Program) -> None:
        """The same for programs."""
        listed: list[dict[str, Any]] = json.loads(tasklink("plugins", "--json").stdout)
        pipe = next(plugin for plugin in listed if plugin["name"] == "pipe")
        assert pipe["status"] == "ok"
        assert pipe["capabilities"]["captures_output"] is True


class TestConfigShow:
    """`tasklink config show`."""

    def test_each_value_has_its_origin(self, tasklink: Program) -> None:
        """What the file, the environment and the command line say, and what is a default."""
        run = tasklink("config", "show", "lab.toml", "--set", "tasks.add.grace='1 s'", TASKLINK_TIMEOUT="5 min")
        rows = [re.split(r" {2,}", line) for line in run.stdout.splitlines()]
        assert ["tasks.add.run", '"lab:add"', "lab.toml:3"] in rows
        assert ["tasks.add.timeout", '"5 min"', "TASKLINK_TIMEOUT"] in rows
        assert ["tasks.add.grace", '"1 s"', "command line"] in rows
        assert ["tasks.fail.grace", '"2 s"', "default"] in rows
        assert "not set" not in run.stdout

    def test_json(self, tasklink: Program) -> None:
        """For programs, also what is not set."""
        values = {entry["key"]: entry for entry in json.loads(tasklink("config", "show", "lab.toml", "--json").stdout)}
        assert values["tasks.late.timeout"] == {"key": "tasks.late.timeout", "value": 0.3, "origin": "lab.toml:26"}
        assert values["parallel"]["value"] is None

    def test_no_file(self, tasklink: Program) -> None:
        """Without a file: what applies to a program without one."""
        assert '["pipe"]' in tasklink("config", "show", "--with", "pipe").stdout

    def test_problems(self, lab: Path, tasklink: Program) -> None:
        """Everything that is wrong is told, a line each."""
        (lab / "wrong.toml").write_text('[tasks.a]\nrun = "lab:add"\ntimeot = 3\n[tasks.b]\nrun = 5\n')
        run = tasklink("config", "show", "wrong.toml")
        assert run.returncode == 3
        assert [line.split(": ")[1] for line in run.stderr.splitlines()] == ["wrong.toml:3", "wrong.toml:5"]


class TestProgram:
    """The program as a whole."""

    @pytest.mark.parametrize("command", [[], ["run"], ["plugins"], ["config"], ["config", "show"], ["demo"], ["bench"]])
    def test_help(self, command: list[str]) -> None:
        """Every command explains itself, in lines that fit."""
        text = CliRunner().invoke(commands, [*command, "--help"], prog_name="tasklink").output
        assert text.startswith(f"Usage: {' '.join(['tasklink', *command])} ")
        assert max(map(len, text.splitlines())) <= 80

    def test_help_is_quick(self) -> None:
        """To show its help the program imports click and little else: neither the Executor nor what it stands on."""
        code = """
            import sys
            sys.argv = ["tasklink", "run", "--help"]
            from tasklink.cli import main
            try:
                main()
            finally:
                heavy = {"attrs", "cattrs", "stevedore", "pluggy", "rich", "tasklink.config", "tasklink.executor"}
                print(heavy & set(sys.modules), file=sys.stderr)
        """
        run = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
        assert run.stderr == "set()\n"

    def test_version(self, tasklink: Program) -> None:
        """--version names the program and its version."""
        assert re.fullmatch(r"tasklink \d+\.\d+\.\d+\n", tasklink("--version").stdout)

    @pytest.mark.parametrize(
        ("words", "completions"),
        [
            ("tasklink run lab.toml cr", ["crash"]),
            ("tasklink run lab.toml add l", ["leave", "late", "ls", "leaky"]),
            ("tasklink run no-such.toml l", []),
            ("tasklink run lab.toml --with pi", ["pipe"]),
            ("tasklink demo --with leaky,pipe,d", ["leaky,pipe,deaf"]),
            ("tasklink config s", ["show"]),
            ("tasklink bench leaky pi", ["pipe"]),
        ],
    )
    def test_completion(self, tasklink: Program, words: str, completions: list[str]) -> None:
        """A shell completes commands, the tasks of a config, and the communicators that are installed."""
        variables = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        run = tasklink(**variables, _TASKLINK_COMPLETE="bash_complete")
        assert [line.partition(",")[2] for line in run.stdout.split()] == completions

    def test_narrow_encodings(self, tasklink: Program) -> None:
        """Where the terminal has no letter for something, it is escaped."""
        assert "'\\u65e5'" in tasklink("run", "-q", "lab.toml", "day", PYTHONIOENCODING="latin-1").stdout
