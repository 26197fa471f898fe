"""Several communicators as one: order, the ledger, routes, and what happens when one of them fails."""

from __future__ import annotations

import dis
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import codec, failover, framing, kept, ledger, link, vocabulary
from tasklink.communicator import Capabilities
from tasklink.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    DecodeError,
    EncodeError,
    EndOfMessages,
    ForkedError,
    MessageTooLargeError,
    ProtocolError,
)
from tasklink.link import Link
from tasklink.memory import MemoryCommunicator
from tasklink.message import Message
from tasklink.stream import StreamCommunicator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tasklink.communicator import Address, Communicator, Listener
    from tasklink.errors import CommunicatorError

NAMES = "abcd"
# One signal of each kind, so that routes can send each its own way.
SIGNALS = (None, "step", vocabulary.LOG, vocabulary.PROGRESS, vocabulary.RESULT, vocabulary.STARTED)


class Broad(MemoryCommunicator):
    """Takes large messages without a copy, as far as a Link can tell."""

    capabilities: ClassVar[Capabilities] = Capabilities(zero_copy=True)


class Narrow(MemoryCommunicator):
    """Takes small messages only."""

    capabilities: ClassVar[Capabilities] = Capabilities(max_message=1000)


class Slow(MemoryCommunicator):
    """What was written may come at any later time, as far as a Link can tell."""

    capabilities: ClassVar[Capabilities] = Capabilities(delivery="flush")


class Stream(StreamCommunicator):
    """Frames over any descriptor."""

    capabilities: ClassVar[Capabilities] = Capabilities()

    @classmethod
    def listen(cls, settings: object) -> Listener:
        """Not needed here."""
        raise NotImplementedError

    @classmethod
    def connect(cls, address: Address) -> Communicator:
        """Not needed here."""
        raise NotImplementedError


class InParts(MemoryCommunicator):
    """One whose messages are large: there is something to read several times before there is a message."""

    parts = 20

    def receive(self, timeout: float | None) -> Message:
        """See `FramedCommunicator.receive`."""
        self.parts -= 1
        if self.parts >= 0:
            raise TimeoutError
        return super().receive(timeout)


class Flaky(MemoryCommunicator):
    """Does something else, once for each that stands in `faults`, in place of sending."""

    faults: ClassVar[list[Callable[[], object]]] = []

    def send(self, buffers: list[Any], timeout: float | None) -> None:
        """Send, or not."""
        if self.faults:
            self.faults.pop(0)()
        super().send(buffers, timeout)


class Cable(MemoryCommunicator):
    """Can be cut, so that what is under way is lost, and one end finds out, or the other, or both."""

    dead: tuple[CommunicatorError | EndOfMessages | None, CommunicatorError | None] | None = None
    left = 0
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def send(self, buffers: list[Any], timeout: float | None) -> None:
        """Send; into the void if it is cut and this end does not know. Meanwhile, other threads do something."""
        self.meanwhile()
        if self.dead is None:
            super().send(buffers, timeout)
        elif self.dead[1] is not None:
            raise self.dead[1]

    def receive(self, timeout: float | None) -> Message:
        """Receive what had come before it was cut."""
        if self.dead is not None and self.left == 0:
            if self.dead[0] is not None:
                raise self.dead[0]
            self._incoming.bell.clear()
            raise TimeoutError
        message = super().receive(timeout)
        self.left -= 1
        return message

    def cut(
        self, left: int, reading: CommunicatorError | EndOfMessages | None, writing: CommunicatorError | None
    ) -> None:
        """From now on this end reads so many more messages, then raises; and raises when it writes."""
        self.left = min(left, len(self._incoming._frames))
        self.dead = reading, writing
        self._incoming.bell.ring()


class Struck(BaseException):
    """What a signal handler raises here."""


@contextmanager
def raising_after(count: int) -> Iterator[None]:
    """Raise where the interpreter runs signal handlers, after so many such places in the modules that number messages.

    It runs them where a function begins, after a call, and when a loop goes on.
    """
    files = {module.__file__ for module in (link, ledger, failover, kept)}
    places = 0
    called: dict[int, bool] = {}  # by frame: the instruction before was such a one

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal places
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if called.get(id(frame), True):
                places += 1
                if places > count:
                    raise Struck
            operation = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            called[id(frame)] = operation.startswith(("CALL", "JUMP_BACKWARD", "RESUME"))
        elif event == "return":
            called.pop(id(frame), None)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def fail(error: BaseException) -> Callable[[], object]:
    """Make a fault that raises."""

    def fault() -> object:
        raise error

    return fault


def numbered(
    number: int, after: int | None = None, signal: str | None = None, rank: int = 0, contents: object = None
) -> Message:
    """A message as it is on its way; its contents are its number, if nothing else is given."""
    message = Message.encoded(*codec.encode(number if contents is None else contents), signal)
    message.sequence, message.after, message.rank = number, number - 1 if after is None else after, rank
    return message


def everything(communicator: MemoryCommunicator) -> list[Message]:
    """What a single communicator has brought."""
    messages = []
    try:
        while True:
            messages.append(communicator.read(timeout=0))
    except TimeoutError:
        return messages


def all_of(reader: Link) -> list[Message]:
    """What can be read now."""
    messages = []
    try:
        while True:
            messages.append(reader.read(timeout=0))
    except (TimeoutError, EndOfMessages):
        return messages


def contents_of(reader: Link) -> list[object]:
    """The contents of what can be read now."""
    return [message.contents for message in all_of(reader)]


@contextmanager
def opened(*kinds: type[MemoryCommunicator], **options: Any) -> Iterator[tuple[Link, Link]]:
    """Two Links that talk with each other over a pair of each of these."""
    pairs = [kind.pair() for kind in kinds]
    writer = Link([*zip(NAMES, [pair[0] for pair in pairs], strict=False)], **options)
    reader = Link([*zip(NAMES, [pair[1] for pair in pairs], strict=False)])
    try:
        yield writer, reader
    finally:
        writer.close()
        reader.close()


@contextmanager
def receiving(
    count: int, kind: type[MemoryCommunicator] = MemoryCommunicator, **options: Any
) -> Iterator[tuple[list[MemoryCommunicator], Link]]:
    """A Link that reads, and the far ends of its members."""
    pairs = [kind.pair() for _ in range(count)]
    reader = Link([*zip(NAMES, [pair[1] for pair in pairs], strict=False)], **options)
    try:
        yield [pair[0] for pair in pairs], reader
    finally:
        for far, _ in pairs:
            far.close()
        reader.close()


@contextmanager
def streams(*names: str, **options: Any) -> Iterator[tuple[list[socket.socket], Link]]:
    """A Link over sockets, and the bare sockets of its peer."""
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in names]
        for theirs, _ in pairs:
            stack.enter_context(theirs)
        descriptors = [ours.detach() for _, ours in pairs]
        members = [Stream(descriptor, descriptor) for descriptor in descriptors]
        reader = Link([*zip(names, members, strict=True)], **options)
        stack.callback(reader.close)
        yield [theirs for theirs, _ in pairs], reader


def bytes_of(message: Message) -> bytes:
    """A numbered message as it stands on the wire."""
    number, buffers = message.encode()
    return b"".join(framing.encode(buffers, number, message.signal, message.sequence, message.after, rank=message.rank))


def readable(source: Link) -> bool:
    """Whether the descriptor says that there is work."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(0))


class Network:
    """Messages that one thread has written to a Link over several members, on their way to a Link that reads.

    Each member keeps its order, as every transport does; between members anything may happen.
    """

    def __init__(self, kinds: list[int], routes: list[int], count: int) -> None:
        pairs = [MemoryCommunicator.pair() for _ in range(count)]
        names = dict(zip(vocabulary.KINDS, (NAMES[route % count] for route in routes), strict=True))
        writer = Link([*zip(NAMES, [pair[0] for pair in pairs], strict=False)], routes=names)
        for number, kind in enumerate(kinds, 1):
            writer.write(Message(number, SIGNALS[kind]))
        writer.finish()
        self.last = len(kinds) + 1
        # What one member brings, in order.
        self.ways = [everything(far) for _, far in pairs]
        writer.close()
        for _, far in pairs:
            far.close()


networks = st.integers(1, 4).flatmap(
    lambda count: st.builds(
        Network,
        st.lists(st.integers(0, len(SIGNALS) - 1), max_size=20),
        st.lists(st.integers(0, count - 1), min_size=len(vocabulary.KINDS), max_size=len(vocabulary.KINDS)),
        st.just(count),
    )
)


class TestOrder:
    """Whatever the ways do, the reader gives the messages in the order in which they were written."""

    @given(networks, st.data())
    def test_any_interleaving_with_duplicates(self, network: Network, data: st.DataObject) -> None:
        """Each message is given once, in order, as soon as all before it have come, and nothing is missing."""
        with receiving(len(network.ways)) as (far, reader):
            waiting = [list(way) for way in network.ways]
            arrived: set[int] = set()
            given: list[int] = []
            while any(waiting):
                way = data.draw(st.sampled_from([index for index, way in enumerate(waiting) if way]))
                message = waiting[way].pop(0)
                arrived.add(message.sequence)
                for copy_to in (way, *data.draw(st.lists(st.integers(0, len(far) - 1), max_size=2))):
                    far[copy_to].write(message)
                given += [message.sequence for message in all_of(reader)]
                complete = next(number for number in range(1, network.last + 2) if number not in arrived) - 1
                assert given == list(range(1, min(complete, network.last - 1) + 1))
            assert reader.missing == []

    @given(networks, st.data())
    def test_losses_are_named(self, network: Network, data: st.DataObject) -> None:
        """What is lost is missing, exactly; what came is given once and in order."""
        numbers = range(1, network.last)
        lost = data.draw(st.sets(st.sampled_from(numbers))) if numbers else set()
        with receiving(len(network.ways), Slow) as (far, reader):
            waiting = [[message for message in way if message.sequence not in lost] for way in network.ways]
            given: list[int] = []
            open_ways = set(range(len(far)))
            while open_ways:
                way = data.draw(st.sampled_from(sorted(open_ways)))
                if waiting[way]:
                    far[way].write(waiting[way].pop(0))
                else:
                    far[way].close()
                    open_ways.discard(way)
                given += [message.sequence for message in all_of(reader)]
            assert given == [number for number in numbers if number not in lost]
            assert [number for gap in reader.missing for number in gap] == sorted(lost)
            assert all(gap.stop not in lost for gap in reader.missing)

    @given(networks, st.data())
    def test_losses_hold_up_nothing(self, network: Network, data: st.DataObject) -> None:
        """Where writing is arriving, what waits for something that a member took along is given when all is read."""
        message_of = {
            message.sequence: (way, message) for way, messages in enumerate(network.ways) for message in messages
        }
        with receiving(len(network.ways)) as (far, reader):
            expected: list[int] = []
            given: list[int] = []
            open_ways = list(range(len(far)))
            for number in range(1, network.last):
                way, message = message_of[number]
                if len(open_ways) > 1 and data.draw(st.integers(0, 3)) == 0:
                    far[open_ways.pop(data.draw(st.integers(0, len(open_ways) - 1)))].close()
                if way in open_ways:
                    expected.append(number)
                    far[way].write(message)
                if data.draw(st.booleans()):
                    given += [message.sequence for message in all_of(reader)]
                    if len(open_ways) < len(far):
                        assert given == expected
            given += [message.sequence for message in all_of(reader)]
            if len(open_ways) < len(far):
                assert given == expected
            for way in open_ways:
                far[way].close()
            given += [message.sequence for message in all_of(reader)]
            assert given == expected

    def test_contents_and_signals_arrive(self) -> None:
        """What is delivered is what was written, with the name of the member that brought it."""
        with opened(MemoryCommunicator, MemoryCommunicator, routes={"signal": "b"}) as (writer, reader):
            writer.write(Message({"peak": 4.5}))
            writer.write(Message([1, 2], "milestone"))
            first, second = all_of(reader)
        assert (first.contents, first.signal, first.communicator) == ({"peak": 4.5}, None, "a")
        assert (second.contents, second.signal, second.communicator) == ([1, 2], "milestone", "b")
        assert [member.messages for member in reader.members] == [1, 1]

    def test_a_message_says_what_it_waits_for(self) -> None:
        """It is given as soon as that has come, whatever else is missing before it."""
        with receiving(2) as (far, reader):
            far[0].write(numbered(3, after=1))
            assert contents_of(reader) == []
            far[1].write(numbered(1))
            assert contents_of(reader) == [1, 3]
            assert reader.missing == [range(2, 3)]

    def test_an_urgent_message_waits_for_nothing(self) -> None:
        """A cancel is given although what was written before it has not come."""
        with receiving(2) as (far, reader):
            far[1].write(numbered(3))
            far[1].write(numbered(4, after=0, signal=vocabulary.CANCEL))
            assert [message.signal for message in all_of(reader)] == [vocabulary.CANCEL]
            far[0].write(numbered(1))
            far[0].write(numbered(2))
            assert contents_of(reader) == [1, 2, 3]

    @pytest.mark.parametrize("signal", sorted(vocabulary.URGENT))
    def test_urgent_signals_say_so(self, signal: str) -> None:
        """Whoever writes an urgent message lets it wait for nothing."""
        near, far = MemoryCommunicator.pair()
        with near, far:
            writer = Link([("a", near)])
            writer.write(Message("before"))
            writer.write(vocabulary.record(signal))
            assert [far.read(0).after, far.read(0).after] == [0, 0]
            writer.write(Message("after"))
            assert far.read(0).after == 2

    def test_messages_of_the_same_time_do_not_wait_for_each_other(self) -> None:
        """While one is being written, another one says nothing of it: it may overtake."""
        with opened(Flaky, MemoryCommunicator, routes={"signal": "b"}) as (writer, reader):
            Flaky.faults[:] = [lambda: writer.write(Message("beside", "small"))]
            writer.write(Message("large"))
            beside, large = (far.communicator.read(0) for far in (reader.members[1], reader.members[0]))
        assert (beside.sequence, beside.after) == (2, 0)
        assert (large.sequence, large.after) == (1, 0)

    def test_messages_behind_one_that_is_still_being_written(self) -> None:
        """They keep their order among each other, whichever ways they take."""
        routes = {"signal": "b", "log": "c"}
        with opened(Flaky, *[MemoryCommunicator] * 3, routes=routes) as (writer, reader):

            def meanwhile() -> None:
                for number, signal in enumerate(("step", "step", vocabulary.LOG, "step")):
                    writer.write(Message(number, signal))

            Flaky.faults[:] = [meanwhile]
            writer.write(Message("large"))
            ways = [everything(member.communicator) for member in reader.members]  # type: ignore[arg-type]
        with receiving(3) as (far, reader):
            for message in ways[1]:
                far[1].write(message)
            assert contents_of(reader) == [0, 1]  # they wait neither for each other nor for the large one
            far[0].write(ways[0][0])
            assert contents_of(reader) == ["large"]
            far[2].write(ways[2][0])
            assert contents_of(reader) == [2, 3]

    def test_threads(self) -> None:
        """Eight threads write over three members at once: all arrives once, each thread's in its order."""
        with opened(*[MemoryCommunicator] * 3, routes={"signal": "b", "log": "c"}) as (writer, reader):

            def write(name: int) -> None:
                for number in range(100):
                    writer.write(Message((name, number), (None, "step", vocabulary.LOG)[number % 3]))

            threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
            for thread in threads:
                thread.start()
            arrived: list[Any] = [reader.read(timeout=10).contents for _ in range(800)]
            for thread in threads:
                thread.join()
            assert reader.missing == []
        for name in range(8):
            assert [number for who, number in arrived if who == name] == list(range(100))

    def test_ranks_are_numbered_apart(self) -> None:
        """Each rank has its own numbers, and what one lacks does not hold up another."""
        with opened(MemoryCommunicator, rank=3) as (writer, reader):
            writer.write(Message(1))
            assert reader.read(timeout=0).rank == 3
        with receiving(2) as (far, reader):
            far[0].write(numbered(2, rank=0))
            far[1].write(numbered(1, rank=1))
            far[1].write(numbered(3, rank=1))
            assert [(message.rank, message.contents) for message in all_of(reader)] == [(1, 1)]
            assert reader.missing == [range(1, 2), range(2, 3)]

    def test_unnumbered_messages_are_given_at_once(self) -> None:
        """Captured output has no numbers, and no part in the order."""
        read, write = os.pipe()
        os.write(write, b"printed")
        os.close(write)
        from tasklink.output import OutputCommunicator

        with receiving(1) as (far, reader):
            reader.add("output", OutputCommunicator({read: vocabulary.STDOUT}))
            far[0].write(numbered(2))
            assert [message.signal for message in all_of(reader)] == [vocabulary.STDOUT]


class TestTurns:
    """Whoever reads in a loop has other things to do."""

    @pytest.mark.parametrize("others", [0, 2])
    def test_a_large_message_does_not_keep_its_reader(self, others: int) -> None:
        """While a large message comes, `read(timeout=0)` returns between its parts, however many members there are."""
        with opened(InParts, *[MemoryCommunicator] * others) as (writer, reader):
            writer.write(Message("large"))
            for _ in range(InParts.parts):
                with pytest.raises(TimeoutError):
                    reader.read(timeout=0)
            assert reader.read(timeout=0).contents == "large"


class TestPeersThatCannotBeTrusted:
    """What the other side says is bounded, and never raises anything that is not named."""

    @pytest.mark.parametrize("after", [5, 6, 2**64 - 1])
    def test_after_in_the_future(self, after: int) -> None:
        """A message that waits for itself, or for a later one, breaks its communicator."""
        told: list[tuple[str, CommunicatorError]] = []
        with streams("unix", on_broken=lambda *what: told.append(what)) as ((theirs,), reader):
            theirs.sendall(bytes_of(numbered(1)) + bytes_of(numbered(5, after=after)))
            assert contents_of(reader) == [1]
            assert theirs.recv(1) == b""  # the peer is told that nobody listens any more
        ((name, error),) = told
        assert name == "unix"
        assert isinstance(error, ProtocolError)
        assert f"message 5 says that it comes after message {after}" in str(error)

    def test_numbers_that_jump(self) -> None:
        """Any number is taken for what it is; what is missing is a range, however long."""
        with receiving(1) as (far, reader):
            far[0].write(numbered(2**63, after=0))
            far[0].write(numbered(2**64 - 1, after=0))
            assert len(all_of(reader)) == 2
            assert reader.missing == [range(1, 2**63), range(2**63 + 1, 2**64 - 1)]

    def test_more_gaps_than_anybody_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sender that leaves out number after number is told off before they fill the memory."""
        monkeypatch.setattr(ledger, "MOST_GAPS", 3)
        told: list[object] = []
        with receiving(1, on_broken=lambda _, error: told.append(error)) as (far, reader):
            for number in (2, 4, 6, 8, 10):
                far[0].write(numbered(number, after=0))
            assert contents_of(reader) == [2, 4, 6]
        assert isinstance(told[0], ProtocolError)
        assert "message 8 came, and 3 of those before it are missing" in str(told[0])

    @pytest.mark.parametrize("over", ["a stream", "what cannot tell beforehand"])
    def test_larger_than_what_is_taken(self, over: str) -> None:
        """The limit passes; one byte more breaks the communicator, over a stream before it is there."""
        told: list[object] = []
        sizes = [1000, 1001]
        messages = [numbered(number, contents=bytes(size)) for number, size in enumerate(sizes, 1)]
        if over == "a stream":
            with streams("unix", largest=1000, on_broken=lambda _, error: told.append(error)) as ((theirs,), reader):
                theirs.sendall(bytes_of(messages[0]) + bytes_of(messages[1])[:-1])
                assert [len(contents) for contents in contents_of(reader)] == [1000]
        else:
            with receiving(1, largest=1000, on_broken=lambda _, error: told.append(error)) as (far, reader):
                for message in messages:
                    far[0].write(message)
                assert [len(contents) for contents in contents_of(reader)] == [1000]
        (error,) = told
        assert isinstance(error, ProtocolError)
        assert str(error) == "a message has 1001 bytes; the limit is 1000"

    def test_a_change_of_rank(self) -> None:
        """One communicator has one peer; a peer that speaks for others would cost a ledger for each."""
        told: list[object] = []
        with receiving(1, on_broken=lambda _, error: told.append(error)) as (far, reader):
            far[0].write(numbered(1, rank=3))
            far[0].write(numbered(1, rank=4))
            assert contents_of(reader) == [1]
        assert "rank 3 sent a message of rank 4" in str(told)

    def test_bytes_that_wait_are_bounded(self) -> None:
        """What waits for a missing message is given, in order, before it fills the memory."""
        with receiving(2) as (far, reader):
            large = bytes(ledger.HELD_BYTES // 4)
            for number in range(3, 9):
                far[0].write(numbered(number, contents=large))
                given = [message.sequence for message in all_of(reader)]
                assert given == ([3, 4, 5, 6, 7] if number == 7 else [])
            far[1].write(numbered(1))
            far[1].write(numbered(2))
            assert [message.sequence for message in all_of(reader)] == [1, 2, 8]
            for number in (10, 11, 12, 13):
                far[0].write(numbered(number, contents=large))
                assert all_of(reader) == []  # what has been given counts no more
            far[1].write(numbered(9))
            assert len(all_of(reader)) == 5
            assert reader.missing == []

    def test_messages_that_wait_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Small ones too: each costs memory beside its bytes."""
        monkeypatch.setattr(ledger, "HELD_MESSAGES", 10)
        with receiving(2) as (far, reader):
            for number in range(2, 30):
                far[0].write(numbered(number))
            assert contents_of(reader) == list(range(2, 24))
            assert reader.missing == [range(1, 2)]

    @pytest.mark.parametrize("number", sorted(codec.PICKLES))
    def test_pickles_where_only_data_is_allowed(self, number: int) -> None:
        """With codec json no pickle is decoded: its sender would have its code run here."""
        with receiving(1, encoding=codec.JSON) as (far, reader):
            for payload in ((number, [b"\x80\x05."]), codec.encode([1], codec.JSON), codec.encode(b"raw")):
                far[0].write(Message.encoded(*payload))
            pickled, data, raw = all_of(reader)
            with pytest.raises(DecodeError, match="data only") as caught:
                _ = pickled.contents
        assert caught.value.buffers == [b"\x80\x05."]
        assert (data.contents, raw.contents) == ([1], b"raw")

    def test_data_that_is_nested_deep(self) -> None:
        """It comes, cannot be read beyond the depth that was allowed, and can be passed on as it came."""
        with receiving(1, encoding=codec.JSON, deepest=2) as (far, reader):
            for contents in ([[1]], [[[1]]], b"[[[1]]]"):
                far[0].write(Message.encoded(*codec.encode(contents, codec.JSON)))
            allowed, deep, raw = all_of(reader)
            assert (allowed.contents, raw.contents) == ([[1]], b"[[[1]]]")
            with pytest.raises(DecodeError, match=r"nested 3 deep; the limit is 2, `limits\.depth` of the Task"):
                _ = deep.contents
            assert deep.encode() == (codec.JSON, [b"[[[1]]]"])

    @pytest.mark.parametrize("signal_", [None, "step"])
    def test_pickles_that_are_not_decoded_here_can_be_passed_on(self, signal_: str | None) -> None:
        """To somebody who may decode them: they go on as they came."""
        with (
            receiving(1, encoding=codec.JSON) as (far, reader),
            opened(MemoryCommunicator) as (writer, other),
        ):
            far[0].write(Message.encoded(*codec.encode([1]), signal_))
            writer.write(reader.read(timeout=5))
            arrived = other.read(timeout=5)
        assert (arrived.codec, arrived.signal) == (codec.PICKLE, signal_)
        assert arrived.contents == [1]

    def test_an_order_for_the_link_is_not_given(self) -> None:
        """VOID and END are the Links' own, numbered or not."""
        with receiving(1) as (far, reader):
            for number in (0, 1):
                for signal in sorted(vocabulary.UNHEARD):
                    far[0].write(numbered(number, 0, signal, contents=b""))
            assert all_of(reader) == []


class TestWritesThatFail:
    """A message that could not be written leaves no reader waiting for it."""

    @pytest.mark.parametrize("error", [TimeoutError("slow"), BusyError("busy"), KeyboardInterrupt()], ids=repr)
    def test_a_gap_is_filled(self, error: BaseException) -> None:
        """The next message tells the reader, so that it does not wait; nothing is missing."""
        with opened(Flaky, MemoryCommunicator) as (writer, reader):
            writer.write(Message("before"))
            Flaky.faults[:] = [fail(error)]
            with pytest.raises(type(error)):
                writer.write(Message("not sent"), timeout=1)
            writer.write(Message("after"))
            assert contents_of(reader) == ["before", "after"]
            assert reader.missing == []

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("contents", [b"struck", np.zeros(9)], ids=["immutable", "copied"])
    def test_a_handler_that_raises_anywhere(self, count: int, contents: object) -> None:
        """The message is given once or not at all, and is then not missing; the others are given in their order."""
        struck = 0
        with opened(*[MemoryCommunicator] * count) as (writer, reader):
            while True:
                writer.write(Message(struck))
                try:
                    with raising_after(struck):
                        writer.write(Message(contents))
                except Struck:
                    pass
                else:
                    break
                writer.write(Message("after"))
                came = contents_of(reader)
                contents_of(writer)  # what is acknowledged
                assert (came[0], came[-1], len(came) <= 3) == (struck, "after", True)
                assert all(np.array_equal(one, contents) for one in came[1:-1])  # type: ignore[call-overload]
                assert reader.missing == []
                struck += 1
        assert struck > 15

    def test_a_full_channel(self) -> None:
        """A write that was too slow is given up for good, and the channel goes on."""
        near, far = MemoryCommunicator.pair(capacity=200)
        writer, reader = Link([("a", near)]), Link([("a", far)])
        writer.write(Message(bytes(150)))
        with pytest.raises(TimeoutError):
            writer.write(Message("too late"), timeout=0.01)
        assert len(all_of(reader)) == 1
        writer.write(Message("in time"), timeout=0.01)
        assert contents_of(reader) == ["in time"]
        assert reader.missing == []
        writer.close()
        reader.close()

    def test_several_gaps_that_cannot_be_filled_at_first(self) -> None:
        """Two threads fail to write, and so does the first attempt to tell the reader; it is told of all in the end."""
        with opened(Flaky) as (writer, reader):
            both = threading.Barrier(2)

            def fault() -> object:
                both.wait(timeout=10)
                raise TimeoutError("slow")

            Flaky.faults[:] = [fault, fault]

            def write() -> None:
                with pytest.raises(TimeoutError):
                    writer.write(Message("not sent"))

            thread = threading.Thread(target=write)
            thread.start()
            write()
            thread.join()
            Flaky.faults[:] = [fail(TimeoutError("still slow"))]
            with pytest.raises(TimeoutError):
                writer.write(Message("not sent either"))
            writer.write(Message("sent"))
            message = reader.read(timeout=0)
            assert (message.contents, message.sequence, message.after) == ("sent", 3, 2)
            assert reader.missing == []

    def test_what_cannot_be_encoded(self) -> None:
        """It is refused before it has a number."""
        with opened(MemoryCommunicator) as (writer, reader):
            with pytest.raises(EncodeError, match="lock"):
                writer.write(Message(threading.Lock()))
            writer.write(Message("fine"))
            assert reader.read(timeout=0).sequence == 1

    def test_a_signal_that_no_frame_takes(self) -> None:
        """What only the wire refuses has a number by then, and its gap is filled."""
        with opened(MemoryCommunicator) as (writer, reader):
            with pytest.raises(ValueError, match="255"):
                writer.write(Message(1, "x" * 256))
            writer.write(Message(2))
            assert contents_of(reader) == [2]
            assert reader.missing == []

    def test_a_write_within_the_bookkeeping(self) -> None:
        """A signal handler that strikes there and writes is refused, where it would wait for itself for ever."""
        with opened(MemoryCommunicator) as (writer, reader), writer._numbers._lock:
            with pytest.raises(BusyError, match="signal handler"):
                writer.write(Message("from the handler"))
            assert all_of(reader) == []

    def test_the_time_is_for_all_of_it(self) -> None:
        """Whether gaps are to be filled first or not, `timeout` is how long a write takes at most."""
        waits: list[float | None] = []

        class Watched(MemoryCommunicator):
            def send(self, buffers: list[Any], timeout: float | None) -> None:
                waits.append(timeout)
                if len(waits) == 1:
                    raise TimeoutError
                super().send(buffers, timeout)

        with opened(Watched) as (writer, _):
            with pytest.raises(TimeoutError):
                writer.write(Message(1), timeout=50)
            writer.write(Message(2), timeout=50)
        assert len(waits) == 3
        assert all(wait is not None and wait <= 50 for wait in waits)
        assert waits[2] is not None
        assert waits[1] is not None
        assert waits[2] < waits[1]


class TestMembersThatBreak:
    """A communicator fails while its peer lives: the others go on."""

    def test_while_writing(self) -> None:
        """The next one takes the message, and all that follow; the failure is told once, when the peer has answered."""
        told: list[tuple[str, CommunicatorError]] = []
        with opened(*[MemoryCommunicator] * 3, on_broken=lambda *what: told.append(what)) as (writer, reader):
            writer.write(Message(1))
            assert contents_of(reader) == [1]
            reader.members[0].communicator.close()
            for number in (2, 3):
                writer.write(Message(number))
            assert [member.writable for member in writer.members] == [False, True, True]
            assert told == []
            second, third = all_of(reader)
            assert (second.contents, second.communicator, third.contents) == (2, "b", 3)
            assert reader.missing == []
            deadline = time.monotonic() + 10
            while not told and time.monotonic() < deadline:
                with pytest.raises(TimeoutError):
                    writer.read(timeout=0.1)
        ((name, error),) = told
        assert name == "a"
        assert isinstance(error, BrokenError)

    @pytest.mark.parametrize("count", [1, 3])
    def test_the_peer_has_gone(self, count: int) -> None:
        """That it can be written no more is not the fault of a communicator."""
        told: list[object] = []
        with opened(*[MemoryCommunicator] * count, on_broken=lambda *what: told.append(what)) as (writer, reader):
            writer.write(Message(1))
            reader.write(Message(2))
            reader.close()
            with pytest.raises(BrokenError, match="no communicator is left"):
                writer.write(Message("unheard"))
            assert contents_of(writer) == [2]
        assert told == []

    def test_the_last_one(self) -> None:
        """With nobody left, a write says who there was; and again."""
        with opened(MemoryCommunicator, MemoryCommunicator) as (writer, reader):
            reader.close()
            for _ in range(2):
                with pytest.raises(BrokenError, match=r"no communicator is left .* \(there were: a, b\)"):
                    writer.write(Message("unheard"))

    def test_no_member_at_all(self) -> None:
        """A Link of none writes nothing, and has nothing to read."""
        empty = Link([])
        with pytest.raises(BrokenError, match="there were: none"):
            empty.write(Message())
        with pytest.raises(EndOfMessages):
            empty.read(timeout=0)

    def test_while_reading(self) -> None:
        """Noise ends one communicator, is told with its name, and what the others bring is given."""
        told: list[tuple[str, CommunicatorError]] = []
        with streams("noisy", "sound", on_broken=lambda *what: told.append(what)) as ((noisy, sound), reader):
            noisy.sendall(bytes_of(numbered(1)) + b"GET / HTTP/1.1\r\n" * 4)
            sound.sendall(bytes_of(numbered(2)))
            assert contents_of(reader) == [1, 2]
            assert [member.writable for member in reader.members] == [False, True]
            reader.write(Message("over the other one"))
            assert sound.recv(100)
            sound.close()
            with pytest.raises(EndOfMessages):
                reader.read(timeout=1)
        assert [(name, type(error)) for name, error in told] == [("noisy", ProtocolError)]

    def test_a_torn_message(self) -> None:
        """A peer that dies within a message breaks its communicator; what came whole is given."""
        told: list[object] = []
        with streams("unix", on_broken=lambda _, error: told.append(error)) as ((theirs,), reader):
            theirs.sendall(bytes_of(numbered(1)) + bytes_of(numbered(2))[:-1])
            theirs.close()
            assert contents_of(reader) == [1]
            assert isinstance(told[0], BrokenError)
            assert reader.missing == []

    def test_both_ways(self) -> None:
        """One that fails to be written, and then to be read, is told of once."""
        told: list[object] = []
        with streams("unix", on_broken=lambda _, error: told.append(error)) as ((theirs,), reader):
            theirs.sendall(bytes_of(numbered(1))[:-1])
            theirs.close()
            with pytest.raises(BrokenError):
                reader.write(Message("unheard"))
            with pytest.raises(EndOfMessages):
                reader.read(timeout=10)
        assert len(told) == 1

    def test_what_the_others_have_still_to_say(self) -> None:
        """A member ends; what it brought waits for what can still be read from another one."""
        with receiving(2) as (far, reader):
            for number in range(1, 100):
                far[0].write(numbered(number))
            far[1].write(numbered(100))
            far[1].close()
            assert contents_of(reader) == list(range(1, 101))

    def test_what_the_others_have_said_already(self) -> None:
        """The same where another one's transport has read ahead, so that its descriptor shows nothing."""
        with streams("b", "a", "c") as ((theirs_b, theirs_a, theirs_c), reader):
            theirs_a.sendall(b"".join(bytes_of(numbered(number)) for number in range(1, 10)))
            theirs_b.sendall(bytes_of(numbered(10)))
            theirs_c.close()
            assert contents_of(reader) == list(range(1, 11))

    @pytest.mark.parametrize("kind", [MemoryCommunicator, Slow])
    def test_what_it_took_along(self, kind: type[MemoryCommunicator]) -> None:
        """It holds up nothing as soon as it cannot come any other way; where messages may be slow, until the end."""
        with receiving(3, kind) as (far, reader):
            far[1].write(numbered(2))
            assert contents_of(reader) == []
            far[0].close()
            early = [contents_of(reader)]
            far[2].close()
            far[1].write(numbered(4))
            early.append(contents_of(reader))
            far[1].close()
            late = contents_of(reader)
            assert (early, late) == (([[2], [4]], []) if kind is MemoryCommunicator else ([[], []], [2, 4]))
            assert reader.missing == [range(1, 2), range(3, 4)]

    def test_closed_by_somebody_else(self) -> None:
        """A member that was closed under the Link is a member that broke."""
        told: list[str] = []
        with receiving(2, on_broken=lambda name, _: told.append(name)) as (far, reader):
            assert not readable(reader)
            reader.members[0].communicator.close()
            far[1].write(numbered(1))
            assert contents_of(reader) == [1]
            reader.write(Message("still"))
            assert [m.contents for m in everything(far[1]) if m.signal not in vocabulary.UNHEARD] == ["still"]
        assert told == ["a"]


# What the ends of a cable find out when it is cut. At least one of them does.
DISCOVERIES = [
    (reading, writing) for reading in (None, "end", "break") for writing in (False, True) if reading or writing
]


def cut(cable: Cable, far: Cable, left: int, discovery: tuple[str | None, bool]) -> None:
    """Cut a cable: the far end reads so many more messages, and either finds out or not; so does the near end."""
    reading, writing = discovery
    errors = {None: None, "end": EndOfMessages(), "break": BrokenError("cut")}
    cable.cut(0, None, BrokenError("cut") if writing else None)
    far.cut(left, errors[reading], BrokenError("cut") if reading else None)


@contextmanager
def cables(
    count: int, later: list[Callable[[], object]] | None = None, **options: Any
) -> Iterator[tuple[Link, Link, list[tuple[Cable, Cable]]]]:
    """Two Links over cables that have met: each knows that the other one acknowledges. They use no other threads."""
    pairs = [Cable.pair() for _ in range(count)]
    writer = Link([*zip(NAMES, [pair[0] for pair in pairs], strict=False)], **options)
    reader = Link([*zip(NAMES, [pair[1] for pair in pairs], strict=False)])

    def start(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if later is None:
            function(*arguments)
        else:
            later.append(lambda: function(*arguments))

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(failover, "start_new_thread", start)
        stack.callback(reader.close)
        stack.callback(writer.close)
        writer.write(Message("hello"))
        assert contents_of(reader) == ["hello"]
        reader.write(Message("start"))
        assert contents_of(writer) == ["start"]
        assert contents_of(reader) == []
        assert writer._over.kept.answers == reader._over.kept.answers == 1
        yield writer, reader, pairs  # type: ignore[misc]


class Conversation:
    """Two Links that write to each other over cables which are cut, told by what hypothesis draws.

    While one of them is in a write, also in one that writes again what a cable took, the others go on: both read, and
    further cables are cut. What a Link would do in a thread of its own is done at any time later.
    """

    def __init__(self, count: int, data: st.DataObject) -> None:
        self.draw = data.draw
        self.count = count
        self.alive = list(range(count))
        self.written: tuple[list[int], list[int]] = ([], [])
        self.given: tuple[list[Any], list[Any]] = ([], [])
        self.later: list[Callable[[], object]] = []
        self.busy = False

    def hold(self) -> None:
        """Talk, break, and see that all that was written was given once and in order."""
        routes = {kind: NAMES[self.draw(st.integers(0, self.count - 1))] for kind in ("report", "signal", "control")}
        with cables(self.count, later=self.later, routes=routes) as (writer, reader, self.pairs):
            self.links = writer, reader
            for pair in self.pairs:
                pair[0].meanwhile = pair[1].meanwhile = self.meanwhile
            for over in (writer._over, reader._over):
                over._wait_for_answer = self.wait  # type: ignore[method-assign, assignment]
            for step in self.draw(st.lists(st.sampled_from([self.write, self.meanwhile, self.go_on]), max_size=30)):
                step()
            writer.finish()
            reader.finish()
            self.wait(lambda: False)
            for ours, theirs in zip(self.written, self.given, strict=True):
                assert [number for number, _ in theirs] == ours
            assert writer.missing == reader.missing == []
            broken = {member.name for member in reader.members if member.broken}
            assert broken <= {NAMES[one] for one in range(self.count) if one not in self.alive}

    def write(self) -> None:
        """Something of either side."""
        side = self.draw(st.integers(0, 1))
        numbers = self.written[side]
        if self.draw(st.integers(0, 5)) == 0:
            self.links[side].write(vocabulary.record(vocabulary.PAUSED))
            return
        numbers.append(len(numbers))
        padding = bytes(link.LARGE if self.draw(st.booleans()) else 0)
        self.links[side].write(Message((numbers[-1], padding), self.draw(st.sampled_from([None, "step"]))))

    def meanwhile(self) -> None:
        """What other threads do."""
        if self.busy:
            return
        self.busy = True
        what = self.draw(st.sampled_from(["nothing", "read", "hear", "cut"]))
        if what == "cut" and len(self.alive) > 1:
            one = self.alive.pop(self.draw(st.integers(0, len(self.alive) - 1)))
            cut(*self.pairs[one], self.draw(st.integers(0, 3)), self.draw(st.sampled_from(DISCOVERIES)))
        elif what in {"read", "hear"}:
            self.read(what == "read")
        self.busy = False

    def read(self, side: int) -> None:
        """All that can be given now to one side."""
        self.given[1 - side].extend(
            message.contents for message in all_of(self.links[side]) if message.signal != vocabulary.PAUSED
        )

    def go_on(self) -> None:
        """One of the threads that Links have started comes to its end."""
        if self.later:
            self.later.pop(self.draw(st.integers(0, len(self.later) - 1)))()

    def wait(self, done: Callable[[], bool], *_: object) -> bool:
        """One side waits; everything else goes on until nothing happens any more."""
        self.busy = True
        before = None
        while self.later or before != (before := self.so_far()):
            while self.later:
                self.later.pop(0)()
            self.read(0)
            self.read(1)
        self.busy = False
        return done()

    def so_far(self) -> list[int]:
        """What has been written, and what has come."""
        members = [member for side in self.links for member in side.members]
        return [side._numbers._last for side in self.links] + [member.messages for member in members]


class TestFailingOver:
    """A communicator breaks while both ends live: all that was written comes once and in order."""

    @given(st.integers(2, 4), st.data())
    def test_random_breaks(self, count: int, data: st.DataObject) -> None:
        """Whatever breaks, whenever, whoever finds out, as long as one is left; in both directions at once."""
        Conversation(count, data).hold()

    @pytest.mark.parametrize("discovery", DISCOVERIES)
    def test_what_is_told(self, discovery: tuple[str | None, bool]) -> None:
        """Both ends are told once which one broke; the reader how many messages came another way."""
        told: list[tuple[str, str]] = []
        with cables(2) as (writer, reader, pairs):
            writer._on_broken = lambda name, _: told.append(("writer", name))
            reader._on_broken = lambda name, _: told.append(("reader", name))
            for number in range(10):
                writer.write(Message(number))
            cut(*pairs[0], 4, discovery)
            if discovery[1]:
                writer.write(Message(10))
            early = contents_of(reader)
            contents_of(writer)
            assert early + contents_of(reader) == list(range(11 if discovery[1] else 10))
            assert sorted(told) == [("reader", "a"), ("writer", "a")]
            assert reader.members[0].resent >= 6
            assert reader.missing == []

    def test_nothing_is_concluded_from_silence(self) -> None:
        """What was lost with a member of which neither side knows is waited for, though all else has been seen to."""
        with cables(3, routes={"signal": "c"}) as (writer, reader, pairs):
            writer.write(Message("first", "step"))
            writer.write(Message("second"))
            cut(*pairs[2], 0, (None, True))
            cut(*pairs[0], 1, ("end", False))
            assert contents_of(reader) == []
            contents_of(writer)
            assert contents_of(reader) == []
            assert [member.left for member in reader.members] == [True, False, False]
            writer.finish()
            assert contents_of(reader) == ["first", "second"]
            assert reader.missing == []

    def test_what_cannot_be_written_again_holds_up_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its numbers are told and missing; what waits for it is given, and it itself if it comes all the same."""
        monkeypatch.setattr(kept, "KEPT_BYTES", 1000)
        monkeypatch.setattr(kept, "MESSAGE_BYTES", 256)
        monkeypatch.setattr(failover, "KEPT_BYTES", 1000)
        with cables(2) as (writer, reader, pairs):
            for number in range(10):
                writer.write(Message(number))
            lost = everything(pairs[0][1])[0]
            cut(*pairs[0], 0, ("end", False))
            contents_of(reader)
            contents_of(writer)
            assert contents_of(reader) == [7, 8, 9]
            (gap,) = reader.missing
            assert len(gap) == 7
            pairs[1][0].write(lost)
            assert contents_of(reader) == [0]
            assert reader.missing == [range(gap.start + 1, gap.stop)]

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_one_that_is_given_up_as_write_begins(self, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        """A message that another thread did not find among what is to be written again is written elsewhere at once."""
        with cables(2) as (writer, reader, pairs):
            writer.write(Message("early"))
            add = writer._over.kept.add

            def add_meanwhile(message: Message, way: Any) -> int:
                if way is not writer.members[0]:
                    return add(message, way)
                size = add(message, way) if when == "after" else 0
                cut(*pairs[0], 0, ("end", False))
                writer._over.give_up(writer.members[0], BrokenError("cut"))
                writer._over.go_over(None)
                return size or add(message, way)

            monkeypatch.setattr(writer._over.kept, "add", add_meanwhile)
            writer.write(Message("late"))
            assert contents_of(reader) == ["early", "late"]

    def test_nothing_is_given_before_its_turn(self) -> None:
        """What comes over the next one waits for what is still to be written again."""
        with cables(2) as (writer, reader, pairs):
            writer.write(Message(1))
            cut(*pairs[0], 0, ("end", False))
            writer._over.give_up(writer.members[0], BrokenError("cut"))
            writer._over.failing.clear()  # as if it were still at it
            writer.write(Message(2))
            assert contents_of(reader) == []
            writer._over.failing.add(writer.members[0])
            writer._over.go_over(None)
            assert contents_of(reader) == [1, 2]

    def test_what_went_the_same_way_keeps_its_order(self) -> None:
        """Messages that did not name each other, because one way keeps its order, do so when they go other ways."""
        with cables(2) as (writer, _, pairs):
            slow = Message()
            writer._numbers.draw(slow)  # it is still under way
            for text in ("first", "second"):
                writer.write(Message(text))
            kept_ = writer._over.kept.of(writer.members[0])[-2:]
            assert [message.after for message in kept_] == [slow.sequence - 1] * 2
            cut(*pairs[0], 0, ("end", False))
            writer._over.give_up(writer.members[0], BrokenError("cut"))
            writer._over.go_over(None)
            first, second = [message for message in everything(pairs[1][1]) if message.signal is None][-2:]
            assert (second.contents, second.after) == ("second", first.sequence)

    def test_one_that_breaks_as_write_returns(self) -> None:
        """A message that it took after all others had been written again is written again, too."""
        with cables(2) as (writer, reader, pairs):
            cable = pairs[0][0]

            def send(buffers: list[Any], timeout: float | None) -> None:
                cut(*pairs[0], 0, ("end", False))  # it takes the message, which is lost
                writer._over.give_up(writer.members[0], BrokenError("cut"))
                writer._over.go_over(None)

            cable.send = send  # type: ignore[method-assign]
            writer.write(Message("between"))
            assert contents_of(reader) == ["between"]

    def test_two_that_break_at_once(self) -> None:
        """Of one of them the reader does not know, so it asks for the rest over all that may work."""
        with cables(3) as (writer, reader, pairs):
            writer._routes = {"signal": "b"}
            writer.write(Message("lost twice", "step"))
            cut(*pairs[0], 0, (None, True))
            cut(*pairs[1], 0, ("end", False))
            given_: list[object] = []
            for _ in range(4):
                given_ += contents_of(reader)
                contents_of(writer)
            assert given_ == ["lost twice"]

    def test_a_link_of_one_keeps_nothing(self) -> None:
        """Nor does it acknowledge anything."""
        with opened(MemoryCommunicator) as (writer, reader):
            writer.write(Message(1))
            writer.finish()
            assert contents_of(reader) == [1]
            assert not writer._over.kept
            with pytest.raises(TimeoutError):
                writer.read(timeout=0)
            assert writer._over.kept.answers == 0

    def test_what_is_acknowledged_is_let_go(self) -> None:
        """Memory stays bounded, and so does what has to be written again."""
        with cables(2) as (writer, reader, _):
            for number in range(100):
                writer.write(Message(bytes(100_000) + bytes([number])))
                assert contents_of(reader)[0][-1] == number  # type: ignore[index]
                contents_of(writer)
                assert writer._over.kept.nbytes < 2 * kept.ACKNOWLEDGED_BYTES
            writer.finish()
            contents_of(reader)
            contents_of(writer)
            assert not writer._over.kept

    def test_a_large_message_waits_for_its_acknowledgement(self) -> None:
        """Its contents, which were not copied, may be changed when `write` returns: it can come whole no more then."""
        with cables(2) as (writer, reader, pairs):
            hearing = threading.Thread(target=lambda: all_that_comes(writer))
            hearing.start()
            data = np.full(kept.ACKNOWLEDGED_BYTES + 1, 7, "u1")
            writing = threading.Thread(target=lambda: writer.write(Message(data)))
            writing.start()
            while len(writer._over.kept._gates) == 0:
                pass
            cut(*pairs[0], 0, ("end", False))  # it had been written, and is lost with the first
            assert np.array_equal(reader.read(timeout=10).contents, data)  # type: ignore[arg-type]
            writing.join(timeout=10)
            assert not writing.is_alive()
            assert reader.missing == []
            assert not writer._over.kept
            writer.close()
            hearing.join(timeout=10)

    def test_what_the_caller_may_change_is_copied(self) -> None:
        """A small message that is written again has the contents that it had."""
        with cables(2) as (writer, reader, pairs):
            data = bytearray(b"before")
            writer.write(Message(data))
            data[:] = b"after!"
            cut(*pairs[0], 0, ("break", False))
            assert contents_of(reader) == []
            contents_of(writer)
            assert contents_of(reader) == [b"before"]

    def test_a_peer_that_never_acknowledges(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody waits for it; what is too much is let go, and named when it is lost."""
        monkeypatch.setattr(failover, "KEPT_BYTES", 1000)
        monkeypatch.setattr(kept, "KEPT_BYTES", 1000)
        monkeypatch.setattr(kept, "MESSAGE_BYTES", 256)
        pairs = [MemoryCommunicator.pair() for _ in range(2)]
        writer = Link([*zip(NAMES, [pair[0] for pair in pairs], strict=False)])
        for number in range(10):
            writer.write(Message(number))
        assert [number for number in range(1, 11) if number in writer._over.kept] == [8, 9, 10]
        everything(pairs[0][1])
        pairs[0][1].close()
        writer.write(Message(10))
        came = everything(pairs[1][1])
        assert [message.contents for message in came if message.signal is None] == [7, 8, 9, 10]
        writer.close()
        pairs[1][1].close()

    def test_garbage_from_the_peer(self) -> None:
        """What is no acknowledgement, or names what does not exist, changes nothing."""
        with cables(2) as (writer, reader, _):
            for texts in ([""], ["x"], ["1", "a-b"], ["1", "", "nobody"], ["9" * 5000], ["-5", "3-1 0-0"]):
                reader.write(vocabulary.record(vocabulary.ACKNOWLEDGED, *texts))
            for texts in ([""], ["nobody", "why", "1"]):
                reader.write(vocabulary.record(vocabulary.BROKEN, *texts))
            assert contents_of(writer) == []
            assert [member.writable for member in writer.members] == [True, True]
            assert [member.resent for member in writer.members] == [0, 0]
            writer.write(Message("still"))
            assert contents_of(reader) == ["still"]

    @pytest.mark.parametrize("answers", [True, False])
    def test_one_that_stalls(self, monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
        """It is left if the peer answers over another one; if not, the peer is slow, and is waited for."""
        monkeypatch.setattr(failover, "STALLED_AFTER", 0.05)
        monkeypatch.setattr(failover, "PATIENCE", 10.0 if answers else 0.05)
        with cables(3) as (writer, reader, pairs):
            cable, send = pairs[0][0], pairs[0][0].send
            attempts: list[float | None] = []

            def stuck(buffers: list[Any], timeout: float | None) -> None:
                attempts.append(timeout)
                if len(attempts) > 3 and not answers:
                    return send(buffers, timeout)
                raise TimeoutError

            monkeypatch.setattr(cable, "send", stuck)
            threads = [threading.Thread(target=lambda: all_that_comes(writer))]
            came: list[object] = []
            if answers:
                threads.append(threading.Thread(target=lambda: came.extend(all_that_comes(reader))))
            for thread in threads:
                thread.start()
            writer._over.reader = 0  # this thread has read, when they met, and reads no more
            writer.write(Message("at last"))
            if not answers:
                came.append(reader.read(timeout=10).contents)
            writer.finish()
            writer.close()
            reader.close()
            for thread in threads:
                thread.join(timeout=10)
            assert came == ["at last"]
            assert attempts[:4] == ([0.05] if answers else [0.05, 0.1, 0.2, 0.4])
            assert answers == (len(attempts) == 1)
            assert [member.broken for member in writer.members] == [answers, False, False]


def all_that_comes(reader: Link) -> list[object]:
    """Read until it is closed."""
    contents = []
    try:
        while True:
            contents.append(reader.read().contents)
    except (ClosedError, EndOfMessages):
        return contents


class TestRoutes:
    """Which communicator carries what."""

    @staticmethod
    def carrier(reader: Link) -> str:
        """Who brings the next message."""
        return reader.read(timeout=0).communicator

    def test_the_first_by_default(self) -> None:
        """The order of the config is the order of preference."""
        with opened(MemoryCommunicator, MemoryCommunicator, Broad) as (writer, reader):
            writer.write(Message("small"))
            assert self.carrier(reader) == "a"

    def test_large_messages_where_they_are_not_copied(self) -> None:
        """From LARGE on, a communicator that copies nothing is preferred."""
        with opened(MemoryCommunicator, Broad) as (writer, reader):
            for size, name in ((link.LARGE - 1, "a"), (link.LARGE, "b")):
                writer.write(Message(bytes(size)))
                assert self.carrier(reader) == name
            writer.write(Message(np.zeros(link.LARGE)))
            assert self.carrier(reader) == "b"

    @pytest.mark.parametrize(("kind", "signal"), list(zip(vocabulary.KINDS, SIGNALS, strict=True)))
    def test_routes_of_the_config(self, kind: str, signal: str | None) -> None:
        """A route sends its kind of message, and no other, over its communicator; large ones too."""
        with opened(MemoryCommunicator, MemoryCommunicator, Broad, routes={kind: "b"}) as (writer, reader):
            for other in SIGNALS:
                writer.write(Message(None, other))
                assert self.carrier(reader) == ("b" if other == signal else "a")
            writer.write(Message(bytes(link.LARGE), signal))
            assert self.carrier(reader) == "b"

    def test_a_route_to_a_member_that_is_not_there(self) -> None:
        """It is a preference: the message takes the next best way."""
        with opened(MemoryCommunicator, routes={"report": "gone"}) as (writer, reader):
            writer.write(Message(1))
            assert self.carrier(reader) == "a"

    def test_too_large_for_one(self) -> None:
        """What one cannot take goes over another, whatever the route says."""
        with opened(Narrow, MemoryCommunicator, routes={"report": "a"}) as (writer, reader):
            for size, name in ((1000, "a"), (1001, "b")):
                writer.write(Message(bytes(size)))
                assert self.carrier(reader) == name

    def test_too_large_for_all(self) -> None:
        """It is refused with its size and the limits, and leaves no gap."""
        with opened(Narrow, Narrow) as (writer, reader):
            with pytest.raises(MessageTooLargeError, match="1001 bytes: a takes 1000, b takes 1000"):
                writer.write(Message(bytes(1001)))
            writer.write(Message(b"fine"))
            assert reader.read(timeout=0).sequence == 1

    def test_a_member_that_carries_no_messages(self) -> None:
        """Captured output is read, never written to."""
        from tasklink.output import OutputCommunicator

        read, write = os.pipe()
        near, far = MemoryCommunicator.pair()
        with far:
            writer = Link([("output", OutputCommunicator({read: vocabulary.STDOUT})), ("a", near)])
            writer.write(Message(1))
            assert far.read(0).contents == 1
            os.close(write)
            writer.close()

    def test_only_what_the_peer_has(self) -> None:
        """A peer that could not connect everything is not written to where it does not listen."""
        with opened(MemoryCommunicator, MemoryCommunicator) as (writer, reader):
            writer.limit_writing(["b", "c"])
            writer.write(Message(1))
            assert self.carrier(reader) == "b"
            late, far = MemoryCommunicator.pair()
            other, other_far = MemoryCommunicator.pair()
            with far, other_far:
                writer.add("d", other)
                writer.add("c", late)
                reader.members[1].communicator.close()
                writer.write(Message(2))
                assert [m.contents for m in everything(far) if m.signal not in vocabulary.UNHEARD] == [2]
                with pytest.raises(TimeoutError):
                    other_far.read(0)


class TestReading:
    """`read`, `fileno`, late members, the end."""

    def test_timeouts(self) -> None:
        """A read that gets nothing says so, with one member and with several, whatever the time."""
        for count in (1, 2):
            with receiving(count) as (far, reader):
                for timeout in (0, 0.001):
                    with pytest.raises(TimeoutError):
                        reader.read(timeout)
                far[-1].write(numbered(1))
                assert reader.read(timeout=1e15).contents == 1

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_fileno(self, count: int) -> None:
        """It is readable if there is something to read, and not when it was read, nor for a member that has ended."""
        with receiving(count) as (far, reader):
            assert not readable(reader)
            for member in reversed(far):
                member.write(numbered(1, after=0))
                assert readable(reader)
                all_of(reader)
                assert not readable(reader)
            for member in far:
                member.close()
                assert readable(reader)
                all_of(reader)
                assert not readable(reader)
            with pytest.raises(EndOfMessages):
                reader.read(timeout=0)

    def test_a_descriptor_after_some_have_ended(self) -> None:
        """Asked for late, it does not speak for those that are gone."""
        with receiving(2) as (far, reader):
            far[0].close()
            all_of(reader)
            assert not readable(reader)
            far[1].write(numbered(1))
            assert readable(reader)

    def test_a_late_member(self) -> None:
        """It is read and waited for like the others, and restores the order with them."""
        with receiving(1) as (far, reader):
            assert not readable(reader)
            far[0].write(numbered(2))
            assert all_of(reader) == []
            late, theirs = MemoryCommunicator.pair()
            with theirs:
                reader.add("late", late)
                theirs.write(numbered(1))
                assert readable(reader)
                assert [message.communicator for message in all_of(reader)] == ["late", "a"]

    def test_a_late_member_beside_a_message_that_was_read_ahead(self) -> None:
        """What a transport has read already shows in no descriptor; it is given all the same."""
        with streams("unix") as ((theirs,), reader):
            theirs.sendall(b"".join(bytes_of(numbered(number)) for number in (1, 2, 3)))
            assert reader.read(timeout=0).contents == 1
            late, far = MemoryCommunicator.pair()
            with far:
                reader.add("late", late)
                assert contents_of(reader) == [2, 3]

    def test_a_flood_does_not_keep_others_waiting(self) -> None:
        """While one member has work all the time, another one's message is found."""
        with receiving(2) as (far, reader):
            for number in range(1, 1000):
                far[0].write(numbered(number))
            assert reader.read(timeout=0).contents == 1
            far[1].write(numbered(1000, after=0, signal="stop"))
            before = 0
            while reader.read(timeout=0).signal != "stop":
                before += 1
            assert before < 100

    def test_the_end(self) -> None:
        """The last message is not given; its number tells of what was lost at the end."""
        near, far = MemoryCommunicator.pair()
        writer = Link([("a", near)])
        with far:
            for number in (1, 2, 3):
                writer.write(Message(number))
            writer.finish()
            on_the_way = [far.read(0) for _ in range(4)]
        writer.close()
        with receiving(1) as (ends, reader):
            for message in (on_the_way[0], on_the_way[3]):
                ends[0].write(message)
            ends[0].close()
            assert contents_of(reader) == [1]
            assert reader.missing == [range(2, 4)]

    def test_the_end_comes_again(self) -> None:
        """After the end, every read says so."""
        with opened(MemoryCommunicator) as (writer, reader):
            writer.write(Message(1))
            writer.close()
            assert reader.read().contents == 1
            for _ in range(2):
                with pytest.raises(EndOfMessages):
                    reader.read()


class TestClosing:
    """After `close`, and in a fork."""

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_closed_link(self, count: int) -> None:
        """Both directions refuse work; closing again does nothing."""
        with opened(*[MemoryCommunicator] * count) as (writer, _):
            writer.fileno()
            for _ in range(2):
                writer.close()
            with pytest.raises(ClosedError, match="this Link was closed"):
                writer.write(Message())
            with pytest.raises(ClosedError, match="this Link was closed"):
                writer.read(timeout=0)

    @pytest.mark.parametrize("count", [1, 2])
    def test_close_wakes_the_reader(self, count: int) -> None:
        """A thread that waits in `read`, for one member or for several, raises ClosedError; no break is told."""
        told: list[object] = []
        with receiving(count, on_broken=lambda *what: told.append(what)) as (far, reader):
            far[0].write(numbered(1))
            first, ended = threading.Event(), []

            def read() -> None:
                reader.read()
                first.set()
                try:
                    reader.read()
                except ClosedError as error:
                    ended.append(error)

            thread = threading.Thread(target=read)
            thread.start()
            assert first.wait(timeout=10)
            reader.close()
            thread.join(timeout=10)
            assert not thread.is_alive()
            assert len(ended) == 1
        assert told == []

    def test_close_wakes_the_writer(self) -> None:
        """A thread that waits for a slow peer raises ClosedError; no break is told."""
        told: list[object] = []
        near, far = MemoryCommunicator.pair(capacity=100)
        writer = Link([("a", near)], on_broken=lambda *what: told.append(what))
        writer.write(Message("fills it"))
        ended: list[object] = []

        def write() -> None:
            try:
                writer.write(Message(bytes(100)))
            except ClosedError as error:
                ended.append(error)

        with far:
            thread = threading.Thread(target=write)
            thread.start()
            while writer._numbers._under_way == set():
                pass
            writer.close()
            thread.join(timeout=10)
        assert (len(ended), told) == (1, [])

    def test_close_in_a_fork_while_a_thread_reads(self) -> None:
        """The fork, which has no such thread, does not wait for it."""
        with receiving(2) as (_, reader):

            def read() -> None:
                with pytest.raises(ClosedError):
                    reader.read()

            thread = threading.Thread(target=read)
            thread.start()
            while reader._waiting.acquire(blocking=False):
                reader._waiting.release()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: the point of this test
                pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(10)
                reader.close()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            reader.close()
            thread.join(timeout=10)
            assert not thread.is_alive()

    def test_a_fork(self) -> None:
        """A fork can neither write nor read, and its `close` leaves the parent's Link as it is."""
        with opened(MemoryCommunicator, MemoryCommunicator) as (writer, reader):
            writer.write(Message("from the parent"))
            assert readable(reader)
            outcome, report = os.pipe()
            pid = os.fork()
            if pid == 0:
                names = []
                for call in (lambda: writer.write(Message("from the child")), lambda: reader.read(timeout=0)):
                    try:
                        call()
                    except ForkedError as error:
                        names.append(type(error).__name__ if "is a fork" in str(error) else str(error))
                reader.close()
                os.write(report, " ".join(names).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            assert os.read(outcome, 1000) == b"ForkedError ForkedError"
            os.close(outcome)
            os.close(report)
            assert contents_of(reader) == ["from the parent"]
            writer.write(Message("again"))
            assert readable(reader)
            assert contents_of(reader) == ["again"]


def test_members_are_listed() -> None:
    """Who reads `members` sees what each has brought."""
    with opened(MemoryCommunicator, Broad) as (writer, reader):
        writer.write(Message(b"12345"))
        writer.write(Message(bytes(link.LARGE)))
        assert len(all_of(reader)) == 2
        assert [(member.name, member.messages, member.bytes) for member in reader.members] == [
            ("a", 1, 5),
            ("b", 1, link.LARGE),
        ]
        communicators: list[Communicator] = [member.communicator for member in reader.members]
        assert [type(communicator) for communicator in communicators] == [MemoryCommunicator, Broad]
