"""The zmq communicator: real sockets and processes, over both transports."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import zmq
from zmq.backend import Context

from tasklink import Executor, Status, TaskSpec, current_task, hookimpl
from tasklink.communicator import Address
from tasklink.errors import (
    AuthenticationError,
    BrokenError,
    ClosedError,
    ConfigError,
    EndOfMessages,
    ForkedError,
    TaskNotStartedError,
)
from tasklink.message import Message
from tasklink.registry import Registry
from tasklink_zmq import ZmqCommunicator
from tasklink_zmq.line import Line, end
from tasklink_zmq.settings import ZmqSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklink.communicator import Communicator, Listener

TRANSPORTS = ("ipc", "tcp")


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    gc.collect()
    assert sorted(os.listdir("/dev/fd")) == before


def come(listener: Listener) -> tuple[Communicator, Communicator]:
    """Have one more peer come: our end, and its."""
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(ZmqCommunicator.connect, listener.address)
        return listener.accept(timeout=10), task.result()


def close(*communicators: Communicator) -> None:
    """Close all of them at once: each waits for what it wrote to be read, or for the other to close."""
    with ThreadPoolExecutor(len(communicators)) as pool:
        for closing in [pool.submit(communicator.close) for communicator in communicators]:
            closing.result()


@pytest.fixture(params=TRANSPORTS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Communicator, Communicator]]:
    """Two ends that talk with each other: the Executor's, and the Task's."""
    settings = ZmqSettings(transport=request.param, directory=tmp_path, linger=0.5, high_water=2 << 20)  # type: ignore[arg-type]
    with ZmqCommunicator.listen(settings) as listener:
        ours, theirs = come(listener)
    yield ours, theirs
    close(ours, theirs)
    assert not list(tmp_path.iterdir())


def child(work: Callable[[], object]) -> int:
    """Run something in a fork that never returns; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


class TestMessages:
    """What the contract says of two ends."""

    @pytest.mark.parametrize("size", [0, 100, 20_000, 3_000_000, 40_000_000])
    def test_both_ways(self, pair: tuple[Communicator, Communicator], size: int) -> None:
        """Any size arrives equal, over and under the limit for pieces."""
        contents = [bytearray(os.urandom(1 << 10)) * (size >> 10), "text", size]
        for writer, reader in (pair, pair[::-1]):
            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(writer.write, Message(contents), 20)
                assert reader.read(20).contents == contents
                writing.result()

    @pytest.mark.parametrize("size", [20_000, 18 << 20])
    def test_empty_buffers(self, pair: tuple[Communicator, Communicator], size: int) -> None:
        """An empty buffer at the end of a message is no sign of anything, however large the others are."""
        from tasklink import codec

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(pair[1].write, Message.encoded(codec.RAW, [b"x" * size, b""]), 20)
            assert pair[0].read(20).contents == (b"x" * size, b"")
            writing.result(20)

    def test_order_and_threads(self, pair: tuple[Communicator, Communicator]) -> None:
        """Several threads write while others read at the other end: each thread's messages are in order."""
        writer, reader = pair

        def write(name: int) -> None:
            for number in range(300):
                writer.write(Message((name, number, bytes(number * 50))), 20)

        with ThreadPoolExecutor(4) as pool:
            for name in range(4):
                pool.submit(write, name)
            got: dict[int, list[int]] = {}
            for _ in range(1200):
                name, number, data = reader.read(20).contents  # type: ignore[misc]
                assert len(data) == number * 50
                got.setdefault(name, []).append(number)
        assert got == {name: list(range(300)) for name in range(4)}

    def test_contents_may_be_changed_at_once(self, pair: tuple[Communicator, Communicator]) -> None:
        """What is written is what it was when `write` was called, although nobody has read it yet."""
        data = bytearray(b"a" * 1_000_000)
        pair[1].write(Message(data))
        data[:] = b"b" * len(data)
        assert pair[0].read(10).contents == bytearray(b"a" * 1_000_000)

    def test_descriptor(self, pair: tuple[Communicator, Communicator]) -> None:
        """It is readable when there is work, and not after TimeoutError, though the reader writes in between."""
        ours, theirs = pair
        poll = select.poll()
        poll.register(ours.fileno(), select.POLLIN)
        for number in range(200):
            theirs.write(Message(number))
            ours.write(Message(number))  # may swallow the news of what has come
            got: list[object] = []
            while not got:  # one look at the descriptor may be for something else: then it says so again
                assert poll.poll(10_000)
                try:
                    got.append(ours.read(timeout=0).contents)
                except TimeoutError:
                    continue
            assert got == [number]
            with pytest.raises(TimeoutError):
                ours.read(timeout=0)
            assert not poll.poll(0)
            theirs.read(10)

    def test_small_overtakes_large(self, pair: tuple[Communicator, Communicator]) -> None:
        """What another thread writes does not wait for the whole of a large message."""
        ours, theirs = pair
        with ThreadPoolExecutor(2) as pool:
            large = pool.submit(theirs.write, Message(bytes(200_000_000)), 30)
            time.sleep(
                0.02
            )  # not for correctness: were it not under way yet, the small one would be first all the more
            small = pool.submit(theirs.write, Message("small"), 30)
            assert ours.read(20).contents == "small"
            assert len(ours.read(20).contents) == 200_000_000  # type: ignore[arg-type]
            large.result()
            small.result()

    def test_a_slow_reader(self, pair: tuple[Communicator, Communicator]) -> None:
        """`write` blocks at the high-water mark and times out; afterwards everything arrives once."""
        ours, theirs = pair
        count = 0
        with pytest.raises(TimeoutError):
            while True:
                theirs.write(Message((count, bytes(100_000))), timeout=0.05)
                count += 1
        assert 10 < count <= 21
        for number in range(count):
            assert ours.read(10).contents[0] == number  # type: ignore[index]
        theirs.write(Message("next"), timeout=10)
        last = ours.read(10).contents
        assert last == "next"


class TestEnding:
    """Closing and dying."""

    def test_close_means_delivered(self, pair: tuple[Communicator, Communicator]) -> None:
        """`close` returns when the peer has read everything; the peer then reads the end."""
        ours, theirs = pair
        for number in range(1000):
            theirs.write(Message(number))
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(theirs.close)
            assert [ours.read(10).contents for _ in range(1000)] == list(range(1000))
            with pytest.raises(EndOfMessages):
                ours.read(10)
            closing.result()
        with pytest.raises(BrokenError, match="the peer is gone"):
            ours.write(Message(1))

    def test_writing_on_without_reading(self, tmp_path: Path, record_property: Callable[..., None]) -> None:
        """F37: who never reads is told as well that the peer is dead: after some messages, by an error of ours."""
        with ZmqCommunicator.listen(ZmqSettings(directory=tmp_path)) as listener:
            pid = child(lambda: (ZmqCommunicator.connect(listener.address), time.sleep(30)))
            ours = listener.accept(timeout=10)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        begin = time.monotonic()
        with pytest.raises(BrokenError, match="the peer is gone"):
            while True:
                ours.write(Message("nobody hears this"), timeout=10)
        record_property("seen", f"{1e3 * (time.monotonic() - begin):.1f} ms until a writer is told")
        ours.close()

    def test_garbage_for_who_writes(self, pair: tuple[Communicator, Communicator]) -> None:
        """F24: a peer that answers what is no answer ends this line: BrokenError says why, and `close` ends."""
        ours, theirs = pair
        ours.write(Message("nobody confirms this"))
        theirs._wiring.incoming.say(b"garbage")  # type: ignore[attr-defined]
        with pytest.raises(BrokenError, match="a control part has 16 bytes; here are 7"):
            while True:
                ours.write(Message(bytes(100_000)), timeout=10)
        theirs.write(Message("the other direction goes on"))
        assert ours.read(10).contents == "the other direction goes on"
        with pytest.raises(BrokenError, match="a control part has 16 bytes; here are 7"):
            ours.flush()

    @pytest.mark.parametrize("transport", TRANSPORTS)
    def test_nobody_listens(self, transport: str, tmp_path: Path, record_property: Callable[..., None]) -> None:
        """F38: `connect` ends in an error of its own, in the time that is set for it."""
        settings = ZmqSettings(transport=transport, directory=tmp_path, connect_timeout=0.3)  # type: ignore[arg-type]
        with ZmqCommunicator.listen(settings) as listener:
            address = listener.address
        begin = time.monotonic()
        with pytest.raises((BrokenError, TimeoutError)):
            ZmqCommunicator.connect(address)
        seconds = time.monotonic() - begin
        record_property("seen", f"{seconds:.2f} s for a limit of 0.3 s")
        assert seconds < 1.5

    def test_a_peer_that_never_reads(self, pair: tuple[Communicator, Communicator]) -> None:
        """`close` ends after the linger, and says how much was not confirmed."""
        theirs = pair[1]
        for _ in range(3):
            theirs.write(Message("unread"))
        begin = time.monotonic()
        with pytest.warns(RuntimeWarning, match=r"up to \d+ bytes were not confirmed within 0\.5 s"):
            theirs.close()
        assert 0.4 < time.monotonic() - begin < 2

    def test_flushing(self, pair: tuple[Communicator, Communicator], record_property: Callable[..., None]) -> None:
        """`flush` returns when the peer has confirmed everything, which one that reads does soon."""
        ours, theirs = pair
        read: list[object] = []

        def drain() -> None:
            with suppress(EndOfMessages):
                while True:
                    read.append(ours.read(10).contents)

        times = []
        with ThreadPoolExecutor(1) as pool:
            draining = pool.submit(drain)
            for number in range(30):
                theirs.write(Message(number))
                begin = time.monotonic()
                theirs.flush()
                times.append(time.monotonic() - begin)
            theirs.close()
            draining.result(10)
        assert read == list(range(30))
        record_property("runs", len(times))
        record_property("seen", f"{1e3 * sorted(times)[15]:.2f} ms in the median")
        record_property("seen", f"{1e3 * max(times):.2f} ms at worst")

    def test_flushing_to_a_peer_that_never_reads(self, pair: tuple[Communicator, Communicator]) -> None:
        """It ends after the linger and says what is not confirmed; `close` then does not wait a second time."""
        theirs = pair[1]
        theirs.write(Message("unread"))
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"up to \d+ bytes were not confirmed within 0\.5 s"):
            theirs.flush()
        assert 0.4 < time.monotonic() - begin < 2
        begin = time.monotonic()
        with pytest.warns(RuntimeWarning, match=r"up to \d+ bytes were not confirmed within 0\.5 s"):
            theirs.close()
        assert time.monotonic() - begin < 0.4

    def test_flushing_to_a_peer_that_is_gone(self, pair: tuple[Communicator, Communicator]) -> None:
        """BrokenError where it has not confirmed everything, nothing where it has."""
        ours, theirs = pair
        close(ours)
        theirs.flush()
        theirs._outgoing._sent += 1  # type: ignore[attr-defined]  # as if it had been under way then
        with pytest.raises(BrokenError, match="the peer is gone"):
            theirs.flush()

    def test_closing_wakes(self, pair: tuple[Communicator, Communicator]) -> None:
        """Threads that wait to read and to write raise ClosedError."""
        theirs = pair[1]
        with ThreadPoolExecutor(2) as pool:
            reading = pool.submit(theirs.read)
            writing = pool.submit(theirs.write, Message(bytes(50_000_000)))
            time.sleep(0.1)  # not for correctness: they may as well find it closed
            with pytest.warns(RuntimeWarning, match="not confirmed"):
                theirs.close()
            assert isinstance(reading.exception(10), ClosedError)
            assert isinstance(writing.exception(10), ClosedError)

    @pytest.mark.parametrize("transport", TRANSPORTS)
    def test_both_close_at_once(self, transport: str, tmp_path: Path) -> None:
        """Neither waits for ever, though the connection breaks while its last words are on their way."""
        for number in range(30):
            with ZmqCommunicator.listen(ZmqSettings(transport=transport, directory=tmp_path)) as listener:  # type: ignore[arg-type]
                ends = come(listener)
            closing = [threading.Thread(target=end.close, daemon=True) for end in ends[:: 1 if number % 2 else -1]]
            for thread in closing:
                thread.start()
            for thread in closing:
                thread.join(10)
                assert not thread.is_alive()

    @pytest.mark.parametrize("inside", [False, True])
    def test_a_peer_that_is_killed(self, tmp_path: Path, inside: bool) -> None:
        """What came before is read; then the end, or that it came within a message; writing is refused."""
        # So low that most of the large message waits for the first of it to be read.
        with ExitStack() as stack:
            with ZmqCommunicator.listen(ZmqSettings(directory=tmp_path, high_water=2 << 20)) as listener:

                def work() -> None:
                    theirs = ZmqCommunicator.connect(listener.address)
                    theirs.write(Message("first"))
                    theirs.write(Message(bytes(40_000_000 if inside else 10)))

                pid = child(work if inside else lambda: (work(), time.sleep(30)))
                ours = stack.enter_context(listener.accept(timeout=10))
            assert ours.read(10).contents == "first"
            if inside:
                until_some_pieces_are_read(ours)
            else:
                ours.read(10)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            with pytest.raises(BrokenError if inside else EndOfMessages):
                ours.read(10)
            with pytest.raises(BrokenError):
                ours.write(Message(1))

    def test_fork(self, pair: tuple[Communicator, Communicator]) -> None:
        """A fork may not use it, and when it closes its copy the parent's goes on."""
        ours, theirs = pair

        def work() -> None:
            with pytest.raises(ForkedError):
                theirs.write(Message(1))
            theirs.close()
            ours.close()
            os._exit(7)

        pid = child(work)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        theirs.write(Message("still here"))
        assert ours.read(10).contents == "still here"


def until_some_pieces_are_read(reader: Communicator) -> None:
    """Take in a part of a large message, however late it comes."""
    place = reader._incoming._place  # type: ignore[attr-defined]
    while True:
        with pytest.raises(TimeoutError):
            reader.read(timeout=0)
        if reader._incoming._place > place:  # type: ignore[attr-defined]
            return
        assert select.select([reader], [], [], 10)[0]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_several_ranks(transport: str, tmp_path: Path) -> None:
    """Three processes come to one Listener; each has its own stream, and the death of one is nobody else's matter."""
    with ZmqCommunicator.listen(ZmqSettings(transport=transport, directory=tmp_path, peer_timeout=1.0)) as listener:  # type: ignore[arg-type]

        def work(rank: int) -> None:
            theirs = ZmqCommunicator.connect(listener.address)
            theirs.write(Message(rank))
            while (contents := theirs.read(20).contents) != "stop":
                theirs.write(Message((rank, contents)))
            theirs.close()

        pids = [child(lambda rank=rank: work(rank)) for rank in range(3)]
        peers: dict[Any, Communicator] = {}
        for _ in range(3):
            peer = listener.accept(timeout=10)
            peers[peer.read(10).contents] = peer
    assert sorted(peers) == [0, 1, 2]
    for number in range(50):
        for rank in (2, 0, 1):
            peers[rank].write(Message(number))
    for rank, peer in peers.items():
        assert [peer.read(10).contents for _ in range(50)] == [(rank, number) for number in range(50)]
    os.kill(pids[1], signal.SIGKILL)
    os.waitpid(pids[1], 0)
    with pytest.raises(EndOfMessages if transport == "ipc" else BrokenError):
        peers[1].read(10)
    for rank in (0, 2):
        peers[rank].write(Message("stop"))
        with pytest.raises(EndOfMessages):
            peers[rank].read(10)
        os.waitpid(pids[rank], 0)
    close(*peers.values())


def test_a_peer_that_is_stopped_over_tcp() -> None:
    """For longer than a silent host would be waited for: its system answers for it, and it goes on where it was."""
    with ZmqCommunicator.listen(ZmqSettings(transport="tcp", peer_timeout=1.0)) as listener:

        def work() -> None:
            with ZmqCommunicator.connect(listener.address) as theirs:
                theirs.write(Message("ready"))
                theirs.write(Message(theirs.read(20).contents))

        pid = child(work)
        ours = listener.accept(timeout=10)
    assert ours.read(10).contents == "ready"
    os.kill(pid, signal.SIGSTOP)
    large = bytes(3_000_000)
    ours.write(Message(large))
    with pytest.raises(TimeoutError):
        ours.read(2.5)
    os.kill(pid, signal.SIGCONT)
    assert ours.read(20).contents == large
    with pytest.raises(EndOfMessages):
        ours.read(20)
    os.waitpid(pid, 0)
    close(ours)


def cut_connections() -> int:
    """Cut every TCP connection of this process, both ends of which are here; gives how many ends there were."""
    count = 0
    for name in os.listdir("/dev/fd"):
        with ExitStack() as opened:
            try:
                duplicate = os.dup(int(name))
                opened.callback(os.close, duplicate)
                end = socket.socket(fileno=duplicate)
                opened.callback(end.detach)
                if end.family in {socket.AF_INET, socket.AF_INET6}:
                    end.getpeername()
                    end.shutdown(socket.SHUT_RDWR)
                    count += 1
            except OSError:
                pass  # no socket, or it listens, or was cut from the other end
    return count


def test_a_connection_that_is_cut(record_property: Callable[..., None]) -> None:
    """Over tcp it comes back at once, and what was under way arrives all the same, once and in order."""
    with ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:
        ours, theirs = come(listener)
    with ThreadPoolExecutor(1) as pool:
        for number in range(10):
            theirs.write(Message((number, bytes(5000))))
        begin = time.monotonic()
        assert cut_connections() > 0
        for number in range(10, 20):
            theirs.write(Message((number, bytes(5000))))
        flushing = pool.submit(theirs.flush)
        assert [ours.read(20).contents[0] for _ in range(20)] == list(range(20))  # type: ignore[index]
        record_property("seen", f"{time.monotonic() - begin:.2f} s until all has come")
        closing = pool.submit(theirs.close)
        with pytest.raises(EndOfMessages):
            ours.read(20)
        flushing.result(10)
        closing.result(10)
    close(ours)


def test_a_connection_that_does_not_come_back(record_property: Callable[..., None]) -> None:
    """Over tcp a peer that died is given up 2 s later."""
    with ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:

        def work() -> None:
            theirs = ZmqCommunicator.connect(listener.address)
            theirs.write(Message("first"))
            theirs.read()

        pid = child(work)
        try:
            ours = listener.accept(timeout=10)
            assert ours.read(10).contents == "first"
        finally:
            os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(BrokenError, match="its connection was lost, and did not come back in time"):
        ours.read(20)
    seconds = time.monotonic() - begin
    record_property("seen", f"{seconds:.2f} s over tcp")
    assert seconds < 2.0 + 1.5  # on a machine that is busy
    with pytest.raises(BrokenError, match="the peer is gone"):
        ours.write(Message("nobody reads this"))
    ours.close()
    os.waitpid(pid, 0)


@pytest.mark.soak  # on a busy machine the last confirmations may need longer than `linger`, and `close` warns
def test_a_connection_that_is_cut_again_and_again() -> None:
    """Over tcp everything arrives all the same, once and in order, both ways."""
    with ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:
        ours, theirs = come(listener)

    def write(writer: Communicator) -> None:
        for number in range(2000):
            writer.write(Message((number, bytes(5000))), 20)

    served: list[Communicator] = []

    def read(reader: Communicator) -> list[int]:
        numbers = [reader.read(20).contents[0] for _ in range(2000)]  # type: ignore[index]
        served.append(reader)
        while len(served) < 2:  # who is in no call does not send again what was lost
            with suppress(TimeoutError):
                reader.read(0.05)
        return numbers

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(read, ours), pool.submit(read, theirs)]
        writing = [pool.submit(write, ours), pool.submit(write, theirs)]
        cuts = 0
        for _ in range(3):
            time.sleep(0.1)  # wherever it is cut
            cuts += cut_connections()
        for future in writing:
            future.result()
        for future in work:
            assert future.result() == list(range(2000))
    assert cuts > 0
    close(ours, theirs)


def test_a_signal_while_a_context_ends() -> None:
    """What is still on its way out is waited for, signal or not, and nothing is left of it."""
    context = Context(1)
    line = Line(context, int(zmq.PAIR), 0.0)
    line.socket.connect("ipc:///nobody/is/here")
    line.say(b"word", b"by word")
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        line.close(200)
        end(context)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class TestStrangers:
    """Those who lack the key."""

    @pytest.mark.parametrize("transport", TRANSPORTS)
    def test_a_wrong_key(self, transport: str, tmp_path: Path) -> None:
        """It is refused, nothing that it sends is heard, and the next good one is served."""
        settings = ZmqSettings(transport=transport, directory=tmp_path, connect_timeout=3.0)  # type: ignore[arg-type]
        with ZmqCommunicator.listen(settings) as listener, ZmqCommunicator.listen(settings) as another:
            server = listener.address.key[:40]
            wrong = server + another.address.key[40:] if transport == "tcp" else another.address.key
            with ThreadPoolExecutor(1) as pool:
                task = pool.submit(ZmqCommunicator.connect, Address(listener.address.details, key=wrong))
                with pytest.raises(TimeoutError):
                    listener.accept(timeout=0.5)
                assert isinstance(task.exception(10), AuthenticationError)
            close(*come(listener))

    def test_a_wrong_key_refused_early(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One who is refused before it gets to ask, as on a busy machine, is told the same as any other."""

        def say_late(line: Line, *parts: bytes) -> bool:
            while line.socket.get(zmq.EVENTS) & zmq.POLLOUT:  # somebody is there to send it to
                assert select.select([line.descriptor], [], [], 10)[0]
            monkeypatch.undo()
            return line.say(*parts)

        monkeypatch.setattr(Line, "say", say_late)
        settings = ZmqSettings(transport="tcp")
        with ZmqCommunicator.listen(settings) as listener, ZmqCommunicator.listen(settings) as another:
            wrong = Address(listener.address.details, key=listener.address.key[:40] + another.address.key[40:])
            with ThreadPoolExecutor(1) as pool:
                task = pool.submit(ZmqCommunicator.connect, wrong)
                with pytest.raises(TimeoutError):
                    listener.accept(timeout=0.5)
                assert isinstance(task.exception(10), AuthenticationError)

    @pytest.mark.soak
    def test_strangers_at_a_port(self, record_property: Callable[..., None]) -> None:
        """F72: while many are silent, or say anything, a Task is let in; they are sent away after 2 s."""
        with ExitStack() as opened, ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:
            host, _, port = str(listener.address.details["endpoint"]).removeprefix("tcp://").rpartition(":")
            visitors = []
            for number in range(900):
                visitors.append(opened.enter_context(socket.create_connection((host.strip("[]"), int(port)), 10)))
                if number % 2:
                    visitors[-1].send(os.urandom(number % 200 + 1))
            begin = time.monotonic()
            ends = come(listener)
            record_property("seen", f"{1e3 * (time.monotonic() - begin):.0f} ms until a Task is let in")
            for visitor in visitors:
                visitor.settimeout(10)
                with suppress(ConnectionResetError):
                    while visitor.recv(1000):
                        pass  # its greeting, and then the end
            close(*ends)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_tcp_listens_where_it_says(self) -> None:
        """On the loopback interface, and nowhere else."""
        with ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:
            port = int(str(listener.address.details["endpoint"]).rpartition(":")[2])
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            lines += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
            bound = {line[1] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}
        assert bound <= {f"0100007F:{port:04X}", f"0000000000000000FFFF00000100007F:{port:04X}"}
        assert bound

    def test_the_directory_is_private(self, tmp_path: Path) -> None:
        """Nobody else can enter it; once the peer has come there is no way to its socket."""
        with ZmqCommunicator.listen(ZmqSettings(directory=tmp_path)) as listener:
            (directory,) = listener.directories
            assert directory.stat().st_mode & 0o777 == 0o700
            ends = come(listener)
            assert [path.name for path in directory.iterdir()] == ["socket"]
            close(*ends)

    def test_a_claim(self) -> None:
        """A stranger on tcp who says that a gibibyte follows is hung up on: libzmq would make room for it first."""
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
        with ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:
            host, _, port = str(listener.address.details["endpoint"]).removeprefix("tcp://").rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as stranger:
                stranger.sendall(greeting)
                with pytest.raises((BrokenPipeError, ConnectionResetError)):
                    stranger.sendall(b"\x06" + (1 << 30).to_bytes(8, "big") + bytes(64 << 20))
            close(*come(listener))

    def test_a_claim_on_a_line(self) -> None:
        """On the ports of a Task that is in, more than a piece of a message cannot be claimed; that one goes on."""
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
        before = listening_ports()
        with ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:
            (door,) = listening_ports() - before
            ours, theirs = come(listener)
            lines = listening_ports() - before - {door}
            assert len(lines) == 2
            for port in lines:
                with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
                    stranger.sendall(greeting + b"\x06" + (2 << 20).to_bytes(8, "big") + b"!")
                    stranger.settimeout(1.5)  # before the 2 s that it may take to prove the key
                    with suppress(ConnectionResetError):
                        while stranger.recv(1000):
                            pass  # a greeting, and then the end
            for size in (1 << 20, (1 << 20) + 1, 17 << 20):  # of which the largest parts are what is allowed
                with ThreadPoolExecutor(1) as pool:
                    writing = pool.submit(theirs.write, Message(bytes(size)))
                    assert len(ours.read(10).contents) == size
                    writing.result(10)
            close(ours, theirs)

    def test_the_key_is_not_shown(self) -> None:
        """Not in the details, which anybody may see, nor in the repr."""
        with ZmqCommunicator.listen(ZmqSettings(transport="tcp")) as listener:
            shown = repr(listener.address) + repr(listener.address.details)
            for start in (0, 40, 80):
                assert listener.address.key[start : start + 40].decode() not in shown


def listening_ports() -> set[int]:
    """The ports at which this process listens."""
    connections = psutil.Process().net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


LADDER = """
import os, resource, sys, threading
from tasklink_zmq import ZmqCommunicator
from tasklink_zmq.settings import ZmqSettings
from tasklink.message import Message
from tasklink.rendezvous.timer import Timer
import tasklink_zmq.listener, tasklink_zmq.task_side
free, transport = int(sys.argv[1]), sys.argv[2]
top = os.dup(0)
os.close(top)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
before = len(os.listdir("/dev/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (top + free, hard))
try:
    with ZmqCommunicator.listen(ZmqSettings(transport=transport)) as listener:
        ends = []
        def connect():
            try:
                ends.append(ZmqCommunicator.connect(listener.address))
            except Exception as error:
                ends.append(error)
        thread = threading.Thread(target=connect)
        thread.start()
        try:
            ends.append(listener.accept(timeout=1))
        finally:
            thread.join()
            for end in ends:
                if not isinstance(end, Exception):
                    end.close()
except (OSError, TimeoutError) as error:
    print("refused:", error)
else:
    print("success")
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert len(os.listdir("/dev/fd")) == before
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("free", [0, 1, 2, 3, 5, 8, 13, 20, 40, 60, 120])
def test_few_descriptors(free: int, transport: str, tmp_path: Path) -> None:
    """However few are free, there is an OSError or success; libzmq never gets to abort the process."""
    command = [sys.executable, "-c", LADDER, str(free), transport]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": "/tmp"})
    assert run.returncode == 0, run.stderr
    assert run.stdout == "success\n" or run.stdout.startswith("refused: ")
    assert free < 120 or run.stdout == "success\n"


INTERRUPTED = """
import os, random, signal, threading
from tasklink import codec
from tasklink.message import Message
from tasklink_zmq import ZmqCommunicator
from tasklink_zmq.settings import ZmqSettings
listener = ZmqCommunicator.listen(ZmqSettings())
ends = []
connecting = threading.Thread(target=lambda: ends.append(ZmqCommunicator.connect(listener.address)))
connecting.start()
reader = listener.accept(10)
connecting.join()
(writer,) = ends
armed = False
class Interrupt(KeyboardInterrupt):
    pass
def handler(*_):
    global armed
    if armed:
        armed = False
        raise Interrupt
signal.signal(signal.SIGALRM, handler)
read = []
def drain():
    while True:
        number, data = reader.read(20).contents
        if number < 0:
            return
        assert data == bytes([number % 256]) * len(data)
        read.append(number)
draining = threading.Thread(target=drain)
draining.start()
chance = random.Random(1)
returned, interrupted = set(), set()
for number in range(1500):
    size = chance.choice([10, 10, 5000, 100_000, 20_000_000 if number % 100 == 0 else 10])
    message = Message((number, bytes([number % 256]) * size))
    message.codec, message.buffers = codec.encode(message.contents)
    armed = True
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 6e-5 if size < 10_000 else 1e-3))
        writer.write(message, 20)
        returned.add(number)
        armed = False
    except Interrupt:
        interrupted.add(number)
last = threading.Thread(target=lambda: writer.write(Message((-1, b"")), 20))
last.start()
last.join(20)
draining.join(20)
missing = returned - interrupted - set(read)
print(read == sorted(set(read)), missing, draining.is_alive(), len(interrupted) > 50, flush=True)
os._exit(0)
"""


def test_a_handler_that_raises_at_any_moment_of_a_write() -> None:
    """That message arrives once or not at all, all others once and in order, and no lock stays taken."""
    run = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert run.stdout == "True set() False True\n", run.stderr


class TestSettings:
    """The table `[communicators.zmq]`."""

    def test_all_of_them(self, tmp_path: Path) -> None:
        """Sizes, durations and paths are text in a config."""
        table = {
            "transport": "tcp", "host": "127.0.0.1", "directory": str(tmp_path), "high_water": "2 MiB",
            "linger": "500 ms", "connect_timeout": "3 s", "peer_timeout": "4 s",
        }  # fmt: skip
        settings = Registry().settings("zmq", table)
        assert settings == ZmqSettings(
            transport="tcp", directory=tmp_path, high_water=2 << 20, linger=0.5, connect_timeout=3.0, peer_timeout=4.0
        )  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"transport": "udp"}, "transport = 'udp': allowed are ipc, tcp"),
            ({"high_water": 10}, r"high_water = 10 bytes: allowed is 1048576 \(1 MiB\) or more"),
            ({"linger": -1.0}, "linger = -1 s: allowed is 0 s up"),
            ({"peer_timeout": 0.0}, "peer_timeout = 0 s: allowed is more than 0 s up"),
        ],
    )
    def test_wrong_ones(self, wrong: dict[str, Any], words: str) -> None:
        """The error says what is allowed."""
        with pytest.raises(ConfigError, match=words):
            ZmqSettings(**wrong)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost", "*", "192.0.2.1"])
    def test_hosts_that_are_refused(self, host: str) -> None:
        """All interfaces at once, names, and addresses that are not this machine's."""
        with pytest.raises(ConfigError, match="host"):
            ZmqCommunicator.listen(ZmqSettings(transport="tcp", host=host))

    def test_a_path_that_is_too_long(self, tmp_path: Path) -> None:
        """The error comes before the Task is started."""
        place = tmp_path / ("x" * 100)
        place.mkdir()
        with pytest.raises(ConfigError, match=r"`directory` in \[communicators.zmq\]"):
            ZmqCommunicator.listen(ZmqSettings(directory=place))


class TestRuns:
    """Through an Executor."""

    @pytest.mark.parametrize("prefix", [(), ("sh", "-c", '"$@"', "sh")])
    @pytest.mark.parametrize("transport", TRANSPORTS)
    def test_behind_a_launcher(self, transport: str, prefix: tuple[str, ...]) -> None:
        """No descriptors are needed, so any launcher will do."""
        with Executor("zmq", settings={"zmq": {"transport": transport}}) as executor:
            result = executor.run(TaskSpec(run=lambda text: text.upper(), prefix=prefix), text="hello")
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, "HELLO", 0)

    @pytest.mark.parametrize("transport", TRANSPORTS)
    def test_a_result_outlives_its_process(self, transport: str) -> None:
        """However the process ends once its Task has returned: the result, and what was sent before it, are there."""

        def work() -> str:
            import atexit
            import os

            from tasklink import current_task

            atexit.register(os._exit, 5)
            for number in range(100):
                current_task().report((number, bytes(10_000)))
            return "value"

        with Executor("zmq", settings={"zmq": {"transport": transport}}) as executor:
            for _ in range(3):
                result = executor.run(work)
                assert (result.status, result.value, result.exit_code) == (Status.COMPLETED, "value", 5)
                assert [message.contents[0] for message in result.messages] == list(range(100))

    def test_an_executor_that_does_not_listen(self) -> None:
        """The Task ends all the same, and its error output says what was not confirmed."""

        class Deaf:
            """Hears nothing more before the Task's process has ended."""

            @hookimpl
            def tasklink_message_received(self, task: Any) -> None:
                end = os.pidfd_open(task.pid)
                select.select([end], [], [], 10)
                os.close(end)

        with Executor("zmq", settings={"zmq": {"linger": 0.3}}, observers=[Deaf()]) as executor:
            begin = time.monotonic()
            result = executor.run(lambda: current_task().report("heard") or "value")
        assert time.monotonic() - begin < 8
        assert (result.status, result.value) == (Status.COMPLETED, "value")
        assert b"tasklink: zmq: messages of up to" in result.stderr
        assert b"were not confirmed within 0.3 s" in result.stderr

    def test_without_pyzmq(self, tmp_path: Path) -> None:
        """A Task in a Python that lacks it says so, names that Python, and what to do."""
        (tmp_path / "zmq.py").write_text("raise ImportError('there is none here')")
        python = Path(sys.executable).resolve()
        with Executor("zmq") as executor:
            foreign = executor.run(TaskSpec(run="os:getpid", python=python, env={"PYTHONPATH": str(tmp_path)}))
        assert foreign.status is Status.NOT_STARTED
        assert isinstance(foreign.error, TaskNotStartedError)
        assert "pyzmq cannot be imported (there is none here): " in str(foreign.error)
        assert f"{python.name} -m pip install pyzmq" in str(foreign.error)
