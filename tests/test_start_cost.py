"""What a Task costs at its start, and what its side of tasklink imports."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tasklink
from tasklink import Executor
from tasklink.bundle import TASK_SIDE

# Each of these costs a starting Task more than a millisecond, or is somebody else's.
HEAVY = {
    "argparse", "asyncio", "attr", "attrs", "cattrs", "click", "concurrent", "contextlib",
    "ctypes", "dataclasses", "email", "enum", "hashlib", "inspect", "json", "logging", "multiprocessing", "numpy",
    "pickle", "pluggy", "random", "re", "selectors", "signal", "socket", "ssl", "stevedore", "subprocess", "tempfile",
    "threading", "traceback", "typing", "uuid", "weakref", "zipfile",
}  # fmt: skip


def _brought(package):
    """The modules that an interpreter has when it has imported a package and what a rendezvous needs."""
    code = f"import hmac, sys, {package}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(autouse=True)
def compiled():
    """Have the Task side compiled, as it is wherever tasklink is installed; some machines forbid it by a variable."""
    import tasklink_pipe
    import tasklink_shm
    import tasklink_unix
    import tasklink_zmq

    packages = (tasklink, tasklink_pipe, tasklink_shm, tasklink_unix, tasklink_zmq)
    folders = [str(Path(package.__file__).parent) for package in packages]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=True)


def test_light_imports(executor, protocol):
    """A Task's process has imported nothing heavy when the Task begins, and no module of the Executor's side."""
    modules = executor.run("light_task:imported").value_or_raise()
    if "zmq" in protocol:
        modules = set(modules) - _brought("zmq")  # pyzmq, and all that it imports
    assert not HEAVY & set(modules)
    ours = {name for name in modules if name.startswith("tasklink.")}
    assert ours <= {f"tasklink.{module}".removesuffix(".__init__") for module in TASK_SIDE}


@pytest.mark.timed
def test_hundred_noop_tasks(alone):
    """Tasks that do nothing cost at most 1.25 times an interpreter that imports what any of them needs.

    Over zmq it is 1.35 times one that also opens a socket of ZeroMQ: a Task saves `threading`, `socket` and `pickle`,
    but pyzmq imports them.
    """
    needed, bar = "import pickle, socket, struct, threading", 1.25
    if alone == ["zmq"]:
        needed, bar = f"{needed}, hmac, zmq; zmq.Context().socket(zmq.DEALER).close()", 1.35
    reference = [sys.executable, "-c", needed]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ratios = []
    with Executor(alone) as executor:
        executor.run("time:monotonic")
        for _ in range(100):
            begin = time.perf_counter()
            executor.run("time:monotonic").value_or_raise()
            middle = time.perf_counter()
            subprocess.run(reference, check=True, env=environment)
            ratios.append((middle - begin) / (time.perf_counter() - middle))
    assert statistics.median(ratios) <= bar
