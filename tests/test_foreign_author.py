"""A plugin by somebody else, who had the abstract interface and nothing more: it keeps the contract, and runs Tasks."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sample_tasks

from tasklink import Executor, Status
from tasklink.testing import CHECKS, CommunicatorConformance, Subject, verification

CONFIG = """
[tasks.words]
run = "collections:Counter"
parameters = { iterable = "abracadabra" }
communicators = ["connection"]

[communicators.connection]
room = "2 MiB"
"""
# What is another matter where the Task inherits something.
INHERITING = {
    "check_another_process",
    "check_the_death_of_the_other_side",
    "check_a_peer_that_dies_on_its_way",
    "check_programs_inherit_nothing",
    "check_a_listener_gives_everything_back",
    "check_survives_launcher",
    "check_several_peers",
}
FOREIGN = Path(__file__).parent / "foreign"
sys.path.insert(0, str(FOREIGN / "src"))


def subject(**settings):
    """The plugin, imported when it is asked for; with a peer that does not read it does not wait as long as usual."""
    from acme_connection import ConnectionCommunicator
    from acme_connection.settings import ConnectionSettings

    return Subject.of(ConnectionCommunicator, ConnectionSettings(linger=0.3, **settings))


class TestConnection(CommunicatorConformance):
    """It keeps the contract."""

    def subject(self):
        """At a name, so that nothing is left out that concerns the meeting."""
        return subject(named=True)


@pytest.mark.parametrize("check", [check for check in CHECKS if check.name in INHERITING], ids=lambda check: check.name)
def test_inherited(check):
    """It keeps it by default, too, where the Task inherits its end."""
    assert verification.run(check, subject()).outcome == "pass"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """It, as it would be uploaded."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(FOREIGN)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture
def site(wheel, tmp_path, monkeypatch):
    """A folder in which it is installed, for this process and those that it starts."""
    folder = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def call(*command, folder):
    """Run a command of tasklink; show what it says when it fails."""
    run = subprocess.run(
        [sys.executable, "-m", "tasklink", *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_config_selects_it(site, tmp_path):
    """By its name alone, with a setting of its own; and it is listed, with its distribution."""
    (tmp_path / "lab.toml").write_text(CONFIG)
    assert "completed" in call("run", "lab.toml", folder=tmp_path)
    assert "acme-tasklink-connection" in call("plugins", folder=tmp_path)


def test_a_task_over_it(site):
    """What a Task reports, prints and returns arrives, small and large."""
    with Executor(["connection"]) as executor:
        result = executor.run("sample_tasks:report_and_print")
        assert [message.contents for message in result.messages] == ["from a function"]
        assert [message.communicator for message in result.messages] == ["connection"]
        assert result.stdout == b"printed\n"
        block = os.urandom(3_000_000)
        assert executor.run(lambda block: block + b"end", block=block).value == block + b"end"
        assert executor.run(sample_tasks.add, a=2, b=3).value_or_raise() == 5


def test_the_last_words_of_a_task_over_it(site):
    """They are still on their way through its thread when the process of the Task has ended, and are waited for."""
    with Executor(["connection"]) as executor:
        for _ in range(4):
            result = executor.run("hostile_tasks:odd_contents")
            assert (result.status, result.value) == (Status.COMPLETED, "done")
