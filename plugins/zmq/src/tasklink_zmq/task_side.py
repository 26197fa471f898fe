"""The Task's side: reach the Executor, prove the key, and open the socket.

Over ipc the way leads through a rendezvous (see `tasklink.rendezvous`), where both sides prove that they hold the key.
The Executor says there under which name it will know this Task, and opens the socket of that name for it alone. The
connection of the rendezvous stays open as the lifeline: it ends when either process does.

Over tcp libzmq itself does all this: CURVE encrypts and proves, both ways.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

import os
from time import monotonic

import zmq

from tasklink.errors import AuthenticationError, BrokenError
from tasklink.rendezvous import task_side
from tasklink_zmq.communicator import Limits, ZmqCommunicator
from tasklink_zmq.exchange import Exchange
from tasklink_zmq.monitor import Monitor
from tasklink_zmq.watch import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.communicator import Address

NAME_BYTES = 16
KEY_CHARACTERS = 40  # of a CURVE key in Z85


def socket_path(folder: str, name: bytes) -> str:
    """Where the socket for the peer of this name is; as long as the path of the rendezvous itself."""
    return f"{folder}/{name[:3].hex()}"


def reach(address: Address) -> ZmqCommunicator:
    """Connect; see `Communicator.connect`."""
    numbers = address.details["limits"]
    assert isinstance(numbers, list)
    limits = Limits(*numbers)
    return _over_tcp(address, limits) if "endpoint" in address.details else _over_ipc(address, limits)


def _over_ipc(address: Address, limits: Limits) -> ZmqCommunicator:
    path, timeout = address.details["path"], address.details["timeout"]
    assert isinstance(path, str)
    assert isinstance(timeout, (int, float))
    lifeline = task_side.reach(address)
    try:
        name = _read_name(lifeline, monotonic() + timeout)
        exchange = Exchange(zmq.DEALER)
        exchange.socket.set(zmq.RECONNECT_IVL, -1)  # the name is taken away when we have come
        exchange.socket.set(zmq.ROUTING_ID, name)
        exchange.socket.connect(f"ipc://{socket_path(os.path.dirname(path), name)}")  # noqa: PTH120 - pathlib takes 5 ms
        communicator = ZmqCommunicator(exchange, b"", limits, lifeline)
    except BaseException:
        os.close(lifeline)
        raise
    communicator.greet()
    return communicator


def _read_name(lifeline: int, deadline: float) -> bytes:
    if not wait([lifeline], deadline - monotonic()):
        raise TimeoutError("the Executor did not say where to go in time")
    name = os.read(lifeline, NAME_BYTES)  # so little comes in one
    if len(name) != NAME_BYTES:
        raise BrokenError("the Executor hung up: it has no descriptors left, or the run is over")
    return name


def _over_tcp(address: Address, limits: Limits) -> ZmqCommunicator:
    endpoint, timeout = address.details["endpoint"], address.details["timeout"]
    assert isinstance(endpoint, str)
    assert isinstance(timeout, (int, float))
    server, public, secret = (address.key[start : start + KEY_CHARACTERS] for start in (0, 40, 80))
    exchange = Exchange(zmq.DEALER)
    exchange.socket.set(zmq.ROUTING_ID, os.urandom(NAME_BYTES))
    exchange.socket.set(zmq.CURVE_SERVERKEY, server)
    exchange.socket.set(zmq.CURVE_PUBLICKEY, public)
    exchange.socket.set(zmq.CURVE_SECRETKEY, secret)
    set_up_tcp(exchange, limits)
    monitor = Monitor(exchange)
    communicator = ZmqCommunicator(exchange, b"", limits)
    hello = _Arrival(communicator)
    exchange.look_around = lambda: monitor.look(hello.connected, hello.lost, hello.refused)
    exchange.socket.connect(endpoint)
    try:
        _wait_for_welcome(exchange, hello, endpoint, monotonic() + timeout)
    except BaseException:
        communicator.abandon()
        raise
    return communicator


class _Arrival:
    """What happens to the connection of a Task."""

    def __init__(self, communicator: ZmqCommunicator) -> None:
        self._communicator = communicator
        self.was_refused = False

    @property
    def is_welcome(self) -> bool:
        return self._communicator.welcome

    def connected(self, _: int) -> None:
        self._communicator.greet()

    def lost(self, _: int) -> None:
        self._communicator.lost()

    def refused(self) -> None:
        self.was_refused = True


def _wait_for_welcome(exchange: Exchange, hello: _Arrival, endpoint: str, deadline: float) -> None:
    while True:
        with exchange.lock:
            exchange.pump()
        if hello.is_welcome:
            return
        if hello.was_refused:
            raise AuthenticationError(f"who listens at {endpoint} does not know the key of this run, or we not theirs")
        if monotonic() >= deadline:
            raise TimeoutError(f"the Executor, which listens at {endpoint}, did not answer in time")
        wait(exchange.descriptors, deadline - monotonic())


def set_up_tcp(exchange: Exchange, limits: Limits) -> None:
    """Have libzmq notice that a peer on another machine is gone without a word."""
    milliseconds = int(limits.patience * 1000)
    exchange.socket.set(zmq.HEARTBEAT_IVL, max(1, milliseconds // 4))
    exchange.socket.set(zmq.HEARTBEAT_TIMEOUT, max(1, milliseconds))
    exchange.socket.set(zmq.IPV6, 1)
    exchange.socket.set(zmq.HANDSHAKE_IVL, 2000)
