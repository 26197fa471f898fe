"""The Task side as one zip file, for interpreters that have nothing of ours installed.

Python imports from a zip that is on its path. So a Task can run in any Python from 3.9 on: the zip holds the modules of
the Task side and the packages of the communicators in use, and nothing else of our environment.
"""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OURS = Path(__file__).parent

TASK_SIDE = (
    "__init__",
    "codec",
    "communicator",
    "diagnostics",
    "doorbell",
    "errors",
    "failover",
    "fork",
    "framing",
    "landing",
    "kept",
    "ledger",
    "link",
    "member",
    "message",
    "rendezvous.__init__",
    "rendezvous.handshake",
    "rendezvous.hold",
    "rendezvous.task_side",
    "spin",
    "stream",
    "task",
    "turn",
    "vocabulary",
    "worker",
)


def write_bundle(path: Path, packages: Iterable[str]) -> None:
    """Write the zip.

    Args:
        path: the file to write.
        packages: top-level packages or modules of communicators; all their Python files go in, and what only the
            Executor's side needs is never imported there.

    Raises:
        OSError: the file cannot be written.
    """
    # Stored, not compressed: it is read at every start. Some installers date all files to 1970; a zip begins in 1980.
    with zipfile.ZipFile(path, "w", strict_timestamps=False) as bundle:
        for module in TASK_SIDE:
            name = f"{module.replace('.', '/')}.py"
            bundle.write(_OURS / name, f"tasklink/{name}")
        for package in sorted(set(packages)):
            for file, name in _files(package):
                bundle.write(file, name)
        # Folders without an __init__.py are packages, too, if they have entries of their own.
        for folder in sorted({parent for name in bundle.namelist() for parent in PurePosixPath(name).parents}):
            if folder.name:
                bundle.mkdir(str(folder))


def _files(package: str) -> Iterator[tuple[Path, str]]:
    """The Python files of a package, or of a module that is alone in its file; with their names in the zip."""
    module = importlib.import_module(package)
    if not hasattr(module, "__path__"):
        assert module.__file__ is not None
        yield Path(module.__file__), f"{package}.py"
    for folder in map(Path, getattr(module, "__path__", ())):  # several, where the package is a namespace
        for file in sorted(folder.rglob("*.py")):
            yield file, f"{package}/{file.relative_to(folder)}"
