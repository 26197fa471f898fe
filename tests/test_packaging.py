"""The wheels, as a stranger installs them: core and one plugin in an environment that has nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))


def call(*command, **options):
    """Run a command; show what it says when it fails."""
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="session")
def uv():
    """The uv that runs this suite."""
    found = os.environ.get("UV") or shutil.which("uv") or shutil.which(str(Path(sys.executable).parent / "uv"))
    if found is None:
        pytest.skip("uv is not on PATH, so this suite was not started by it")
    return found


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A wheel of each distribution, built by the build back end of the development environment."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT / "core", *(ROOT / "plugins" / name for name in PLUGINS)):
        call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    return folder


@pytest.fixture
def installed(uv, wheels, tmp_path):
    """Install core's wheel, one plugin's and what else is named where there is nothing; give its programs."""

    def install(name, *others):
        folder = tmp_path / "environment"
        call(uv, "venv", "--quiet", "--python", sys.executable, folder)
        chosen = [f"{next(wheels.glob('tasklink-*.whl'))}[testing]", next(wheels.glob(f"tasklink_{name}-*.whl"))]
        call(uv, "pip", "install", "--quiet", "--python", folder / "bin/python", *chosen, *others)
        return folder / "bin"

    return install


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_from_its_wheel(name, installed, tmp_path):
    """Core's wheel and one plugin's: they run a Task, and the command line lists and verifies it."""
    programs = installed(name)
    # From another folder, so that nothing of the checkout is imported.
    code = (
        "from tasklink import Executor; from tasklink.registry import Registry; "
        f"talks = Registry().get({name!r}).capabilities.carries_messages; "
        f"print(Executor({name!r}).run('os:getpid' if talks else ['true']).status)"
    )
    assert call(programs / "python", "-c", code, cwd=tmp_path) == "completed\n"
    assert name in call(programs / "tasklink", "plugins", cwd=tmp_path)
    assert "keeps what was checked" in call(programs / "tasklink", "verify", name, "--only=smoke", cwd=tmp_path)


@pytest.mark.wheels
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", PLUGINS)
def test_its_tests_from_its_wheel(name, installed, tmp_path):
    """Its tests pass where there is neither the checkout nor its settings of pytest."""
    programs = installed(name, "pytest-timeout", "psutil", "numpy")
    tests = shutil.copytree(ROOT / "plugins" / name / "tests", tmp_path / "tests")
    # In the system's own temporary folder: the path of a Unix socket has room for 107 bytes only.
    environ = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    call(programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, cwd=tmp_path, env=environ)


def test_wheel_holds_what_it_needs(wheels):
    """A wheel brings its types, its licence, and no tests."""
    for name in ("tasklink", *(f"tasklink_{plugin}" for plugin in PLUGINS)):
        (wheel,) = wheels.glob(f"{name}-*.whl")
        listed = call(sys.executable, "-m", "zipfile", "-l", wheel)
        assert f"{name}/py.typed" in listed
        assert "LICENSE" in listed
        assert "test" not in listed.replace("tasklink/testing", "").replace("tasklink/template/tests/test_", "")
