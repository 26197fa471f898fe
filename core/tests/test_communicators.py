"""The contract of `tasklink.communicator`, clause by clause, on every communicator that core has a part in."""

from __future__ import annotations

import gc
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from tasklink import codec, framing, vocabulary
from tasklink.communicator import Address, Capabilities, Communicator, FramedCommunicator, Listener, Packer
from tasklink.errors import (
    BrokenError,
    ClosedError,
    DecodeError,
    EncodeError,
    EndOfMessages,
    MessageTooLargeError,
    ProtocolError,
)
from tasklink.memory import MemoryCommunicator
from tasklink.message import Message
from tasklink.stream import StreamCommunicator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pair = tuple[Communicator, Communicator]

MIB = 1 << 20
KIB = 1 << 10


class End(StreamCommunicator):
    """A StreamCommunicator over descriptors that the test has made."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    settings: ClassVar[str] = ""

    @classmethod
    def listen(cls, settings: object) -> Listener:
        """Refuse."""
        raise NotImplementedError

    @classmethod
    def connect(cls, address: Address) -> Communicator:
        """Refuse."""
        raise NotImplementedError


def over_pipes() -> tuple[End, End]:
    """Two ends over a pipe for each direction."""
    there, back = os.pipe(), os.pipe()
    return End(back[0], there[1]), End(there[0], back[1])


def over_a_socket() -> tuple[End, End]:
    """Two ends of a pair of sockets."""
    one, other = (end.detach() for end in socket.socketpair())
    return End(one, one), End(other, other)


def in_memory() -> tuple[MemoryCommunicator, MemoryCommunicator]:
    """Two ends within this process, with little room between them."""
    return MemoryCommunicator.pair(capacity=MIB)


KINDS: dict[str, Callable[[], Pair]] = {"memory": in_memory, "pipes": over_pipes, "socket": over_a_socket}
STREAMS: dict[str, Callable[[], tuple[End, End]]] = {"pipes": over_pipes, "socket": over_a_socket}


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two ends that talk with each other."""
    one, other = KINDS[request.param]()
    yield one, other
    one.close()
    other.close()


@pytest.fixture(params=STREAMS)
def streams(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    """Two ends of a byte stream."""
    one, other = STREAMS[request.param]()
    yield one, other
    one.close()
    other.close()


def started(function: Callable[..., object], *arguments: object) -> Future[object]:
    """Run a function in a thread of its own; its result, or its exception, within 20 seconds."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def outcome(future: Future[object]) -> object:
    """What a thread gave, or its exception."""
    return future.exception(20) or future.result()


def read_until(reader: Communicator, last: object) -> list[object]:
    """The contents of all messages before this one."""
    contents = []
    while (content := reader.read(20).contents) != last:
        contents.append(content)
    return contents


def write_all(writer: Communicator, contents: list[object]) -> None:
    """Write messages one after the other."""
    for content in contents:
        writer.write(Message(content))


def fill(writer: Communicator) -> list[object]:
    """Write messages until the peer, who does not read, lets one run out of time; give those that were written."""
    written: list[object] = []
    while True:
        content = [len(written), bytes(50_000)]
        try:
            writer.write(Message(content), timeout=0.01)
        except TimeoutError:
            return written
        written.append(content)


def drained(reader: Communicator) -> list[Message]:
    """What is there, as the contract says it is read after `fileno` was readable."""
    messages = []
    while True:
        try:
            messages.append(reader.read(timeout=0))
        except TimeoutError:
            return messages


def is_readable(communicator: Communicator, timeout: float = 0) -> bool:
    """Whether a selector would say that there is work."""
    poll = __import__("select").poll()
    poll.register(communicator.fileno(), 1)
    return bool(poll.poll(timeout * 1000))


class TestDelivery:
    """What is written is read: clauses 1, 2 and 10."""

    def test_messages_arrive_in_the_order_in_which_they_were_written(self, pair: Pair) -> None:
        """Small and large ones of one thread, each once and whole."""
        one, other = pair
        contents: list[object] = [[n, bytes(n * n)] for n in range(400)]
        writing = started(write_all, one, [*contents, "end"])
        assert read_until(other, "end") == contents
        writing.result()

    def test_both_directions_are_independent(self, pair: Pair) -> None:
        """Either end writes and reads."""
        one, other = pair
        one.write(Message("there"))
        other.write(Message("back"))
        assert one.read(5).contents == "back"
        assert other.read(5).contents == "there"

    @pytest.mark.parametrize(
        "size",
        [0, 1, 4095, 4096, 4097, 64 * KIB - 100, 64 * KIB, 64 * KIB + 1, MIB - 100, MIB - 56, MIB - 55, MIB, MIB + 1,
         2 * MIB, 2 * MIB + 1, 9 * MIB],
    )  # fmt: skip
    def test_contents_of_every_size(self, pair: Pair, size: int) -> None:
        """Around every limit: what stays in band, the scratch space, a piece, a mapping, what is reserved at once."""
        one, other = pair
        data = np.arange(size, dtype=np.uint8)
        writing = started(write_all, one, [data.tobytes(), data, {"a": data, "b": data[: size // 2]}, "end"])

        assert other.read(20).contents == data.tobytes()
        np.testing.assert_array_equal(other.read(20).contents, data)  # type: ignore[call-overload]
        both = other.read(20).contents
        assert isinstance(both, dict)
        np.testing.assert_array_equal(both["b"], data[: size // 2])
        assert other.read(20).contents == "end"
        writing.result()

    def test_a_message_of_many_buffers(self, pair: Pair) -> None:
        """More than one system call takes."""
        one, other = pair
        texts = [str(n) for n in range(5000)]
        writing = started(one.write, vocabulary.record(vocabulary.LOG, *texts))
        assert vocabulary.texts(other.read(20)) == texts
        writing.result()

    def test_what_a_message_says_on_arrival(self, pair: Pair) -> None:
        """Signal, number, time and rank; numbers count up where no Link has given them."""
        one, other = pair
        before = time.time()
        message = Message("contents", "größe")
        message.rank = 3
        one.write(message)
        one.write(Message())
        numbered = Message()
        numbered.sequence, numbered.after = 2**63, 2**62
        one.write(numbered)

        first, second, third = (other.read(5) for _ in range(3))
        assert (first.contents, first.signal, first.rank, first.sequence, first.after) == ("contents", "größe", 3, 1, 0)
        assert before - 1 <= first.sent_at <= time.time() + 1
        assert (second.contents, second.signal, second.rank, second.sequence) == (None, None, 0, 2)
        assert (third.sequence, third.after) == (2**63, 2**62)
        assert message.sequence == 0, "what is written is not changed"

    def test_contents_may_be_changed_as_soon_as_write_has_returned(self, pair: Pair) -> None:
        """The array that was sent is the writer's again; the one that came is the reader's."""
        one, other = pair
        array = np.zeros(3000)
        one.write(Message(array))
        array[:] = 1
        arrived = other.read(5).contents
        assert isinstance(arrived, np.ndarray)
        assert not arrived.any()
        arrived[:] = 2
        assert array.sum() == 3000

    def test_a_message_that_came_can_be_passed_on(self, pair: Pair) -> None:
        """Its bytes go on as they are, although they cannot be decoded here."""
        one, other = pair
        one.write(Message.encoded(99, [b"from the future"], "signal"))
        other.write(other.read(5))
        message = one.read(5)
        assert message.buffers is not None
        assert (message.codec, *map(bytes, message.buffers)) == (99, b"from the future")

    def test_what_cannot_be_encoded_is_not_sent(self, pair: Pair) -> None:
        """The writer hears of it, and the channel goes on."""
        one, other = pair
        with pytest.raises(EncodeError, match=r"_thread\.lock"):
            one.write(Message([bytes(10_000), threading.Lock()]))
        one.write(Message("next"))
        assert other.read(5).contents == "next"

    def test_what_cannot_be_decoded_is_delivered_all_the_same(self, pair: Pair) -> None:
        """It raises when its contents are asked for, and the channel goes on."""
        one, other = pair
        one.write(Message.encoded(codec.PICKLE, [b"no pickle"], "broken"))
        one.write(Message("next"))
        message = other.read(5)
        assert message.signal == "broken"
        with pytest.raises(DecodeError):
            _ = message.contents
        assert other.read(5).contents == "next"

    def test_the_limit_of_a_communicator(self) -> None:
        """A message larger than `capabilities.max_message` is refused by name before anything is sent."""

        class Narrow(MemoryCommunicator):
            capabilities: ClassVar[Capabilities] = Capabilities(max_message=1000)

        one, other = Narrow.pair()
        with one, other:
            with pytest.raises(MessageTooLargeError, match="1001 bytes; Narrow takes 1000"):
                one.write(Message(bytes(1001)))
            one.write(Message(bytes(1000)))
            assert other.read(5).contents == bytes(1000)


class TestTimeOuts:
    """A time-out loses nothing: clauses 1 and 2."""

    @pytest.mark.parametrize("timeout", [0, 0.01, -1])
    def test_reading_when_there_is_nothing(self, pair: Pair, timeout: float) -> None:
        """It raises TimeoutError, and the next message is read as if nothing had been."""
        one, other = pair
        for n in range(3):
            with pytest.raises(TimeoutError):
                other.read(timeout)
            one.write(Message(n))
            assert other.read(5).contents == n

    @pytest.mark.parametrize("timeout", [30 * 86400.0, 1e12, math.inf])
    def test_time_outs_that_no_system_call_takes(self, pair: Pair, timeout: float) -> None:
        """A month, or for ever, is only a long time; also when one really has to wait."""
        one, other = pair
        reading = started(other.read, timeout)
        waiting = started(other.read, timeout)
        written = fill(one)
        one_more = started(lambda: one.write(Message("end"), timeout))
        read = [reading.result(), waiting.result()]
        assert all(isinstance(message, Message) for message in read)
        assert len(read_until(other, "end")) in (len(written) - 2, len(written) - 1)  # the one out of time may come
        one_more.result()

    def test_a_message_that_comes_in_fragments(self, streams: tuple[End, End]) -> None:
        """However often the reader runs out of time within a message, it gets the whole of it."""
        one, other = streams
        array = np.arange(2_500_000)  # its memory has to grow, although errors that are kept may hold views on it
        number, buffers = codec.encode(array)
        frame = framing.encode(buffers, number)
        data = b"".join(frame) + b"".join(b"".join(part) for part in framing.split(frame))
        position, arrived, kept = 0, [], []
        while len(arrived) < 2:
            if position < len(data):
                position += os.write(one._writer, memoryview(data)[position : position + 60_001])
            for timeout in (0, 0.0001):
                try:
                    arrived.append(other.read(timeout))
                except TimeoutError as error:
                    kept.append(error)  # its traceback holds whatever the call was at
        for message in arrived:
            np.testing.assert_array_equal(message.contents, array)  # type: ignore[call-overload]
        assert len(kept) > 50

    def test_a_write_that_runs_out_of_time(self, pair: Pair) -> None:
        """Its message arrives once or not at all, all others once; the channel goes on."""
        one, other = pair
        written = fill(one)
        late = [len(written), bytes(50_000)]
        writing = started(write_all, one, ["after", "end"])
        read = read_until(other, "end")
        writing.result()
        assert read in ([*written, "after"], [*written, late, "after"])

    @pytest.mark.parametrize("size", [500_000, 3_000_000], ids=["whole", "in pieces"])
    def test_after_a_time_out_the_memory_is_the_writers_again(self, streams: tuple[End, End], size: int) -> None:
        """What it writes there does not show in the message that was begun."""
        one, other = streams
        array = np.zeros(size, np.uint8)
        with pytest.raises(TimeoutError):
            one.write(Message(array), timeout=0.02)
        array[:] = 1
        writing = started(write_all, one, ["end"])
        first = other.read(5).contents
        if isinstance(first, np.ndarray):
            assert not first.any()
            first = other.read(5).contents
        assert first == "end"
        writing.result()

    @pytest.mark.parametrize("next_size", [10, 3 * MIB])
    def test_a_large_write_that_runs_out_of_time(self, pair: Pair, next_size: int) -> None:
        """It is given up, in pieces or not: what comes after it arrives, and the end is in good order."""
        one, other = pair
        one.write(Message(bytes(MIB // 2 if isinstance(one, MemoryCommunicator) else 1000)))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                one.write(Message(bytes(5 * MIB)), timeout=0.02)
        writing = started(write_all, one, [bytes(next_size), "end"])
        other.read(5)
        assert read_until(other, "end") == [bytes(next_size)]
        writing.result()
        one.close()
        with pytest.raises(EndOfMessages):
            other.read(5)

    def test_waiting_for_another_writer_runs_out_of_time(self, streams: tuple[End, End]) -> None:
        """A writer who waits for its turn, small or large, keeps its own time."""
        one, _ = streams
        fill(one)
        blocked = started(one.write, Message(bytes(20 * MIB)))
        for size in (10, 5 * MIB):
            with pytest.raises(TimeoutError):
                one.write(Message(bytes(size)), timeout=0.02)
        one.close()
        assert isinstance(outcome(blocked), ClosedError)

    def test_waiting_for_another_reader_runs_out_of_time(self, pair: Pair) -> None:
        """A second reader keeps its own time while the first one waits for ever."""
        one, other = pair
        first = started(other.read)
        with pytest.raises(TimeoutError):
            other.read(0.02)
        one.write(Message("late"))
        with pytest.raises(TimeoutError):
            other.read(0.02) if first.result(5) else None


class TestDescriptor:
    """`fileno` is readable when `read` has work: clause 5."""

    def test_it_shows_when_a_message_is_there(self, pair: Pair) -> None:
        """Readable from the message on until all of them have been read."""
        one, other = pair
        assert not is_readable(other)
        for n in range(5):
            one.write(Message(n))
        assert is_readable(other, 5)
        assert [message.contents for message in drained(other)] == list(range(5))
        assert not is_readable(other)

    def test_a_selector_loop_gets_everything(self, pair: Pair) -> None:
        """Waiting on it and draining after, also in the midst of large messages, misses nothing."""
        one, other = pair
        contents: list[object] = [bytes(n * 100_003) for n in range(30)]
        writing = started(write_all, one, contents)
        read: list[object] = []
        while len(read) < len(contents):
            assert is_readable(other, 10)
            read += [message.contents for message in drained(other)]
        writing.result()
        assert read == contents
        assert not is_readable(other)

    def test_it_shows_the_end(self, pair: Pair) -> None:
        """The end of the peer is work for `read`, and stays so."""
        one, other = pair
        one.write(Message("last"))
        one.close()
        assert is_readable(other, 5)
        assert other.read(0).contents == "last"
        for _ in range(2):
            assert is_readable(other, 5)
            with pytest.raises(EndOfMessages):
                other.read(0)

    def test_a_flood_does_not_hold_a_reader_that_has_no_time(self) -> None:
        """In a large message, `read(timeout=0)` comes back although there is always more."""
        with endless() as end:
            for _ in range(5):
                with pytest.raises(TimeoutError, match="no whole message has come in time"):
                    end.read(0)


def head_of(size: int) -> bytes:
    """The beginning of a message of that many bytes."""
    head = framing.HEAD.pack(1, 0, 0, 1, 0, 0, 0, 1) + size.to_bytes(8, "little")
    return framing.PREFIX.pack(framing.MAGIC, framing.VERSION, framing.MESSAGE, 0, len(head) + size) + head


@contextmanager
def endless() -> Iterator[End]:
    """An end in the midst of a message of 1 GiB, of which there is always more to read."""
    with End(os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)) as end:
        head = framing.HEAD.pack(1, 0, 0, 1, 0, 0, 0, 1) + (2**30).to_bytes(8, "little")
        end._decoder.feed(framing.PREFIX.pack(b"TL", 1, framing.MESSAGE, 0, len(head) + 2**30) + head)
        yield end


class TestThreads:
    """Many threads at once: clauses 4 and 7."""

    def test_sixteen_writers(self, pair: Pair) -> None:
        """Each of 16 x 200 messages arrives once and whole, those of a thread in their order."""
        one, other = pair

        def write(thread: int) -> None:
            for n in range(200):
                one.write(Message((thread, n, bytes([thread]) * (n * 37 % 9000))))

        writers = [started(write, thread) for thread in range(16)]
        seen: dict[int, list[int]] = {thread: [] for thread in range(16)}
        for _ in range(16 * 200):
            thread, n, data = other.read(20).contents  # type: ignore[misc]
            assert data == bytes([thread]) * (n * 37 % 9000)
            seen[thread].append(n)
        for writer in writers:
            writer.result()
        assert seen == {thread: list(range(200)) for thread in range(16)}

    def test_large_and_small_writers(self, pair: Pair) -> None:
        """Messages in pieces of several threads, with small ones between them, arrive whole and in order."""
        one, other = pair

        def write(thread: int) -> None:
            for n in range(6):
                one.write(Message((thread, n, np.full(3 * MIB if thread < 3 else 10, thread, np.uint8))))

        writers = [started(write, thread) for thread in range(6)]
        seen: dict[int, list[int]] = {thread: [] for thread in range(6)}
        for _ in range(36):
            thread, n, data = other.read(20).contents  # type: ignore[misc]
            assert (data == thread).all()
            seen[thread].append(n)
        for writer in writers:
            writer.result()
        assert seen == {thread: list(range(6)) for thread in range(6)}

    def test_several_readers(self, pair: Pair) -> None:
        """Every message is read by exactly one of them, and each of them sees the order."""
        one, other = pair

        def read() -> list[object]:
            return read_until(other, "end")

        readers = [started(read) for _ in range(4)]
        write_all(one, [*range(2000), "end", "end", "end", "end"])
        read_by = [reader.result() for reader in readers]
        assert all(numbers == sorted(numbers) for numbers in read_by)  # type: ignore[type-var, call-overload]
        assert sorted(number for numbers in read_by for number in numbers) == list(range(2000))  # type: ignore[attr-defined]

    def test_a_small_message_overtakes_a_large_one(self, streams: tuple[End, End]) -> None:
        """It waits for a piece of it, not for the whole; each time anew."""
        one, other = streams
        large = started(one.write, Message(bytes(40 * MIB)))
        while other._decoder._in_pieces is None:
            with pytest.raises(TimeoutError):
                other.read(0)
        for n in range(5):  # nobody reads now, so the large one is held up within a piece
            small = started(one.write, Message(n))
            while not (small.done() or all(is_taken(one._small) for _ in range(20))):
                time.sleep(0)  # until the small one waits for its turn, or has had it
            before = other._decoder._in_pieces.filled
            assert other.read(20).contents == n
            assert other._decoder._in_pieces.filled - before <= 2 * MIB  # the rest of a piece, and what the kernel held
            small.result()
        assert other.read(20).contents == bytes(40 * MIB)
        large.result()

    def test_a_small_message_overtakes_a_large_one_in_memory(self) -> None:
        """Where there is room for it, it does not wait at all."""
        one, other = in_memory()
        with one, other:
            one.write(Message(bytes(KIB)))
            large = started(one.write, Message(bytes(40 * MIB)))
            one.write(Message("cancel"), timeout=20)
            assert [len(other.read(20).contents) for _ in range(2)] == [KIB, 6]  # type: ignore[arg-type]
            assert other.read(20).contents == bytes(40 * MIB)
            large.result()


def is_taken(lock: Any) -> bool:
    """Whether another thread has a lock."""
    free = lock.acquire(False)
    if free:
        lock.release()
    return not free


class TestClosing:
    """The four ends: clauses 3 and 6."""

    @pytest.mark.parametrize("pause", [0, 0.02])
    def test_close_wakes_who_waits_in_read(self, pair: Pair, pause: float) -> None:
        """The one who waits for a message, and those who wait for their turn, raise ClosedError."""
        _, other = pair
        readers = [started(other.read) for _ in range(3)]
        time.sleep(pause)  # whether they wait already or not, they must end
        other.close()
        assert [type(outcome(reader)) for reader in readers] == [ClosedError] * 3
        for call in (other.read, other.fileno, lambda: other.write(Message())):
            with pytest.raises(ClosedError):
                call()

    def test_a_reader_that_leaves_while_another_thread_begins_to_close(self) -> None:
        """It releases nothing that `close` still needs, or `close` would ring a descriptor that is another's by now."""
        ours, theirs = socket.socketpair()
        with theirs:
            end = End(ours.fileno(), ours.detach())
            # As `close` begins.
            assert end._closing.acquire(False)
            end._closed = True
            with pytest.raises(ClosedError):
                end.receive(0)
            end.shut()

    @pytest.mark.parametrize("pause", [0, 0.02])
    @pytest.mark.parametrize("size", [1000, 40 * MIB])
    def test_close_wakes_who_waits_in_write(self, pair: Pair, size: int, pause: float) -> None:
        """So do those who write to a peer that does not read."""
        one, _ = pair
        fill(one)
        writers = [started(one.write, Message(bytes(size))) for _ in range(3)]
        time.sleep(pause)  # as above
        one.close()
        ends = [outcome(writer) for writer in writers]
        assert all(isinstance(end, ClosedError) or (end is None and size == 1000) for end in ends)

    def test_close_wakes_who_reads_without_end(self) -> None:
        """A reader in the midst of a large message, of which there is always more, does not keep `close` waiting."""
        with endless() as end:
            reading = started(end.read)
            while not end._decoder._filling.filled:  # type: ignore[union-attr]
                time.sleep(0)
            end.close()
            assert isinstance(outcome(reading), ClosedError)

    def test_what_was_written_before_close_is_delivered(self, pair: Pair) -> None:
        """Close, and be gone; the peer reads everything, and then the end, again and again."""
        one, other = pair
        write_all(one, list(range(100)))
        one.close()
        assert [other.read(5).contents for _ in range(100)] == list(range(100))
        for _ in range(3):
            with pytest.raises(EndOfMessages):
                other.read(5)

    def test_what_was_written_before_close_is_delivered_although_something_was_unread(self, pair: Pair) -> None:
        """What the peer wrote meanwhile, and nobody will read, takes nothing away."""
        one, other = pair
        write_all(one, list(range(100)))
        other.write(Message("never read"))
        one.close()
        assert [other.read(5).contents for _ in range(100)] == list(range(100))
        with pytest.raises(EndOfMessages):
            other.read(5)

    def test_close_is_idempotent_and_may_be_concurrent(self, pair: Pair) -> None:
        """Any number of times, from any thread, while others read and write."""
        one, other = pair
        busy = [started(one.read), started(other.read), *(started(fill, end) for end in pair)]
        closing = [started(end.close) for end in pair for _ in range(8)]
        for future in closing:
            assert outcome(future) is None
        # Whoever comes late finds a message of another one, or has run out of time already.
        allowed = (ClosedError, BrokenError, EndOfMessages, Message, list)
        assert all(isinstance(outcome(future), allowed) for future in busy)
        one.close()

    def test_writing_to_a_peer_that_is_gone(self, pair: Pair) -> None:
        """It raises BrokenError, small or large, and what the peer had written can still be read."""
        one, other = pair
        other.write(Message("last words"))
        other.close()
        for size in (10, 3 * MIB):
            with pytest.raises(BrokenError, match="peer"):
                one.write(Message(bytes(size)))
        assert one.read(5).contents == "last words"
        with pytest.raises(EndOfMessages):
            one.read(5)

    def test_a_peer_that_goes_while_it_is_written_to(self, pair: Pair) -> None:
        """A writer who waits is told at once."""
        one, other = pair
        fill(one)
        writing = started(one.write, Message(bytes(40 * MIB)))
        other.close()
        assert isinstance(outcome(writing), BrokenError)

    def test_with_closes(self, pair: Pair) -> None:
        """Leaving a with statement closes."""
        one, other = pair
        with one:
            one.write(Message(1))
        with pytest.raises(ClosedError):
            one.write(Message(2))
        assert other.read(5).contents == 1

    @pytest.mark.parametrize("kind", KINDS)
    def test_never_closed(self, kind: str) -> None:
        """It warns whoever forgot it, and then closes."""
        one, other = KINDS[kind]()
        name = type(one).__name__
        with pytest.warns(ResourceWarning, match=f"a {name} was never closed"):
            del one
        with pytest.raises(EndOfMessages):
            other.read(5)
        other.close()

    def test_descriptors_that_are_none(self) -> None:
        """What could not be opened says so once, and leaves nothing to be closed."""
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            End(-1, -1)
        gc.collect()
        assert sorted(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("kind", KINDS)
    def test_descriptors_are_not_inherited_and_not_left(self, kind: str) -> None:
        """The programs that a Task starts see none of them (clause 9), and `close` gives all of them back."""
        before = open_descriptors()
        one, other = KINDS[kind]()
        for end in (one, other):
            assert not is_readable(end)
        fill(one)
        made = open_descriptors() - before
        assert made
        assert not any(os.get_inheritable(descriptor) for descriptor in made)
        one.close()
        other.close()
        assert open_descriptors() == before

    def test_descriptors_that_were_inheritable(self) -> None:
        """Also those that this process has inherited itself."""
        there, back = os.pipe(), os.pipe()
        for descriptor in (*there, *back):
            os.set_inheritable(descriptor, True)
        with End(back[0], there[1]), End(there[0], back[1]):
            assert not any(os.get_inheritable(descriptor) for descriptor in (*there, *back))


def open_descriptors() -> set[int]:
    """The descriptors of this process."""
    with os.scandir("/proc/self/fd") as entries:
        return {int(entry.name) for entry in entries if not os.readlink(entry.path).startswith("/proc")}


class TestAPeerThatMisbehaves:
    """What is not a message ends one channel by name."""

    def test_garbage(self, streams: tuple[End, End]) -> None:
        """Messages before it are given, then ProtocolError, and again; writing goes on."""
        one, other = streams
        one.write(Message("good"))
        os.write(one._writer, b"printed by a library\n")
        assert other.read(5).contents == "good"
        for _ in range(3):
            with pytest.raises(ProtocolError, match="begins with b'TL'; here is b'pr'"):
                other.read(5)
        other.write(Message("still"))
        assert one.read(5).contents == "still"

    def test_a_message_beyond_the_limit(self) -> None:
        """It is refused when its head has come."""
        there, back = os.pipe(), os.pipe()
        with End(back[0], there[1]) as one, End(there[0], back[1], max_message=1000) as other:
            write_all(one, [bytes(1000), bytes(1001)])
            assert other.read(5).contents == bytes(1000)
            with pytest.raises(ProtocolError, match="a message has 1001 bytes; the limit is 1000"):
                other.read(5)

    def test_an_end_within_a_message(self, streams: tuple[End, End]) -> None:
        """BrokenError, after the messages that came before."""
        one, other = streams
        one.write(Message("whole"))
        frame = b"".join(framing.encode([bytes(100)], codec.RAW))
        os.write(one._writer, frame[:-1])
        one.close()
        assert other.read(5).contents == "whole"
        for _ in range(2):
            with pytest.raises(BrokenError, match="after 99 of the 100 bytes of a message"):
                other.read(5)


class TestInMemory:
    """What only the pair in memory has."""

    def test_there_is_nobody_to_listen_for(self) -> None:
        """It cannot be used between processes, and says what to use."""
        with pytest.raises(NotImplementedError, match=r"MemoryCommunicator\.pair"):
            MemoryCommunicator.listen(None)
        with pytest.raises(NotImplementedError, match=r"MemoryCommunicator\.pair"):
            MemoryCommunicator.connect(Address())

    def test_a_message_larger_than_the_room_passes_alone(self) -> None:
        """The capacity bounds what waits, not what can be said."""
        one, other = MemoryCommunicator.pair(capacity=10)
        with one, other:
            one.write(Message(bytes(1000)), timeout=5)
            with pytest.raises(TimeoutError):
                one.write(Message(), timeout=0.01)
            assert other.read(5).contents == bytes(1000)


class TestPluginSide:
    """What the base classes give to whoever writes a plugin."""

    def test_capabilities_are_a_value(self) -> None:
        """They say everything by name, cannot be changed, and refuse what is not known."""
        capabilities = Capabilities(zero_copy=True, max_message=5)
        assert capabilities.as_dict()["zero_copy"] is True
        assert "max_message=5" in repr(capabilities)
        with pytest.raises(AttributeError, match="promise"):
            capabilities.zero_copy = False
        with pytest.raises(ValueError, match="'write' or 'flush', not 'soon'"):
            Capabilities(delivery="soon")

    def test_an_address_hides_its_key(self) -> None:
        """It may stand in a log."""
        assert "secret" not in repr(Address({"path": "/tmp/x"}, (3,), b"secret"))
        assert "hidden" in repr(Address(key=b"secret"))

    @pytest.mark.parametrize("joined", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("sizes", [[0], [5], [3584], [5000], [1, 0, 100_000], [0, 0]])
    def test_a_packer(self, joined: Callable[[bytes], bytes], sizes: list[int]) -> None:
        """A message is the same after it was bytes; its buffers can be changed, and are not decoded."""
        buffers: list[framing.Buffer] = [bytes([number]) * size for number, size in enumerate(sizes)]
        for signal in (None, "größe"):
            sent = Message.encoded(99, buffers, signal)
            sent.after, sent.rank = 2**40, 7
            came = Packer.unpack(joined(b"".join(Packer().pack(sent))))
            assert (came.signal, came.codec, came.after, came.rank) == (signal, 99, 2**40, 7)
            assert came.buffers is not None
            assert [bytes(buffer) for buffer in came.buffers] == buffers
            assert not any(memoryview(buffer).readonly for buffer in came.buffers)
            assert abs(came.sent_at - time.time()) < 60

    def test_a_packer_does_not_copy_what_can_be_changed(self) -> None:
        """Contents lie in the memory that was given, and in the memory that they came in."""
        large = bytearray(100_000)
        assert any(buffer is large for buffer in Packer().pack(Message.encoded(codec.RAW, [b"", large])))
        data = bytearray(b"".join(Packer().pack(Message.encoded(codec.RAW, [b"", large]))))
        came = Packer.unpack(data)
        data[-1] = 9
        assert came.contents == (b"", bytes(99_999) + b"\x09")

    def test_a_packer_numbers_what_has_no_number(self) -> None:
        """From 1, as each end does; it leaves the message alone, and a number that was given."""
        packer = Packer()
        message, numbered = Message("x"), Message("y", sequence=2**63)
        sequences = [Packer.unpack(b"".join(packer.pack(one))).sequence for one in (message, numbered, message)]
        assert sequences == [1, 2**63, 2]
        assert (message.sequence, message.sent_ns) == (0, 0)

    def test_what_a_packer_refuses(self) -> None:
        """What cannot be encoded, is too large, or is no message; what is refused uses up no number."""
        packer = Packer(max_message=10)
        with pytest.raises(EncodeError):
            packer.pack(Message(threading.Lock()))
        with pytest.raises(MessageTooLargeError, match="a message of 11 bytes; its communicator takes 10"):
            packer.pack(Message(bytes(11)))
        good = b"".join(packer.pack(Message(bytes(10))))
        assert Packer.unpack(good).sequence == 1
        for data in (b"", b"T", good[:-1], good + b"x", b"XX" + good[2:], bytes(100)):
            with pytest.raises(ProtocolError):
                Packer.unpack(data)

    def test_what_is_not_implemented_cannot_be_made(self) -> None:
        """A plugin that forgets a method is told when it is first used."""

        class Half(FramedCommunicator):
            capabilities: ClassVar[Capabilities] = Capabilities()

        with pytest.raises(TypeError, match="abstract"):
            Half()  # type: ignore[abstract]


# What follows happens to whole processes. Each script runs in an interpreter of its own.

ENDS = """
import json, os, random, signal, socket, sys, threading, time
from tasklink import codec, framing
from tasklink.communicator import Capabilities
from tasklink.errors import *
from tasklink.memory import MemoryCommunicator
from tasklink.message import Message
from tasklink.stream import StreamCommunicator

class End(StreamCommunicator):
    capabilities = Capabilities()
    listen = connect = classmethod(lambda *_: None)

def pair(kind):
    if kind == "memory":
        return MemoryCommunicator.pair()
    if kind == "pipes":
        there, back = os.pipe(), os.pipe()
        return End(back[0], there[1]), End(there[0], back[1])
    one, other = (end.detach() for end in socket.socketpair())
    return End(one, one), End(other, other)

def of_two_processes(kind, work):
    # Fork: the child works with one end and exits; the other end is given.
    if kind == "pipes":
        there, back = os.pipe(), os.pipe()
        mine, theirs = (back[0], there[1]), (there[0], back[1])
    else:
        one, other = (end.detach() for end in socket.socketpair())
        mine, theirs = (one, one), (other, other)
    child = os.fork()
    ours, others = (theirs, mine) if child == 0 else (mine, theirs)
    for descriptor in set(others):
        os.close(descriptor)
    if child == 0:
        status = 1
        try:
            with End(*ours) as end:
                work(end)
            status = 0
        finally:
            os._exit(status)
    return child, End(*ours)

def raised(call, *arguments):
    try:
        call(*arguments)
    except BaseException as error:
        return type(error).__name__

def say(**facts):
    print(json.dumps(facts))

kind = sys.argv[1]
"""


def run(script: str, kind: str, timeout: float = 50) -> dict[str, object]:
    """Run a script over pipes, a socket or in memory, and give what it says last."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", ENDS + script, kind],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr
    facts: dict[str, object] = json.loads(process.stdout.splitlines()[-1])
    return facts


both_streams = pytest.mark.parametrize("kind", STREAMS)
all_kinds = pytest.mark.parametrize("kind", KINDS)


class TestDeath:
    """Processes that are killed."""

    @both_streams
    @pytest.mark.parametrize("size", [100, 10 * MIB], ids=["whole", "in pieces"])
    def test_killed_within_a_frame(self, kind: str, size: int) -> None:
        """What was written before arrives, then BrokenError, and again."""
        script = f"""
def work(end):
    for n in range(3):
        end.write(Message(n))
    data = b"".join(b"".join(part) for part in framing.split(framing.encode([bytes({size})], codec.RAW)))
    os.set_blocking(end._writer, True)
    os.write(end._writer, data[:50_000][:-7])
    os.kill(os.getpid(), signal.SIGKILL)

child, end = of_two_processes(kind, work)
os.waitpid(child, 0)
say(read=[end.read(5).contents for _ in range(3)], then=[raised(end.read, 5) for _ in range(3)])
end.close()
"""
        assert run(script, kind) == {"read": [0, 1, 2], "then": ["BrokenError"] * 3}

    @both_streams
    def test_killed_between_two_frames(self, kind: str) -> None:
        """The end is in good order; also when it leaves something unread."""
        script = """
def work(end):
    end.write(Message("last"))
    os.kill(os.getpid(), signal.SIGKILL)

child, end = of_two_processes(kind, work)
raised(end.write, Message("never read"))
os.waitpid(child, 0)
say(read=end.read(5).contents, then=[raised(end.read, 5) for _ in range(2)], write=raised(end.write, Message()))
end.close()
"""
        assert run(script, kind) == {"read": "last", "then": ["EndOfMessages"] * 2, "write": "BrokenError"}

    @both_streams
    def test_whatever_write_has_returned_for_is_delivered(self, kind: str) -> None:
        """SIGKILL at any moment: the reader gets each message whose write had returned, and at most one more."""
        script = """
import mmap
chance = random.Random(5)
for round in range(15):
    count = mmap.mmap(-1, 8)
    def work(end):
        sizes = random.Random(round)
        for n in range(1, 10**6):
            end.write(Message([n, bytes(int(sizes.expovariate(1 / 30_000)))]))
            count[:] = n.to_bytes(8, "little")
    child, end = of_two_processes(kind, work)
    read = []
    for _ in range(chance.randrange(200)):
        read.append(end.read(5).contents[0])
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    written = int.from_bytes(count, "little")
    try:
        while True:
            read.append(end.read(5).contents[0])
    except (EndOfMessages, BrokenError):
        pass
    assert read == list(range(1, len(read) + 1)), read
    assert written <= len(read) <= written + 1, (written, len(read))
    end.close()
    count.close()
say(done=True)
"""
        assert run(script, kind) == {"done": True}


class TestForks:
    """Clause 8."""

    @all_kinds
    def test_in_a_fork_everything_but_close_raises(self, kind: str) -> None:
        """The child is told so, and whatever it does leaves the channel of its parent alone."""
        script = """
one, other = pair(kind)
one.write(Message("before"))
report = os.pipe()
child = os.fork()
if child == 0:
    facts = [raised(one.write, Message("child")), raised(other.read, 1), raised(one.read, 0), raised(one.fileno)]
    facts += [raised(end.close) for end in (one, other, one)]
    facts += [raised(one.write, Message("child"))]
    os.write(report[1], json.dumps(facts).encode())
    os._exit(0)
os.waitpid(child, 0)
facts = json.loads(os.read(report[0], 1000))
one.write(Message("after"))
big = threading.Thread(target=other.write, args=(Message(bytes(5_000_000)),))
big.start()
read = [other.read(5).contents for _ in range(2)]
import select
waiting = select.poll()
waiting.register(other.fileno(), 1)
say(child=facts, read=read, more=len(one.read(5).contents), readable=len(waiting.poll(0)))
big.join()
one.close()
say(child=facts, read=read, readable=len(waiting.poll(0)), end=raised(other.read, 5))
other.close()
"""
        facts = run(script, kind)
        assert facts["child"] == ["ForkedError"] * 4 + [None] * 3 + ["ClosedError"]
        assert facts["read"] == ["before", "after"]
        assert facts["readable"] == 1
        assert facts["end"] == "EndOfMessages"

    @all_kinds
    def test_a_fork_while_other_threads_hold_the_locks(self, kind: str) -> None:
        """The child has locks of threads that do not exist there: it must neither wait for them nor hang in close."""
        script = """
one, other = pair(kind)
stop = False
def write():
    while not stop:
        one.write(Message(bytes(3_000_000)), 20)
def read():
    while other.read(20).contents != "last":
        pass
threads = [threading.Thread(target=target) for target in (write, read, write)]
for thread in threads:
    thread.start()
ends = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # a hang ends it
        names = [raised(one.write, Message()), raised(other.read), raised(one.close), raised(other.close)]
        os._exit(0 if names == ["ForkedError", "ForkedError", None, None] else 1)
    ends.append(os.waitpid(child, 0)[1])
stop = True
threads[0].join()
threads[2].join()
one.write(Message("last"), 20)
threads[1].join()
one.close()
other.close()
say(ends=ends)
"""
        assert run(script, kind)["ends"] == [0] * 20


class TestSignalHandlers:
    """Handlers that come in the middle of a call."""

    @both_streams
    def test_a_handler_that_writes_itself(self, kind: str) -> None:
        """It raises BusyError at once, nothing of it is sent, and the interrupted write goes on."""
        script = """
one, other = pair(kind)
handled = []
def handler(number, frame):
    handled.append([raised(one.write, Message(bytes(n))) for n in (10, 5_000_000)])
    reader.start()
signal.signal(signal.SIGALRM, handler)
read = []
def drain():
    for _ in range(2):
        read.append(len(other.read(20).contents))
reader = threading.Thread(target=drain)
signal.setitimer(signal.ITIMER_REAL, 0.05)
one.write(Message(bytes(20_000_000)))  # nobody reads before the handler has run
one.write(Message(b"after"))
reader.join()
say(handled=handled, read=read)
one.close()
other.close()
"""
        assert run(script, kind) == {"handled": [["BusyError"] * 2], "read": [20_000_000, 5]}

    @both_streams
    def test_a_handler_that_reads_itself(self, kind: str) -> None:
        """The same for reading; writing from there is another direction, and works."""
        script = """
one, other = pair(kind)
handled = []
def handler(number, frame):
    handled.append([raised(one.read, 0), raised(one.write, Message("from the handler"))])
    other.write(Message("go on"))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
say(read=one.read(20).contents, handled=handled, other=other.read(20).contents)
one.close()
other.close()
"""
        facts = run(script, kind)
        assert facts == {"read": "go on", "handled": [["BusyError", None]], "other": "from the handler"}

    @both_streams
    @pytest.mark.parametrize("call", ["one.read()", "one.write(Message(bytes(20_000_000)))"])
    def test_a_handler_that_closes(self, kind: str, call: str) -> None:
        """The call that it interrupted raises ClosedError, and the descriptors are given back on its way out."""
        script = f"""
before = len(os.listdir("/proc/self/fd"))
one, other = pair(kind)
signal.signal(signal.SIGALRM, lambda *_: one.close())
signal.setitimer(signal.ITIMER_REAL, 0.05)
name = raised(lambda: {call})
other.close()
say(raised=name, left=len(os.listdir("/proc/self/fd")) - before)
"""
        assert run(script, kind) == {"raised": "ClosedError", "left": 0}

    @both_streams
    @pytest.mark.parametrize("error", ["KeyboardInterrupt", "TimeoutError"])
    def test_a_handler_that_raises_at_any_moment_of_a_write(self, kind: str, error: str) -> None:
        """It comes out; that message arrives once or not at all, all others once, and no lock stays taken."""
        script = f"""
one, other = pair(kind)
class Interrupt({error}):
    pass
armed = False
def handler(number, frame):
    global armed
    if armed:
        armed = False
        raise Interrupt
signal.signal(signal.SIGALRM, handler)
read = []
def drain():
    while True:
        n, data = other.read(20).contents
        if n < 0:
            return
        assert data == bytes([n % 256]) * len(data), "mixed up"
        read.append(n)
reader = threading.Thread(target=drain)
reader.start()
chance = random.Random(1)
returned, interrupted = set(), set()
for n in range(4000):
    size = chance.choice([10, 10, 5000, 100_000, 2_500_000 if n % 10 == 0 else 10])
    message = Message.encoded(*codec.encode((n, bytes([n % 256]) * size)))
    armed = True
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 4e-5 if size < 10_000 else 1e-3))
        one.write(message, 20)
        returned.add(n)
        armed = False
    except Interrupt:
        interrupted.add(n)
def last():
    one.write(Message((-1, b"")), 20)
another = threading.Thread(target=last)  # for which a lock that this thread has left would be taken
another.start()
another.join()
reader.join()
say(
    in_order=read == sorted(set(read)),
    missing=sorted(returned - interrupted - set(read)),
    interrupted=len(interrupted),
    begun=len(interrupted & set(read)),
)
one.close()
say_end = raised(other.read, 5)
assert say_end == "EndOfMessages", say_end
other.close()
"""
        facts = run(script, kind)
        assert facts["in_order"]
        assert facts["missing"] == []
        assert facts["interrupted"] > 100  # type: ignore[operator]
        assert facts["begun"] < facts["interrupted"]  # type: ignore[operator]

    @both_streams
    @pytest.mark.parametrize("error", ["KeyboardInterrupt", "TimeoutError"])
    def test_a_handler_that_raises_at_any_moment_of_a_read(self, kind: str, error: str) -> None:
        """It may cost a message, or the channel, but what is read is right and in order, and no lock stays taken."""
        script = f"""
import mmap  # which a large message needs: an import itself does not bear exceptions at any moment
class Interrupt({error}):
    pass
armed = False
def handler(number, frame):
    global armed
    if armed:
        armed = False
        raise Interrupt
signal.signal(signal.SIGALRM, handler)
def work(end):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    sizes = random.Random(2)
    for n in range(10**6):
        end.write(Message((n, bytes([n % 256]) * sizes.choice([10, 10, 5000, 100_000, 2_500_000]))), 20)
chance = random.Random(3)
ends, interrupted, good, errors = [], 0, 0, set()
for _ in range(40):
    child, end = of_two_processes(kind, work)
    read = []
    error = None
    while error is None and len(read) < 300:
        message = None
        armed = True
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 2e-3))
            try:
                message = end.read(20)
            except BrokenError as broken:
                error = str(broken)
            armed = False
        except Interrupt:
            interrupted += 1
        if message is None:
            continue
        n, data = message.contents
        assert data == bytes([n % 256]) * len(data), "mixed up"
        read.append(n)
    signal.setitimer(signal.ITIMER_REAL, 0)
    errors.add(error)
    good += len(read)
    assert read == sorted(set(read)), read
    closing = threading.Thread(target=end.close)
    closing.start()
    closing.join(20)
    ends.append(closing.is_alive())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
say(hung=any(ends), interrupted=interrupted, good=good, errors=list(errors - {{None}}))
"""
        facts = run(script, kind)
        assert facts["hung"] is False
        assert facts["errors"] in (
            [],
            ["an exception, probably of a signal handler, interrupted the reading of a message"],
        )
        assert facts["interrupted"] > 20  # type: ignore[operator]
        assert facts["good"] > 100  # type: ignore[operator]

    @pytest.mark.parametrize("blocks", [10, pytest.param(53, marks=pytest.mark.soak)])
    @both_streams
    def test_a_storm_of_signals(self, kind: str, blocks: int, record_property: Callable[[str, object], None]) -> None:
        """F21: a thousand signals a second on both sides, while 200 MB pass, or 1 GiB: intact."""
        script = f"""
import hashlib
def storm():
    counted = []
    signal.signal(signal.SIGALRM, lambda *_: counted.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    return counted
def work(end):
    storm()
    block = bytes(range(256)) * 80_000
    for n in range({blocks}):
        end.write(Message([n, block]))
        end.write(Message(n))
    signal.setitimer(signal.ITIMER_REAL, 0)
child, end = of_two_processes(kind, work)
counted = storm()
block = bytes(range(256)) * 80_000
good = True
for n in range({blocks}):
    good = good and end.read(20).contents == [n, block] and end.read(20).contents == n
signal.setitimer(signal.ITIMER_REAL, 0)
status = os.waitpid(child, 0)[1]
say(good=good, status=status, signals=len(counted), end=raised(end.read, 5))
end.close()
"""
        facts = run(script, kind)
        assert (facts["good"], facts["status"], facts["end"]) == (True, 0, "EndOfMessages")
        assert facts["signals"] > 20  # type: ignore[operator]
        record_property("runs", facts["signals"])


class TestMemory:
    """What a large array costs."""

    @both_streams
    def test_an_array_of_256_mib_between_two_processes(self, kind: str) -> None:
        """Neither side ever holds more than 1.1 times the array and 64 MiB, and it arrives equal and writable."""
        script = """
import numpy as np
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))
def work(end):
    array = np.arange(32 << 20, dtype=np.float64)
    end.write(Message(array))
    end.write(Message(peak()))
child, end = of_two_processes(kind, work)
array = end.read(30).contents
writer = end.read(30).contents
step = 1 << 20
equal = all((array[n : n + step] == np.arange(n, n + step)).all() for n in range(0, 32 << 20, step))
array[:] = 0
say(equal=equal, size=array.nbytes >> 20, peaks=[writer, peak()], status=os.waitpid(child, 0)[1])
end.close()
"""
        facts = run(script, kind)
        assert (facts["equal"], facts["size"], facts["status"]) == (True, 256, 0)
        assert max(facts["peaks"]) <= 1.1 * 256 + 64  # type: ignore[call-overload]
