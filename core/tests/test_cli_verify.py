"""`tasklink verify`, as its users see it."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasklink.testing import CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable

    Program = Callable[..., subprocess.CompletedProcess[str]]

TASKLINK = str(Path(sysconfig.get_path("scripts"), "tasklink"))
CODE = """
from tasklink.testing.model import ModelCommunicator

class Settings:
    pass

class Plugin(ModelCommunicator):
    settings = "tasklink_hasty:Settings"
    def close(self):
        self.check_usable()
        super().close()
"""


@pytest.fixture
def tasklink(tmp_path: Path) -> Program:
    """Run the program where a communicator is installed that has two faults."""
    about = tmp_path / "tasklink_hasty-1.0.dist-info"
    about.mkdir()
    code = "import attrs\n" + CODE.replace("class Settings", "@attrs.frozen\nclass Settings")
    (tmp_path / "tasklink_hasty.py").write_text(code)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tasklink-hasty\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tasklink.communicators]\nhasty = tasklink_hasty:Plugin\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TASKLINK_")}
        return subprocess.run(
            [TASKLINK, "verify", *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_one_that_keeps_the_contract(tasklink: Program) -> None:
    """A line for each check, what does not apply with its reason, progress on stderr, exit code 0."""
    run = tasklink("unix", "--only", "ordering", "--only", "zero-copy")
    assert run.returncode == 0, run.stdout + run.stderr
    head, *rows, empty, summary = run.stdout.splitlines()
    assert head.split() == ["clause", "outcome", "seconds", "check"]
    assert [row.split()[:2] for row in rows] == [
        ["2.1", "pass"],
        ["2.2", "pass"],
        ["12.2", "pass"],
        ["12.2", "skipped"],
    ]
    assert "zero_copy=False" in rows[-1]
    assert (empty, summary) == ("", "unix keeps what was checked: 3 passed, 0 failed, 1 do not apply")
    assert "check_each_message_once" in run.stderr


def test_one_that_does_not(tasklink: Program) -> None:
    """What failed stands below with its clause, what was seen and how it is mended; exit code 1."""
    run = tasklink("hasty", "--only", "api", "--only", "close")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "check_close_may_be_called_again: clause 6.1: `close` may be called from any thread" in run.stdout
    assert "  seen: ClosedError: this Plugin was closed" in run.stdout
    assert "  usually mended by: a lock that is taken once" in run.stdout
    assert "check_the_task_side_is_light: clause 13.2" in run.stdout
    assert "imports ['attr', 'attrs'" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("hasty does not keep what was checked: ")


def test_json(tasklink: Program) -> None:
    """For programs: everything, and nothing on stderr."""
    run = tasklink("hasty", "--only", "api", "--json")
    document: dict[str, Any] = json.loads(run.stdout)
    assert run.stderr == ""
    assert run.returncode == document["exit_code"] == 1
    assert document["class"] == "tasklink_hasty:Plugin"
    outcomes = {check["check"]: check["outcome"] for check in document["checks"]}
    assert set(outcomes) == {check.name for check in CHECKS if check.group == "api"}
    assert outcomes["check_the_task_side_is_light"] == "fail"
    assert document["passed"] + document["failed"] + document["skipped"] == len(outcomes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["unxi"], "Error: communicator 'unxi' is not installed (installed: 'hasty', 'pipe'"),
        (["unix", "--only", "clse"], "'clse' is no group; allowed are api, smoke"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_what_cannot_be_meant(tasklink: Program, arguments: list[str], said: str) -> None:
    """It is told what there is, as everywhere else; exit code 2."""
    run = tasklink(*arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    assert said in run.stderr
