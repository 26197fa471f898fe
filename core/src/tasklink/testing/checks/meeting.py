"""How two ends find each other, and who else does not: clauses 10.3 and 11."""

from __future__ import annotations

import json
import os
import pickle
import socket
import stat
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tasklink.communicator import Address
from tasklink.errors import AuthenticationError, BrokenError, ClosedError
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import Skipped, clause, expect, expect_error
from tasklink.testing.errand import Tripwire, echo
from tasklink.testing.subject import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasklink.communicator import Listener
    from tasklink.testing.child import Peer
    from tasklink.testing.subject import Pair, Subject

_DETAILS_BYTES = 16 << 10
_STRANGERS = 24


def talk(pair: Pair, patience: float) -> None:
    """Say something each way."""
    for number, (writer, reader) in enumerate(pair.ways()):
        writer.write(Message(number), patience)
        came = reader.read(patience).contents
        expect(came == number, f"{came!r} came instead of {number}")


@clause("11.1", group="handshake", needs=[need.listener])
def check_the_address(subject: Subject) -> None:
    """Its details can be written as JSON and read again; its key is neither in them, nor in its text, nor beside it.

    Mended: what others may not know goes into `Address.key`, which is handed over apart; nothing goes into the
    environment, which every program inherits.
    """
    environment = dict(os.environ)
    with subject.listening() as listener:
        address = listener.address
        try:
            text = json.dumps(address.details)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"details {address.details!r} cannot be written as JSON: {error}") from error
        expect(json.loads(text) == address.details, "the details are others once they were written as JSON and read")
        expect(len(text) <= _DETAILS_BYTES, f"the details have {len(text)} bytes; {_DETAILS_BYTES} are plenty")
        for number in address.descriptors:
            os.fstat(number)
        expect(dict(os.environ) == environment, "`listen` has changed the environment, which every program inherits")
        if not address.key:
            return
        places = {"its details": text, "its text": repr(address), "the text of the Listener": repr(listener)}
        for where, said in places.items():
            shown = any(form in said for form in (address.key.hex(), repr(address.key)[2:-1], repr(address.key)))
            expect(not shown, f"the key of the Address is shown in {where}")


@clause("11.2", group="handshake", needs=[need.messages, need.listener])
def check_nobody_listens(subject: Subject) -> None:
    """`connect` to a Listener that was closed raises BrokenError, AuthenticationError or TimeoutError, in its time.

    Mended: give waiting for the Executor a deadline, and turn errors of the system into the ones of tasklink.
    """
    with subject.listening() as listener:
        _need_a_place(listener)
        address = listener.address
    connecting = subject.start(subject.kind.connect, address)
    expect(connecting.ended(subject.patience * 3), "`connect` still tries to reach a Listener that was closed")
    expected = (BrokenError, AuthenticationError, TimeoutError)
    expect(isinstance(connecting.error, expected), f"`connect` gave {connecting.error!r}")


@clause("11.2", group="security", needs=[need.messages, need.listener])
def check_a_wrong_key(subject: Subject) -> None:
    """Who has another key is refused by name, and who has the right one is let in after that.

    Mended: prove the key in both directions (`tasklink.rendezvous` does) before anything else is read or sent; compare
    with `hmac.compare_digest`.
    """
    with subject.listening() as listener:
        address = listener.address
        _need_a_place(listener)
        if not address.key:
            raise Skipped("its Address has no key")
        with subject.listening() as other:
            keys = {"of another run": other.address.key, "that is none": bytes(len(address.key))}
        for which, key in keys.items():
            connecting = subject.start(subject.kind.connect, Address(address.details, (), key))
            deadline = time.monotonic() + subject.patience * 2
            while not connecting.ended(0):
                expect(time.monotonic() < deadline, f"`connect` with a key {which} has not been refused")
                expect_error(TimeoutError, listener.accept, 0.05)
            expected = (BrokenError, AuthenticationError, TimeoutError)
            expect(isinstance(connecting.error, expected), f"`connect` with a key {which} gave {connecting.error!r}")
        pair = subject.join(listener)
    talk(pair, subject.patience)
    subject.close(*pair)


@clause("11.3", group="security", needs=[need.messages, need.listener])
def check_strangers(subject: Subject) -> None:
    """Strangers who connect and say nothing, or garbage, or a pickle, are sent away; then the peer comes in.

    Mended: bound how many may wait unproven, what is read of them, and for how long; `accept` goes on to the next one.
    """
    garbage = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4096),
        b"\xff\0\0\0\0\0\0\0\x01\x7f",
        pickle.dumps(Tripwire(1)) * 9,
    ]
    with subject.listening() as listener, ExitStack() as opened:
        _need_a_place(listener)
        doors = list(_doors(listener))
        if not doors:
            raise Skipped("no socket was found where strangers could knock")
        for number in range(_STRANGERS):
            stranger = opened.enter_context(socket.socket(doors[0][0], socket.SOCK_STREAM))
            stranger.settimeout(1.0)
            try:
                stranger.connect(doors[number % len(doors)][1])
                stranger.send(garbage[number % len(garbage)])
            except OSError:
                continue  # it was sent away at once
            if number % 8 == 0:
                expect_error(TimeoutError, listener.accept, 0)
        pair = subject.join(listener)
    talk(pair, subject.patience)
    subject.close(*pair)


def _need_a_place(listener: Listener) -> None:
    if listener.address.descriptors or listener.standard_descriptors:
        raise Skipped("its Task inherits descriptors: holding them is the proof, and nobody else can come")


def _doors(listener: Listener) -> Iterator[tuple[socket.AddressFamily, str | tuple[str, int]]]:
    """Where a stranger could connect: Unix sockets in its directories, and addresses in its details."""
    for directory in listener.directories:
        for path in directory.rglob("*"):
            if path.is_socket():
                yield socket.AF_UNIX, str(path)
    for value in listener.address.details.values():
        if isinstance(value, str) and value.startswith("tcp://"):
            host, _, port = value.removeprefix("tcp://").rpartition(":")
            yield socket.AF_INET6 if ":" in host else socket.AF_INET, (host.strip("[]"), int(port))


@clause("11.4", group="handshake", needs=[need.messages, need.listener])
def check_the_time_out_of_accept(subject: Subject) -> None:
    """While nobody comes `accept` raises TimeoutError in time, and the peer that comes later is let in.

    Mended: wait on the descriptor that `Listener.fileno` gives, with a deadline.
    """
    with subject.listening() as listener:
        if listener.fileno() is None:
            pair = subject.join(listener)  # it never has to wait
        else:
            for timeout in (0, 0.05):
                accepting = subject.start(listener.accept, timeout)
                expect(accepting.ended(subject.patience), f"`accept` with a time-out of {timeout} s still waits")
                expect(isinstance(accepting.error, TimeoutError), f"nobody came, and `accept` gave {accepting.error!r}")
            pair = subject.join(listener)
    talk(pair, subject.patience)
    subject.close(*pair)


@clause("11.4", group="handshake", needs=[need.listener])
def check_accept_after_close(subject: Subject) -> None:
    """A Listener that was closed, any number of times, raises ClosedError from `accept`.

    Mended: look at what `close` has set before the first system call; a descriptor that was closed may be another's by
    now.
    """
    with subject.listening() as listener:
        listener.close()
        listener.close()
        expect_error(ClosedError, listener.accept, 0)


@clause("11.5", group="handshake", needs=[need.messages, need.listener])
def check_closing_the_listener(subject: Subject) -> None:
    """Communicators live on when their Listener was closed, and what it had made in the file system is gone.

    Mended: what a communicator needs is its own from `accept` on: give it the descriptor, not what closes it.
    """
    with subject.pair() as pair:  # its Listener is closed
        talk(pair, subject.patience)
    with subject.listening() as listener:
        directories = listener.directories
    left = [str(path) for path in directories if path.exists()]
    expect(not left, f"a Listener that was closed has left {left}")


@clause("11.6", group="security", needs=[need.processes])
def check_files_are_private(subject: Subject) -> None:
    """What `listen` makes in the file system belongs to this user, and no other one can read, write or enter it.

    Mended: make a directory with mode 0700 (`tasklink.rendezvous.directory`), and everything else within it.
    """
    with private_directory() as directory:
        environment = {"TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory)}
        open_to_others = subject.apart(look_at_modes, str(directory), environment=environment).answer()
        expect(not open_to_others, f"others can get at {open_to_others}")


def look_at_modes(__: Peer, subject: Subject, directory: str) -> list[str]:
    """Listen, whatever the umask is, and tell what others could get at."""
    os.umask(0)
    with subject.listening() as listener:
        places = {*Path(directory).iterdir(), *listener.directories}
        found = []
        for place in places:
            status = place.lstat()
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                found.append(f"{place} (mode {stat.S_IMODE(status.st_mode):o}, user {status.st_uid})")
        return found


@clause("10.3", group="security", needs=[need.messages, need.processes])
def check_nothing_is_decoded_unasked(subject: Subject) -> None:
    """While a message is accepted, read and shown, no class of its pickle is looked up; only when `contents` is.

    Mended: `receive` gives what `framing.decode` makes, and nobody asks for its `contents` on the way: not to log it,
    not to route it.
    """
    before, after = subject.apart(watch_decoding).answer()
    expect(before == 0, f"{before} classes were looked up by a pickle that nobody had asked for")
    expect(after == 1, f"asking for the contents looked up {after} classes instead of one")


def watch_decoding(__: Peer, subject: Subject) -> tuple[int, int]:
    """Count how often the class of what was sent is looked up: until it was read, and when it is asked for."""
    looked_up: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "pickle.find_class" and Tripwire.__name__ in arguments:
            looked_up.append(event)

    sys.addaudithook(hook)
    with subject.pair() as pair:
        pair.theirs.write(Message([Tripwire(1)]))
        message = pair.ours.read(subject.patience)
        expect(repr(message), "a message shows nothing")
        before = len(looked_up)
        _ = message.contents
        return before, len(looked_up) - before


@clause("11.4", group="handshake", needs=[need.messages, need.processes])
def check_many_meetings(subject: Subject) -> None:
    """Four Listeners at the same time, each with a process of its own: nobody gets into another one's channel.

    Mended: names in the file system, and keys, are drawn anew for each Listener.
    """
    with ExitStack() as opened:
        peers = [opened.enter_context(subject.peer(echo)) for _ in range(4)]
        for number, (ours, _) in enumerate(peers):
            ours.write(Message(number))
        for number, (ours, _) in enumerate(peers):
            came = ours.read(subject.patience).contents
            expect(came == number, f"{came!r} came back instead of {number}")
