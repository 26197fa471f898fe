"""The house rules that a machine can check."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def check(*command):
    """Run a tool of the development environment; show what it says when it objects."""
    run = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.timeout(300)
def test_types():
    """Mypy, strict, has nothing to say."""
    check("mypy")


def test_style():
    """Ruff has nothing to say, and nothing to re-format."""
    check("ruff", "check", ".")
    check("ruff", "format", "--check", ".")


def test_floors():
    """Every module imports only from floors below its own."""
    check("lint-imports")


def test_top_level():
    """The top level holds what it shall, and nothing else beside dot-files."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    top = {line.partition("/")[0] for line in listed.stdout.splitlines() if not line.startswith(".")}
    assert top <= {"README.md", "core", "plugin-template", "plugins", "pyproject.toml", "tests"}


def test_versions_are_in_step():
    """All distributions have one version, and plugins ask for the core of that series."""
    files = sorted(ROOT.glob("core/pyproject.toml")) + sorted(ROOT.glob("plugins/*/pyproject.toml"))
    versions = {re.search(r'^version = "(.*)"', file.read_text(), re.MULTILINE)[1] for file in files}
    assert len(files) >= 3
    assert len(versions) == 1
    major, minor, _ = versions.pop().split(".")
    for file in files[1:]:
        assert f'"tasklink>={major}.{minor},<{major}.{int(minor) + 1}"' in file.read_text()


def test_plugins_have_the_same_files():
    """Whoever knows one plugin knows them all."""
    expected = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"}
    modules = {"__init__.py", "communicator.py", "listener.py", "settings.py", "py.typed"}
    for plugin in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        folder = plugin.parent
        assert expected <= {path.name for path in folder.iterdir()}
        assert modules <= {path.name for path in (folder / "src" / f"tasklink_{folder.name}").iterdir()}
        assert list((folder / "tests").glob("test_*.py"))
