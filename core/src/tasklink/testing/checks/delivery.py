"""What is written is read: clauses 1.5, 2 and 10."""

from __future__ import annotations

import collections
import datetime
import decimal
import os
import pathlib
import threading
import time
from typing import TYPE_CHECKING

from tasklink import codec, framing
from tasklink.errors import DecodeError, EncodeError
from tasklink.message import Message
from tasklink.testing import need
from tasklink.testing.check import Skipped, clause, expect, expect_error
from tasklink.testing.errand import echo, pattern
from tasklink.testing.work import AT_WORK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklink.communicator import Communicator
    from tasklink.testing.subject import Subject

_EXAMPLES = 12


def write_all(writer: Communicator, contents: Sequence[object]) -> None:
    """Write messages, one after the other."""
    for content in contents:
        writer.write(Message(content))


def raw(message: Message) -> list[bytes]:
    """The buffers of a message that has arrived."""
    return [bytes(buffer) for buffer in message.buffers or ()]


@clause("2.3", group="smoke", needs=[need.messages])
def check_both_ways(subject: Subject) -> None:
    """A message each way, between two ends in one process.

    Mended: look at `listen`, `connect` and `accept` first: what one end writes to is what the other one reads from.
    """
    with subject.pair() as pair:
        for number, (writer, reader) in enumerate(pair.ways()):
            writer.write(Message({"way": number}, "greeting"))
            message = reader.read(subject.patience)
            expect(message.contents == {"way": number}, f"{message.contents!r} came instead of {{'way': {number}}}")


@clause("2.3", group="smoke", needs=[need.messages, need.processes])
def check_another_process(subject: Subject) -> None:
    """A message each way, to a process that was started with the Address.

    Mended: the other process has nothing but the Address: its details, and its descriptors under the same numbers. What
    else `connect` needs has to be in the details.
    """
    with subject.peer(echo) as (ours, child):
        for content in ("small", pattern(300_000)):
            ours.write(Message(content))
            expect(ours.read(subject.patience).contents == content, "what came back is not what was sent")
        ours.close()
        child.answer()
        expect(child.wait() == 0, "the other process did not end in good order")


ANY_OBJECTS: tuple[object, ...] = (
    None, True, 0, -1, 1 << 200, 0.1, -0.0, float("inf"), 1 + 2j, "", "größe \0 \N{PILE OF POO}", "\ud800",
    b"", b"\0", bytearray(b"array"), (), [], {}, set(), frozenset({1}), (None,), [[]], {"a": {"b": [1, (2, {3})]}},
    {1: "one", None: "none", (1, 2): "two"}, range(3), slice(1, None, 2), Ellipsis, NotImplemented, int, len,
    os.path.join, collections.OrderedDict(a=1), collections.Counter("abca"), collections.deque([1], 3),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(-1), decimal.Decimal("1e-400"),
    pathlib.PurePosixPath("/x"), EncodeError, [0] * 10_000, {str(number): number for number in range(2000)},
)  # fmt: skip


@clause("2.3", group="any-object", needs=[need.messages])
def check_any_object(subject: Subject) -> None:
    """Whatever Python has arrives equal and of the same type: numbers, texts, classes, functions, what holds itself.

    Mended: a communicator does not look at contents; derive from FramedCommunicator, and move the buffers that it gives
    to `send` as they are.
    """
    itself: list[object] = []
    itself.append(itself)
    with subject.pair() as pair:
        writing = subject.start(write_all, pair.theirs, [*ANY_OBJECTS, itself, ValueError("x", 1)])
        for sent in ANY_OBJECTS:
            came = pair.ours.read(subject.patience).contents
            expect(came == sent and type(came) is type(sent), f"{came!r} came instead of {sent!r}")
        came = pair.ours.read(subject.patience).contents
        expect(isinstance(came, list) and came[0] is came, "a list that holds itself came as something else")
        came = pair.ours.read(subject.patience).contents
        expect(isinstance(came, ValueError) and came.args == ("x", 1), f"{came!r} came instead of an exception")
        writing.result(subject.patience)


@clause("2.4", group="framing", needs=[need.messages])
def check_what_arrives_with_a_message(subject: Subject) -> None:
    """Signal, sequence, after, rank and time are those of the writer; numbers count up where none was given.

    Mended: give the list of buffers that `send` gets to `framing.decode` whole: its first buffer holds all of this.
    Without FramedCommunicator, a `Packer` of `tasklink.communicator` for each end does it.
    """
    longest = "s" * framing.MAX_SIGNAL_BYTES
    with subject.pair() as pair:
        for writer, reader in pair.ways():
            begun = time.time()
            first, numbered = Message("contents", "größe"), Message(b"", longest)
            first.rank, numbered.sequence, numbered.after = 3, 2**63, 2**62
            for message in (first, Message(), numbered):
                writer.write(message)
            one, two, three = (reader.read(subject.patience) for _ in range(3))
            seen = [(message.signal, message.sequence, message.after, message.rank) for message in (one, two, three)]
            wanted = [("größe", 1, 0, 3), (None, 2, 0, 0), (longest, 2**63, 2**62, 0)]
            expect(seen == wanted, f"signal, sequence, after and rank: {seen} instead of {wanted}")
            expect(
                begun - 1 <= one.sent_at <= time.time() + 1, f"a message written now says it was sent at {one.sent_at}"
            )


@clause("2.3", group="framing", needs=[need.messages])
def check_contents_that_look_like_frames(subject: Subject) -> None:
    """Contents that hold frames, separators and heads are contents.

    Mended: never search for a mark in what is read; a length in front of each message says where it ends.
    """
    frame = b"".join(framing.encode([b"inner"], codec.RAW, "signal", 1))
    contents = [frame, frame * 3, framing.GIVEN_UP, framing.MAGIC * 9, b"\n", b";;;", b"\0" * 100, frame[:-1]]
    with subject.pair() as pair:
        writing = subject.start(write_all, pair.theirs, contents)
        for sent in contents:
            came = pair.ours.read(subject.patience).contents
            expect(came == sent, f"{came!r} came instead of {sent!r}")
        writing.result(subject.patience)


@clause("2.3", group="framing", needs=[need.messages])
def check_many_buffers(subject: Subject) -> None:
    """A message of thousands of buffers, empty ones between them and at its ends, arrives with each of them.

    Mended: one system call takes 1024 buffers (IOV_MAX) at most, and an empty buffer must be told apart from the end.
    """
    shapes = [
        [0],
        [0, 0],
        [1, 0],
        [0, 1],
        [5] * 1023,
        [5] * 1025,
        [0, 70_000, 0],
        [number % 3 for number in range(5000)],
    ]
    with subject.pair() as pair:
        sent = [[pattern(size, number) for number, size in enumerate(shape)] for shape in shapes]
        writing = subject.start(
            lambda: [pair.theirs.write(Message.encoded(codec.RAW, list(buffers))) for buffers in sent]
        )
        for buffers in sent:
            came = raw(pair.ours.read(subject.patience))
            expect(came == buffers, f"{len(buffers)} buffers were sent; {len(came)} came, or they are not equal")
        writing.result(subject.patience)


@clause("2.3", group="framing", needs=[need.messages, need.examples])
def check_messages_that_nobody_thought_of(subject: Subject) -> None:
    """Conversations that hypothesis thinks of arrive as they were written, each over two new ends.

    Mended: the text names the smallest conversation that was found; write it down as a test of its own.
    """
    from hypothesis import HealthCheck, given, settings  # noqa: PLC0415 - an extra
    from hypothesis import strategies as st  # noqa: PLC0415 - as above

    buffers = st.lists(st.integers(0, 10_000) | st.sampled_from([4095, 4096, 65_536]), min_size=1, max_size=4)
    signals = st.none() | st.text("a\0é☃", min_size=1, max_size=20)

    @settings(
        max_examples=_EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(st.tuples(buffers, signals, st.booleans()), max_size=8))
    def converse(conversation: list[tuple[list[int], str | None, bool]]) -> None:
        with subject.pair() as pair:
            for sizes, signal, way in conversation:
                writer, reader = pair.ways()[way]
                sent = [pattern(size, number) for number, size in enumerate(sizes)]
                writing = subject.start(writer.write, Message.encoded(codec.RAW, list(sent), signal))
                message = reader.read(subject.patience)
                expect((message.signal, raw(message)) == (signal, sent), f"sizes {sizes}, signal {signal!r}: not equal")
                writing.result(subject.patience)

    with subject.pair():
        pass  # where that cannot be, it is told here: hypothesis would look for the shortest way to it
    converse()


@clause("2.3", group="sizes", needs=[need.messages])
def check_sizes(subject: Subject) -> None:
    """Contents of no byte, of one, and of one more and one less than whatever may matter: both ways, byte by byte.

    Mended: a read and a write may take a part of what they are given, at any byte; go on behind it.
    """
    with subject.pair() as pair:
        sizes = subject.sizes()
        for writer, reader in pair.ways():
            writing = subject.start(write_all, writer, [pattern(size, size) for size in sizes])
            for size in sizes:
                came = reader.read(subject.patience).contents
                expect(isinstance(came, bytes), f"{type(came).__name__} came instead of {size} bytes")
                assert isinstance(came, bytes)
                expect(came == pattern(size, size), _difference(came, pattern(size, size)))
            writing.result(subject.patience)


@clause("2.3", group="sizes", needs=[need.messages])
def check_a_large_message(subject: Subject) -> None:
    """48 MiB, in buffers of unequal sizes, arrive byte by byte.

    Mended: as for the other sizes; what is larger than every buffer under way has to go out bit by bit.
    """
    _pass_large(subject, [1, (32 << 20) + 1, 0, 16 << 20])


@clause("2.3", group="sizes", needs=[need.messages], soak=True, deadline=30.0)
def check_a_gigabyte(subject: Subject) -> None:
    """1 GiB arrives byte by byte.

    Mended: lengths take 8 bytes, and one system call takes less than 2 GiB.
    """
    _pass_large(subject, [1 << 30])


def _pass_large(subject: Subject, sizes: list[int]) -> None:
    limit = subject.kind.capabilities.max_message
    if limit is not None and sum(sizes) > limit:
        raise Skipped(f"it declares max_message={limit}")
    sent = [pattern(size, number) for number, size in enumerate(sizes)]
    with subject.pair() as pair:
        writing = subject.start(pair.theirs.write, Message.encoded(codec.RAW, list(sent)))
        came = _read_while_it_comes(pair.ours, subject.patience)
        expect(len(came.buffers or ()) == len(sent), f"{len(came.buffers or ())} buffers came instead of {len(sent)}")
        for buffer, wanted in zip(came.buffers or (), sent, strict=True):
            expect(buffer == wanted, _difference(buffer, wanted))
        writing.result(subject.patience)


def _read_while_it_comes(end: Communicator, patience: float) -> Message:
    """Read what may take long, where others want the processor, too: it is missing when nobody works on it any more."""
    while True:
        worked = time.process_time()
        try:
            return end.read(patience)
        except TimeoutError:
            if time.process_time() - worked < AT_WORK * patience:
                raise


def _difference(came: bytes | bytearray | memoryview, wanted: bytes) -> str:
    if len(came) != len(wanted):
        return f"{len(came)} bytes came instead of {len(wanted)}"
    first = next(
        (place for place in range(0, len(wanted), 4096) if came[place : place + 4096] != wanted[place : place + 4096]),
        0,
    )
    return f"of {len(wanted)} bytes those from {first} on are others"


@clause("2.1", group="ordering", needs=[need.messages])
def check_order_of_one_writer(subject: Subject) -> None:
    """Small and large messages of one thread come in the order in which they were written.

    Mended: whatever takes another way when it is large (pieces, segments, a second queue) needs a place in the same
    queue as what is small.
    """
    numbers, repeated = _numbers_that_came(subject)
    first = list(dict.fromkeys(numbers))
    wrong = next((place for place in range(1, len(first)) if first[place - 1] > first[place]), None)
    expect(wrong is None, f"message {first[wrong or 0]} came after {first[(wrong or 1) - 1]} ({repeated} came again)")


@clause("2.2", group="ordering", needs=[need.messages])
def check_each_message_once(subject: Subject) -> None:
    """Of 1500 messages none is missing, and none comes twice.

    Mended: count what the kernel has taken in the call that writes, and go on from there: what is sent again after a
    time-out, a signal or a reconnection has to carry a number that its reader knows.
    """
    numbers, repeated = _numbers_that_came(subject)
    missing = sorted(set(range(_MANY)) - set(numbers))
    expect(not missing, f"{len(missing)} of {_MANY} messages are missing, the first is number {missing[:1]}")
    expect(not repeated, f"{repeated} messages came more than once")


_MANY = 1500


def _numbers_that_came(subject: Subject) -> tuple[list[int], int]:
    """Write numbered messages and a last one, both ways; the numbers that came, and how many came again."""
    with subject.pair() as pair:
        numbers: list[int] = []
        for writer, reader in pair.ways():
            contents = [(number, bytes((number % 40) ** 3)) for number in range(_MANY)]
            writing = subject.start(write_all, writer, [*contents, "end"])
            this_way = []
            while (content := reader.read(subject.patience).contents) != "end":
                assert isinstance(content, tuple)
                this_way.append(content[0])
            writing.result(subject.patience)
            if len(set(this_way)) != _MANY or len(this_way) != _MANY or this_way != sorted(this_way):
                return this_way, len(this_way) - len(set(this_way))
            numbers = this_way
        return numbers, 0


@clause("1.5", group="smoke", needs=[need.messages])
def check_contents_are_the_writers_again(subject: Subject) -> None:
    """What is changed after `write` has returned does not show at the reader, and the message itself is not changed.

    Mended: what is only queued when `write` returns has to be a copy.
    """
    with subject.pair() as pair:
        for size in (1000, 30_000, 400_000):
            memory = bytearray(pattern(size))
            message = Message.encoded(codec.RAW, [b"head", memory])
            writing = subject.start(pair.theirs.write, message)
            if not writing.ended(0.2):
                came = pair.ours.read(subject.patience)  # it waits for its reader: then it need not copy
                writing.result(subject.patience)
            else:
                writing.result(0)
                memory[:] = bytes(size)
                came = pair.ours.read(subject.patience)
            expect(raw(came) == [b"head", pattern(size)], "the reader has what was written into the memory afterwards")
            expect(message.sequence == 0 and message.sent_ns == 0, "`write` has changed the message that it was given")


@clause("2.7", group="smoke", needs=[need.messages])
def check_what_was_read_is_the_readers(subject: Subject) -> None:
    """Buffers that have arrived can be changed, and neither the writer nor later messages show it.

    Mended: give each message memory of its own; what is read into a buffer that is used again has to be copied out.
    """
    size = 100_000
    with subject.pair() as pair:
        memory = bytearray(pattern(size))
        kept = []
        for _ in range(3):
            writing = subject.start(pair.theirs.write, Message.encoded(codec.RAW, [b"head", memory]))
            buffer = (pair.ours.read(subject.patience).buffers or [b"", b""])[1]
            writing.result(subject.patience)
            expect(not memoryview(buffer).readonly, "a large buffer cannot be changed by who has read it")
            memoryview(buffer).cast("B")[:] = bytes(size)
            kept.append(buffer)
        expect(memory == pattern(size), "what the reader changed has changed at the writer")
        expect(
            all(bytes(buffer) == bytes(size) for buffer in kept), "a message that was kept shows one that came later"
        )


@clause("10.1", group="any-object", needs=[need.messages])
def check_what_cannot_be_encoded(subject: Subject) -> None:
    """A lock in a list raises EncodeError at the writer, nothing comes, and the next message does.

    Mended: encode the whole message before the first byte of it goes out.
    """
    with subject.pair() as pair:
        for _ in range(3):
            expect_error(EncodeError, pair.theirs.write, Message([bytes(10_000), threading.Lock()]))
        pair.theirs.write(Message("next"))
        came = pair.ours.read(subject.patience)
        expect(came.contents == "next", f"{came.contents!r} came instead of the next message")


@clause("10.2", group="any-object", needs=[need.messages])
def check_what_cannot_be_decoded(subject: Subject) -> None:
    """What is no pickle, or of an unknown codec, is delivered with its signal; to ask for its contents raises.

    Mended: `read` gives a Message with its buffers, and does not touch `contents`.
    """
    with subject.pair() as pair:
        for number in (codec.PICKLE, codec.JSON, 99):
            pair.theirs.write(Message.encoded(number, [b"\x80no contents"], "broken"))
        pair.theirs.write(Message("next"))
        for _ in range(3):
            message = pair.ours.read(subject.patience)
            expect(message.signal == "broken", f"a message with signal {message.signal!r} came instead")
            expect_error(DecodeError, lambda message=message: message.contents)
        came = pair.ours.read(subject.patience).contents
        expect(came == "next", f"{came!r} came instead of the next message")


@clause("10.4", group="any-object", needs=[need.messages])
def check_passing_on(subject: Subject) -> None:
    """A message that came goes back as it came, with a codec that nobody here knows.

    Mended: send the buffers and the codec of the message as they are; do not decode them.
    """
    with subject.pair() as pair:
        buffers = [b"from the future", pattern(5000), b""]
        pair.theirs.write(Message.encoded(99, list(buffers), "signal"))
        pair.ours.write(pair.ours.read(subject.patience))
        came = pair.theirs.read(subject.patience)
        expect((came.codec, came.signal, raw(came)) == (99, "signal", buffers), "what came back is not what was sent")
