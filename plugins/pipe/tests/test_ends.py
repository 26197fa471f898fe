"""Both ends of pipes and of the in-band mode, in one process: the contract that every communicator keeps."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tasklink import vocabulary
from tasklink.communicator import Address
from tasklink.errors import BrokenError, ClosedError, EndOfMessages, ForkedError
from tasklink.message import Message
from tasklink_pipe import PipeCommunicator
from tasklink_pipe.listener import InBandListener, PipeListener
from tasklink_pipe.settings import PipeSettings
from tasklink_pipe.task_side import InBandTaskSide

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = PipeSettings(capacity=4096)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


@contextlib.contextmanager
def in_band(settings: PipeSettings = SMALL) -> Iterator[tuple[PipeCommunicator, InBandTaskSide, int]]:
    """The Executor's end, the Task's end, and the Task's standard output."""
    with PipeCommunicator.listen(PipeSettings(capacity=settings.capacity, in_band=True)) as listener:
        assert isinstance(listener, InBandListener)
        standard = {number: os.dup(fd) for number, fd in listener.standard_descriptors.items()}
        task = InBandTaskSide(os.dup(standard[0]), os.dup(standard[1]), listener.address.key)
        with listener.accept(timeout=0) as executor, task:
            try:
                os.close(standard.pop(0))
                yield executor, task, standard[1]
            finally:
                for descriptor in standard.values():
                    os.close(descriptor)


@contextlib.contextmanager
def inherited() -> Iterator[tuple[PipeCommunicator, PipeCommunicator, int]]:
    """The same over pipes of their own, which carry no output."""
    with PipeCommunicator.listen(SMALL) as listener:
        assert isinstance(listener, PipeListener)
        nothing = os.open(os.devnull, os.O_WRONLY)
        task = PipeCommunicator.connect(Address(descriptors=[os.dup(fd) for fd in listener.address.descriptors]))
        with listener.accept() as executor, task:
            yield executor, task, nothing
        os.close(nothing)


@pytest.fixture(params=["inherited", "in band"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[PipeCommunicator, PipeCommunicator]]:
    """Executor's end and Task's end, over pipes that hold one page."""
    with inherited() if request.param == "inherited" else in_band() as (executor, task, _):
        yield executor, task


Ends = tuple[PipeCommunicator, PipeCommunicator]


class TestBoth:
    """What holds in either mode and direction."""

    @pytest.mark.parametrize("size", [0, 1, 500, 4096, 100_000, 3 << 20])
    def test_messages_of_any_size(self, ends: Ends, size: int) -> None:
        """They arrive whole in both directions at once, however little a pipe holds."""
        payload = os.urandom(size)
        with ThreadPoolExecutor(2) as pool:
            for end in ends:
                pool.submit(end.write, Message(payload))
            assert [end.read(30).contents for end in ends] == [payload, payload]

    def test_many_buffers(self, ends: Ends) -> None:
        """A message of thousands of buffers arrives, each where it was."""
        texts = [str(number) for number in range(5000)]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ends[1].write, vocabulary.record("many", *texts))
            assert vocabulary.texts(ends[0].read(30)) == texts

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_full_pipe(self, ends: Ends, which: int) -> None:
        """A write gives up in time, and what was written before and after it arrives."""
        writer, reader = ends[which], ends[1 - which]
        written = 0
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            while True:
                writer.write(Message(bytes(100)), timeout=0.1)
                written += 1
        assert time.monotonic() - start < 5
        with ThreadPoolExecutor(1) as pool:
            pool.submit(writer.write, Message("last"))
            received = []
            while not received or received[-1] != "last":
                received.append(reader.read(10).contents)
        assert len(received) - 1 in (written, written + 1)  # the one that was under way may or may not come

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("call", ["read", "write"])
    def test_closing_wakes(self, ends: Ends, which: int, call: str) -> None:
        """A thread that waits in `read` or `write` is told that this end was closed."""
        end = ends[which]
        with contextlib.suppress(TimeoutError):
            while True:
                end.write(Message(bytes(3000)), timeout=0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(end.read if call == "read" else lambda: end.write(Message(bytes(3000))))
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            end.close()
            with pytest.raises(ClosedError):
                waiting.result()

    @pytest.mark.parametrize("which", [0, 1])
    def test_the_peer_has_closed(self, ends: Ends, which: int) -> None:
        """What it wrote is given, then the end; writing to it fails."""
        ends[1 - which].write(Message("last"))
        ends[1 - which].close()
        assert ends[which].read(10).contents == "last"
        if not (which == 0 and isinstance(ends[1], InBandTaskSide)):  # there the Task may still print
            with pytest.raises(EndOfMessages):
                ends[which].read(10)
        with pytest.raises(BrokenError):
            ends[which].write(Message("too late"))

    @pytest.mark.parametrize("which", [0, 1])
    def test_nothing_has_come(self, ends: Ends, which: int) -> None:
        """`read` ends in time; its descriptor is readable when there is work, and only then."""
        poll = select.poll()
        poll.register(ends[which].fileno(), select.POLLIN)
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError):
                ends[which].read(timeout)
        assert not poll.poll(0)
        ends[1 - which].write(Message(1))
        assert poll.poll(10_000)
        assert ends[which].read(0).contents == 1

    def test_a_fork(self, ends: Ends) -> None:
        """A child is told that the channel is its parent's, and its closing harms nobody."""
        pid = os.fork()
        if pid == 0:
            codes = 0
            for end in ends:
                try:
                    end.write(Message(1))
                except ForkedError:
                    codes += 1
                end.close()
            os._exit(codes)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        ends[1].write(Message("still"))
        assert ends[0].read(10).contents == "still"

    def test_nothing_is_inherited(self, ends: Ends) -> None:
        """Programs that a Task starts do not have its channels."""
        for end in ends:
            assert not os.get_inheritable(end._reader)
            assert not os.get_inheritable(end._writer)


class TestInBand:
    """What is different when output and messages share a pipe."""

    def test_output_and_messages(self) -> None:
        """What is printed comes as output, in its order, between messages in theirs."""
        with in_band(PipeSettings()) as (executor, task, stdout):
            os.write(stdout, b"one ")
            task.write(Message(1))
            os.write(stdout, b"two ")
            task.write(Message(2))
            received = [executor.read(10) for _ in range(2)]
            while len(received) < 3 or b"".join(output(received)) != b"one two ":
                received.append(executor.read(10))
        assert [message.contents for message in received if message.signal is None] == [1, 2]

    def test_what_is_shared_stays_blocking(self) -> None:
        """Neither standard input nor output becomes non-blocking for those who have it too."""
        with in_band() as (_, task, stdout):
            assert os.get_blocking(stdout)
            assert os.get_blocking(task._reader)

    def test_a_launcher_that_has_made_it_non_blocking(self) -> None:
        """That is its business, and stays so; messages wait for room all the same."""
        with in_band() as (executor, task, stdout), ThreadPoolExecutor(1) as pool:
            os.set_blocking(stdout, False)
            pool.submit(task.write, Message(bytes(100_000)))
            assert len(executor.read(30).contents) == 100_000  # type: ignore[arg-type]
            assert not os.get_blocking(stdout)

    def test_the_task_still_prints(self) -> None:
        """After the Task's end was closed, output goes on until the last one who prints has gone."""
        with in_band() as (executor, task, stdout):
            task.write(Message(1))
            task.close()
            os.write(stdout, b"later")
            assert executor.read(10).contents == 1
            assert executor.read(10).contents == b"later"

    def test_what_was_held_back(self) -> None:
        """Output that ends as a key begins is given when the output has ended."""
        listener = InBandListener(PipeSettings(in_band=True))
        stdout = os.dup(listener.standard_descriptors[1])
        with listener, listener.accept() as executor:
            tail = listener.address.key[:7]
            os.write(stdout, b"tail" + tail)
            assert executor.read(10).contents == b"tail"
            with pytest.raises(TimeoutError):
                executor.read(0)
            os.close(stdout)
            assert executor.read(10).contents == tail
            for _ in range(2):
                with pytest.raises(EndOfMessages):
                    executor.read(10)

    def test_an_end_within_a_message(self) -> None:
        """All that was printed is given, then it is told that a message is not whole."""
        listener = InBandListener(PipeSettings(in_band=True))
        stdout = os.dup(listener.standard_descriptors[1])
        with listener, listener.accept() as executor:
            os.write(stdout, b"text" + listener.address.key + b"\xff\x00rest")
            os.close(stdout)
            assert executor.read(10).contents == b"text"
            for _ in range(2):
                with pytest.raises(BrokenError, match="ended 4 bytes after the beginning of a message"):
                    executor.read(10)

    def test_others_print_at_the_same_time(self) -> None:
        """Writers of any size on the same pipe: each message is whole, and each byte of output there, in order."""
        with in_band(PipeSettings(capacity=65536)) as (executor, task, stdout):
            lines = {b"%d" % number: b"".join(line(number, size) for size in range(2000)) for number in range(3)}
            writers = [threading.Thread(target=print_all, args=(stdout, text)) for text in lines.values()]
            writers.append(threading.Thread(target=lambda: [task.write(Message(bytes(n * 17))) for n in range(1000)]))
            for writer in writers:
                writer.start()
            received = []
            expected = sum(map(len, lines.values()))
            while len(received) < 1000 or expected:
                message = executor.read(30)
                if message.signal is None:
                    received.append(message.contents)
                else:
                    text = bytes(message.buffers[0])  # type: ignore[index]
                    expected -= len(text)
                    for part in text.splitlines(keepends=True):
                        lines[part[:1]] = lines[part[:1]].removeprefix(part)
            for writer in writers:
                writer.join()
        assert received == [bytes(n * 17) for n in range(1000)]
        assert set(lines.values()) == {b""}


def line(number: int, size: int) -> bytes:
    """A line that says who wrote it; short enough to be written in one go."""
    return b"%d " % number + b"x" * (size % 1000) + b" %d\n" % size


def print_all(descriptor: int, text: bytes) -> None:
    """Write line by line."""
    for part in text.splitlines(keepends=True):
        os.write(descriptor, part)


def output(messages: list[Message]) -> list[bytes]:
    """What of them was printed."""
    return [bytes(m.buffers[0]) for m in messages if m.signal == vocabulary.STDOUT and m.buffers is not None]
