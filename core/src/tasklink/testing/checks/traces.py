"""What is left behind: clauses 6.5 and 11.5. Counted in a process of its own, where nobody else opens or closes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import clause, expect
from tasklink.testing.errand import obey, pattern
from tasklink.testing.holdings import holdings, settled
from tasklink.testing.subject import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.testing.child import Peer
    from tasklink.testing.subject import Subject

_ROUNDS = 2


@clause("6.5", group="leaks", needs=[need.messages, need.processes, need.linux])
def check_close_gives_everything_back(subject: Subject) -> None:
    """Descriptors, threads, processes and files are as before, after both ends talked, small and large, and closed.

    Mended: close what `shut` owns: doorbells, both ends of pairs, duplicates, memory; join threads, remove files.
    """
    expect_nothing_left(subject, talk_and_close)


@clause("6.5", group="leaks", needs=[need.messages, need.processes, need.linux])
def check_a_killed_peer_leaves_nothing(subject: Subject) -> None:
    """The same, after the peer's process was killed in the middle of a conversation.

    Mended: what belongs to both sides (a name, a segment) is removed by the one that lives.
    """
    expect_nothing_left(subject, talk_and_kill)


@clause("11.5", group="leaks", needs=[need.processes, need.linux])
def check_a_listener_gives_everything_back(subject: Subject) -> None:
    """The same for a Listener to which nobody came.

    Mended: `Listener.close` closes both ends of what `accept` would have given away.
    """
    expect_nothing_left(subject, listen_and_close)


def expect_nothing_left(subject: Subject, conversation: Callable[[Subject], None]) -> None:
    """Hold a conversation in a process of its own, and fail when something is left of it."""
    with private_directory() as directory:
        environment = {"TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory)}
        left = subject.apart(count_what_is_left, conversation, str(directory), environment=environment).answer()
        expect(not left, f"after {_ROUNDS} rounds this is left: {left}")


def count_what_is_left(__: Peer, subject: Subject, conversation: Callable[[Subject], None], directory: str) -> str:
    """Hold a conversation several times; say what this process has that it had not after the first one."""
    place = Path(directory)
    files = holdings(place)["files"]
    conversation(subject)  # what is made once, for all, is no leak
    before = holdings(place)
    for _ in range(_ROUNDS):
        conversation(subject)
    before["files"] = files
    return settled(before, lambda: holdings(place), subject.patience / 2)


def talk_and_close(subject: Subject) -> None:
    """Both ends talk, and close."""
    with subject.pair() as pair:
        for writer, reader in pair.ways():
            for size in (10, 100_000, 3_000_000):
                writing = subject.start(writer.write, Message(pattern(size)))
                reader.read(subject.patience)
                writing.result(subject.patience)


def talk_and_kill(subject: Subject) -> None:
    """A peer is killed with something unread on both sides."""
    with subject.peer(obey) as (ours, child):
        reading = subject.start(ours.read, subject.patience)
        child.ask("write", pattern(200_000), subject.patience)
        reading.result(subject.patience)
        ours.write(Message("unread"))
        child.kill()
    subject.end_children()


def listen_and_close(subject: Subject) -> None:
    """Nobody comes."""
    with subject.listening():
        pass
