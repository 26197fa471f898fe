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


@pytest.fixture(autouse=True)
def compiled():
    """Have the Task side compiled, as it is wherever tasklink is installed; some machines forbid it by a variable."""
    import tasklink_pipe
    import tasklink_unix

    folders = [str(Path(package.__file__).parent) for package in (tasklink, tasklink_pipe, tasklink_unix)]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=True)


def test_light_imports(executor):
    """A Task's process has imported nothing heavy when the Task begins, and no module of the Executor's side."""
    modules = executor.run("light_task:imported").value_or_raise()
    assert not HEAVY & set(modules)
    ours = {name for name in modules if name.startswith("tasklink.")}
    assert ours <= {f"tasklink.{module}" for module in TASK_SIDE}


def test_hundred_noop_tasks(alone):
    """Tasks that do nothing cost at most 1.25 times an interpreter that imports what any of them needs."""
    reference = [sys.executable, "-c", "import pickle, socket, struct, threading"]
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
    assert statistics.median(ratios) <= 1.25
