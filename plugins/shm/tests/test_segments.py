"""Large buffers: that nobody copies them, that their memory is used again, and what happens when there is none."""

from __future__ import annotations

import gc
import logging
import mmap
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tasklink.errors import BrokenError, ProtocolError
from tasklink.message import Message
from tasklink_shm import copying, layout, pool
from tasklink_shm.pool import ANNOUNCEMENT, PLACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink_shm import SharedMemoryCommunicator

MIB = 1 << 20


def array(size: int, fill: int = 0) -> pickle.PickleBuffer:
    """What travels out of band, as the memory of an array does."""
    return pickle.PickleBuffer(bytearray([fill]) * size)


def is_free(end: SharedMemoryCommunicator) -> bool:
    """Whether every segment that an end writes can be used again."""
    return all(map(end._pool._is_free, end._pool._segments.values()))


class TestViews:
    """What the reader gets is the memory that the writer has filled."""

    def test_nobody_has_copied_it(self, both_ends: Callable[..., Any]) -> None:
        """What one side changes in a segment, the other one sees."""
        with both_ends() as (executor, task):
            task.write(Message([array(MIB, ord("x"))]))
            (segment,) = task._pool._segments.values()
            arrived = executor.read(5).buffers[1]
            assert bytes(arrived[:3]) == b"xxx"
            segment.mapping()[1] = ord("y")
            assert bytes(arrived[:3]) == b"xyx"
            arrived[2] = ord("z")
            assert segment.mapping()[:3] == b"xyz"

    def test_the_body_is_copied(self, both_ends: Callable[..., Any]) -> None:
        """What is decoded cannot change meanwhile: not even a large pickle stays where the writer can reach it."""
        with both_ends() as (executor, task):
            contents = list(range(100_000))
            task.write(Message(contents))
            (segment,) = task._pool._segments.values()
            message = executor.read(5)
            segment.mapping()[:1000] = bytes(1000)
            assert message.contents == contents
            assert is_free(task)

    def test_many_bytes_stay_where_they_are(self, both_ends: Callable[..., Any]) -> None:
        """Many bytes, of which nothing is decoded, are copied when they are asked for: nobody waits for it before."""
        with both_ends() as (executor, task):
            contents = os.urandom(5 * MIB)
            task.write(Message(contents))
            (segment,) = task._pool._segments.values()
            message = executor.read(5)
            segment.mapping()[:3] = b"abc"
            assert not is_free(task)
            assert message.contents == b"abc" + contents[3:]
            assert type(message.contents) is bytes
            assert is_free(task)

    def test_fewer_bytes_keep_no_segment(self, both_ends: Callable[..., Any]) -> None:
        """Who keeps messages of fewer bytes, and never looks at them, keeps no segments."""
        with both_ends() as (executor, task):
            contents = os.urandom(4 * MIB)
            task.write(Message(contents))
            message = executor.read(5)
            assert is_free(task)
            assert message.contents == contents

    def test_several_share_a_segment(self, both_ends: Callable[..., Any]) -> None:
        """The large buffers of one message lie in one segment, the small ones in the record."""
        with both_ends() as (executor, task):
            sent = [bytearray(os.urandom(size)) for size in (70_000, 5000, MIB, 65_536, 4096)]
            task.write(Message([pickle.PickleBuffer(part) for part in sent]))
            assert executor.read(5).contents == sent
            assert len(task._pool._segments) == 1

    def test_more_middling_ones_than_a_record_holds(self, both_ends: Callable[..., Any]) -> None:
        """Buffers below the threshold travel in a segment too when they are too many."""
        with both_ends() as (executor, task):
            sent = [bytearray(os.urandom(30_000)) for _ in range(100)]
            task.write(Message([pickle.PickleBuffer(part) for part in sent]))
            assert len(task._pool._segments) == 1
            assert executor.read(5).contents == sent


class TestCopies:
    """What is large is copied into a segment that was filled before, and nobody waits for that."""

    @pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 7777, 7778, 15_554, 50_001])
    def test_equal(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        """Whatever its length, and whether it can be written or not: it is there, and nothing beside it has changed."""
        monkeypatch.setattr(copying, "_SHORT", 1000)
        monkeypatch.setattr(copying, "_SLICE", 7777)
        data = random.Random(size).randbytes(size)
        with mmap.mmap(-1, len(data) + 20) as mapping:
            for source in (memoryview(data), memoryview(bytearray(data))):
                mapping[:] = b"-" * len(mapping)
                copying.copy(mapping, 7, source)
                assert mapping[:] == b"-" * 7 + data + b"-" * 13

    def test_other_threads_run(self) -> None:
        """To copy an array keeps no other thread from running, though nobody asks for the interpreter's lock."""
        segment = pool.Segment(1, 0, 64 * MIB)
        source = bytearray(64 * MIB)
        segment.fill(0, source)
        segment.mapping()
        ticks = []
        over = threading.Event()

        def tick() -> None:
            while not over.wait(0.0002):
                ticks.append(None)

        interval = sys.getswitchinterval()
        ticker = threading.Thread(target=tick)
        ticker.start()
        try:
            sys.setswitchinterval(10)  # who has the lock gives it back where it does without, and only there
            before = len(ticks)
            for _ in range(5):
                segment.fill(0, source)
            count = len(ticks) - before
        finally:
            sys.setswitchinterval(interval)
            over.set()
            ticker.join()
            segment.close()
        assert count >= 10


class TestRelease:
    """A segment is free when the last view of what came in it is gone."""

    def test_every_kind_of_view(self, both_ends: Callable[..., Any]) -> None:
        """Slices, casts, PickleBuffers and copies: those that need the memory keep it."""
        with both_ends() as (executor, task):
            task.write(Message([array(MIB, ord("x"))]))
            buffers = executor.read(5).buffers
            views = [buffers[1][10:20], buffers[1].cast("I"), pickle.PickleBuffer(buffers[1])]
            copy = bytes(buffers[1])
            del buffers
            while views:
                assert not is_free(task)
                views.pop()
            assert is_free(task)
            assert copy == b"x" * MIB

    def test_arrays(self, both_ends: Callable[..., Any]) -> None:
        """Slices, transposed ones, and arrays made of the bytes of arrays keep it as well."""
        numpy = pytest.importorskip("numpy", reason="arrays are numpy's")
        with both_ends() as (executor, task):
            task.write(Message({"a": numpy.arange(MIB).reshape(1024, 1024), "b": numpy.ones(MIB)}))
            contents = executor.read(5).contents
            views = [contents["a"][5, 3:7], contents["a"].T[::2], numpy.frombuffer(contents["b"].data, "u1")[9:]]
            assert (contents["a"].flags.writeable, contents["b"].sum()) == (True, MIB)
            contents.clear()
            while views:
                assert not is_free(task)
                assert int(views[-1].flat[0]) >= 0
                views.pop()
            assert is_free(task)

    def test_views_outlive_the_communicator(self, both_ends: Callable[..., Any]) -> None:
        """The memory of an array stays as long as the array, and then goes, with its descriptor."""
        with both_ends() as (executor, task):
            task.write(Message([array(MIB, ord("x"))]))
            view = executor.read(5).buffers[1]
        block = weakref.ref(view.obj)
        assert bytes(view[-3:]) == b"xxx"
        before = len(os.listdir("/proc/self/fd"))
        del view
        gc.collect()
        assert block() is None
        assert len(os.listdir("/proc/self/fd")) == before - 1

    def test_used_again(self, both_ends: Callable[..., Any]) -> None:
        """A reader that lets go of what it got needs one segment, whatever it gets."""
        with both_ends() as (executor, task):
            for number in range(200):
                task.write(Message([number, array(MIB)]))
                assert executor.read(5).contents[0] == number
            assert len(task._pool._segments) == 1

    def test_kept(self, both_ends: Callable[..., Any]) -> None:
        """A reader that keeps everything gets everything; what it keeps is never written to again."""
        with both_ends(pool=8 * MIB) as (executor, task), ThreadPoolExecutor(1) as threads:
            writing = threads.submit(lambda: [task.write(Message(array(MIB, n))) for n in range(60)])
            kept = [executor.read(10).contents for _ in range(60)]
            writing.result()
            assert 2 <= len(task._pool._segments) <= 8
            assert [(bytes(view[:1]), bytes(view[-1:]), len(view)) for view in kept] == [
                (bytes([n]), bytes([n]), MIB) for n in range(60)
            ]

    def test_another_thread_lets_go(self, both_ends: Callable[..., Any]) -> None:
        """Released in other threads than it was read in, also while others are received: nothing is miscounted."""
        with both_ends() as (executor, task), ThreadPoolExecutor(4) as threads:
            writing = threads.submit(lambda: [task.write(Message(array(70_000, n % 251))) for n in range(600)])
            looking = []
            for _ in range(600):
                payload = executor.read(10).buffers
                looking.append(threads.submit(lambda p: (bytes(p[1][:1]), bytes(p[1][-1:])), payload))
                del payload
            writing.result()
            assert all(future.result() == (bytes([n % 251]),) * 2 for n, future in enumerate(looking))
            del looking
            threads.shutdown()  # a thread holds the last thing that it was at
            assert is_free(task)

    def test_given_back(self, both_ends: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """What nobody has used for a while goes back to the system, at both sides."""
        with both_ends() as (executor, task):
            before = len(os.listdir("/proc/self/fd"))
            for size in (MIB, 8 * MIB):
                task.write(Message(array(size)))
                assert executor.read(5).contents == bytes(size)
            assert len(os.listdir("/proc/self/fd")) == before + 4
            later = time.monotonic() + 10
            monkeypatch.setattr(pool, "monotonic", lambda: later)
            task._pool.sweep()
            with pytest.raises(TimeoutError):
                executor.read(0)
            assert len(os.listdir("/proc/self/fd")) == before

    def test_room_for_another_size(self, both_ends: Callable[..., Any]) -> None:
        """Free segments make room for one that they are too small for."""
        with both_ends(pool=8 * MIB) as (executor, task):
            for size in (MIB, 2 * MIB, 4 * MIB, 7 * MIB):
                task.write(Message(array(size)), timeout=5)
                assert len(executor.read(5).contents) == size
            assert sum(segment.filled for segment in task._pool._segments.values()) <= 8 * MIB

    @pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
    def test_memory_stays_flat(self, peer: Callable[..., Any], count: int) -> None:
        """Thousands of arrays of 1 MiB pass through a handful of segments."""
        code = f"""
            import pickle
            data = pickle.PickleBuffer(bytearray(os.urandom(1 << 20)))
            for n in range({count}): end.write(Message([n, data]))
            end.write(Message(len(end._pool._segments)))
        """
        with peer(code) as (end, _):
            for number in range(count):
                content = end.read(30).contents
                assert content[0] == number
                if number == 50:
                    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            del content
            assert end.read(30).contents <= 16
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


class TestLoans:
    """Memory that is shared before it is sent."""

    def test_nothing_is_copied(self, both_ends: Callable[..., Any]) -> None:
        """What the reader gets is the very memory, and a slice of it, too."""
        with both_ends() as (executor, task):
            memory = task.allocate(MIB)
            memory[:] = b"x" * MIB
            task.write(Message(pickle.PickleBuffer(memory)))
            task.write(Message([pickle.PickleBuffer(memory[MIB // 2 :]), 1]))
            first, second = executor.read(5).buffers[1], executor.read(5).buffers[1]
            memory[MIB // 2] = ord("y")
            assert (first[MIB // 2], second[0], len(second)) == (ord("y"), ord("y"), MIB // 2)
            assert len(task._pool._segments) == 1

    def test_when_it_is_free(self, both_ends: Callable[..., Any]) -> None:
        """Not before the reader has released it and its maker has no view of it."""
        with both_ends() as (executor, task):
            for first in ("reader", "maker"):
                memory = task.allocate(MIB)
                task.write(Message(pickle.PickleBuffer(memory)))
                arrived = executor.read(5).buffers
                assert not is_free(task)
                if first == "reader":
                    del arrived
                    assert not is_free(task)
                    del memory
                else:
                    del memory
                    assert not is_free(task)
                    del arrived
                assert is_free(task)
            assert len(task._pool._segments) == 1

    def test_arrays(self, both_ends: Callable[..., Any]) -> None:
        """Arrays in it, reshaped ones, parts of them, and others beside them in one message."""
        numpy = pytest.importorskip("numpy", reason="arrays are numpy's")
        with both_ends() as (executor, task):
            one = numpy.frombuffer(task.allocate(8 * MIB), "f8").reshape(1024, 1024)
            two = numpy.frombuffer(task.allocate(MIB), "u1")
            one[:], two[:] = 1, 2
            other = numpy.full(100_000, 3.0)
            task.write(Message([one, two[1000:], one[512:], other]))
            arrived = executor.read(5).contents
            assert len(task._pool._segments) == 3
            one[600, 0] = 7
            assert (arrived[0][600, 0], arrived[2][88, 0], int(arrived[1].sum())) == (7, 7, 2 * (MIB - 1000))
            numpy.testing.assert_array_equal(arrived[3], other)
            one.flags.writeable = False
            task.write(Message(one))  # what cannot be written is taken for any other memory, and copied
            numpy.testing.assert_array_equal(executor.read(5).contents, one)

    def test_sizes(self, both_ends: Callable[..., Any]) -> None:
        """Any number of bytes can be asked for; what the pool has not got is ordinary memory."""
        with both_ends(pool=MIB) as (executor, task):
            for size in (0, 1, 100, MIB, MIB + 1, 10 * MIB):
                memory = task.allocate(size)
                assert (len(memory), memory.readonly, memory.format) == (size, False, "B")
                memory[-1:] = b"x"[: len(memory)]
                if size <= MIB:
                    task.write(Message(pickle.PickleBuffer(memory)), timeout=5)
                    assert len(executor.read(5).contents) == size  # type: ignore[arg-type]


class TestShortage:
    """No memory, no descriptors: an error before anything was sent, or a copy instead; never a signal."""

    @pytest.mark.parametrize("place", ["ftruncate", "pwrite", "posix_fallocate"])
    def test_no_memory(
        self,
        both_ends: Callable[..., Any],
        place: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It is sent through the ring, which is logged once; or, where that is not allowed, refused."""

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        for fallback in (True, False):
            with both_ends(fallback=fallback) as (executor, task), ThreadPoolExecutor(1) as threads:
                with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
                    patch.setattr(os, place, refuse)
                    for _ in range(2):
                        if place == "posix_fallocate":
                            if fallback:
                                assert len(task.allocate(MIB)) == MIB
                            else:
                                with pytest.raises(OSError, match="No space left"):
                                    task.allocate(MIB)
                        elif fallback:
                            writing = threads.submit(task.write, Message(bytes(MIB)))
                            assert executor.read(5).contents == bytes(MIB)
                            writing.result(5)
                        else:
                            with pytest.raises(OSError, match="No space left"):
                                task.write(Message(bytes(MIB)))
                            with pytest.raises(TimeoutError):
                                executor.read(0)
                task.write(Message(bytes(MIB)))
                assert executor.read(5).contents == bytes(MIB)
        assert len(caplog.records) == 1

    def test_a_real_limit(self, peer: Callable[..., Any]) -> None:
        """A limit on the size of files holds for memory files: EFBIG, and the message comes through the ring."""
        code = """
            import resource, signal
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            end.write(Message(bytes(700_000)))
            end.write(Message(bytes(3 << 20)))
            end.write(Message("after"))
        """
        with peer(code) as (end, process):
            assert [end.read(10).contents for _ in range(3)] == [bytes(700_000), bytes(3 << 20), "after"]
            assert b"no shared memory for large buffers" in process.stderr.read()

    def test_no_descriptors(self, peer: Callable[..., Any]) -> None:
        """A writer that has none left sends through the ring."""
        code = """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), 4096))
            keep = []
            try:
                while True: keep.append(os.dup(0))
            except OSError: pass
            end.write(Message(bytes(3 << 20)))
            end.write(Message("after"))
        """
        with peer(code) as (end, _):
            assert [end.read(10).contents for _ in range(2)] == [bytes(3 << 20), "after"]

    def test_no_descriptors_to_listen(self) -> None:
        """Whatever is missing, `listen` and `accept` raise OSError and leave nothing behind."""
        code = """
            import os, resource
            from tasklink_shm import SharedMemoryCommunicator
            from tasklink_shm.settings import SharedMemorySettings
            SharedMemoryCommunicator.listen(SharedMemorySettings()).accept().close()
            import gc, warnings
            gc.collect()
            start = os.listdir("/proc/self/fd")
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            for spare in range(16):
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, start)) + spare, hard))
                try:
                    with SharedMemoryCommunicator.listen(SharedMemorySettings()) as listener:
                        listener.accept().close()
                    print("works", end=" ")
                except OSError as error:
                    print(error.errno, end=" ")
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                assert os.listdir("/proc/self/fd") == start, spare
        """
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        assert set(done.stdout.split()) == {"24", "works"}
        assert done.stdout.split()[-1] == "works"


class TestHostilePeers:
    """What refers to a segment is checked."""

    @pytest.mark.parametrize(
        ("place", "text"),
        [
            ((99, 0, 0, 10), "never announced"),
            ((1, 40, 0, 10), "there are 32"),
            ((1, 1, 0, 10), "never announced"),
            ((1, 0, 1 << 40, 11), "of segment 1"),
            ((1, 0, 2**63, 2**63), "of segment 1"),
            ((0, 0, 0, 10**6), "has no 1000000 bytes"),
        ],
    )
    def test_places(self, both_ends: Callable[..., Any], place: tuple[int, ...], text: str) -> None:
        """A segment that is not there, or bytes that are not in it, are a ProtocolError."""
        with both_ends() as (executor, task):
            task.write(Message(bytearray(MIB)))
            assert len(executor.read(5).contents) == MIB
            task._outgoing.put(layout.PARCEL, 1, [PLACE.pack(*place)], None)
            with pytest.raises(ProtocolError, match=text):
                executor.read(5)

    def test_a_segment_that_could_be_cut(self, both_ends: Callable[..., Any]) -> None:
        """One without seals is refused before it is mapped."""
        with both_ends() as (executor, task):
            descriptor = os.memfd_create("foreign")
            os.ftruncate(descriptor, MIB)
            task._bell.line.sendmsg([ANNOUNCEMENT.pack(1, 0)], [(1, 1, descriptor.to_bytes(4, "little"))])
            os.close(descriptor)
            task._outgoing.put(layout.PARCEL, 1, [PLACE.pack(1, 0, 0, 10)], None)
            with pytest.raises(ProtocolError, match="seals"):
                executor.read(5)

    @pytest.mark.parametrize(
        ("data", "count"), [(b"?", 1), (bytes(12), 3), (bytes(50), 0), (ANNOUNCEMENT.pack(1, 77), 1)]
    )
    def test_announcements(self, both_ends: Callable[..., Any], data: bytes, count: int) -> None:
        """What announces nothing is a ProtocolError, and its descriptors are closed."""
        with both_ends() as (executor, task):
            before = len(os.listdir("/proc/self/fd"))
            rights = [(1, 1, b"".join(number.to_bytes(4, "little") for number in range(count)))] if count else []
            task._bell.line.sendmsg([data], rights)
            with pytest.raises(ProtocolError, match="announce"):
                executor.read(5)
            assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("kind", [layout.PARCEL, layout.STREAM, layout.FORGET, layout.PARTS, 7, 255])
    def test_records(self, both_ends: Callable[..., Any], kind: int) -> None:
        """A record of any kind with nothing sensible in it is a ProtocolError."""
        with both_ends() as (executor, task):
            task._outgoing.put(kind, 5, [b"x" * 50], None)
            with pytest.raises(ProtocolError):
                executor.read(5)


class TestDeath:
    """Kill -9 at either side, with segments under way."""

    def test_of_the_writer(self, peer: Callable[..., Any]) -> None:
        """What it had written is whole, and views of it live on."""
        code = """
            import pickle
            for n in range(5): end.write(Message([n, pickle.PickleBuffer(bytearray([n]) * (1 << 20))]))
            os.kill(os.getpid(), 9)
        """
        with peer(code) as (end, process):
            process.wait(10)
            kept = [end.read(10).contents for _ in range(5)]
        assert [(n, bytes(view[-1:])) for n, view in kept] == [(n, bytes([n])) for n in range(5)]

    def test_of_the_reader(self, peer: Callable[..., Any]) -> None:
        """The writer is told, whether it waits or not."""
        with peer("end.read(); end.write(Message('ready')); time.sleep(60)") as (end, process):
            end.write(Message(bytearray(MIB)))
            assert end.read(10).contents == "ready"
            process.send_signal(signal.SIGKILL)
            process.wait()
            with pytest.raises(BrokenError):
                for _ in range(1000):
                    end.write(Message(bytearray(MIB)), timeout=10)
