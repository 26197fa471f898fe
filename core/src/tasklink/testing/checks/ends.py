"""How it ends: clauses 1.1, 3 and 6, and what the death of either side leaves to the other."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from socket import socketpair
from typing import TYPE_CHECKING, Any

from tasklink import codec, framing
from tasklink.errors import (
    BrokenError,
    ClosedError,
    CommunicatorError,
    EndOfMessages,
    ProtocolError,
)
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import ConformanceError, clause, expect, expect_error
from tasklink.testing.checks.flow import contents_of, fill
from tasklink.testing.errand import (
    attempt,
    listen_to_the_end,
    obey,
    pattern,
    write_and_count,
    write_and_leave,
    write_and_wait,
    write_flush_and_die,
    write_for_ever,
)
from tasklink.testing.tally import Tally

if TYPE_CHECKING:
    from tasklink.communicator import Communicator
    from tasklink.testing.child import Peer
    from tasklink.testing.subject import Pair, Subject

_KILLS = 4
_LARGEST = 200_000
_NEVER_WHOLE = 64 << 20
_NO_MESSAGE = b"printed by a library\n" * 9
_NOT_SMALL = 70_000  # bytes, which many a protocol sends another way than what is small
_MOMENT = 0.1  # seconds for another thread to come as far as it comes


def rest_of(end: Communicator, patience: float) -> tuple[list[Any], BaseException]:
    """Read until something is raised: the contents, and the error."""
    contents: list[Any] = []
    while True:
        try:
            contents.append(end.read(patience).contents)
        except Exception as error:  # noqa: BLE001 - which one it is, is what the check asks
            return contents, error


# Closing


@clause("3.1", group="close", needs=[need.messages])
def check_the_end_of_a_peer_that_closed(subject: Subject) -> None:
    """After the last message `read` raises EndOfMessages, and again, in both directions.

    Mended: an end of file between two frames is the orderly end; remember it, and raise it each time.
    """
    for way in (0, 1):
        with subject.pair() as pair:
            writer, reader = pair.ways()[way]
            writer.write(Message("last"))
            closing = subject.start(writer.close)
            came = reader.read(subject.patience).contents
            expect(came == "last", f"{came!r} came instead of the last message")
            for _ in range(3):
                expect_error(EndOfMessages, reader.read, subject.patience)
            closing.result(subject.patience)


@clause("6.3", group="close", needs=[need.messages])
def check_close_loses_nothing(subject: Subject) -> None:
    """What was written before `close` arrives, to the last message, also when the peer's own words are unread.

    Mended: what is still queued has to go out before the transport is released; a Unix socket that is closed with
    something unread resets the connection, which does not take away what its peer can still read.
    """
    for unread in (False, True):
        with subject.pair() as pair:
            if unread:
                pair.ours.write(Message("never read"))
            closing = subject.start(_write_and_close, pair.theirs)
            closing.ended(_MOMENT)  # where it need not wait for its reader, it is closed before anybody reads
            contents, error = rest_of(pair.ours, subject.patience)
            told = "with something unread" if unread else "with nothing unread"
            wanted = [*((number, b"") for number in range(99)), (99, pattern(_NOT_SMALL))]
            expect(
                contents == wanted, f"{len(contents)} of 100 messages came of a peer that closed {told}; then {error!r}"
            )
            expect(isinstance(error, EndOfMessages), f"a peer that closed {told}: then came {error!r}")
            closing.result(subject.patience)


def _write_and_close(end: Communicator) -> None:
    for number in range(99):
        end.write(Message((number, b"")))
    end.write(Message((99, pattern(_NOT_SMALL))))
    end.close()


@clause("6.1", group="close", needs=[need.messages])
def check_close_may_be_called_again(subject: Subject) -> None:
    """`close` from many threads at once, and again; after it every other call raises ClosedError.

    Mended: a lock that is taken once and never given back says who is the first to close.
    """
    with subject.pair() as pair:
        pair.ours.write(Message("unread"))
        closing = [subject.start(end.close) for end in pair for _ in range(8)]
        for work in closing:
            work.result(subject.patience)
        for end in pair:
            end.close()
            for call in (end.read, end.fileno, lambda end=end: end.write(Message())):
                expect_error(ClosedError, call)


@clause("6.2", group="close", needs=[need.messages])
def check_close_wakes_who_waits(subject: Subject) -> None:
    """Threads that wait in `read`, and in `write` because nobody reads, raise ClosedError when another one closes.

    Mended: closing a descriptor wakes nobody; every wait is a poll of the descriptor and of a `Doorbell` that `close`
    rings.
    """
    with subject.pair() as pair:
        reading = [subject.start(pair.theirs.read) for _ in range(3)]
        fill(pair.theirs)
        writing = [subject.start(pair.theirs.write, Message(pattern(size))) for size in (1000, _NEVER_WHOLE)]
        subject.start(pair.theirs.close)
        for work in reading:
            expect(work.ended(subject.patience), "a thread still waits in `read`")
            expect(isinstance(work.error, ClosedError), f"`read` ended with {work.error!r}")
        for work in writing:
            expect(work.ended(subject.patience), "a thread still waits in `write`")
            expect(isinstance(work.error, ClosedError | None), f"`write` ended with {work.error!r}")


@clause("6.4", group="close", needs=[need.messages])
def check_close_ends(subject: Subject) -> None:
    """`close` returns although the peer reads nothing, with little written and with much.

    Mended: whoever waits for the peer in `close` needs a deadline of its own, and says what was not confirmed.
    """
    with subject.pair() as pair:
        pair.theirs.write(Message("unread"))
        fill(pair.theirs)
        closing = subject.start(pair.theirs.close)
        expect(closing.ended(subject.patience), f"`close` has not returned after {subject.patience:g} s")
        closing.result(0)


@clause("3.5", group="close", needs=[need.messages])
def check_writing_to_a_peer_that_closed(subject: Subject) -> None:
    """A write that waits raises BrokenError when the peer closes; later ones do; what the peer had written is read.

    Mended: EPIPE and ECONNRESET of a write are BrokenError; of a read they are the end of the peer.
    """
    with subject.pair() as pair:
        pair.theirs.write(Message("last words"))
        fill(pair.ours)
        waiting = subject.start(pair.ours.write, Message(pattern(_NEVER_WHOLE)))
        held = not waiting.ended(0.1)
        closing = subject.start(pair.theirs.close)
        came = pair.ours.read(subject.patience).contents
        expect(came == "last words", f"{came!r} came instead of what the peer had written")
        expect_error(EndOfMessages, pair.ours.read, subject.patience)
        expect(waiting.ended(subject.patience), "a write still waits for a peer that is gone")
        expect(not held or isinstance(waiting.error, BrokenError), f"a write that waited ended with {waiting.error!r}")
        for size in (10, 3 << 20):
            expect_error(BrokenError, pair.ours.write, Message(bytes(size)))
        closing.result(subject.patience)


# Death


@clause("1.1", group="death", needs=[need.messages, need.processes])
def check_what_a_killed_writer_has_written(subject: Subject) -> None:
    """SIGKILL at any moment: every message whose `write` had returned is read, and at most one more; none is torn.

    Where delivery is "flush", those that come are the first ones, without a gap.

    Mended: `write` returns when the kernel, or memory that the peer has mapped, holds the whole message; nothing of it
    may wait in this process.
    """
    for number in range(_KILLS):
        with ExitStack() as opened:
            counter = _shared_file()
            opened.callback(os.close, counter)
            tally = opened.enter_context(closing(Tally(counter)))
            with subject.listening() as listener:
                child = subject.invite_with([counter], listener, write_and_count, counter, _LARGEST)
                ours = subject.accept(listener, child)
            opened.callback(subject.close, ours)
            read = [contents_of(ours, subject) for _ in range(3 + number * 40)]
            child.kill()
            written = tally.accepted
            rest, error = rest_of(ours, subject.patience)
            numbers = [content[0] for content in [*read, *rest]]
            expect(
                isinstance(error, EndOfMessages | BrokenError), f"after the death of its writer `read` raised {error!r}"
            )
            expect(numbers == list(range(1, len(numbers) + 1)), "messages are missing in between, or came twice")
            torn = [content[0] for content in rest if content[1] != pattern(content[0] * 7919 % _LARGEST, content[0])]
            expect(not torn, f"messages {torn} hold other bytes than were written")
            if subject.kind.capabilities.delivery == "write":
                expect(
                    written <= len(numbers) <= written + 1,
                    f"{written} writes had returned when the writer was killed; {len(numbers)} messages came",
                )


@clause("1.6", group="death", needs=[need.messages, need.processes])
def check_what_was_flushed(subject: Subject) -> None:
    """A process writes 24 MB, is killed as soon as `flush` has returned, and all of it is read.

    Mended: `flush` waits until the peer has confirmed what was written, or until nothing of it is in this process.
    """
    for count, size in ((1, 10), (300, 80_000)):
        with subject.peer(write_flush_and_die, count, size) as (ours, _):
            ours.write(Message("begin"))
            contents, error = rest_of(ours, subject.patience)
            wanted = [[number, pattern(size, number)] for number in range(count)]
            expect(contents == wanted, f"{count} messages were flushed; {len(contents)} came, and then {error!r}")


@clause("1.6", group="close", needs=[need.messages])
def check_flush_ends(subject: Subject) -> None:
    """`flush` ends although the peer reads nothing: what is not delivered then is a TimeoutError; `close` ends, too.

    Mended: who has waited for the peer in `flush`, and in vain, need not do so again in `close`.
    """
    with subject.pair() as pair:
        fill(pair.theirs)
        flushing = subject.start(pair.theirs.flush)
        expect(flushing.ended(subject.patience), f"`flush` has not returned after {subject.patience:g} s")
        expect(isinstance(flushing.error, TimeoutError | None), f"`flush` ended with {flushing.error!r}")
        closing = subject.start(pair.theirs.close)
        expect(closing.ended(subject.patience), f"`close` has not returned after {subject.patience:g} s")
        closing.result(0)
        expect_error(ClosedError, pair.theirs.flush)


def _shared_file() -> int:
    """A file without a name that two processes map."""
    with tempfile.TemporaryFile() as file:
        file.truncate(Tally.SIZE)
        return os.dup(file.fileno())


@clause("6.3", group="death", needs=[need.messages, need.processes])
def check_a_process_that_writes_and_leaves(subject: Subject) -> None:
    """A process that writes, closes, and ends at once: all of it arrives, and then the end.

    Mended: as for `close`; a background thread that sends has to be waited for before the process ends.
    """
    with subject.peer(write_and_leave, 300) as (ours, _):
        contents, error = rest_of(ours, subject.patience)
        expect(
            contents == [[number, pattern(number * 101, number)] for number in range(300)],
            f"{len(contents)} of 300 messages came",
        )
        expect(isinstance(error, EndOfMessages), f"then came {error!r}")


@clause("3.2", group="death", needs=[need.messages, need.processes])
def check_a_peer_killed_between_messages(subject: Subject) -> None:
    """A peer that is killed between two messages has ended: EndOfMessages; a write to it raises BrokenError.

    Mended: the kernel closes what a dead process had; keep no descriptor of the peer's end open on this side, or its
    end of file never comes.
    """
    # So much that it goes another way where there is one, else not more than any channel holds before it is read.
    size = _NOT_SMALL if subject.kind.capabilities.zero_copy else 30_000
    wanted: list[object] = [*range(5), pattern(size)]
    with subject.peer(write_and_wait, wanted) as (ours, child):
        ours.write(Message("never read"))
        child.answer()
        child.kill()
        contents, error = rest_of(ours, subject.patience)
        whole = subject.kind.capabilities.delivery == "write"
        expect(
            contents == wanted[: None if whole else len(contents)],
            f"{len(contents)} of 6 messages came; then {error!r}",
        )
        # From another machine nobody can tell a peer that died from a line that was cut.
        ends = (EndOfMessages, BrokenError) if subject.kind.capabilities.crosses_hosts else (EndOfMessages,)
        expect(isinstance(error, ends), f"then came {error!r}")
        expect_error(type(error), ours.read, 0)
        _expect_broken(ours, subject)


def _expect_broken(end: Communicator, subject: Subject) -> None:
    """Writing to a peer that is dead raises BrokenError; a few messages may go where nobody looks before."""
    for _ in range(10_000):
        try:
            end.write(Message(bytes(10_000)), subject.patience)
        except BrokenError:
            return
    raise AssertionError("10,000 messages were written to a peer that is dead")


@clause("3.4", group="death", needs=[need.messages, need.processes])
def check_a_peer_killed_within_a_message(subject: Subject) -> None:
    """A peer that is killed while it writes 64 MiB: what came before is given, the rest is whole or nothing, and ends.

    Mended: the messages that are whole are given before the end is looked at; one that is not is thrown away.
    """
    with subject.peer(write_for_ever, _NEVER_WHOLE) as (ours, child):
        child.answer()
        child.kill()
        contents, error = rest_of(ours, subject.patience)
        expected = ["before", pattern(_NEVER_WHOLE)]
        if subject.kind.capabilities.delivery == "flush" and not contents:
            return  # it was not delivered yet
        expect(contents in (expected[:1], expected), f"{len(contents)} messages came, or others than were written")
        expect(isinstance(error, BrokenError | EndOfMessages), f"then came {error!r}")
        for _ in range(2):
            expect_error(type(error), ours.read, subject.patience)


@clause("3.3", group="death", needs=[need.messages])
def check_an_end_within_a_message(subject: Subject) -> None:
    """Half a message and then the end of the peer: what came before, then BrokenError, and again.

    Mended: an end of file is in order only between two messages; `FrameDecoder.finish` tells. A library below may not
    tell: then announce what takes more than one system call.
    """
    data = subject.below(b"".join(framing.encode([bytes(100)], codec.RAW)))
    for cut in (1, 20, len(data) - 1):
        with subject.pair() as pair:
            pair.theirs.write(Message("whole"))
            subject.inject(pair.theirs, data[:cut])
            closing = subject.start(pair.theirs.close)
            came = pair.ours.read(subject.patience).contents
            expect(came == "whole", f"{came!r} came instead of the message before")
            for _ in range(2):
                expect_error(BrokenError, pair.ours.read, subject.patience)
            closing.result(subject.patience)


@clause("3.6", group="framing", needs=[need.messages])
def check_garbage(subject: Subject) -> None:
    """What is no message raises ProtocolError after the messages before it, and again; the other direction goes on.

    Mended: check the magic and every length before anything is reserved, and remember the failure: where the next
    message begins is not known any more.
    """
    for what, send in subject.garbage().items():
        with subject.pair() as pair:
            pair.theirs.write(Message("good"))
            send(pair.theirs)
            came = pair.ours.read(subject.patience).contents
            expect(came == "good", f"{came!r} came instead of the message before")
            pair.ours.write(Message("still"))
            came = pair.theirs.read(subject.patience).contents
            expect(came == "still", f"after {what} the other direction does not go on")
            for _ in range(2):
                _expect_refusal(subject, pair, what)


def _expect_refusal(subject: Subject, pair: Pair, what: str) -> str:
    """Read what is no message; the text of the error."""
    if subject.shares_output():
        pair.theirs.close()  # until then what is printed comes, and has to be read
    try:
        return str(expect_error(ProtocolError, pair.ours.read, subject.patience))
    except ConformanceError as error:
        raise ConformanceError(f"after {what} {error}") from error


@clause("3.6", group="handshake", needs=[need.messages])
def check_a_newer_wire(subject: Subject) -> None:
    """A frame of a later version of the wire raises ProtocolError, whose text names both versions.

    Mended: leave it to `framing`, and change nothing of its frames.
    """
    with subject.pair() as pair:
        frame = bytearray(b"".join(framing.encode([b"x"], codec.RAW)))
        frame[len(framing.MAGIC)] = framing.VERSION + 1
        subject.inject(pair.theirs, subject.below(bytes(frame)))
        text = _expect_refusal(subject, pair, "a frame of a later version")
        both = str(framing.VERSION) in text and str(framing.VERSION + 1) in text
        expect(both, f"the text does not name the versions {framing.VERSION} and {framing.VERSION + 1}: {text}")


@clause("3.7", group="framing", needs=[need.messages])
def check_a_good_peer_beside_garbage(subject: Subject) -> None:
    """While one channel has failed by garbage, another one goes on, and the next peer is served.

    Mended: what has failed is remembered in the communicator, not in its class, its Listener or its module.
    """
    with ExitStack() as opened:
        several = subject.kind.capabilities.multi_peer
        listener = opened.enter_context(subject.listening()) if several else None

        def meet() -> Pair:
            if listener is None:
                return opened.enter_context(subject.pair())
            pair = subject.join(listener)
            opened.callback(subject.close, *pair)
            return pair

        bad, good = meet(), meet()
        subject.inject(bad.theirs, _NO_MESSAGE)
        _expect_refusal(subject, bad, "garbage")
        late = meet()
        for pair in (good, late):
            for writer, reader in pair.ways():
                writer.write(Message("good"), subject.patience)
                came = reader.read(subject.patience).contents
                expect(came == "good", f"{came!r} came at a channel beside one that has failed")


@clause("3.2", group="death", needs=[need.messages, need.processes])
def check_the_death_of_the_other_side(subject: Subject) -> None:
    """The Executor's process is killed: the Task reads what had come, and then the end.

    Mended: as for the Task's death; the Task must not hold the Executor's end, which it may have inherited.
    """
    ours, theirs = socketpair()
    with Connection(ours.detach()) as reports, theirs:
        executor = subject.apart(executor_that_dies, theirs.fileno(), inherited=[theirs.fileno()])
        theirs.close()
        executor.wait()
        expect(reports.poll(subject.patience), "the Task has not noticed that its Executor is dead")
        contents, error = reports.recv()
        whole = subject.kind.capabilities.delivery == "write"
        expect(
            contents == list(range(len(contents))) and (len(contents) == 3 or not whole),
            f"the Task has read {contents}",
        )
        expect(error in ("EndOfMessages", "BrokenError"), f"then its `read` raised {error}")


def executor_that_dies(_: Peer, subject: Subject, reports: int) -> None:
    """Start a Task, write to it, and be killed."""
    with subject.listening() as listener:
        child = subject.invite_with([reports], listener, task_that_reports, reports)
        end = subject.accept(listener, child)
    for number in range(3):
        end.write(Message(number))
    child.answer()
    os.kill(os.getpid(), signal.SIGKILL)


def task_that_reports(peer: Peer, reports: int) -> None:
    """Read to the end, and tell what there was to who asks for it."""
    peer.say("value", "ready")
    with Connection(reports) as connection:
        connection.send(listen_to_the_end(peer))


@clause("11.4", group="death", needs=[need.messages, need.processes])
def check_a_peer_that_dies_on_its_way(subject: Subject) -> None:
    """The process of the Task dies before it connects: `accept` ends in time, or gives a channel that has ended.

    Mended: close the descriptors that the peer has inherited in `accept`; wait for who has to come with the deadline
    only.
    """
    with subject.listening() as listener:
        child = subject.apart(leave, inherited=listener.address.descriptors)
        child.answer()
        child.wait()
        accepting = subject.start(listener.accept, 0.3)
        expect(
            accepting.ended(subject.patience), "`accept` with a time-out of 0.3 s still waits for a peer that is dead"
        )
        if accepting.error is not None:
            expect(
                isinstance(accepting.error, TimeoutError | CommunicatorError), f"`accept` raised {accepting.error!r}"
            )
            return
        ours = accepting.result(0)
        _, error = rest_of(ours, subject.patience)
        expect(isinstance(error, EndOfMessages | BrokenError), f"`read` raised {error!r}")
        subject.close(ours)


def leave(_: Peer, __: Subject) -> None:
    """End without having connected."""


@clause("3.2", group="death", needs=[need.messages, need.processes])
def check_a_peer_killed_while_it_reads(subject: Subject) -> None:
    """A peer that is killed while it waits in `read`, and one while much is written to it: the writer is told.

    Mended: as for other deaths; a writer that waits for room watches for the end of its peer, too.
    """
    with subject.peer(obey) as (ours, child):
        child.ask("write", "ready", subject.patience)
        ours.read(subject.patience)
        fill(ours)
        waiting = subject.start(ours.write, Message(pattern(_NEVER_WHOLE)))
        waiting.ended(0.1)
        child.kill()
        expect_error((EndOfMessages, BrokenError), ours.read, subject.patience)
        expect(waiting.ended(subject.patience), "a write still waits for a peer that is dead")
        kind, value = attempt(waiting.result, 0)
        expect(kind == "value" or value == "BrokenError", f"a write to a peer that was killed ended with {value}")
