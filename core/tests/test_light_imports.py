"""The Task side is light: it is a part of every Task's start, in interpreters that are not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tasklink
from tasklink.bundle import TASK_SIDE

SOURCES = str(Path(tasklink.__file__).parent.parent)
# Those of a rendezvous need `hmac`, which takes 3 ms; a Task that inherits its channels never imports them.
MODULES = sorted(module for module in TASK_SIDE if module != "__init__" and not module.startswith("rendezvous"))
RENDEZVOUS = ["rendezvous.handshake", "rendezvous.hold", "rendezvous.task_side"]

# Each costs a starting Task a part of a millisecond at most, or `_pickle` needs it.
LIGHT = {
    "__future__", "_collections_abc", "_compat_pickle", "_heapq", "_operator", "_pickle", "_queue", "_stat", "_struct",
    "collections", "copyreg", "functools", "genericpath", "heapq", "itertools", "keyword", "operator", "os", "os.path",
    "posixpath", "reprlib", "select", "stat", "struct", "types",
}  # fmt: skip
# Each has been weighed and found to cost 1 to 20 ms.
HEAVY = {
    "ast", "asyncio", "attr", "attrs", "cattrs", "click", "cloudpickle", "collections.abc", "concurrent", "contextlib",
    "copy", "dataclasses", "datetime", "enum", "importlib.metadata", "inspect", "json", "logging", "mmap",
    "multiprocessing", "pathlib", "pickle", "pluggy", "random", "re", "selectors", "shutil", "signal", "socket",
    "stevedore", "subprocess", "tempfile", "threading", "tomllib", "traceback", "typing", "uuid", "warnings", "weakref",
}  # fmt: skip

IMPORTS = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {SOURCES!r})
for module in {MODULES}:
    __import__("tasklink." + module)
print(*sorted(set(sys.modules) - before))
"""
# What the Task side does all day, in a few lines.
WORKS = """
import os
from tasklink import codec, framing, vocabulary
from tasklink.communicator import Capabilities
from tasklink.errors import BrokenError, DecodeError, EncodeError, EndOfMessages
from tasklink.link import Link
from tasklink.message import Message
from tasklink.stream import StreamCommunicator
from _thread import start_new_thread

class End(StreamCommunicator):
    capabilities = Capabilities()
    listen = connect = classmethod(lambda *_: None)

there, back = os.pipe(), os.pipe()
one, other = Link([("pipe", End(back[0], there[1]))]), Link([("pipe", End(there[0], back[1]))])
try:
    other.read(0.01)
except TimeoutError:
    pass
large = bytes(range(256)) * 100_000
start_new_thread(lambda: [one.write(Message([large, n])) for n in range(3)], ())
assert [other.read(10).contents for _ in range(3)] == [[large, n] for n in range(3)]
# Larger than what is reserved at once: its memory grows in place.
start_new_thread(lambda: one.write(Message(large)), ())
assert other.read(10).contents == large
other.write(vocabulary.record(vocabulary.CANCEL, "reason"))
assert vocabulary.texts(one.read(10)) == ["reason"]
one.write(Message({"a": [1, None]}, "data"))
assert other.read(10).contents == {"a": [1, None]}
try:
    one.write(Message(lambda: None))
except EncodeError as error:
    assert "cloudpickle" in str(error), error
try:
    codec.decode(codec.PICKLE, [b"\\x80\\x05\\x8c\\x04gone\\x8c\\x04Peak\\x93."])
except DecodeError as error:
    assert "gone.Peak" in str(error), error
one.finish()
one.close()
try:
    other.read(10)
except EndOfMessages:
    other.close()
    print("works")
"""


def run(python: str, script: str) -> str:
    """Run a script in an interpreter without anything that is installed beside it."""
    done = subprocess.run(
        [python, "-S", "-B", "-E", "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def old_python() -> str | None:
    """A Python 3.9 that really runs, if there is one: on the path, of pyenv, or one that uv knows."""
    candidates = [shutil.which("python3.9"), *map(str, Path.home().glob(".pyenv/versions/3.9*/bin/python"))]
    if uv := shutil.which("uv"):
        command = [uv, "python", "find", "--no-project", "--offline", "3.9"]
        environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
        candidates.append(_output(command, environment))
    for candidate in candidates:
        if candidate and _output([candidate, "-c", "import sys; print(sys.version_info[:2])"]) == "(3, 9)":
            return candidate
    return None


def _output(command: list[str], environment: dict[str, str] | None = None) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.fixture(scope="module")
def python39() -> str:
    """Python 3.9."""
    found = old_python()
    if found is None:
        pytest.skip("there is no Python 3.9 on the path, in ~/.pyenv/versions, or known to uv")
    return found


def foreign_to(loaded: set[str]) -> set[str]:
    """What is not tasklink's."""
    return {name for name in loaded if name != "tasklink" and not name.startswith("tasklink.")}


def check_light(loaded: set[str]) -> None:
    """Nothing heavy, and nothing that nobody has weighed."""
    foreign = foreign_to(loaded)
    assert not foreign & HEAVY
    assert foreign - set(sys.builtin_module_names) <= LIGHT
    assert {f"tasklink.{module}" for module in MODULES} == {name for name in loaded if name.startswith("tasklink.")}


def test_the_task_side_imports_light_modules_only() -> None:
    """The whole of it, in an interpreter that has nothing else loaded."""
    check_light(set(run(sys.executable, IMPORTS).split()))


def test_the_task_side_imports_light_modules_only_on_python_39(python39: str) -> None:
    """The same for the oldest Python that Tasks run in."""
    check_light(set(run(python39, IMPORTS).split()))


def test_a_rendezvous_imports_the_standard_library_only(python39: str) -> None:
    """A Task that has to go to one needs nothing that is installed, on the oldest Python as well."""
    loaded = set(run(python39, IMPORTS.replace(repr(MODULES), repr(RENDEZVOUS))).split())
    assert {name.partition(".")[0] for name in foreign_to(loaded)} <= sys.stdlib_module_names
    ours = {name.removeprefix("tasklink.") for name in loaded - foreign_to(loaded) if name != "tasklink"}
    assert ours == {"errors", "rendezvous", *RENDEZVOUS}


@pytest.mark.parametrize("module", MODULES + RENDEZVOUS)
def test_each_module_can_be_imported_first(module: str) -> None:
    """No import depends on another one having been made before."""
    loaded = run(sys.executable, IMPORTS.replace(repr(MODULES), repr([module])))
    assert f"tasklink.{module}" in loaded.split()


def test_the_task_side_works_without_site_packages() -> None:
    """Messages pass, and errors say what is missing, with the standard library alone."""
    assert run(sys.executable, f"import sys; sys.path.insert(0, {SOURCES!r})" + WORKS) == "works\n"


def test_the_task_side_works_on_python_39(python39: str) -> None:
    """The same there."""
    assert run(python39, f"import sys; sys.path.insert(0, {SOURCES!r})" + WORKS) == "works\n"
