"""The Task side as one zip file, for interpreters that have nothing of ours installed.

Python imports from a zip that is on its path. So a Task can run in any Python from 3.9 on: the zip holds the modules of
the Task side and the packages of the communicators in use, and nothing else of our environment.
"""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import tasklink

if TYPE_CHECKING:
    from collections.abc import Iterable

TASK_SIDE = (
    "__init__",
    "codec",
    "communicator",
    "diagnostics",
    "doorbell",
    "errors",
    "framing",
    "link",
    "message",
    "stream",
    "task",
    "vocabulary",
    "worker",
)


def write_bundle(path: Path, packages: Iterable[str]) -> None:
    """Write the zip.

    Args:
        path: the file to write.
        packages: top-level packages of communicators; all their Python files go in, and what only the Executor's side
            needs is never imported there.

    Raises:
        OSError: the file cannot be written.
    """
    with zipfile.ZipFile(path, "w") as bundle:  # stored, not compressed: it is read at every start
        folder = _folder(tasklink.__name__)
        for module in TASK_SIDE:
            bundle.write(folder / f"{module}.py", f"tasklink/{module}.py")
        for package in sorted(set(packages)):
            folder = _folder(package)
            for file in sorted(folder.rglob("*.py")):
                bundle.write(file, f"{package}/{file.relative_to(folder)}")


def _folder(package: str) -> Path:
    file = importlib.import_module(package).__file__
    assert file is not None
    return Path(file).parent
