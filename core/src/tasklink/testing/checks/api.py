"""The class itself: clause 13. Nothing is opened."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tasklink.communicator import API, Capabilities, Communicator
from tasklink.registry import OLDEST_API
from tasklink.testing import need
from tasklink.testing.check import Skipped, clause, expect

if TYPE_CHECKING:
    from tasklink.testing.subject import Subject

_METHODS = ("listen", "connect", "write", "read", "allocate", "flush", "fileno", "close", "unavailable")
# What only the Executor's side has.
_FOREIGN = (
    "attr", "attrs", "cattrs", "click", "pluggy", "stevedore", "rich", "tasklink.child", "tasklink.config",
    "tasklink.executor", "tasklink.hooks", "tasklink.plan", "tasklink.process", "tasklink.registry",
    "tasklink.supervision", "tasklink.rendezvous.executor_side", "tasklink.rendezvous.directory",
)  # fmt: skip


@clause("13.1", group="api")
def check_the_class(subject: Subject) -> None:
    """It is a Communicator that says for which API it was written, what it can do, and where its settings are.

    Mended: state `api`, `capabilities` and `settings` as class attributes, and define every abstract method.
    """
    kind = subject.kind
    expect(isinstance(kind, type) and issubclass(kind, Communicator), f"{kind!r} is no subclass of Communicator")
    expect(not inspect.isabstract(kind), f"it does not define {sorted(getattr(kind, '__abstractmethods__', ()))}")
    expect(OLDEST_API <= kind.api <= API, f"api = {kind.api!r}; served are {OLDEST_API} to {API}")
    expect(isinstance(getattr(kind, "capabilities", None), Capabilities), "`capabilities` is no Capabilities")
    expect(isinstance(getattr(kind, "settings", None), str), '`settings` is no text like "module:Class"')
    reason = kind.unavailable()
    expect(reason is None, f"it cannot be used on this machine: {reason}")


@clause("13.1", group="api")
def check_the_methods(subject: Subject) -> None:
    """Every method takes the parameters of the interface, by their names, with the same defaults.

    Mended: copy the line from `tasklink.communicator`; what is added needs a default.
    """
    for name in _METHODS:
        ours = inspect.signature(getattr(Communicator, name)).parameters
        theirs = inspect.signature(getattr(subject.kind, name)).parameters
        for parameter in ours.values():
            expect(parameter.name in theirs, f"`{name}` has no parameter {parameter.name!r}")
            default = theirs[parameter.name].default
            expect(
                parameter.default in (parameter.empty, default),
                f"`{name}` has {parameter.name}={default!r}, not {parameter.default!r}",
            )
        more = [item for item in theirs.values() if item.name not in ours and item.default is item.empty]
        extra = [item.name for item in more if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
        expect(not extra, f"`{name}` cannot be called without {extra}")


@clause("13.1", group="api")
def check_the_settings(subject: Subject) -> None:
    """Its settings are an attrs class that can be made without arguments, and whose documentation names each of them.

    Mended: an attrs class with a default for each attribute, and a line for each under `Attributes:`.
    """
    if not subject.kind.settings:
        raise Skipped("it has no settings")
    module, _, name = subject.kind.settings.partition(":")
    settings = getattr(importlib.import_module(module), name)
    expect(attrs.has(settings), f"{subject.kind.settings} is no attrs class")
    settings()
    text = inspect.getdoc(settings) or ""
    untold = [field.name for field in attrs.fields(settings) if f"{field.name}:" not in text]
    expect(not untold, f"the documentation of {name} does not say what {untold} are")


@clause("13.2", group="api", needs=[need.processes])
def check_the_task_side_is_light(subject: Subject) -> None:
    """A process that imports the class has imported nothing of the Executor's side.

    Mended: import what only `listen` needs within `listen`; for annotations, under `if TYPE_CHECKING:`.
    """
    kind = subject.kind
    path = [entry or str(Path.cwd()) for entry in sys.path]
    code = (
        f"import sys; sys.path[:] = {path!r}; before = set(sys.modules); import json\n"
        f"__import__({kind.__module__!r}); print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    expect(run.returncode == 0, f"importing {kind.__module__} failed: {run.stderr.strip()[-500:]}")
    heavy = sorted(set(json.loads(run.stdout)) & set(_FOREIGN))
    expect(not heavy, f"importing {kind.__module__} imports {heavy}")
