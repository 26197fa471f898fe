"""The named mode: a rendezvous whose connection carries messages. Who gets in is tested in core."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tasklink.communicator import Address
from tasklink.errors import AuthenticationError, BrokenError, ClosedError, ConfigError, EndOfMessages
from tasklink.message import Message
from tasklink_unix import SocketCommunicator
from tasklink_unix.settings import UnixSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasklink.communicator import Listener


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """A listener whose directory is within `tmp_path`."""
    with SocketCommunicator.listen(UnixSettings(named=True, directory=tmp_path)) as listener:
        yield listener


def test_messages_go_both_ways(listener: Listener) -> None:
    """The peer with the key gets in, both talk, and the end of one is told to the other."""
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(SocketCommunicator.connect, listener.address)
        with listener.accept(timeout=10) as ours, task.result() as theirs:
            ours.write(Message(["there"]))
            theirs.write(Message(["back"]))
            assert (theirs.read(10).contents, ours.read(10).contents) == (["there"], ["back"])
            theirs.close()
            with pytest.raises(EndOfMessages):
                ours.read(10)


def test_both_directions_hold_what_is_set(tmp_path: Path) -> None:
    """The setting `buffer` counts at both ends, as it does for a pair."""
    settings = UnixSettings(named=True, directory=tmp_path, buffer=1 << 16)  # type: ignore[arg-type]
    with SocketCommunicator.listen(settings) as listener, ThreadPoolExecutor(1) as pool:
        task = pool.submit(SocketCommunicator.connect, listener.address)
        with listener.accept(timeout=10) as ours, task.result() as theirs:
            for end in (ours, theirs):
                borrowed = socket.socket(fileno=end.fileno())
                size = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                borrowed.detach()
                assert size in (1 << 16, 2 << 16)  # Linux doubles it, for what it keeps beside the bytes


def test_nothing_is_left_once_it_has_come(listener: Listener, tmp_path: Path) -> None:
    """The directory is removed, nobody else gets in, and the key is worth nothing and forgotten."""
    address = listener.address
    assert [place.parent for place in listener.directories] == [tmp_path]
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(SocketCommunicator.connect, address)
        listener.accept(timeout=10).close()
        task.result().close()
    assert list(tmp_path.iterdir()) == []
    assert listener.address.key == b""
    with pytest.raises(BrokenError, match="nobody listens at"):
        SocketCommunicator.connect(address)
    with pytest.raises(ClosedError, match="works once"):
        listener.accept(timeout=0)


def test_a_wrong_key(listener: Listener) -> None:
    """It is refused, and the right one gets in afterwards."""
    wrong = Address(listener.address.details, key=os.urandom(32))
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(SocketCommunicator.connect, wrong)
        with pytest.raises(TimeoutError, match="has not come"):
            listener.accept(timeout=0.5)
        with pytest.raises(AuthenticationError, match="refused the key"):
            task.result()
    test_messages_go_both_ways(listener)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """The error names what to set, in the table of this communicator."""
    place = tmp_path / ("x" * 100)
    place.mkdir()
    with pytest.raises(ConfigError, match=r"`directory` in \[communicators.unix\]"):
        SocketCommunicator.listen(UnixSettings(named=True, directory=place))
    assert list(place.iterdir()) == []


def test_closing(listener: Listener, tmp_path: Path) -> None:
    """A listener that nobody came to leaves nothing, and can be closed again."""
    listener.close()
    listener.close()
    assert list(tmp_path.iterdir()) == []
    assert listener.address.key == b""
    with pytest.raises(ClosedError):
        listener.accept(timeout=0)
