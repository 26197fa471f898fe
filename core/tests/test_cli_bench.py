"""`tasklink bench`, as its users see it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from tasklink.bench.session import Bench, key_of
from tasklink.bench.visit import Outcome as Measured
from tasklink.cli.benchmark import Benchmark
from tasklink.cli.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    Program = Callable[..., subprocess.CompletedProcess[str]]

TASKLINK = str(Path(sysconfig.get_path("scripts"), "tasklink"))
DRAWS = importlib.util.find_spec("matplotlib") is not None
BRIEFLY = ("--time", "0", "--size", "64 KiB")

GONE = """
from tasklink_unix import SocketCommunicator
class Plugin(SocketCommunicator):
    @classmethod
    def unavailable(cls):
        return "there is no cable; buy one"
"""

MUTE = """
from tasklink.communicator import Capabilities
from tasklink_unix import SocketCommunicator
class Plugin(SocketCommunicator):
    capabilities = Capabilities(captures_output=True, carries_messages=False)
"""

DEAF = """
from tasklink_unix import SocketCommunicator
class Plugin(SocketCommunicator):
    @classmethod
    def connect(cls, address):
        raise OSError("the cable is cut")
"""


@pytest.fixture
def tasklink(tmp_path: Path) -> Program:
    """Run the program where some communicators are installed that cannot be measured."""
    for name, code in (("gone", GONE), ("mute", MUTE), ("deaf", DEAF)):
        about = tmp_path / f"tasklink_{name}-1.0.dist-info"
        about.mkdir()
        (tmp_path / f"tasklink_{name}.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tasklink-{name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[tasklink.communicators]\n{name} = tasklink_{name}:Plugin\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TASKLINK_")}
        return subprocess.run(
            [TASKLINK, "bench", *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_tables(tasklink: Program, tmp_path: Path) -> None:
    """Who can be measured is; who cannot has a line that says why; it ends with the advice. There is a picture."""
    run = tasklink("unix", "gone", "mute", "deaf", *BRIEFLY, *(["--plot", "speed.png"] if DRAWS else []))
    lines = run.stdout.splitlines()
    assert run.returncode == Outcome.OK
    assert lines[-2:] == ["everything: unix", 'in a config: communicators = ["unix"]']
    assert sum(line.startswith("unix ") for line in lines) == 2
    assert any(line.startswith("gone was not measured: ") and "buy one" in line for line in lines)
    assert "mute was not measured: it carries no messages" in lines
    assert any(line.startswith("deaf: ") and "the cable is cut" in line for line in lines)
    assert max(map(len, [line for line in lines if line.startswith(("unix ", "memcpy ", "       "))])) <= 80
    assert "round 1, unix" in run.stderr
    assert not DRAWS or (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("beyond", "zero_copy", "line"),
    [
        (None, {"shm"}, 'communicators = ["unix"]'),
        (1 << 18, {"shm"}, 'communicators = ["unix", "shm"]'),
        (1 << 18, set(), 'communicators = ["unix", "shm"], routes = { result = "shm" }'),
    ],
)
def test_advice_as_a_config(
    beyond: int | None, zero_copy: set[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line has results go where the advice says: by themselves to who does not copy, or else by a route."""
    bench = Bench(["unix", "shm"], largest=1 << 20)
    for name, small, large in (("unix", 10.0, 800.0), ("shm", 99.0, 80.0)):
        bench.tally.add(Measured(name, "round_trip_free", {"median_us": small, "p99_us": small}))
        for size in bench.all_sizes:
            microseconds = large if beyond and size > beyond else small
            bench.tally.add(Measured(name, key_of("transfer", size), {"first_us": 1.0, "median_us": microseconds}))
    Benchmark(bench, {}, None, frozenset(zero_copy)).print_tables()
    assert capsys.readouterr().out.splitlines()[-1] == f"in a config: {line}"


def test_json(tasklink: Program) -> None:
    """For programs: the machine, every figure with its unit, and nothing on stderr."""
    run = tasklink("unix", "mute", *BRIEFLY, "--json")
    document: dict[str, Any] = json.loads(run.stdout)
    assert run.returncode == document["exit_code"] == 0
    assert run.stderr == ""
    assert document["machine"]["cpus"] >= 1
    assert document["advice"]["text"] == "everything: unix"
    assert document["skipped"] == {"mute": "it carries no messages"}
    figures = document["communicators"]["unix"]
    assert figures["round_trip_free"]["median_us"]["median"] > 0
    assert len(figures["stream_65536"]["gb_per_s"]["rounds"]) == document["rounds"] == 2


def test_nothing_can_be_measured(tasklink: Program) -> None:
    """Then the exit code says so."""
    run = tasklink("mute", *BRIEFLY)
    assert run.returncode == Outcome.SETUP
    assert run.stdout == "mute was not measured: it carries no messages\n"


@pytest.mark.parametrize(
    ("arguments", "outcome", "said"),
    [
        (["unxi"], Outcome.SETUP, "Did you mean 'unix'?"),
        (["--size", "2 GiB"], Outcome.USAGE, "2 GiB is not between 1 B and 1 GiB"),
        (["--size", "huge"], Outcome.USAGE, "not a size"),
    ],
)
def test_mistakes(tasklink: Program, arguments: list[str], outcome: Outcome, said: str) -> None:
    """What is asked for wrongly is told before anything is measured."""
    run = tasklink(*arguments)
    assert run.returncode == outcome
    assert said in run.stderr
    assert run.stdout == ""


def test_no_folder_for_the_picture(tasklink: Program) -> None:
    """It is said before anything is measured; so is that matplotlib is missing."""
    run = tasklink("--plot", "no/such/folder/speed.png")
    assert run.stdout == ""
    if DRAWS:
        assert run.returncode == Outcome.USAGE
        assert "there is no folder" in run.stderr
    else:
        assert run.returncode == 1
        assert "pip install 'tasklink[plot]'" in run.stderr


def test_other_commands_do_not_import_it() -> None:
    """What only this command needs costs no other one anything."""
    code = """
        import sys
        import tasklink.executor
        from tasklink.cli import commands
        print([name for name in sys.modules if name.startswith("tasklink.bench")])
    """
    run = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
