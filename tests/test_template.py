"""From `tasklink new` to a plugin that a stranger selects by name: from wheels, in an environment of their own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIAL = ROOT / "core/docs/writing-plugins.md"
# A block of Python that says on its first line which file it is.
FILE = re.compile(r"^```python\n# (src/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What the page says is not needed any more.
GONE = re.compile(r"^rm (src/\S+)$", re.MULTILINE)

CONFIG = """
[tasks.words]
run = "collections:Counter"
parameters = {{ iterable = "abracadabra" }}
communicators = ["{name}"]
"""


def call(*command, **options):
    """Run a command; show what it says when it fails."""
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture
def environment(tmp_path):
    """An environment that has nothing but core's wheel with the kit."""
    uv = shutil.which("uv") or shutil.which(str(Path(sys.executable).parent / "uv"))
    if uv is None:
        pytest.skip("uv is not on PATH, so this suite was not started by it")
    wheels, folder = tmp_path / "wheels", tmp_path / "environment"
    build(ROOT / "core", wheels)
    call(uv, "venv", "--quiet", "--python", sys.executable, folder)
    (core,) = wheels.glob("tasklink-*.whl")
    install = [uv, "pip", "install", "--quiet", "--python", folder / "bin/python"]
    call(*install, f"{core}[testing]")
    return folder / "bin", install


def build(source, folder):
    """Make a wheel with the build back end of the development environment."""
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)


def see_it_work(name, plugin, environment, folder):
    """Its wheel is installed; it passes its tests, which are the kit; it can be verified, and a config selects it."""
    programs, install = environment
    build(plugin, folder / "its")
    call(*install, *(folder / "its").glob("*.whl"))
    call(programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", plugin / "tests", cwd=folder)
    assert " 0 failed" in call(programs / "tasklink", "verify", name, "--only=smoke", cwd=folder)
    (folder / "lab.toml").write_text(CONFIG.format(name=name))
    assert "completed" in call(programs / "tasklink", "run", "lab.toml", cwd=folder)


@pytest.mark.timeout(240)
def test_a_new_plugin(environment, tmp_path):
    """As it is made: under a name of two words, none of which is the template's."""
    said = call(environment[0] / "tasklink", "new", "pigeon-post", cwd=tmp_path)
    plugin = tmp_path / "tasklink-pigeon-post"
    assert f"cd {plugin.name}" in said
    assert "tasklink verify pigeon-post" in said
    for file in plugin.rglob("*"):
        assert "maildrop" not in str(file.relative_to(plugin)).lower()
        assert file.is_dir() or "maildrop" not in file.read_text().lower()
    see_it_work("pigeon-post", plugin, environment, tmp_path)


@pytest.mark.timeout(240)
def test_the_tutorial(environment, tmp_path):
    """The protocol is replaced by that of the page, file by file."""
    call(environment[0] / "tasklink", "new", "fifo", cwd=tmp_path)
    plugin = tmp_path / "tasklink-fifo"
    files = FILE.findall(TUTORIAL.read_text())
    assert len(files) == 2
    for name, text in files:
        assert (plugin / name).exists()
        (plugin / name).write_text(text)
    (gone,) = GONE.findall(TUTORIAL.read_text())
    (plugin / gone).unlink()
    see_it_work("fifo", plugin, environment, tmp_path)
