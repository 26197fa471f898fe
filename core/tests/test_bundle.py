"""The Task side in a zip: whole, alone, and in any Python."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tasklink
from tasklink.bundle import TASK_SIDE, write_bundle

if TYPE_CHECKING:
    from types import ModuleType

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)
for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if file.startswith(sys.argv[1]) or "site-packages" in file or "tasklink" in file + name:
        print(name, file[len(sys.argv[1]) + 1:])
"""


def interpreter(version: str) -> str | None:
    """An interpreter of some version that really runs."""
    places = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for place in filter(None, places):
        probe = [str(place), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(probe, capture_output=True, text=True, check=False).stdout.strip() == version:
            return str(place)
    return None


def imported(python: str, bundle: Path, *names: str) -> dict[str, str]:
    """What a bare interpreter imports from a bundle, and from where in it."""
    done = subprocess.run(
        [python, "-S", "-I", "-c", LOOK, str(bundle), *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


class TestBundle:
    """What is in it."""

    @pytest.mark.parametrize("version", VERSIONS)
    def test_bare_interpreters(self, tmp_path: Path, version: str) -> None:
        """Every module of the Task side can be imported from the zip alone, without site-packages."""
        python = interpreter(version)
        if python is None:
            pytest.skip(f"there is no Python {version} on this machine")
        write_bundle(tmp_path / "side.zip", [])
        files = {f"tasklink.{module}".removesuffix(".__init__"): module.replace(".", "/") for module in TASK_SIDE}
        expected = {name: f"tasklink/{file}.py" for name, file in files.items()}
        assert imported(python, tmp_path / "side.zip", *expected) == expected

    def test_what_it_may_import(self) -> None:
        """The modules in it import, at any place, no module of ours that is not in it."""
        folder = Path(tasklink.__file__).parent
        for module in TASK_SIDE:
            if module == "__init__":  # it imports what it is asked for
                continue
            tree = ast.parse((folder / f"{module.replace('.', '/')}.py").read_text())
            hints = [
                node.body for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            ]
            hidden = {child for body in hints for node in body for child in ast.walk(node)}
            for node in set(ast.walk(tree)) - hidden:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
                ours = {name.partition(".")[2].replace(".", "/") for name in names if name.startswith("tasklink.")}
                known = {name.replace("/", ".") for name in ours if (folder / f"{name}.py").exists()}
                known |= {f"{name}.__init__".replace("/", ".") for name in ours if (folder / name).is_dir()}
                assert known <= set(TASK_SIDE), f"{module} imports {known}"

    def test_packages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All Python files of a package go in, also those of packages in it, and of namespaces; nothing else does."""
        for file in ("whole/__init__.py", "whole/deep/deeper/leaf.py", "whole/data.bin", "name/space.py", "alone.py"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("")
        (tmp_path / "elsewhere" / "name").mkdir(parents=True)
        (tmp_path / "elsewhere" / "name" / "other.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path / "elsewhere")
        monkeypatch.syspath_prepend(tmp_path)
        bundle = tmp_path / "side.zip"
        write_bundle(bundle, ["whole", "name", "alone", "whole"])
        files = [
            name for name in zipfile.ZipFile(bundle).namelist() if not name.startswith("tasklink/") and name[-1] != "/"
        ]
        assert sorted(files) == [
            "alone.py", "name/other.py", "name/space.py", "whole/__init__.py", "whole/deep/deeper/leaf.py",
        ]  # fmt: skip
        found = imported(sys.executable, bundle, "whole.deep.deeper.leaf", "name.space", "name.other", "alone")
        assert found["alone"] == "alone.py"
        assert found["whole.deep.deeper.leaf"] == "whole/deep/deeper/leaf.py"
        for name in ("whole", "name", "alone"):
            sys.modules.pop(name, None)

    def test_a_protocol_in_one_file(self, tmp_path: Path, wires: ModuleType) -> None:
        """It is found under the name that the Task is told."""
        write_bundle(tmp_path / "side.zip", ["wires"])
        assert imported(sys.executable, tmp_path / "side.zip", "wires")["wires"] == "wires.py"

    def test_old_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Files that an installer has dated to 1970, before the first zip, go in too."""
        (tmp_path / "old.py").write_text("")
        os.utime(tmp_path / "old.py", (0, 0))
        monkeypatch.syspath_prepend(tmp_path)
        write_bundle(tmp_path / "side.zip", ["old"])
        assert "old" in imported(sys.executable, tmp_path / "side.zip", "old")
        sys.modules.pop("old", None)

    def test_a_package_that_is_not_there(self, tmp_path: Path) -> None:
        """It is an error at once, not in the Task."""
        with pytest.raises(ModuleNotFoundError, match="no_such_package"):
            write_bundle(tmp_path / "side.zip", ["no_such_package"])
