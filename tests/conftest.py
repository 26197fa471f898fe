"""What all tests of the whole share: tasks that can be imported, protocols, and a look at what is left behind."""

import gc
import os
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from tasklink import Executor
from tasklink.registry import Registry

sys.path.insert(0, str(Path(__file__).parent / "tasks"))

# Each must behave exactly as the others do.
PROTOCOLS = {"unix": ["unix"], "pipe": ["pipe"], "shm": ["shm"], "zmq": ["zmq"], "both": ["pipe", "unix"]}


def pytest_collection_modifyitems(items):
    """Begin with the tests that are given more than the usual time: at the end one worker would wait for the other."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_collection_finish():
    """Leave what was made until now out of every look for garbage: else each of them costs a tenth of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def protocols():
    """All that a config line may say, by a short name."""
    return PROTOCOLS


@pytest.fixture(params=PROTOCOLS, ids=PROTOCOLS)
def protocol(request):
    """The communicators of a run, by name."""
    return PROTOCOLS[request.param]


@pytest.fixture(params=["unix", "pipe", "shm", "zmq"])
def alone(request):
    """One communicator, for what takes long: together they do what each does alone."""
    return [request.param]


@pytest.fixture
def accepted_is_delivered(protocol):
    """Whether a message is delivered once its `write` has returned; if not, once the Task has ended in good order."""
    return all(Registry().get(name).capabilities.delivery == "write" for name in protocol)


@pytest.fixture
def executor(protocol):
    """An Executor over one protocol."""
    with Executor(protocol) as executor:
        yield executor


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory):
    """A folder for temporary files that nobody else on this machine uses."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def nothing_left_behind(temporary_folder):
    """Fail a test that leaves descriptors, processes, threads or files of tasklink behind."""
    before = _state(temporary_folder)
    yield
    gc.collect()  # an Executor that nobody closed, as in a line at a prompt, lets go when it is collected
    after = _state(temporary_folder)
    left = {what: after[what] - before[what] for what in after if after[what] - before[what]}
    assert not left, f"left behind: {left}"


def _state(temporary_folder):
    return {
        "descriptors": {f"{fd} -> {_target(fd)}" for fd in os.listdir("/proc/self/fd") if _target(fd)},
        "processes": {process.pid for process in psutil.Process().children(recursive=True)},
        "threads": {thread.name for thread in threading.enumerate() if thread.is_alive()},
        "shared memory": {path.name for path in Path("/dev/shm").glob("*tasklink*")},
        "temporary files": {path.name for path in temporary_folder.iterdir()},
    }


def _target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:  # the descriptor that listed them
        return None
