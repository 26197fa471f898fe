"""A ring by itself: going round at every place, and whatever a peer may have written into the memory."""

from __future__ import annotations

import os
import random
import select
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink import framing
from tasklink.codec import RAW
from tasklink.errors import BrokenError, EndOfMessages, ProtocolError
from tasklink.message import Message
from tasklink_shm import layout

if TYPE_CHECKING:
    from collections.abc import Callable

RING = 64 << 10


class TestGoingRound:
    """A record that does not fit before the end begins at the beginning."""

    def test_at_every_place(self, both_ends: Callable[..., Any]) -> None:
        """Records of every length, with as much unread as there is room for: each arrives once, in order."""
        sizes = random.Random(3)
        with both_ends(ring=RING) as (executor, task):
            written = read = 0
            places = set()
            while len(places) < 3 * RING // layout.LINE // 4:
                places.add(task._outgoing.position)
                try:
                    task.write(Message([written, bytes(sizes.randrange(0, 1500))]), timeout=0)
                    written += 1
                except TimeoutError:
                    for _ in range(sizes.randrange(1, written - read + 1)):
                        assert executor.read(0).contents[0] == read
                        read += 1
            while read < written:
                assert executor.read(0).contents[0] == read
                read += 1

    @pytest.mark.parametrize("kept", [0, 1, 2, 3])
    def test_the_largest_record_always_fits(self, both_ends: Callable[..., Any], kept: int) -> None:
        """Wherever the reader is: when it has read all, a record of a quarter of the ring has room."""
        with both_ends(ring=RING) as (executor, task):
            most = task._outgoing.most
            for step in range(300):
                for _ in range(kept):
                    task.write(Message(bytes(step * 7 % 900)), timeout=0)
                for _ in range(kept):
                    executor.read(0)
                payload = bytes(most - 100)
                with pytest.raises(TimeoutError):
                    executor.read(0)  # tells the writer how far it is
                task.write(Message(payload), timeout=0)
                assert executor.read(0).contents == payload
                assert not task._pool._segments

    def test_how_full_a_ring_can_be(self, both_ends: Callable[..., Any]) -> None:
        """At least three quarters of it hold messages that nobody has read."""
        with both_ends(ring=RING) as (executor, task):
            count = 0
            with pytest.raises(TimeoutError):
                while True:
                    task.write(Message(bytes(800)), timeout=0)
                    count += 1
            assert count * 800 > RING * 3 / 4
            assert [len(executor.read(0).contents) for _ in range(count)] == [800] * count


def words_of(draw: Callable[..., Any]) -> bytes:
    """A word that a peer may write: at random, or nearly right."""
    kind = draw(st.integers(0, 8))
    number = draw(st.sampled_from([0, 1, 2, 31, 32, 56, 64, 100, 0xFFFFFF]) | st.integers(0, 0xFFFFFF))
    length = draw(st.sampled_from([0, 8, 24, 56, 64, 120, RING, RING // 4, 2**32 - 1]) | st.integers(0, 2000))
    return struct.pack("<Q", length << 32 | number << 8 | kind)


@st.composite
def garbage(draw: Callable[..., Any]) -> list[tuple[int, bytes]]:
    """What a peer may scribble, and where, as lines of the memory."""
    places = st.integers(0, 20) | st.integers(0, (layout.HEADER_BYTES + 2 * RING) // 64 - 1)
    frames = st.sampled_from([b"TL\x01\x01", b"TL\x01\x02", b"TL\x01\x03"])
    scribbles = []
    for _ in range(draw(st.integers(1, 12))):
        begin = words_of(draw) if draw(st.booleans()) else b""
        line = begin + draw(frames | st.just(b"")) + draw(st.binary(max_size=100))
        scribbles.append((64 * draw(places), line))
    return scribbles


@pytest.mark.parametrize("which", ["ring", "anywhere"])
def test_a_peer_that_scribbles(both_ends: Callable[..., Any], which: str) -> None:
    """The reader gives messages, or ends with a typed error; the writer writes, waits, or does so; nothing else."""

    @settings(max_examples=200, deadline=None)
    @given(scribbles=garbage(), seed=st.integers(0, 1000))
    def check(scribbles: list[tuple[int, bytes]], seed: int) -> None:
        with both_ends(ring=RING) as (executor, task):
            task.write(Message("first"), timeout=0)
            start = layout.HEADER_BYTES + RING if which == "ring" else 0
            mapping = task._memory.mapping
            for place, line in scribbles:
                begin = start + place % (RING if which == "ring" else len(mapping) - 200)
                mapping[begin : begin + len(line)] = line
            words = task._memory.words
            if seed % 3 == 0:
                words[(executor._incoming.position + 64 * (seed % 5)) >> 3] = int.from_bytes(
                    scribbles[0][1][:8], "little"
                )
            try:
                for _ in range(300):
                    executor.read(0)
            except (TimeoutError, ProtocolError, BrokenError, EndOfMessages):
                pass
            try:
                for _ in range(20):
                    executor.write(Message(bytes(seed * 100)), timeout=0)
            except (TimeoutError, ProtocolError, BrokenError):
                pass

    check()


def test_random_rings(both_ends: Callable[..., Any]) -> None:
    """A ring full of random bytes, with the first word nearly right."""
    chance = random.Random(1)
    with both_ends(ring=RING) as (_, other):
        assert other is not None
    for round_ in range(150):
        with both_ends(ring=RING) as (executor, task):
            mapping = task._memory.mapping
            begin = executor._incoming.position
            mapping[begin : begin + RING] = chance.randbytes(RING)
            for place in range(begin, begin + RING, 64):
                if chance.random() < 0.7:
                    word = chance.randrange(0, 400) << 32 | chance.randrange(0, 60) << 8 | chance.randrange(0, 8)
                    task._memory.words[place >> 3] = word
            with pytest.raises((ProtocolError, BrokenError, TimeoutError)):
                for _ in range(round_ + 1000):
                    executor.read(0)


class TestRecordsWithoutEnd:
    """Records that complete no message: whoever has a deadline comes to its right, at the Task's end too."""

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("which", [0, 1], ids=["executor", "task"])
    def test_a_ring_that_leads_back_to_itself(self, both_ends: Callable[..., Any], which: int) -> None:
        """A peer says again and again that it has given up a message, and writes nothing any more."""
        with both_ends(ring=RING) as ends:
            reader, writer = ends[which], ends[1 - which]
            writer._outgoing.put(layout.STREAM, 0, [framing.GIVEN_UP], None)
            writer._memory.words[writer._outgoing.position >> 3] = layout.SKIP
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    reader.read(0)

    def test_all_that_a_message_needs_is_there(self, both_ends: Callable[..., Any]) -> None:
        """Its writer has nothing more to ring for, so a Task reads on to its end."""
        with both_ends(ring=RING) as (executor, task):
            for frame in framing.split(framing.encode([bytes(5000)], RAW), 100):
                executor._outgoing.put(layout.STREAM, 0, frame, None)
            assert task.read(0).contents == bytes(5000)

    def test_its_descriptor_tells_that_there_is_more(self, both_ends: Callable[..., Any]) -> None:
        """A Task that waits for its descriptor gets a message of many pieces, however it is interrupted."""
        payload = os.urandom(1 << 20) * 4
        with both_ends(ring=RING, pool=0) as (executor, task):
            with pytest.raises(TimeoutError):
                task.read(0)
            writer = threading.Thread(target=executor.write, args=(Message(payload), 30))
            writer.start()
            message = None
            while message is None:
                assert select.select([task], [], [], 10)[0]
                try:
                    message = task.read(0)
                except TimeoutError:
                    continue
            writer.join()
            assert message.contents == payload


class TestMemory:
    """What is mapped is looked at first."""

    def test_its_seals(self) -> None:
        """Nobody can make it shorter or longer."""
        descriptor = layout.create(RING)
        try:
            for size in (0, 1 << 20):
                with pytest.raises(PermissionError):
                    os.ftruncate(descriptor, size)
            assert os.fstat(descriptor).st_blocks * 512 >= layout.HEADER_BYTES + 2 * RING, "filled at once"
        finally:
            os.close(descriptor)

    def test_a_file_without_seals(self) -> None:
        """A peer that could cut it under us is refused before it is mapped."""
        descriptor = os.memfd_create("foreign", os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, layout.HEADER_BYTES + 2 * RING)
            with pytest.raises(ProtocolError, match="seals"):
                layout.Memory(descriptor)
        finally:
            os.close(descriptor)

    def test_no_memory_at_all(self, tmp_path: Any) -> None:
        """An ordinary file has no seals."""
        with (tmp_path / "file").open("wb") as file, pytest.raises(ProtocolError, match="seals"):
            layout.Memory(file.fileno())

    @pytest.mark.parametrize("header", [b"", b"TLshm\0\0\1" + (1 << 40).to_bytes(8, "little")])
    def test_another_header(self, header: bytes) -> None:
        """What says that it is something else, or larger than it is, is refused."""
        descriptor = layout.sealed_file(layout.HEADER_BYTES + 2 * RING)
        try:
            os.pwrite(descriptor, header, 0)
            with pytest.raises(ProtocolError, match="shared memory"):
                layout.Memory(descriptor)
        finally:
            os.close(descriptor)

    def test_words_do_not_overlap(self) -> None:
        """Each word of the header has one meaning, and rings begin behind all of them."""
        seen = [0, 1]
        for direction in (layout.EXECUTOR, layout.TASK):
            lane = layout.Lane(direction, RING)
            seen += [lane.asleep, lane.read, lane.full, lane.short]
            seen += [first + slot for first in (lane.received, lane.released) for slot in range(layout.SLOTS)]
        assert len(set(seen)) == len(seen)
        assert max(seen) * 8 < layout.HEADER_BYTES
