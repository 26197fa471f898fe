"""What fuzzing has found, and what it begins with, looked at again; and output that could be taken for something else.

`python -m tests.fuzz` looks for more; see there.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink.cli.lines import LineSplitter
from tasklink.output import OutputListener
from tests.fuzz.__main__ import TARGETS
from tests.fuzz.replay import CORPUS

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="how much memory an input takes is asked of Linux")
@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name):
    """Each input that is kept passes, in a process of its own: what it does is watched there, and it may not end it."""
    paths = sorted((CORPUS / name).iterdir())
    assert paths
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.replay", name],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-200:] + run.stderr
    assert run.stdout.splitlines() == [str(path) for path in paths]


def test_every_target_has_a_corpus():
    """And every corpus a target; nothing that was just found, and has no name yet, is left there."""
    assert sorted(folder.name for folder in CORPUS.iterdir()) == sorted(TARGETS)
    assert not list(CORPUS.glob("*/found-*"))
    assert all(path.stat().st_size <= 4096 for path in CORPUS.glob("*/*"))


_watching = []  # lists of what was seen; an audit hook belongs to the process, and cannot be taken away


def _note(event, _arguments):
    if event == "pickle.find_class":
        for seen in _watching:
            seen.append(event)


sys.addaudithook(_note)


@pytest.fixture(scope="module")
def ordinary_text():
    """Text as there is on any machine: programs, manuals, and what looks least like text."""
    paths = sorted(ROOT.glob("core/src/tasklink/*.py")) + sorted(ROOT.glob("*/docs/*.md")) + [Path(os.__file__)]
    return b"".join(path.read_bytes() for path in paths) + Path(sys.executable).read_bytes()[: 1 << 16]


@pytest.mark.parametrize("examples", [200, pytest.param(14_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_text_is_never_an_object(ordinary_text, record_property, examples):
    """F53: ordinary text, cut at random and read as captured output, arrives as it is, and loads no class."""
    chunks = []
    listener = OutputListener((1,))
    with listener:
        descriptor = os.dup(listener.standard_descriptors[1])
        with listener.accept() as output, os.fdopen(descriptor, "wb", buffering=0) as stdout:

            @given(st.integers(0, len(ordinary_text) - 1), st.lists(st.integers(1, 5000), min_size=1, max_size=20))
            @settings(deadline=None, max_examples=examples)
            def read(begin, sizes):
                splitter = LineSplitter()
                for size in sizes:
                    chunk = ordinary_text[begin : begin + size]
                    stdout.write(chunk)
                    message = output.read(10) if chunk else None
                    assert message is None or message.contents == chunk
                    splitter.feed(chunk)
                    chunks.append(len(chunk))
                    begin += size
                splitter.end()

            seen = []
            _watching.append(seen)
            try:
                read()
            finally:
                _watching.clear()
    assert seen == []
    record_property("runs", len(chunks))
    record_property("seen", f"{len(seen)} classes looked up")
