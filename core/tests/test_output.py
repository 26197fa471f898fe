"""A Task's output: bytes, all of them, from both streams, whatever is in them."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink import vocabulary
from tasklink.communicator import Address
from tasklink.errors import ClosedError, CommunicatorError, EndOfMessages
from tasklink.message import Message
from tasklink.output import TAIL_BYTES, OutputCommunicator, OutputKeeper, OutputListener, set_capacity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("clean")

PATIENCE = 20


@contextmanager
def captured(*streams: int) -> Iterator[tuple[OutputCommunicator, dict[int, int]]]:
    """What reads the streams, and the ends of a program that prints; those still open are closed."""
    with OutputListener(streams or (1, 2)) as listener:
        ends = {stream: os.dup(descriptor) for stream, descriptor in listener.standard_descriptors.items()}
        communicator = listener.accept()
    with communicator:
        try:
            yield communicator, ends
        finally:
            for end in ends.values():
                os.close(end)


def all_of(communicator: OutputCommunicator) -> list[tuple[str | None, bytes]]:
    """What can be read now: signal and bytes of each message."""
    messages = []
    try:
        while True:
            message = communicator.read(timeout=0)
            assert message.buffers is not None
            messages.append((message.signal, bytes(message.buffers[0])))
    except (TimeoutError, EndOfMessages):
        return messages


def readable(communicator: OutputCommunicator) -> bool:
    """Whether its descriptor says that there is work."""
    poll = select.poll()
    poll.register(communicator, select.POLLIN)
    return bool(poll.poll(0))


class TestListener:
    """The pipes, before the program prints."""

    @pytest.mark.parametrize("streams", [(1, 2), (1,), (2,)])
    def test_streams(self, streams: tuple[int, ...]) -> None:
        """There is a pipe for each stream that is to be captured."""
        with OutputListener(streams) as listener:
            assert set(listener.standard_descriptors) == set(streams)
            assert listener.address.descriptors == ()
            assert listener.fileno() is None

    def test_the_task_alone_keeps_it_open(self) -> None:
        """Once accepted, our copies of the ends that print are closed: the end can be seen."""
        with OutputListener() as listener:
            communicator = listener.accept()
            assert listener.standard_descriptors == {}
        with communicator, pytest.raises(EndOfMessages):
            communicator.read(timeout=0)

    def test_no_descriptors_left(self) -> None:
        """Where the second pipe cannot be made, the first is closed."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = os.open(os.devnull, os.O_RDONLY)
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, limits[1]))
        try:
            with pytest.raises(OSError, match="open files") as caught:
                OutputListener()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert caught.value.errno == errno.EMFILE

    @pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="only Linux sizes pipes")
    @pytest.mark.parametrize(("wanted", "given"), [(4096, 4096), (100_000, 131_072), (1 << 18, 1 << 18), (0, 65536)])
    def test_how_much_a_pipe_holds(self, wanted: int, given: int) -> None:
        """The system rounds up to a power of two of pages; less than a page is left as it is."""
        with OutputListener((1, 2), wanted) as listener:
            assert [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in listener.standard_descriptors.values()] == [given] * 2

    @pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="only Linux sizes pipes")
    def test_more_than_the_system_allows(self) -> None:
        """As much as it does allow, without a word: root may have all, others what pipe-max-size says."""
        reader, writer = os.pipe()
        try:
            if os.geteuid() == 0:
                pid = os.fork()
                if pid == 0:
                    os.setuid(65534)
                    set_capacity(reader, 1 << 30)
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
            else:
                set_capacity(reader, 1 << 30)
            assert 65536 <= fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ) <= 1 << 30
        finally:
            os.close(reader)
            os.close(writer)


class TestCommunicator:
    """Reading two streams at once."""

    def test_bytes(self) -> None:
        """They arrive as they are, under the name of their stream, outside the numbering."""
        with captured() as (communicator, ends):
            os.write(ends[1], b"\x00\r\n\xff caf\xe9 tasklink.result")
            os.write(ends[2], b"TL\x01")
            assert sorted(all_of(communicator)) == [
                (vocabulary.STDERR, b"TL\x01"),
                (vocabulary.STDOUT, b"\x00\r\n\xff caf\xe9 tasklink.result"),
            ]
            os.write(ends[1], b"x")
            message = communicator.read()
            assert (message.sequence, message.contents) == (0, b"x")

    def test_the_end_of_one(self) -> None:
        """The other one goes on; when both have ended, every read says so."""
        with captured() as (communicator, ends):
            os.close(ends.pop(1))
            with pytest.raises(TimeoutError):
                communicator.read(timeout=0)
            os.write(ends[2], b"still")
            os.close(ends.pop(2))
            assert all_of(communicator) == [(vocabulary.STDERR, b"still")]
            for _ in range(2):
                with pytest.raises(EndOfMessages):
                    communicator.read()

    def test_fileno(self) -> None:
        """It is readable while either stream has something, or has just ended."""
        with captured() as (communicator, ends):
            assert not readable(communicator)
            for stream in (1, 2):
                os.write(ends[stream], b"x")
                assert readable(communicator)
                all_of(communicator)
                assert not readable(communicator)
            for stream in (1, 2):
                os.close(ends.pop(stream))
                assert readable(communicator)
                all_of(communicator)
                assert not readable(communicator)

    @pytest.mark.parametrize("timeout", [0, 0.001])
    def test_silence(self, timeout: float) -> None:
        """A read that gets nothing says so."""
        with captured() as (communicator, _), pytest.raises(TimeoutError):
            communicator.read(timeout)

    @pytest.mark.parametrize("timeout", [None, 1e15])
    def test_long_waits(self, timeout: float | None) -> None:
        """No time is too long."""
        with captured() as (communicator, ends):
            os.write(ends[1], b"x")
            assert communicator.read(timeout).contents == b"x"

    def test_a_flood_on_one(self) -> None:
        """While one stream never falls silent, the other one is heard."""
        with captured() as (communicator, ends):
            os.write(ends[1], b"flood")
            os.write(ends[2], b"the reason of the crash")
            heard = set()
            for _ in range(4):
                heard.add(communicator.read(timeout=0).signal)
                os.write(ends[1], b"flood")
            assert heard == {vocabulary.STDOUT, vocabulary.STDERR}

    def test_a_false_alarm(self) -> None:
        """A stream that has nothing after all has not ended."""
        with captured(1) as (communicator, ends):
            os.write(ends[1], b"gone")
            communicator._ready = communicator._wait(None)
            assert os.read(communicator._ready[0], 100) == b"gone"
            with pytest.raises(TimeoutError):
                communicator.read(timeout=0)
            os.write(ends[1], b"here")
            assert communicator.read(timeout=0).contents == b"here"

    def test_a_terminal(self) -> None:
        """A pseudo-terminal whose user has gone says EIO, which is an end."""
        ours, theirs = os.openpty()
        os.write(theirs, b"hello")
        os.close(theirs)
        with OutputCommunicator({ours: vocabulary.STDOUT}) as communicator:
            assert all_of(communicator) == [(vocabulary.STDOUT, b"hello")]
            with pytest.raises(EndOfMessages):
                communicator.read()

    def test_more_than_a_pipe_holds(self) -> None:
        """A program is never kept waiting by what it has printed before."""
        data = bytes(range(256)) * 8192
        with captured() as (communicator, ends):
            printer = threading.Thread(target=lambda: [os.write(ends[1], data), os.close(ends.pop(1))])
            printer.start()
            gathered = b""
            while len(gathered) < len(data):
                gathered += communicator.read(timeout=PATIENCE).buffers[0]  # type: ignore[index]
            printer.join()
            assert gathered == data

    def test_close_while_it_prints(self) -> None:
        """A program that prints on gets EPIPE; the closed end says what it is."""
        with captured() as (communicator, ends):
            os.write(ends[1], b"unread")
            communicator._ready = communicator._wait(None)
            for _ in range(2):
                communicator.close()
            with pytest.raises(BrokenPipeError):
                os.write(ends[1], b"x")
            for call in (communicator.read, communicator.fileno):
                with pytest.raises(ClosedError, match="was closed"):
                    call()

    def test_it_carries_no_messages(self) -> None:
        """It says so, by its capabilities and when it is asked to."""
        assert not OutputCommunicator.capabilities.carries_messages
        assert OutputCommunicator.capabilities.captures_output
        with captured() as (communicator, _):
            with pytest.raises(CommunicatorError, match="carries no messages"):
                communicator.write(Message())
            with pytest.raises(CommunicatorError, match="carries no messages"):
                OutputCommunicator.connect(Address())
        with OutputCommunicator.listen(None) as listener:
            assert set(listener.standard_descriptors) == {1, 2}


class TestKeeper:
    """What is kept of a stream."""

    @given(
        st.lists(st.integers(0, 9) | st.sampled_from([TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 5 << 19]), max_size=6)
    )
    def test_the_tail(self, sizes: list[int]) -> None:
        """It is the exact end of the stream, in bounded memory, however the stream is cut."""
        whole = bytes(range(251)) * (sum(sizes) // 251 + 1)
        keeper = OutputKeeper(None)
        done = 0
        for size in sizes:
            keeper.keep(whole[done : done + size])
            done += size
            assert keeper.tail == whole[max(0, done - TAIL_BYTES) : done]
            # A last portion may be larger than the tail; it is kept as it came.
            assert sum(map(len, keeper._chunks)) < TAIL_BYTES + max(*sizes, 1 << 15)

    @given(st.lists(st.tuples(st.integers(1, 40_000), st.integers(1, 300)), max_size=10))
    @settings(max_examples=30)
    def test_small_portions(self, runs: list[tuple[int, int]]) -> None:
        """Portions of any sizes, one byte each or more, are kept in few pieces, and make up the end of the stream."""
        whole = bytes(range(251)) * (sum(size * count for size, count in runs) // 251 + 1)
        keeper = OutputKeeper(None)
        done = 0
        for size, count in runs:
            for _ in range(count):
                keeper.keep(whole[done : done + size])
                done += size
            assert keeper.tail == whole[max(0, done - TAIL_BYTES) : done]
            assert len(keeper._chunks) <= 130  # two for each 16 KiB, where portions of 1 and of 16 KiB take turns

    def test_the_file(self, tmp_path: Path) -> None:
        """All of it goes to a file, made anew, and is there at once."""
        path = tmp_path / "out"
        path.write_bytes(b"of an earlier run, and longer than this one")
        with OutputKeeper(path) as keeper:
            assert path.read_bytes() == b""
            keeper.keep(b"one")
            assert path.read_bytes() == b"one"
            keeper.keep(bytes(2 * TAIL_BYTES))
        assert path.read_bytes() == b"one" + bytes(2 * TAIL_BYTES)
        keeper.keep(b"after")
        assert path.stat().st_size == 3 + 2 * TAIL_BYTES

    def test_one_file_for_both(self, tmp_path: Path) -> None:
        """Neither stream writes over what the other one has written."""
        path = tmp_path / "log"
        with OutputKeeper(path) as out, OutputKeeper(path) as err:
            for keeper, data in ((out, b"one "), (err, b"two "), (out, b"three "), (err, b"four")):
                keeper.keep(data)
        assert path.read_bytes() == b"one two three four"

    def test_a_file_that_cannot_be(self, tmp_path: Path) -> None:
        """The error names it."""
        with pytest.raises(FileNotFoundError, match=r"none/out"), OutputKeeper(tmp_path / "none" / "out"):
            pass

    def test_a_full_disk(self) -> None:
        """What cannot be written is an error, not a loss in silence."""
        from pathlib import Path

        with OutputKeeper(Path("/dev/full")) as keeper, pytest.raises(OSError, match="No space left"):
            keeper.keep(b"x")
