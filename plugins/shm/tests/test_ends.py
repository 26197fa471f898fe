"""Both ends of shared memory: the contract that every communicator keeps, in one process and between two."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasklink import codec, framing, vocabulary
from tasklink.errors import BrokenError, BusyError, ClosedError, EncodeError, EndOfMessages, ForkedError, ProtocolError
from tasklink.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklink_shm import SharedMemoryCommunicator

    Ends = tuple[SharedMemoryCommunicator, SharedMemoryCommunicator]

SIZES = [0, 1, 55, 56, 500, 4096, 16_000, 16_200, 16_320, 16_384, 65_300, 65_536, 100_000, 3 << 20]


class TestBoth:
    """What holds in either direction."""

    @pytest.mark.parametrize("size", SIZES)
    def test_messages_of_any_size(self, ends: Ends, size: int) -> None:
        """They arrive whole in both directions at once, in a ring, in a segment, or in pieces."""
        payload = os.urandom(size)
        contents = [payload, bytearray(payload), [bytearray(payload), bytearray(payload[:100]), 1]]
        with ThreadPoolExecutor(2) as pool:
            for end in ends:
                pool.submit(lambda end: [end.write(Message(content)) for content in contents], end)
            for end in ends:
                assert [end.read(30).contents for _ in contents] == contents

    def test_without_segments(self, both_ends: Callable[..., Any]) -> None:
        """With no pool at all everything goes through the ring, in pieces."""
        payload = os.urandom(1 << 20)
        with both_ends(pool=0, ring=64 << 10) as (executor, task), ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: [task.write(Message([bytearray(payload), n])) for n in range(3)])
            assert [executor.read(30).contents for _ in range(3)] == [[payload, n] for n in range(3)]

    def test_many_buffers(self, ends: Ends) -> None:
        """A message of thousands of buffers arrives, each where it was."""
        texts = [str(number) for number in range(5000)]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ends[1].write, vocabulary.record("many", *texts))
            assert vocabulary.texts(ends[0].read(30)) == texts

    def test_what_arrives_can_be_written(self, ends: Ends) -> None:
        """Memory of any size is the reader's, as with every other communicator."""
        for size in (5000, 60_000, 100_000, 1 << 20):
            ends[1].write(Message(bytearray(size)))
            arrived = ends[0].read(10).contents
            assert isinstance(arrived, bytearray)
            arrived[:] = bytes(size)

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("size", [100, 100_000])
    def test_nobody_reads(self, ends: Ends, which: int, size: int) -> None:
        """A write gives up in time, and what was written before and after it arrives."""
        writer, reader = ends[which], ends[1 - which]
        written = 0
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            while True:
                writer.write(Message([written, bytes(size)]), timeout=0.1)
                written += 1
        assert time.monotonic() - start < 5
        with ThreadPoolExecutor(1) as pool:
            pool.submit(writer.write, Message("last"))
            received: list[Any] = []
            while not received or received[-1] != "last":
                received.append(reader.read(10).contents)
        assert [content[0] for content in received[:-1]] == list(range(written))

    def test_a_large_message_runs_out_of_time(self, both_ends: Callable[..., Any]) -> None:
        """In the middle of its pieces: it never arrives, and all others do."""
        with both_ends(pool=0, ring=64 << 10) as (executor, task):
            task.write(Message("before"))
            with pytest.raises(TimeoutError):
                task.write(Message(bytes(1 << 20)), timeout=0.01)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(lambda: [task.write(Message(content)) for content in ("after", bytes(200_000), "end")])
                contents = [executor.read(10).contents for _ in range(4)]
            assert contents == ["before", "after", bytes(200_000), "end"]
            with pytest.raises(TimeoutError):
                task.write(Message(bytes(1 << 20)), timeout=0.01)
            with pytest.raises(TimeoutError):
                executor.read(0)
            task.close()  # which tells that the message was given up
            with pytest.raises(EndOfMessages):
                executor.read(10)

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("call", ["read", "write", "write large"])
    def test_closing_wakes(self, ends: Ends, which: int, call: str) -> None:
        """A thread that waits in `read` or `write` is told that this end was closed."""
        end = ends[which]
        message = Message(bytes(300_000 if call == "write large" else 3000))
        with contextlib.suppress(TimeoutError):
            while True:
                end.write(message, timeout=0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(end.read if call == "read" else lambda: end.write(message))
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            end.close()
            end.close()
            with pytest.raises(ClosedError):
                waiting.result()
        for use in (end.read, end.fileno, lambda: end.write(Message(1))):
            with pytest.raises(ClosedError):
                use()

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("size", [10, 100_000])
    def test_the_peer_has_closed(self, ends: Ends, which: int, size: int) -> None:
        """What it wrote is given, then the end, again and again; writing to it fails at once."""
        for number in range(20):
            ends[1 - which].write(Message([number, bytes(size)]), timeout=5)
        ends[1 - which].close()
        with pytest.raises(BrokenError):
            ends[which].write(Message("too late"))
        assert [ends[which].read(10).contents[0] for _ in range(20)] == list(range(20))  # type: ignore[index]
        for timeout in (10, 0):
            with pytest.raises(EndOfMessages):
                ends[which].read(timeout)
        with pytest.raises(BrokenError):
            ends[which].write(Message(bytes(300_000)))

    @pytest.mark.parametrize("which", [0, 1])
    def test_nothing_has_come(self, ends: Ends, which: int) -> None:
        """`read` ends in time; its descriptor is readable when there is work, and only then."""
        poll = select.poll()
        poll.register(ends[which].fileno(), select.POLLIN)
        for number in range(20):
            for timeout in (0, 0.02):
                with pytest.raises(TimeoutError):
                    ends[which].read(timeout)
            assert not poll.poll(0)
            ends[1 - which].write(Message(number))
            assert poll.poll(10_000)
            assert ends[which].read(0).contents == number

    def test_messages_pass_a_large_one(self, both_ends: Callable[..., Any]) -> None:
        """While a large message is in pieces, a small one of another thread comes before its end."""
        with both_ends(pool=0, ring=64 << 10) as (executor, task), ThreadPoolExecutor(2) as pool:
            large = pool.submit(task.write, Message(bytes(4 << 20)))
            with pytest.raises(TimeoutError):
                large.result(0.05)
            pool.submit(task.write, Message("small"))
            assert [executor.read(10).contents for _ in range(2)] == ["small", bytes(4 << 20)]

    def test_many_threads(self, ends: Ends) -> None:
        """Each message whole and once, those of each thread in their order."""
        sizes = [10, 1000, 20_000, 70_000]

        def write_all(number: int) -> None:
            for index in range(100):
                ends[1].write(Message([number, index, bytes([number]) * sizes[index % 4]]))

        received: dict[int, list[int]] = {number: [] for number in range(6)}
        with ThreadPoolExecutor(8) as pool:
            for number in received:
                pool.submit(write_all, number)

            def read_some() -> list[list[Any]]:
                return [ends[0].read(30).contents for _ in range(300)]  # type: ignore[misc]

            for contents in [content for part in [read_some(), read_some()] for content in part]:
                number, index, payload = contents
                assert payload == bytes([number]) * sizes[index % 4]
                received[number].append(index)
        assert received == {number: list(range(100)) for number in range(6)}

    def test_several_readers(self, ends: Ends) -> None:
        """Two threads that read get every message once between them."""
        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(lambda: [ends[0].read(30).contents for _ in range(500)]) for _ in range(2)]
            for number in range(1000):
                ends[1].write(Message(number))
            read = [reader.result() for reader in readers]
        assert sorted(read[0] + read[1]) == list(range(1000))  # type: ignore[type-var]
        assert all(part == sorted(part) for part in read)  # type: ignore[type-var]

    def test_what_cannot_be_encoded_or_decoded(self, ends: Ends) -> None:
        """Neither ends the channel."""
        with pytest.raises(EncodeError):
            ends[0].write(Message(threading.Lock()))
        ends[0].write(Message.encoded(codec.PICKLE, [b"no pickle"], "broken"))
        assert ends[1].read(5).signal == "broken"
        ends[0].write(Message("next"))
        assert ends[1].read(5).contents == "next"

    def test_a_fork(self, ends: Ends) -> None:
        """A child is told that the channel is its parent's, and its closing harms nobody."""
        ends[1].write(Message(bytearray(100_000)))
        kept = ends[0].read(10).contents
        pid = os.fork()
        if pid == 0:
            codes = 0
            for end in ends:
                for call in (lambda end=end: end.write(Message(1)), end.read, lambda end=end: end.allocate(10)):
                    try:
                        call()
                    except ForkedError:
                        codes += 1
                end.close()
            os._exit(codes)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
        for end, other in (ends, reversed(ends)):
            end.write(Message("still"))
            end.write(Message(bytes(200_000)))
            assert other.read(10).contents == "still"
            assert other.read(10).contents == bytes(200_000)
        assert kept == bytes(100_000)

    def test_nothing_is_inherited(self, ends: Ends) -> None:
        """Programs that a Task starts do not have its channels, nor their segments."""
        ends[1].write(Message(bytearray(100_000)))
        kept = ends[0].read(10).contents
        command = [sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"]
        seen = subprocess.run(command, capture_output=True, text=True, close_fds=False, check=True).stdout
        assert len(seen.split(",")) <= len(os.listdir("/proc/self/fd")) - 12
        assert not any(os.get_inheritable(end.fileno()) for end in ends)
        assert kept == bytes(100_000)

    @pytest.mark.parametrize("timeout", [30 * 86400.0, 1e12, float("inf")])
    def test_time_outs_that_no_system_call_takes(self, ends: Ends, timeout: float) -> None:
        """A month, or for ever, is only a long time."""
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(ends[0].read, timeout)
            ends[1].write(Message(1), timeout)
            ends[1].write(Message(bytes(100_000)), timeout)
            assert reading.result().contents == 1
            assert ends[0].read(timeout).contents == bytes(100_000)


class Impatience(Exception):  # noqa: N818 - it is no error
    """Raised by a signal handler."""


@contextlib.contextmanager
def interrupted_by(handler: Callable[..., None]) -> Iterator[None]:
    """Have the main thread interrupted two thousand times a second."""
    before = signal.signal(signal.SIGUSR1, handler)
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(0.0005):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


class TestSignalHandlers:
    """They may raise between any two bytecodes, or call what they interrupted."""

    def test_interrupted_at_any_moment(self, ends: Ends) -> None:
        """No lock stays taken and no message is torn; one that was being written comes once or not at all."""
        armed = False

        def raise_it(*_: object) -> None:
            nonlocal armed
            if armed:
                armed = False
                raise Impatience

        received: list[Any] = []
        interrupted: list[int] = []
        reader = threading.Thread(target=lambda: received.extend(iter(lambda: ends[0].read(30).contents, "end")))
        reader.start()
        number = 0
        with interrupted_by(raise_it):
            while len(interrupted) < 20:
                try:
                    armed = True
                    ends[1].write(Message([number, bytes(number % 500)]))
                    armed = False
                except Impatience:
                    interrupted.append(number)
                number += 1
        ends[1].write(Message("end"), timeout=10)
        reader.join(30)
        numbers = [number for number, payload in received if payload == bytes(number % 500)]
        assert len(numbers) == len(received)
        assert numbers == sorted(set(numbers))
        assert set(range(number)) - set(numbers) <= set(interrupted)

    def test_a_reader_that_is_interrupted(self, ends: Ends) -> None:
        """Every message is given once, whatever a handler interrupted in `receive`."""
        armed = False

        def raise_it(*_: object) -> None:
            nonlocal armed
            if armed:
                armed = False
                raise Impatience

        enough = threading.Event()

        def write_on() -> None:
            while not enough.is_set():
                ends[1].write(Message(None))
            ends[1].write(Message(None, "end"))

        writer = threading.Thread(target=write_on)
        numbers: list[int] = []
        interruptions = 0
        writer.start()
        with interrupted_by(raise_it):
            while interruptions < 20:
                message = None
                try:
                    armed = True
                    message = ends[0]._incoming.receive(10)
                    armed = False
                except Impatience:
                    interruptions += 1
                if message is not None:
                    numbers.append(message.sequence)
        enough.set()
        while (message := ends[0]._incoming.receive(10)).signal != "end":
            numbers.append(message.sequence)
        writer.join(30)
        assert numbers == list(range(1, len(numbers) + 1))

    def test_a_handler_that_writes_where_it_interrupted(self, ends: Ends) -> None:
        """It writes, or is told that it cannot; it never waits for itself."""
        outcomes = []

        def write(*_: object) -> None:
            try:
                ends[1].write(Message("handler"), timeout=5)
                outcomes.append("written")
            except BusyError:
                outcomes.append("busy")

        received: list[Any] = []
        reader = threading.Thread(target=lambda: received.extend(iter(lambda: ends[0].read(30).contents, "end")))
        reader.start()
        with interrupted_by(write):
            for number in range(2000):
                ends[1].write(Message(number))
                if number % 200 == 0:
                    ends[1].write(Message(bytes(300_000)))
        ends[1].write(Message("end"))
        reader.join(30)
        assert [content for content in received if isinstance(content, int)] == list(range(2000))
        assert outcomes
        assert received.count("handler") == outcomes.count("written")

    @pytest.mark.parametrize("call", ["read", "write", "write parts"])
    def test_a_second_exception(self, ends: Ends, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        """A handler that raises while another exception is cleaned up after leaves nothing locked."""
        end = ends[1]
        way: Any = end._incoming if call == "read" else end._outgoing
        message = Message([bytearray(1000)] * 3 if call == "write parts" else "small")

        def strike(*_: object) -> None:
            raise Impatience

        monkeypatch.setattr(type(way), "_clean_up", strike)
        with pytest.raises(Impatience):
            while True:  # until nothing comes, or there is no room, which is a TimeoutError
                end.read(0) if call == "read" else end.write(message, 0)
        monkeypatch.undo()
        assert not way.in_use
        with pytest.raises(TimeoutError):
            end.read(0) if call == "read" else end.write(message, 0)


def test_closing_releases_the_memory(both_ends: Callable[..., Any]) -> None:
    """Although somebody still has the communicator: nothing is mapped, no descriptor is open."""
    before = len(os.listdir("/proc/self/fd"))
    with both_ends() as (executor, task):
        task.write(Message("small"))
        task.write(Message(bytes(100_000)))
        executor.read(5)
        executor.read(5)
    assert len(os.listdir("/proc/self/fd")) == before
    assert "memfd:tasklink" not in Path("/proc/self/maps").read_text()
    for end in (executor, task):
        with pytest.raises(ClosedError):
            end.write(Message(1))


class TestProcesses:
    """The peer is another process."""

    def test_an_echo(self, peer: Callable[..., Any]) -> None:
        """Messages of all sizes go there and come back."""
        with peer("try:\n    while True: end.write(Message(end.read().contents))\nexcept EndOfMessages: pass") as (
            end,
            _,
        ):
            for size in SIZES * 3:
                content = [size, bytearray(os.urandom(size))]
                end.write(Message(content), timeout=10)
                assert end.read(10).contents == content

    @pytest.mark.parametrize("size", [10, 50_000, 300_000])
    def test_killed_after_a_write(self, peer: Callable[..., Any], size: int) -> None:
        """What was written before SIGKILL is delivered, all of it and in order."""
        code = f"""
            for n in range(12): end.write(Message([n, bytes({size})]))
            os.kill(os.getpid(), 9)
        """
        with peer(code) as (end, process):
            assert [end.read(10).contents[0] for _ in range(12)] == list(range(12))
            with pytest.raises(EndOfMessages):
                end.read(10)
            assert process.wait(10) == -signal.SIGKILL

    def test_killed_in_the_middle_of_a_large_message(self, peer: Callable[..., Any]) -> None:
        """What came before it is given, then it is told that a message is not whole."""
        with peer("end.write(Message('first')); end.write(Message(bytes(64 << 20)))", pool=0) as (end, process):
            assert end.read(10).contents == "first"
            with pytest.raises(TimeoutError):
                end.read(0.05 if end._decoder else 0)
            deadline = time.monotonic() + 10
            while end._decoder is None and time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    end.read(0)
            process.kill()
            for _ in range(2):
                with pytest.raises(BrokenError, match="of a message"):
                    end.read(10)

    @pytest.mark.parametrize("size", [1000, 300_000])
    def test_a_reader_that_is_killed(self, peer: Callable[..., Any], size: int) -> None:
        """A writer that waits for it is told within 100 ms."""
        with peer("print(end.read().contents, flush=True); time.sleep(60)") as (end, process):
            end.write(Message("ready"))
            assert process.stdout.readline() == b"ready\n"
            with pytest.raises(TimeoutError):
                while True:
                    end.write(Message(bytes(size)), timeout=0.02)
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(end.write, Message(bytes(size)))
                process.kill()
                process.wait()
                died = time.monotonic()
                with pytest.raises(BrokenError, match="the peer is gone"):
                    waiting.result()
                assert time.monotonic() - died < 0.2

    def test_a_peer_that_is_something_else(self, both_ends: Callable[..., Any]) -> None:
        """What it has put into the ring is a ProtocolError, again and again, and what came before is given."""
        with both_ends() as (executor, task):
            task.write(Message("good"))
            position = task._outgoing.position
            task._memory.words[position >> 3] = 77 << 32 | 99
            assert executor.read(10).contents == "good"
            for _ in range(2):
                with pytest.raises(ProtocolError, match="kind 99"):
                    executor.read(10)


def test_frames_are_as_on_the_wire(both_ends: Callable[..., Any]) -> None:
    """A record holds the buffers of a frame, one behind the other, after its word of 8 bytes."""
    with both_ends() as (executor, task):
        begin = task._outgoing.position
        task.write(Message("text", "signal"))
        end = task._outgoing.position
        data = bytes(task._memory.mapping[begin + 8 : end])
        assert data.startswith(framing.MAGIC)
        assert b"signal" in data
        assert executor.read(5).signal == "signal"
