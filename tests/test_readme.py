"""The pages for users: every block of README.md, core/README.md and core/docs/cli.md is run, and the tables are true.

A block whose first line is a comment with the name of a file becomes that file; `>>>` is run as a doctest; `$` in a
console block is run by a shell, and what it prints is compared, but for what differs from run to run.
"""

import contextlib
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasklink.cli.outcome import Outcome

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "core" / "README.md", ROOT / "core" / "docs" / "cli.md"]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w.]+\.\w+)\n")
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)

# What needs the network, or an installation of its own; tests/test_packaging.py and .ci/run do these.
NOT_RUN = re.compile(r"pip install|uv run|\.venv")

# What differs from run to run, or from one machine to the next.
VARIES = [
    (r"^\d\d:\d\d:\d\d ", ""),
    (r"process \d+", "process N"),
    (r'"pid": \d+', '"pid": N'),
    (r'("messages|"bytes)": \d+', r'\1": N'),
    (r"\d+ messages", "N messages"),
    (r"\d+(\.\d+)? (B|KiB|MiB)", "N B"),
    (r"\d+\.\d+\.\d+", "N.N.N"),
    (r"\b\d+\.\d+\b", "N.N"),
    (r'File ".*/', 'File "'),
    (r"  +", " "),
    (r" +$", ""),
]


def blocks(page):
    """Return the language and the text of every block of a page."""
    return BLOCK.findall(page.read_text())


def normal(text):
    """Return a text without what varies; what a Task prints has no order with what it logs."""
    for pattern, replacement in VARIES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    lines = text.strip().split("\n")
    return "\n".join(sorted(lines, key=lambda line: " | " in line))


def run_in_shell(command, folder):
    """Run a command as a reader would, and return all that the terminal would show."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TASKLINK_")}
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    run = subprocess.run(["sh", "-c", command], cwd=folder, env=variables, stdout=-1, stderr=-2, text=True, check=False)
    return run.stdout


def run_block(language, text, folder, names):
    """Do with one block what a reader does; say what differs from what the page shows."""
    file = FILE.match(text)
    if file:
        (folder / file[1]).write_text(text)
    elif language == "python" and text.startswith(">>>"):
        example = doctest.DocTestParser().get_doctest(text, names, "README", None, None)
        told = []
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append, clear_globs=False)
        names.update(example.globs)
        return "".join(told)
    elif language == "console":
        commands = COMMAND.findall(text)
        assert commands, f"no command in {text!r}"
        for command, shown in commands:
            printed = run_in_shell(command, folder)
            if normal(printed) != normal(shown):
                return f"$ {command}\nis shown with\n{normal(shown)}\nand printed\n{normal(printed)}"
    elif not (language == "sh" and NOT_RUN.search(text)):
        return f"a block that no test runs:\n{text}"
    return ""


@contextlib.contextmanager
def in_folder(folder, monkeypatch):
    """Be where the reader is; forget the reader's modules afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(page, tmp_path, monkeypatch):
    """From the top to the bottom of the page, as somebody would who reads it for the first time."""
    names = {"__name__": "__main__"}
    with in_folder(tmp_path, monkeypatch):
        for language, text in blocks(page):
            if difference := run_block(language, text, tmp_path, names):
                pytest.fail(difference, pytrace=False)


def test_the_two_commands_come_first():
    """Before anything else: one line that shows what this is, and one that passes its tests."""
    language, text = blocks(README)[0]
    assert README.read_text().startswith(f"# tasklink\n\n```{language}\n")
    assert text == (
        "python3 -m venv .venv && .venv/bin/pip install uv && .venv/bin/uv run tasklink demo\n"
        "python3 -m venv .venv && .venv/bin/pip install uv && .venv/bin/uv run pytest\n"
    )


def test_the_table_of_protocols():
    """It is what the program prints of what is installed."""
    _, _, rest = README.read_text().partition("<!-- tasklink plugins --markdown -->\n\n")
    table, _, _ = rest.partition("\n\n")
    program = [sys.executable, "-m", "tasklink", "plugins", "--markdown"]
    assert f"{table}\n" == subprocess.run(program, capture_output=True, text=True, check=True).stdout


def test_the_table_of_exit_codes():
    """Every exit code is there, with its meaning."""
    rows = re.findall(r"^\| (\d+) \| (.*?) \|$", README.read_text(), re.MULTILINE)
    assert rows == [(str(int(outcome)), outcome.meaning) for outcome in Outcome]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every link within the repository has a target."""
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
