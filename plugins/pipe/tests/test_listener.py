"""The Executor's side before the Task has started: pipes, their capacity, and what standard input begins with."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import sys
from typing import TYPE_CHECKING

import pytest

from tasklink.registry import Registry
from tasklink_pipe import PipeCommunicator
from tasklink_pipe.listener import InBandListener, PipeListener
from tasklink_pipe.settings import PipeSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasklink.communicator import Listener


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


@pytest.fixture(params=[False, True], ids=["inherited", "in band"])
def settings(request: pytest.FixtureRequest) -> PipeSettings:
    """Settings for either mode."""
    return PipeSettings(in_band=request.param)


class TestPipes:
    """What is made and what is left."""

    def test_closed_before_the_task_has_started(self, settings: PipeSettings) -> None:
        """Nothing is left, and closing again is no fault."""
        listener = PipeCommunicator.listen(settings)
        listener.close()
        listener.close()

    def test_closed_after_it_was_accepted(self, settings: PipeSettings) -> None:
        """What was given away lives on."""
        with PipeCommunicator.listen(settings) as listener:
            communicator = listener.accept()
        with communicator:
            os.fstat(communicator.fileno())

    def test_what_the_task_gets(self) -> None:
        """Of its own pipes it inherits two ends; in band it needs none beside standard input, output and error."""
        with PipeListener(PipeSettings()) as listener:
            assert (len(listener.address.descriptors), listener.address.key) == (2, b"")
            assert dict(listener.standard_descriptors) == {}
            assert sorted(captured(listener)) == [1, 2]
        with InBandListener(PipeSettings(in_band=True)) as listener:
            assert (listener.address.descriptors, len(listener.address.key)) == ((), 16)
            assert sorted(listener.standard_descriptors) == [0, 1]
            assert sorted(captured(listener)) == [2]

    def test_the_key_is_not_shown(self) -> None:
        """Neither the address nor the listener shows it."""
        with InBandListener(PipeSettings(in_band=True)) as listener:
            key = listener.address.key
            shown = repr(listener) + repr(listener.address)
            assert repr(key)[2:-1] not in shown
            assert key.hex() not in shown

    @pytest.mark.parametrize("free", range(9))
    def test_no_descriptors_left(self, settings: PipeSettings, free: int) -> None:
        """It is said so, and what was made before is closed again."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [os.dup(0) for _ in range(64)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, limits[1]))
        try:
            for _ in range(free):
                os.close(held.pop())
            try:
                PipeCommunicator.listen(settings).close()
            except OSError as error:
                assert "Too many open files" in str(error)  # noqa: PT017 - with enough of them it works
                assert free < 8
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in held:
                os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets pipes be sized")
class TestCapacity:
    """How much a pipe holds."""

    @pytest.mark.parametrize(("wanted", "given"), [(4096, 4096), (100_000, 131_072), (1 << 20, 1 << 20), (0, 65536)])
    def test_what_is_asked_for(self, wanted: int, given: int) -> None:
        """The system rounds up to a power of two of pages; less than a page is left as it is."""
        with PipeListener(PipeSettings(capacity=wanted)) as listener:
            assert [capacity(fd) for fd in listener.address.descriptors] == [given] * 2


class TestPreamble:
    """What standard input begins with when a launcher passes nothing else on."""

    def test_a_small_one(self) -> None:
        """It is written at once, and in front of all messages."""
        with InBandListener(PipeSettings(in_band=True)) as listener:
            stdin = os.dup(listener.standard_descriptors[0])
            listener.preamble = b"first"
            assert listener.fileno() is not None
            with listener.accept(timeout=0):
                assert os.read(stdin, 100) == b"first"
                assert listener.fileno() is None
            os.close(stdin)

    def test_one_that_the_pipe_does_not_hold(self) -> None:
        """The loop is told when there is room, never waits, and has the communicator when all was taken."""
        with InBandListener(PipeSettings(in_band=True, capacity=4096)) as listener:
            stdin = os.dup(listener.standard_descriptors[0])
            preamble = listener.preamble = os.urandom(100_000)
            poll = select.poll()
            descriptor = listener.fileno()
            assert descriptor is not None
            poll.register(descriptor, select.POLLIN)
            taken = b""
            communicator = None
            while communicator is None:
                assert poll.poll(10_000)
                try:
                    communicator = listener.accept(timeout=0)
                except TimeoutError:
                    assert not poll.poll(0)
                    taken += os.read(stdin, 5000)
            while len(taken) < len(preamble):
                taken += os.read(stdin, 5000)
            communicator.close()
            os.close(stdin)
        assert taken == preamble

    def test_nobody_reads_it_in_time(self) -> None:
        """`accept` gives up when it was told to."""
        with InBandListener(PipeSettings(in_band=True, capacity=4096)) as listener:
            stdin = os.dup(listener.standard_descriptors[0])
            listener.preamble = bytes(100_000)
            with pytest.raises(TimeoutError):
                listener.accept(timeout=0.05)
            os.close(stdin)

    def test_the_process_has_ended(self) -> None:
        """What it did not read is of no use; how it ended is somebody else's business."""
        with InBandListener(PipeSettings(in_band=True)) as listener:
            listener.preamble = bytes(10)
            listener.accept(timeout=0).close()
            assert listener.preamble == b""


def test_settings_from_a_config() -> None:
    """Sizes are text there."""
    assert Registry().settings("pipe", {"capacity": "64 KiB", "in_band": True}) == PipeSettings(
        capacity=65536,  # type: ignore[arg-type]
        in_band=True,
    )


def captured(listener: Listener) -> list[int]:
    """Which of the Task's streams it captures."""
    assert listener.output is not None
    return list(listener.output.standard_descriptors)


def capacity(pipe: int) -> int:
    """How much a pipe holds."""
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
