"""What the tests of shared memory share: both ends in one process, or a peer in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tasklink.communicator import Address
from tasklink_shm import SharedMemoryCommunicator
from tasklink_shm.settings import SharedMemorySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ends = tuple[SharedMemoryCommunicator, SharedMemoryCommunicator]

PEER = """
import os, sys, time
from tasklink.communicator import Address
from tasklink.errors import *
from tasklink.message import Message
from tasklink_shm import SharedMemoryCommunicator
end = SharedMemoryCommunicator.connect(Address({options!r}, {descriptors!r}))
"""


def pytest_configure(config: pytest.Config) -> None:
    """Say what a long run is, where the settings of the workspace do not: these tests also run from the wheel."""
    config.addinivalue_line("markers", "soak: long runs, by hand: pytest -m soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long runs out when nobody has said which tests are meant."""
    if not config.option.markexpr:
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    gc.collect()
    before = sorted(os.listdir("/dev/fd"))
    yield
    gc.collect()  # a result holds arrays, and the frames of an error hold a result
    assert sorted(os.listdir("/dev/fd")) == before


@contextlib.contextmanager
def _both_ends(**settings: Any) -> Iterator[Ends]:
    with SharedMemoryCommunicator.listen(SharedMemorySettings(**settings)) as listener:
        descriptors = [os.dup(descriptor) for descriptor in listener.address.descriptors]
        task = SharedMemoryCommunicator.connect(Address(listener.address.details, descriptors))
        with listener.accept() as executor, task:
            assert isinstance(executor, SharedMemoryCommunicator)
            yield executor, task


@contextlib.contextmanager
def _peer(code: str, **settings: Any) -> Iterator[tuple[SharedMemoryCommunicator, subprocess.Popen[bytes]]]:
    with SharedMemoryCommunicator.listen(SharedMemorySettings(**settings)) as listener:
        descriptors = listener.address.descriptors
        program = PEER.format(options=listener.address.details, descriptors=descriptors) + textwrap.dedent(code)
        with subprocess.Popen(
            [sys.executable, "-c", program], pass_fds=descriptors, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                with listener.accept() as end:
                    assert isinstance(end, SharedMemoryCommunicator)
                    yield end, process
            finally:
                process.kill()


@pytest.fixture
def both_ends() -> Callable[..., contextlib.AbstractContextManager[Ends]]:
    """Open the Executor's end and the Task's end in this process, with some settings."""
    return _both_ends


@pytest.fixture
def peer() -> Callable[
    ..., contextlib.AbstractContextManager[tuple[SharedMemoryCommunicator, subprocess.Popen[bytes]]]
]:
    """Run some code, which has the Task's `end`, in a process of its own; give the Executor's end and the process."""
    return _peer


@pytest.fixture(params=[64 << 10, 512 << 10], ids=["small ring", "large ring"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Executor's end and Task's end."""
    with _both_ends(ring=request.param) as ends:
        yield ends
