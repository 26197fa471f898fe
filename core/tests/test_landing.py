"""Where large buffers land: memory is used again only when nobody sees it any more, and never reserved for a claim."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink import landing
from tasklink.errors import BrokenError
from tasklink.landing import Landing

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
recycles = pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython", reason="memory is used again on Linux, by CPython"
)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Each test begins and ends with no memory from others."""
    landing._kept.clear()
    yield
    landing._kept.clear()


def landed(length: int, fill: int, portion: int = MIB) -> memoryview:
    """A buffer all of whose bytes are `fill`, as it is when it has come in portions."""
    where = Landing(length)
    while where.filled < length:
        with where.free(min(portion, length - where.filled)) as free:
            free[:] = bytes([fill]) * len(free)
            count = len(free)
        where.filled += count
    return where.view()


@given(st.data())
@settings(max_examples=25)
def test_what_somebody_sees_is_never_written_to(data: st.DataObject) -> None:
    """Buffers come and go, and their views are sliced and shared: each holds its own bytes as long as it lives."""
    landing._kept.clear()
    alive: list[tuple[memoryview, int]] = []
    for step in range(data.draw(st.integers(1, 15))):
        if alive and data.draw(st.booleans()):
            view, fill = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
            if data.draw(st.booleans()):  # the view goes, a part of it stays
                alive.append((view[len(view) // 2 :].cast("c").cast("B"), fill))
            del view
        fill = step % 251 + 1
        length = data.draw(st.sampled_from([1, 4096, MIB - 1, MIB, MIB + 1, 5 * MIB // 4, 2 * MIB, 3 * MIB, 9 * MIB]))
        alive.append((landed(length, fill, data.draw(st.sampled_from([MIB, 300_000]))), fill))
        assert len(alive[-1][0]) == length
        for view, byte in alive:
            assert bytes(view) == bytes([byte]) * len(view)


@recycles
class TestUsingAgain:
    """Memory that has been touched before is four times as fast."""

    def test_the_next_buffer_gets_the_memory_of_the_last(self) -> None:
        """When the last view of it is gone, also a view that was made from another one."""
        first = landed(MIB, 1)
        block = id(first.obj)
        second = landed(MIB, 2)
        assert id(second.obj) != block
        part = first[10:20]
        del first
        assert id(landed(MIB, 3).obj) != block
        assert bytes(part) == bytes([1]) * 10
        del part
        landing._kept.sort(key=lambda kept: id(kept) != block)
        assert id(landed(MIB, 4).obj) == block

    def test_a_block_may_be_a_quarter_larger(self) -> None:
        """Buffers of about one size share their memory; one that is much smaller does not waste it."""
        first = landed(3 * MIB, 1)
        block = id(first.obj)
        del first
        small = landed(9 * MIB // 4, 2)
        assert id(small.obj) != block
        again = landed(5 * MIB // 2, 3)
        assert (id(again.obj), len(again)) == (block, 5 * MIB // 2)

    def test_what_is_kept_is_bounded(self) -> None:
        """However many buffers there were, and whatever their sizes, 64 MiB are kept at most."""
        alive = [landed((1 + number % 3) * MIB, number) for number in range(100)]
        assert sum(map(len, landing._kept)) <= 64 * MIB
        dropped = [weakref.ref(view.obj) for view in alive]
        del alive
        assert sum(len(block) for reference in dropped if (block := reference()) is not None) <= 64 * MIB

    def test_a_large_one_is_not_kept(self) -> None:
        """A buffer of more than half of that gives its memory back to the system with its last view."""
        view = landed(33 * MIB, 1)
        block = weakref.ref(view.obj)
        assert block() is not None
        del view
        assert block() is None

    def test_many_that_are_in_use_cost_little(self) -> None:
        """Who keeps all that comes is not made to pay for it: a few blocks are looked at, not all."""
        alive = [landed(MIB, number) for number in range(60)]
        order = [id(block) for block in landing._kept]
        alive.append(landed(MIB, 61))
        moved = [id(block) for block in landing._kept]
        assert moved[:52] == order[8:]  # eight were looked at, and went to the end

    def test_a_fork_has_memory_of_its_own(self) -> None:
        """What lands in a child is not seen by the parent, whose free blocks it has copies of."""
        landed(MIB, 1)
        (kept,) = landing._kept
        pid = os.fork()
        if pid == 0:
            landed(MIB, 2)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert kept[:MIB] == bytes([1]) * MIB

    def test_threads_do_not_get_the_same_memory(self) -> None:
        """Several readers at once: none sees the bytes of another."""
        deadline = time.monotonic() + 1
        barrier = threading.Barrier(4)

        def read(fill: int) -> int:
            rounds = 0
            barrier.wait(10)
            while time.monotonic() < deadline:
                view = landed(MIB, fill)
                assert view[0] == view[-1] == fill
                assert bytes(view) == bytes([fill]) * MIB
                rounds += 1
            return rounds

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(1, 5)))


class TestClaims:
    """What a peer claims costs nothing until it comes."""

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere address space is taken at once")
    @pytest.mark.parametrize(("came", "most"), [(0, 8 * MIB), (8 * MIB, 8 * MIB), (8 * MIB + 1, 16 * MIB)])
    def test_memory_follows_what_has_come(self, came: int, most: int) -> None:
        """Of a buffer that is said to have 2^40 bytes 8 MiB are mapped, and then twice what has come."""
        where = Landing(1 << 40)
        while where.filled < came:
            with where.free(min(MIB, came - where.filled)) as free:
                count = len(free)
            where.filled += count
        with where.free(1) as free:
            assert len(free.obj) <= max(most, 2 * came)

    def test_the_system_refuses(self) -> None:
        """A limit that is reached while memory grows is an error that says for what."""
        done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False)
        assert done.stdout.startswith(f"there is no memory for the {1 << 40} bytes of a buffer"), done.stderr

    def test_a_length_that_no_memory_has(self) -> None:
        """Lengths up to the largest that the wire can say raise nothing else."""
        for length in (1 << 62, (1 << 63) - 1, (1 << 64) - 1):
            try:
                where = Landing(length)
            except BrokenError as error:
                assert "there is no memory" in str(error)  # noqa: PT017 - either outcome is right
            else:
                assert len(where.free(1)) == 1


REFUSED = """
import resource
from tasklink.errors import BrokenError
from tasklink.landing import Landing
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
where = Landing(1 << 40)
try:
    while True:
        with where.free(1 << 20) as free:
            count = len(free)
        where.filled += count
except BrokenError as error:
    print(error)
"""
