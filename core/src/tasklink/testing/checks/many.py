"""Threads, forks and programs: clauses 7, 8 and 9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING

from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import clause, expect
from tasklink.testing.checks.flow import contents_of
from tasklink.testing.errand import attempt, pattern
from tasklink.testing.holdings import descriptors

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.communicator import Communicator
    from tasklink.testing.child import Peer
    from tasklink.testing.subject import Subject

_WRITERS = 8
_EACH = 100
_FORKS = 8
_TALK = 1_000_000  # bytes of a message, so that a fork finds somebody within one


@clause("7.1", group="threads", needs=[need.messages])
def check_many_writers(subject: Subject) -> None:
    """Small and large messages of eight threads arrive whole, once, and those of a thread in their order.

    Mended: a message, or a piece of one, is written under one lock, to its last byte.
    """
    with subject.pair() as pair:

        def write(thread: int) -> None:
            for number in range(_EACH):
                size = 2_500_000 if thread < 2 and number % 33 == 0 else number * 37 % 9000
                pair.theirs.write(Message((thread, number, pattern(size, thread))))

        writing = [subject.start(write, thread) for thread in range(_WRITERS)]
        come: dict[int, list[int]] = {thread: [] for thread in range(_WRITERS)}
        for _ in range(_WRITERS * _EACH):
            thread, number, data = contents_of(pair.ours, subject)
            expect(data == pattern(len(data), thread), f"message {number} of thread {thread} holds other bytes")
            come[thread].append(number)
        for work in writing:
            work.result(subject.patience)
        for thread, numbers in come.items():
            expect(numbers == list(range(_EACH)), f"thread {thread} wrote 0 to {_EACH - 1}; {numbers} came")


@clause("7.2", group="threads", needs=[need.messages])
def check_many_readers(subject: Subject) -> None:
    """Of four threads that read, each message is given to exactly one, and each sees them in their order.

    Mended: one thread at a time reads from the transport and takes what it brought; the others wait for their turn with
    their own deadlines.
    """
    with subject.pair() as pair:

        def read() -> list[object]:
            contents = []
            while (content := pair.ours.read(subject.patience).contents) != "end":
                contents.append(content)
            return contents

        reading = [subject.start(read) for _ in range(4)]
        for content in [*range(1000), *["end"] * 4]:
            pair.theirs.write(Message(content))
        come = [work.result(subject.patience) for work in reading]
        expect(all(numbers == sorted(numbers) for numbers in come), "a thread has read messages out of their order")
        together = sorted(number for numbers in come for number in numbers)
        expect(
            together == list(range(1000)), f"1000 messages were written; together the threads have read {len(together)}"
        )


@clause("7.3", group="threads", needs=[need.messages])
def check_both_directions_at_once(subject: Subject) -> None:
    """Both ends write much before either reads, and read while they write.

    Mended: a lock for writing and another one for reading; never wait for room while holding what a reader needs.
    """
    with subject.pair() as pair:
        contents = [pattern(number * 30_011 % 1_000_000, number) for number in range(60)]

        def write(end: Communicator) -> None:
            for content in contents:
                end.write(Message(content))

        def read(end: Communicator) -> list[object]:
            return [end.read(subject.patience).contents for _ in contents]

        working = [subject.start(write, end) for end in pair]
        reading = [subject.start(read, end) for end in pair]
        for work in (*reading, *working):
            expect(work.ended(subject.patience * 2), "the two directions wait for each other")
        for work in reading:
            expect(work.result(0) == contents, "what came is not what was written")


@clause("8.1", group="fork", needs=[need.messages, need.processes])
def check_a_fork_cannot_use_it(subject: Subject) -> None:
    """In a forked child `write`, `read` and `fileno` raise ForkedError, also while other threads of the parent work.

    Mended: note `os.getpid()` or, which costs nothing, `tasklink.fork.generation` when it is opened, and compare it
    first in each call, before any lock: who holds it may not exist in a fork (FramedCommunicator does).
    """
    facts = subject.apart(fork_and_tell, "use").answer()
    expect(facts == ["ForkedError"] * 6, f"write, read and fileno of both ends gave {facts} in a forked child")


@clause("8.2", group="fork", needs=[need.messages, need.processes])
def check_a_fork_leaves_the_channel_alone(subject: Subject) -> None:
    """A forked child that closes both ends, or ends without, does not hang, and the parent's channel goes on.

    Mended: in a fork `shut` closes its copies of descriptors and nothing else: no shutdown(2), no farewell, no lock
    that a thread may hold which does not exist there.
    """
    facts = subject.apart(fork_and_tell, "close").answer()
    expect(facts == [None] * 2, f"`close` of both ends gave {facts} in a forked child")


def fork_and_tell(__: Peer, subject: Subject, what: str) -> list[str | None]:
    """Fork while messages go both ways; the child tells what its calls raised; the parent goes on talking."""
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, which is what is checked
    with subject.pair() as pair:
        stop: list[bool] = []

        def talk() -> int:
            count = 0
            while not stop:
                pair.theirs.write(Message(pattern(_TALK, count)))
                count += 1
            pair.theirs.write(Message("last"))
            return count

        def hear() -> int:
            count = 0
            while (content := pair.ours.read(subject.patience).contents) != "last":
                expect(content == pattern(_TALK, count), "the parent has read other bytes than were written")
                count += 1
            return count

        talking, hearing = subject.start(talk), subject.start(hear)
        using = [call for end in pair for call in (partial(end.write, Message()), end.read, end.fileno)]
        calls = using if what == "use" else [end.close for end in pair]
        told: list[str | None] = []
        for _ in range(_FORKS):
            told = in_a_fork(*calls)
            if any(name != (None if what == "close" else "ForkedError") for name in told):
                break
        stop.append(True)
        expect(
            talking.result(subject.patience) == hearing.result(subject.patience), "messages of the parent are missing"
        )
        pair.ours.write(Message("back"))
        expect(pair.theirs.read(subject.patience).contents == "back", "the parent's channel does not go on")
    return told


def in_a_fork(*calls: Callable[[], object]) -> list[str | None]:
    """Make calls in a forked child; what each of them raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            outcomes = [value if kind == "raised" else None for kind, value in map(attempt, calls)]
            os.write(writer, json.dumps(outcomes).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:  # noqa: PTH123 - it has no path
        told = file.read()
    os.waitpid(pid, 0)
    expect(told, "a forked child has ended without a word")
    names: list[str | None] = json.loads(told)
    return names


@clause("9.1", group="security", needs=[need.messages, need.processes])
def check_programs_inherit_nothing(subject: Subject) -> None:
    """A program that is started while a channel is open, by either side, finds none of its descriptors.

    Mended: every descriptor is made with O_CLOEXEC, as Python does; those that a Task inherits are made
    uninheritable by `connect`.
    """
    found = subject.apart(start_a_program).answer()
    expect(not found, f"a program that was started has inherited {found}")


def start_a_program(__: Peer, subject: Subject) -> list[str]:
    """Open both ends, start a program, and have it list its descriptors; those that were not there before."""
    before = set(descriptors())
    with subject.pair() as pair:
        pair.theirs.write(Message("x"))
        pair.ours.read(subject.patience)
        made = {number: what for number, what in descriptors().items() if number not in before}
        code = "import os, sys\nfor n in map(int, sys.argv[1:]):\n try: os.fstat(n); print(n)\n except OSError: pass"
        arguments = [sys.executable, "-I", "-S", "-c", code, *map(str, made)]
        run = subprocess.run(arguments, capture_output=True, text=True, check=True, close_fds=False)
        return [f"{number} -> {made[int(number)]}" for number in run.stdout.split()]
