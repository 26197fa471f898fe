"""A Task that works: it reads every module of Python's standard library."""

from __future__ import annotations

import ast
import sysconfig
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasklink import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is installed beside the library, and the library's own test suite, which is larger and not always there.
LEFT_OUT = {"site-packages", "dist-packages", "test", "__pycache__"}
REPORT_EVERY = 100


class ReadLibrary(Task):
    """Parses the standard library of the interpreter that runs it.

    It says how far it is with every module, reports what it has found so far with every hundredth, and warns of what
    does not parse.
    """

    def run(self) -> dict[str, Any]:
        """Read all modules.

        Returns:
            `modules`, by file the number of its lines, functions and classes; `places`, one large array: for every node
            of every syntax tree the line and the column where it begins.
        """
        folder = Path(sysconfig.get_path("stdlib"))
        files = list(find_modules(folder))
        modules = {}
        places = array("I")
        for number, file in enumerate(files, start=1):
            if self.cancelled:
                break
            name = str(file.relative_to(folder))
            self.progress(number, len(files), note=name)
            try:
                modules[name] = read_module(file, places)
            except (OSError, SyntaxError, ValueError) as error:
                self.log(f"{name} is left out: {type(error).__name__}", "warning")
            if number % REPORT_EVERY == 0:
                self.report({"files": number, "nodes": len(places) // 2})
        return {"modules": modules, "places": places}


def find_modules(folder: Path) -> Iterator[Path]:
    """Yield every module below a folder, in an order that is always the same."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix == ".py":
            yield entry
        elif entry.name not in LEFT_OUT and entry.is_dir() and not entry.is_symlink():
            yield from find_modules(entry)


def read_module(file: Path, places: array[int]) -> dict[str, int]:
    """Parse a module, add the places of its nodes to an array, and count what is in it.

    Raises:
        OSError: it cannot be read.
        SyntaxError, ValueError: it does not parse.
    """
    source = file.read_bytes()
    counts = {"lines": source.count(b"\n"), "functions": 0, "classes": 0}
    for node in ast.walk(ast.parse(source, file.name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            counts["functions"] += 1
        elif isinstance(node, ast.ClassDef):
            counts["classes"] += 1
        if isinstance(node, (ast.expr, ast.stmt)):
            places.append(node.lineno)
            places.append(node.col_offset)
    return counts
