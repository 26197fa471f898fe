"""A Task in an interpreter that is not ours, and has nothing of ours installed."""

import shutil
import subprocess
import sys
import venv
from functools import cache
from pathlib import Path

import pytest

from tasklink import Status, TaskSpec

VERSIONS = ("3.9", "3.10", "3.12", "3.13", "3.14")


@cache
def find_python(version):
    """Find an interpreter of some version that really runs; None if there is none."""
    places = [shutil.which(f"python{version}"), *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for place in filter(None, places):
        command = [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        probe = subprocess.run(command, capture_output=True, check=False)
        if probe.returncode == 0 and probe.stdout.decode().strip() == version:
            return Path(place)
    return None


def says_what_is_missing(result, protocol):
    """Check the one communicator whose Task side needs a package: its absence is named, and what to do about it."""
    if protocol != ["zmq"]:
        return False
    assert result.status is Status.NOT_STARTED
    assert "pyzmq cannot be imported" in str(result.error)
    assert "-m pip install pyzmq" in str(result.error)
    return True


@pytest.mark.parametrize("version", VERSIONS)
def test_other_version(executor, protocol, version):
    """The Task side runs from a zip in any Python from 3.9 on, and brings nothing but the standard library."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    # `-I`-like emptiness cannot be had through an option here, so the folder with the tasks is given by the config.
    spec = TaskSpec(run="sample_tasks:modules_of_the_task_side", python=python, env={"PYTHONPATH": _tasks()})
    result = executor.run(spec)
    if says_what_is_missing(result, protocol):
        return
    modules, found = result.value_or_raise()
    assert f"{found[0]}.{found[1]}" == version
    ours = {name.partition(".")[0] for name in modules}
    assert ours & {"attr", "attrs", "pluggy", "stevedore", "cattrs", "click", "numpy"} == set()
    assert "tasklink" in ours
    assert executor.run(
        TaskSpec(run="sample_tasks:chain_of_errors", python=python, env={"PYTHONPATH": _tasks()})
    ).status is (Status.FAILED)


def test_bare_environment(executor, protocol, tmp_path):
    """A virtual environment with nothing in it will do."""
    venv.create(tmp_path / "bare", symlinks=True)
    result = executor.run(TaskSpec(run="platform:python_version", python=tmp_path / "bare/bin/python"))
    if says_what_is_missing(result, protocol):
        return
    assert result.value_or_raise() == ".".join(map(str, sys.version_info[:3]))


def _tasks():
    return str(Path(__file__).parent / "tasks")
