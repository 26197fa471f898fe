"""`tasklink new`, as its users see it. That what it makes works is shown by tests/test_template.py."""

from __future__ import annotations

import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

TASKLINK = str(Path(sysconfig.get_path("scripts"), "tasklink"))


def new(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run([TASKLINK, "new", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_what_it_says(tmp_path: Path) -> None:
    """Where the plugin is, where its protocol is, and the next three commands."""
    run = new("pigeon", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "Made a plugin in tasklink-pigeon (11 files). "
        "Its protocol is in tasklink-pigeon/src/tasklink_pigeon/communicator.py.",
        "",
        "Next:",
        "",
        "  cd tasklink-pigeon",
        "  pip install -e '.[test]'",
        "  tasklink verify pigeon",
    ]


def test_its_name_everywhere(tmp_path: Path) -> None:
    """In files and in their names, each in its form; nothing of the checkout comes along."""
    folder = tmp_path / "a place of its own"
    assert new("carrier-pigeon-2", "--path", str(folder), cwd=tmp_path).returncode == 0
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "tasklink-carrier-pigeon-2"
    entry_point = project["entry-points"]["tasklink.communicators"]
    assert entry_point == {"carrier-pigeon-2": "tasklink_carrier_pigeon_2:CarrierPigeon2Communicator"}
    code = (folder / "src/tasklink_carrier_pigeon_2/communicator.py").read_text()
    assert "class CarrierPigeon2Communicator(" in code
    assert "[communicators.carrier-pigeon-2]" in (folder / "README.md").read_text()
    assert not [path for path in folder.rglob("*") if path.name.startswith((".", "__pycache__"))]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Pigeon", "lower-case letters"),
        ("2pigeons", "begins with a letter"),
        ("pigeon--post", "single hyphens"),
        ("pigeon_post", "single hyphens"),
        ("../pigeon", "lower-case letters"),
        ("class", "no word of Python's"),
        ("tasklink-pigeon", "say 'pigeon'"),
        ("unix", "'unix' is installed already"),
        ("conformance", "can be imported already"),
    ],
)
def test_a_name_that_cannot_be(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what a name is like, or who has it; nothing is made."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "tasklink_conformance.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(place))
    run = new(name, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert told in run.stderr
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    """Nothing in it is touched."""
    (tmp_path / "notes").write_text("mine")
    run = new("pigeon", "--path", str(tmp_path), cwd=tmp_path)
    assert run.returncode == 2
    assert "not an empty folder: choose another one with --path" in run.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
