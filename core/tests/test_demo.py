"""The demonstration: its Tasks by themselves, and the whole of it as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from array import array
from pathlib import Path

import pytest

from tasklink import Executor, Status, TaskResult, TaskSpec
from tasklink.cli.comparison import Comparison
from tasklink.cli.outcome import Outcome
from tasklink.demo import trial
from tasklink.demo.echo import Echo
from tasklink.demo.library import find_modules, read_module
from tasklink.demo.trial import PINGS, Trial, converse, protocols_of, try_protocols

TASKLINK = str(Path(sysconfig.get_path("scripts"), "tasklink"))


def test_every_protocol_is_compared() -> None:
    """Each communicator is tried by itself, or beside one that carries messages if it cannot, and several together."""
    assert protocols_of(["pipe"]) == [("pipe",)]
    assert protocols_of(["pipe", "unix"]) == [("pipe",), ("unix",), ("pipe", "unix")]
    assert protocols_of(["unix"], ["pty"]) == [("unix",), ("pty", "unix")]
    assert protocols_of(["pipe", "unix"], ["pty"])[2:] == [("pty", "pipe"), ("pty", "pipe", "unix")]
    assert protocols_of([], ["pty"]) == [("pty",)]


def test_modules_are_found_in_one_order(tmp_path: Path) -> None:
    """All modules below a folder, but for what does not belong to the library, and without going in circles."""
    for name in ("b.py", "a/c.py", "a/notes.txt", "site-packages/d.py", "a/__pycache__/e.py", "test/f.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in find_modules(tmp_path)] == ["a/c.py", "b.py"]


def test_a_module_is_read(tmp_path: Path) -> None:
    """What is in a module is counted, and the place of each statement and expression noted."""
    file = tmp_path / "peaks.py"
    file.write_text("class Peak:\n    async def find(self):\n        pass\n\nx = 1\n")
    places = array("I")
    assert read_module(file, places) == {"lines": 5, "functions": 1, "classes": 1}
    assert sorted(zip(places[::2], places[1::2], strict=True)) == [(1, 0), (2, 4), (3, 8), (5, 0), (5, 0), (5, 4)]
    file.write_text("def")
    with pytest.raises(SyntaxError):
        read_module(file, places)


def test_echo_obeys() -> None:
    """It answers in the voice it is told to, does not while it is paused, and stops when told to."""
    with Executor() as executor:
        future = executor.submit(TaskSpec(run=Echo))
        assert converse(future) > 0
        result = future.result()
    assert result.value == {"calm": PINGS, "loud": 1}
    assert [message.contents for message in result.messages][-2:] == ["loud", ("loud", "are you there?")]


def test_echo_that_dies_is_told() -> None:
    """A conversation that ends too early leaves the telling to the result."""
    with Executor() as executor:
        future = executor.submit(TaskSpec(run="builtins:len"))
        converse(future)
        assert future.result().status is Status.FAILED


def test_what_differs_is_a_failure() -> None:
    """Results that differ between protocols are the fault of the communication."""
    result = TaskResult(name="echo", status=Status.COMPLETED)

    alike = Trial("echo", ("pipe",), result, "", None, identical=True)
    different = Trial("echo", ("unix",), result, "", None, identical=False)
    assert Comparison([], [alike]).outcome is Outcome.OK
    assert Comparison([], [alike, different]).outcome is Outcome.COMMUNICATION


def test_every_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Task that gives something else each time is not taken for one that gives the same."""
    monkeypatch.setattr(trial, "ReadLibrary", os.getpid)
    trials = list(try_protocols([("unix",), ("pipe",)]))
    assert {(one.task, one.identical) for one in trials[3:]} == {("library", False), ("listing", True), ("echo", True)}


def test_demo() -> None:
    """Every Task completes over every protocol, nothing is lost, and the results are the same."""
    run = subprocess.run(
        [TASKLINK, "demo", "--with", "unix,pipe", "--json"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    trials = json.loads(run.stdout)["trials"]
    assert [(one["task"], one["protocol"]) for one in trials] == [
        (task, protocol)
        for protocol in (["unix"], ["pipe"], ["unix", "pipe"])
        for task in ("library", "listing", "echo")
    ]
    assert {(one["status"], one["lost"]) for one in trials} == {("completed", 0)}
    assert [one["identical"] for one in trials] == [None] * 3 + [True] * 6
    assert sum(traffic["bytes"] for traffic in trials[0]["communicators"].values()) > 3 << 20
    assert trials[1]["found"].removesuffix(" lines").replace(",", "").isdecimal()
    assert "library unix+pipe" in run.stderr


def test_demo_over_what_is_not_there() -> None:
    """A communicator that is not installed is told before anything is run."""
    run = subprocess.run([TASKLINK, "demo", "--with", "unix,pigeon"], capture_output=True, text=True, check=False)
    assert run.returncode == 3
    assert run.stderr.startswith("Error: communicator 'pigeon' is not installed")
