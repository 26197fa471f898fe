"""Capabilities are promises: clause 12."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import attrs

from tasklink import codec, config
from tasklink.errors import BrokenError, CommunicatorError, MessageTooLargeError, ProtocolError
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import Skipped, clause, expect, expect_error
from tasklink.testing.checks.flow import readable
from tasklink.testing.errand import (
    anonymous_bytes,
    build_in_place,
    echo,
    obey,
    pattern,
    write_for_ever,
)
from tasklink.testing.subject import handover_of, python_code

if TYPE_CHECKING:
    from tasklink.communicator import Communicator, Listener
    from tasklink.testing.subject import Subject

_WITHOUT_COPY = 64 << 20
# What a reader takes, what its peer sends all the same, and how much memory it may cost to refuse it.
_TAKEN = 1 << 20
_TOO_LARGE = 96 << 20
_FOR_A_REFUSAL = 32 << 20
_PEERS = 3


@clause("12.1", group="sizes", needs=[need.messages])
def check_the_largest_message(subject: Subject) -> None:
    """What is larger than `max_message` raises MessageTooLargeError; the channel goes on, up to the last byte allowed.

    Mended: FramedCommunicator does it before `send` is called, and a `Packer` that was given the limit in `pack`.
    """
    limit = subject.kind.capabilities.max_message
    if limit is None:
        raise Skipped("it declares no max_message: whatever memory holds may be sent")
    with subject.pair() as pair:
        expect_error(MessageTooLargeError, pair.theirs.write, Message(bytes(limit + 1)), subject.patience / 2)
        writing = subject.start(pair.theirs.write, Message(pattern(limit)))
        came = pair.ours.read(subject.patience).contents
        expect(came == pattern(limit), f"a message of {limit} bytes, which is allowed, came as something else")
        writing.result(subject.patience)


@clause("12.2", group="zero-copy", needs=[need.messages])
def check_memory_that_is_given(subject: Subject) -> None:
    """Memory of `allocate`, of any size, can be filled and sent like any other.

    Mended: without zero_copy leave `allocate` as it is inherited.
    """
    with subject.pair() as pair:
        for size in (0, 1, 5000, 1 << 20, 5_000_000):
            memory = pair.theirs.allocate(size)
            expect(len(memory) == size and not memory.readonly, f"`allocate` of {size} bytes gave {memory!r}")
            memory[:] = pattern(size)
            writing = subject.start(pair.theirs.write, Message.encoded(codec.RAW, [b"head", memory]))
            came = pair.ours.read(subject.patience).contents
            expect(came == (b"head", pattern(size)), f"{size} bytes in memory of `allocate` came as something else")
            writing.result(subject.patience)


@clause("12.2", group="zero-copy", needs=[need.messages, need.processes, need.linux])
def check_zero_copy(subject: Subject) -> None:
    """64 MiB that were built in memory of `allocate` are read without either process having memory of its own for them.

    Mended: `allocate` gives memory that the other process can map, and `write` sends where it is.
    """
    if not subject.kind.capabilities.zero_copy:
        raise Skipped("it declares zero_copy=False")
    with subject.peer(build_in_place, _WITHOUT_COPY) as (ours, child):
        ours.read(subject.patience)
        before = anonymous_bytes()
        message = ours.read(subject.patience)
        assert message.buffers is not None
        expect(message.buffers[1] == _periodic(_WITHOUT_COPY), "the large buffer is not what was written")
        grown = anonymous_bytes() - before - _WITHOUT_COPY  # what it is compared with
        ours.write(Message("done"))
        there = child.answer()
        for whose, nbytes in (("reader", grown), ("writer", there)):
            expect(
                nbytes < _WITHOUT_COPY // 2,
                f"the {whose} has {nbytes >> 20} MiB more of its own for {_WITHOUT_COPY >> 20} MiB",
            )


def _periodic(size: int) -> bytes:
    block = pattern(251 << 12)
    return (block * (size // len(block) + 1))[:size]


@clause("12.4", group="launcher", needs=[need.messages, need.processes])
def check_survives_launcher(subject: Subject) -> None:
    """A Task that was passed nothing but 0, 1 and 2 connects, and the channel works.

    Mended: a mode in which the two meet at a name (`tasklink.rendezvous`), switched on by what `without_descriptors`
    says; a communicator that has none declares survives_launcher=False and leaves `without_descriptors` empty.
    """
    with subject.listening() as listener:
        needs, remedy = bool(listener.address.descriptors), listener.without_descriptors
    if not subject.kind.capabilities.survives_launcher:
        expect(not remedy, f"it declares survives_launcher=False, and yet says what to set: {remedy}")
        raise Skipped("it declares survives_launcher=False, and offers nothing to set")
    if needs:
        expect(remedy, "it declares survives_launcher=True; its Address has descriptors, and nothing is said to be set")
        changed = config.structure(tomllib.loads(remedy), type(subject.settings), where="without_descriptors")
        subject = attrs.evolve(subject, settings=changed)
    with subject.listening() as listener:
        expect(not listener.address.descriptors, f"with {remedy} its Address still has descriptors")
        with _launched(subject, listener) as child:
            ours = listener.accept(subject.patience)
            for content in ("small", pattern(200_000)):
                ours.write(Message(content))
                came = ours.read(subject.patience).contents
                expect(came == content, f"{came!r:.80} came back through a launcher")
            subject.close(ours)
            child.wait(subject.patience)


def _launched(subject: Subject, listener: Listener) -> subprocess.Popen[bytes]:
    """Start a Task behind a program that passes on no descriptor but 0, 1 and 2."""
    address = listener.address
    handover = handover_of((subject.kind, (address.details, (), address.key), echo, (), subject.patience, None, None))
    launcher = "import os, sys; os.closerange(3, 256); os.execv(sys.argv[1], sys.argv[1:])"
    arguments = [sys.executable, "-c", launcher, sys.executable, "-c", python_code(0)]
    standard = listener.standard_descriptors
    if 0 in standard:
        listener.preamble = handover
    child = subprocess.Popen(
        arguments,
        stdin=standard.get(0, subprocess.PIPE),
        stdout=standard.get(1, subprocess.DEVNULL),
        start_new_session=True,
    )
    if child.stdin is not None:
        child.stdin.write(handover)
        child.stdin.close()
    return child


@clause("12.5", group="handshake", needs=[need.messages, need.processes])
def check_several_peers(subject: Subject) -> None:
    """Three peers of one Listener each have a channel of their own; where one is all, a second `accept` is refused.

    Mended: keep who has come apart by a connection, or an identity, of each; look at what was given away before the
    first system call.
    """
    if not subject.kind.capabilities.multi_peer:
        with subject.listening() as listener:
            pair = subject.join(listener)
            try:
                expect_error((CommunicatorError, TimeoutError), listener.accept, 0.1)
            finally:
                subject.close(*pair)
        return
    with subject.listening() as listener:
        children = [subject.invite(listener, obey) for _ in range(_PEERS)]
        ends = [subject.accept(listener, child) for child in children]
    for number, child in enumerate(children):
        child.ask("write", number, subject.patience)
    who: dict[Any, Communicator] = {end.read(subject.patience).contents: end for end in ends}
    expect(
        sorted(who, key=str) == list(range(_PEERS)), f"{_PEERS} peers said who they are; {sorted(who, key=str)} came"
    )
    for number, end in who.items():
        end.write(Message(("you are", number)))
    for number, child in enumerate(children):
        kind, value = child.ask("read", subject.patience)
        expect((kind, value[1]) == ("value", ("you are", number)), f"peer {number} has read {value!r}")
    children[0].kill()
    who[1].write(Message("still"))
    kind, value = children[1].ask("read", subject.patience)
    expect(kind == "value" and value[1] == "still", f"when another peer was killed, this one's read gave {value!r}")
    for child in children[1:]:
        child.ask("close")  # one who does not read confirms nothing, and whoever has written waits for that
    subject.close(*who.values())


@clause("12.7", group="sizes", needs=[need.messages])
def check_what_a_limit_allows(subject: Subject) -> None:
    """After `refuse_larger` messages up to that size come, to the last byte; the other direction has no limit.

    Mended: compare the payload, which is all buffers of the contents together, and refuse what is more than the limit;
    or leave `refuse_larger` as it is inherited.
    """
    with subject.pair() as pair:
        pair.ours.refuse_larger(_TAKEN)
        for size in (0, 5000, _TAKEN):
            writing = subject.start(pair.theirs.write, Message(pattern(size)))
            came = pair.ours.read(subject.patience).contents
            expect(came == pattern(size), f"with a limit of {_TAKEN} bytes, {size} bytes came as something else")
            writing.result(subject.patience)
        writing = subject.start(pair.ours.write, Message(pattern(2 * _TAKEN)))
        came = pair.theirs.read(subject.patience).contents
        expect(came == pattern(2 * _TAKEN), "a message of the side that asked for a limit came as something else")
        writing.result(subject.patience)


@clause("12.7", group="sizes", needs=[need.messages, need.processes, need.linux])
def check_what_a_limit_refuses(subject: Subject) -> None:
    """A larger message raises ProtocolError each time, and costs no memory; or it comes whole. Those before it come.

    Mended: hand the limit on to `framing.FrameDecoder.refuse_larger`, or look at the length before there is memory;
    where the transport hands over whole messages only, leave `refuse_larger` as it is inherited.
    """
    with subject.peer(write_for_ever, _TOO_LARGE) as (ours, child):
        ours.refuse_larger(_TAKEN)
        child.answer()
        came = ours.read(subject.patience).contents
        expect(came == "before", f"{came!r:.80} came instead of the message before")
        memory = anonymous_bytes()
        refusals: tuple[type[Exception], ...] = (ProtocolError,)
        if subject.shares_output():  # until the peer ends what is printed comes, and has to be read
            expect(readable(ours, subject.patience), "nothing came of the message that is too large")
            child.kill()
            refusals = (ProtocolError, BrokenError)
        try:
            came = ours.read(subject.patience).contents
        except refusals:
            grown = anonymous_bytes() - memory
            expect(grown < _FOR_A_REFUSAL, f"to refuse {_TOO_LARGE >> 20} MiB has cost {grown >> 20} MiB of memory")
            expect_error(refusals, ours.read, subject.patience)
        else:
            expect(came == pattern(_TOO_LARGE), f"{len(str(came))} letters came of a message that is too large")
