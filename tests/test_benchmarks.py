"""The benchmarks still run: every item, in small, and every peer that is installed. Nothing here looks at a clock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = ["--rounds", "1", "--scale", "0.0005", "--largest", "64 KiB"]


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """Run the command, and give what it prints and what it has measured."""
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def run(*arguments):
        path = tmp_path / "results.json"
        command = [sys.executable, "-m", "tests.benchmarks", *arguments, *SMALL, "--json", str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads(path.read_text())

    return run


def only(*names):
    """Have these take part."""
    return [word for name in names for word in ("--only", name)]


def test_every_item(benchmarks):
    """Each item gives values, and each row that can be compared has a verdict."""
    shown, results = benchmarks(*only("unix", "subprocess.run"))
    ours = results["contenders"]["unix"]
    assert {"rtt_free", "messages", "busy", "stream_65536", "transfer_256", "warm", "memory", "flat"} <= set(ours)
    assert {"start", "noop", "at_once_1", "at_once_8", "at_once_64", "capture"} <= set(ours)

    verdicts = {(row["metric"], row["ours"], row["peer"]): row["verdict"] for row in results["compared"]}
    assert verdicts["256 MiB array: sender, private", "unix", "at most"] in {"ok", "MISS"}
    assert verdicts["noop Task", "unix", "subprocess.run"] in {"ok", "MISS"}
    assert "raw socketpair child: not measured" in shown


def test_every_peer(benchmarks):
    """Each peer that is installed carries a message and an array; the others are named."""
    _, results = benchmarks("arrays")
    left_out = {name: reasons for name, reasons in results["left_out"].items() if "not installed" not in reasons[0]}
    assert not left_out
    for name, values in results["contenders"].items():
        if name not in results["left_out"] and values:
            assert set(values) == {"stream_65536"}, name


def test_load(benchmarks, tmp_path):
    """What was measured once can be shown again, as the tables of the documentation."""
    benchmarks("messages", *only("pipe", "multiprocessing.Pipe"))
    command = [sys.executable, "-m", "tests.benchmarks", "--load", str(tmp_path / "results.json"), "--markdown"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Measured on ")
    assert "\n| multiprocessing.Pipe | " in shown
    assert "\n| small messages | pipe | multiprocessing.Pipe | " in shown


def test_faults(monkeypatch):
    """Each fault ends well in tasklink; that the comparison can tell shows in what a Pipe leaves behind."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = [sys.executable, "-m", "tests.benchmarks.faults", "--only", "tasklink", "--only", "Process and Pipe"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    verdicts = {line.split("  ")[0]: [] for line in shown.splitlines()[1:]}
    for line in shown.splitlines()[1:]:
        fault, *words = line.split("  ")
        verdicts[fault] += [word.strip() for word in words if word.strip() in {"ok", "BAD"}]
    assert len(verdicts) == 7
    assert [ours for ours, _ in verdicts.values()] == ["ok"] * 7
    assert verdicts["leaves a process behind"] == ["ok", "BAD"]
