"""Forks are counted, so that what a process opened is left alone by its children."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tasklink import fork
from tasklink.errors import ForkedError
from tasklink.link import Link
from tasklink.memory import MemoryCommunicator
from tasklink.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable


def in_a_fork(function: Callable[[], object]) -> object:
    """What a function gives in a forked child."""
    outcome, report = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # a hang ends it
        try:
            os.write(report, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(report)
    with open(outcome, "rb") as file:
        told = file.read()
    os.waitpid(child, 0)
    return json.loads(told)


def raised(function: Callable[..., object], *arguments: object) -> str | None:
    """The name of what a call raises."""
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return type(error).__name__
    return None


def generation() -> int:
    """How many forks lie before this process."""
    return fork.generation


class TestGeneration:
    """The number itself."""

    def test_a_child_counts_one_more(self) -> None:
        """Its own child two; in the parent nothing changes, however many children it has."""
        before = fork.generation
        assert in_a_fork(generation) == before + 1
        assert in_a_fork(lambda: in_a_fork(generation)) == before + 2
        assert in_a_fork(generation) == before + 1
        assert fork.generation == before

    @pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
    def test_forks_of_multiprocessing(self) -> None:
        """They are counted too."""
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(generation) == fork.generation + 1

    def test_a_process_of_its_own_starts_anew(self) -> None:
        """A program that is started has imported tasklink itself, and opened all that it has."""
        program = "from tasklink import fork; print(fork.generation)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "0\n"


class TestWhatIsOpen:
    """Communicators and Links."""

    def test_what_the_parent_opened_is_not_the_childs(self) -> None:
        """Both refuse to write and to read in the child, its own child too; the parent goes on."""
        one, other = MemoryCommunicator.pair()
        near, far = MemoryCommunicator.pair()
        with one, other, closing(Link([("near", near)])) as writer, closing(Link([("far", far)])) as reader:
            one.write(Message("there"))
            writer.write(Message("there"))

            def use() -> list[str | None]:
                return [
                    raised(one.write, Message()), raised(other.read, 0), raised(other.fileno),
                    raised(writer.write, Message()), raised(reader.read, 0),
                ]  # fmt: skip

            assert in_a_fork(use) == [ForkedError.__name__] * 5
            assert in_a_fork(lambda: in_a_fork(use)) == [ForkedError.__name__] * 5
            assert other.read(5).contents == reader.read(5).contents == "there"
            assert not one.forked

    def test_what_a_child_opens_is_its_own(self) -> None:
        """A fork is not refused as such; only its own children are, again."""

        def use() -> list[object]:
            near, far = MemoryCommunicator.pair()
            with closing(Link([("near", near)])) as writer, closing(Link([("far", far)])) as reader:
                writer.write(Message("mine"))
                return [in_a_fork(lambda: raised(writer.write, Message())), near.forked, reader.read(5).contents]

        assert in_a_fork(use) == ["ForkedError", False, "mine"]
