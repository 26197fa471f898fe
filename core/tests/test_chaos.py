"""Chaos: good communicators pass, and whatever one does wrong in a real run is found, and named."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import click
import pytest

from tasklink.cli import commands
from tasklink.message import Message
from tasklink.testing.chaos import protocols
from tasklink.testing.errand import pattern
from tasklink.testing.growth import Growth
from tasklink.testing.life import ENDINGS, Life, Record

TASKLINK = str(Path(sysconfig.get_path("scripts"), "tasklink"))
TASKS = Path(__file__).parent / "tasks"

FAULTY = """
import threading
import attrs
import mutants

@attrs.frozen
class Settings:
    pass

class Drops(mutants.Counting):
    settings = "tasklink_faulty:Settings"
    def send_numbered(self, number, buffers, timeout):
        if number != 30:
            mutants.ModelCommunicator.send(self, buffers, timeout)

class Leaks(mutants.LeaksADescriptor):
    settings = "tasklink_faulty:Settings"

class Stalls(mutants.Counting):
    settings = "tasklink_faulty:Settings"
    def send_numbered(self, number, buffers, timeout):
        if number == 30:
            threading.Event().wait()
        mutants.ModelCommunicator.send(self, buffers, timeout)
"""
NAMES = ("drops", "leaks", "stalls")
CHAOS = """
import json
from tasklink.testing import chaos
chaos.LAST_CHANCE = 1.0
def run(*names, patience):
    with chaos.Chaos([(name,) for name in names], seconds=0.8, patience=patience, at_once=4) as tried:
        for _ in tried.steps():
            pass
    return [record.as_dict() for record in tried.records], tried.faults
print(json.dumps([run("drops", "leaks", patience=30), run("stalls", patience=2)]), flush=True)
"""


@pytest.fixture
def faulty(tmp_path: Path) -> dict[str, str]:
    """The environment of a program for which communicators are installed that each do one thing wrong."""
    about = tmp_path / "tasklink_faulty-1.0.dist-info"
    about.mkdir()
    (tmp_path / "tasklink_faulty.py").write_text(FAULTY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tasklink-faulty\nVersion: 1.0\n")
    entries = "".join(f"{name} = tasklink_faulty:{name.title()}\n" for name in NAMES)
    (about / "entry_points.txt").write_text(f"[tasklink.communicators]\n{entries}")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}:{TASKS}"}


def test_faults_are_named(faulty: dict[str, str]) -> None:
    """What loses messages, leaks, or hangs is named by that; of what hangs, where both processes stand."""
    done = subprocess.run([sys.executable, "-c", CHAOS], env=faulty, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ((drops, leaks), faults), ((stalls,), hangs) = json.loads(done.stdout)
    assert drops["lost"] > 0
    assert (drops["leaks"], drops["hangs"]) == (0, 0)
    assert leaks["leaks"] == 1
    assert (leaks["lost"], leaks["twice"], leaks["untrue"], leaks["hangs"]) == (0, 0, 0, 0)
    assert stalls["hangs"] > 0
    assert any(re.match(r"drops \d+: .* 1 lost: accepted", fault) for fault in faults)
    assert any(fault.startswith("leaks: left behind: descriptors: ") for fault in faults)
    hang = next(fault for fault in hangs if "it has not ended after 2 s" in fault)
    ours, _, theirs = hang.partition("\nprocess ")
    assert "in _tell_of_hang" in ours
    assert "in _supervise" in ours
    assert 'mortal.py", line' in theirs
    assert "in send_numbered" in theirs


def test_the_report() -> None:
    """A line for each communicator, nothing found, how it goes on stderr, exit code 0."""
    done = subprocess.run(
        [TASKLINK, "verify", "unix", "--soak", "1 s"], capture_output=True, text=True, check=False, stdin=-3
    )
    assert done.returncode == 0, done.stdout + done.stderr
    head, row, meaning, _, summary = done.stdout.splitlines()
    assert head.split()[:8] == ["communicators", "runs", "messages", "lines", "lost", "twice", "untrue", "hangs"]
    name, runs, messages, lines, *found, worst = row.split()
    assert name == "unix"
    assert min(int(figure.replace(",", "")) for figure in (runs, messages, lines)) > 0
    assert found == ["0"] * 5
    assert float(worst) > 0
    assert meaning.startswith("lost: promised and not there")
    assert re.fullmatch(rf"{runs} runs? in .* s: 0 lost, 0 twice, 0 untrue, 0 hangs, 0 leaks", summary)
    assert re.search(r"^ *\d+% \d+ runs?, 0 faults; now unix$", done.stderr, re.MULTILINE)


def test_an_interrupt() -> None:
    """Ctrl-C ends it within a second, with the report so far."""
    with subprocess.Popen(
        [TASKLINK, "verify", "unix", "--soak", "5"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stderr is not None
        assert program.stdout is not None
        for line in program.stderr:
            if re.search(r"[1-9]\d* runs", line):
                break
        program.send_signal(signal.SIGINT)
        assert re.search(r"\d+ runs? interrupted after .*: 0 lost, 0 twice, 0 untrue", program.stdout.read())
        assert program.wait() == 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--soak", "0"], "it takes some time"),
        (["--soak", "soon"], "'soon': not a duration"),
        (["unix", "--soak", "1", "--only", "api"], "--only chooses among the checks"),
        (["unix", "pipe"], "The checks are run on one communicator"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], said: str) -> None:
    """It is told."""
    with pytest.raises(click.UsageError, match=said):
        commands.main(["verify", *arguments], standalone_mode=False)


def test_who_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told; exit code 2."""
    assert commands.main(["verify", "unxi", "--soak", "1"], standalone_mode=False) == 2
    assert "communicator 'unxi' is not installed" in capsys.readouterr().err


def life() -> Life:
    """A Task whose messages are looked at."""
    return Life.of(1, Record(("unix",), delivers_on_write=True))


def message(life: Life, number: int, **changed: Any) -> Message:
    """What it reports."""
    return Message((number, changed.get("data", pattern(life.sizes[number % len(life.sizes)], number))))


class TestLife:
    """What is seen of a Task."""

    def test_every_ending_has_its_turn(self) -> None:
        """In seven runs each of them; what is random is the same each time."""
        record = Record(("unix",), delivers_on_write=True)
        lives = [Life.of(number, record) for number in range(len(ENDINGS))]
        assert sorted(life.ending for life in lives) == sorted(ENDINGS)
        assert [life.seconds for life in lives] == [Life.of(life.number, record).seconds for life in lives]
        assert {life.flush_after for life in lives} == {math.inf}

    def test_what_is_flushed(self) -> None:
        """Where only that is promised, some flush what they have sent before they are killed."""
        record = Record(("zmq",), delivers_on_write=False)
        lives = [Life.of(number, record) for number in range(100)]
        flushing = {life.ending for life in lives if life.flush_after < math.inf}
        assert flushing == {"SIGKILL", "segfault", "_exit"}

    def test_messages(self) -> None:
        """What is missing, comes again, or is damaged is counted; once each."""
        seen = life()
        for number in (0, 1, 3, 3, 4):
            seen.take(message(seen, number))
        seen.take(message(seen, 5, data=b"something else"))
        seen.take(Message("something else"))
        assert (seen.messages, seen.lost, seen.twice, seen.damaged) == (6, 1, 1, 2)

    def test_lines(self) -> None:
        """The same of lines, however they are cut, and whatever ends them."""
        seen = life()
        for data in (b"0\r\n1", b"\n2\n", b"", b"4\n4\nfive\n6"):
            seen.take_output(data)
        assert (seen.lines, seen.lost, seen.twice, seen.damaged) == (5, 1, 1, 1)


class TestGrowth:
    """Memory over many runs."""

    @pytest.mark.parametrize(
        ("sizes", "grown"),
        [
            ([100e6 + 6e3 * runs for runs in range(0, 3000, 100)], 6.0),
            ([min(100e6 + 90e3 * runs, 160e6) for runs in range(0, 3000, 100)], 0.0),
            ([100e6 + 30e6 * (runs % 300 == 0) for runs in range(0, 3000, 100)], 0.0),
        ],
        ids=["trend", "at first", "for a while"],
    )
    def test_a_trend(self, sizes: list[float], grown: float) -> None:
        """Only what goes on and on is one."""
        growth = Growth()
        for number, size in enumerate(sizes):
            growth.note(100 * number, int(size))
        assert growth.per_thousand == pytest.approx(grown, abs=0.01)
        assert bool(growth.fault) == (grown > 5)

    def test_too_few(self) -> None:
        """Of a few runs nothing can be said."""
        growth = Growth()
        for runs in range(0, 1000, 50):
            growth.note(runs, runs << 20)
        assert (growth.per_thousand, growth.fault) == (None, "")


def test_protocols() -> None:
    """Each by itself, what only captures beside another one, and all of them as one."""
    assert protocols(["unix"]) == [("unix",)]
    assert protocols(["pipe", "unix"]) == [("pipe",), ("unix",), ("pipe", "unix")]
