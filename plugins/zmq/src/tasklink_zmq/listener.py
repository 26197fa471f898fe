"""The Executor's side of the zmq communicator until its peers have come.

Over ipc they come to a rendezvous, where they prove the key; see `tasklink.rendezvous`. Nobody whom it has not let in
gets near a ZeroMQ socket: each peer is given a name of its own there, drawn for it, and one socket in the private
directory, whose path is taken away as soon as the peer has spoken. What comes under another name is dropped unheard.

That is not only for secrecy. When a process has no descriptor left, libzmq 4.3 aborts it as soon as somebody connects
over ipc; so nobody shall be able to connect for whom there is no room.

Over tcp CURVE encrypts everything, and a ZAP handler lets in who holds the one key that was made for the Task of this
run. ZAP requests come over a socket of ours and are answered within `pump`: no thread is needed.

The Executor's side only.
"""

from __future__ import annotations

import ipaddress
import os
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, cast

import zmq
from zmq.utils import z85

from tasklink.communicator import Address, Listener
from tasklink.doorbell import Doorbell
from tasklink.errors import ClosedError, ConfigError
from tasklink.rendezvous.executor_side import Rendezvous
from tasklink.rendezvous.timer import Timer
from tasklink_zmq import unit as units
from tasklink_zmq.communicator import Limits, ZmqCommunicator, missing
from tasklink_zmq.exchange import Exchange, check_descriptors
from tasklink_zmq.monitor import Monitor
from tasklink_zmq.task_side import NAME_BYTES, set_up_tcp, socket_path
from tasklink_zmq.watch import Watch

if TYPE_CHECKING:
    import socket

    from tasklink_zmq.settings import ZmqSettings
    from tasklink_zmq.unit import Unit

# What one more peer takes over ipc: a listening socket, a connection, and what waits for it.
_DESCRIPTORS_A_PEER = 16
# Over tcp, peers that hold the key and were not accepted yet.
_MOST_ARRIVALS = 1024


def open_listener(settings: ZmqSettings) -> Listener:
    """Open what the settings ask for.

    Raises:
        ConfigError: the directory, or the host, cannot be used.
        OSError: there are not enough descriptors.
    """
    reason = missing()
    if reason is not None:
        raise ConfigError(f"communicator 'zmq' cannot be used here: {reason}")
    return IpcListener(settings) if settings.transport == "ipc" else TcpListener(settings)


class ZmqListener(Listener):
    """What both transports have in common: peers come, say hello over the socket, and are given away.

    Args:
        limits: for the communicators.
    """

    def __init__(self, limits: Limits) -> None:
        self._owner = os.getpid()
        self._limits = limits
        self._closed = False
        self._coming: set[ZmqCommunicator] = set()  # let in, and not heard yet
        self._arrived: deque[ZmqCommunicator] = deque()
        self._watch = Watch()
        self._bell = Doorbell()
        self._watch.add(self._bell.fileno())
        try:
            self._exchange = Exchange(zmq.ROUTER)
        except BaseException:
            self._release()
            raise
        self._exchange.hold()
        for descriptor in self._exchange.descriptors:
            self._watch.add(descriptor)

    def accept(self, timeout: float | None = None) -> ZmqCommunicator:
        """Wait for one more peer that holds the key; see `Listener.accept`."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if self._closed:
                raise ClosedError("this listener was closed")
            self._let_in()
            with self._exchange.lock:
                self._bell.clear()
                self._exchange.pump()
                if self._arrived:
                    return self._arrived.popleft()
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError("the Task has not come in time")
            self._watch.wait(None if deadline is None else deadline - monotonic())

    def _let_in(self) -> None:
        """Let in those who wait before the socket, where there is a door before it."""

    def _met(self, communicator: ZmqCommunicator) -> None:
        """A peer has spoken; with the lock of the exchange."""
        self._coming.discard(communicator)
        self._arrived.append(communicator)
        self._bell.ring()

    def fileno(self) -> int:
        """Readable when somebody knocks, answers, or has come; see `Listener.fileno`."""
        return self._watch.fileno()

    def close(self) -> None:
        """Stop listening, and send away who was not accepted; see `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        self.address = Address(self.address.details)
        if os.getpid() == self._owner:
            for communicator in (*self._coming, *self._arrived):
                communicator.abandon()
        self._release()

    def _release(self) -> None:
        self._watch.close()
        self._bell.close()
        if os.getpid() == self._owner and hasattr(self, "_exchange"):
            self._exchange.release(0)


class IpcListener(ZmqListener):
    """Lets in who has proved the key at a rendezvous; any number of them."""

    def __init__(self, settings: ZmqSettings) -> None:
        limits = Limits(settings.high_water, settings.linger, 0.0)
        self._rendezvous = Rendezvous(
            settings.directory, table="communicators.zmq", timeout=settings.connect_timeout, several=True
        )
        try:
            super().__init__(limits)
        except BaseException:
            self._rendezvous.close()
            raise
        self._watch.add(self._rendezvous.fileno())
        self.directories = self._rendezvous.directories
        details = {**self._rendezvous.details, "limits": [settings.high_water, settings.linger, 0.0]}
        self.address = Address(details, key=self._rendezvous.key)

    def _let_in(self) -> None:
        with suppress(TimeoutError):
            while True:
                self._open_socket_for(self._rendezvous.accept(timeout=0))

    def _open_socket_for(self, connection: socket.socket) -> None:
        with ExitStack() as opened:
            opened.callback(connection.close)
            check_descriptors(_DESCRIPTORS_A_PEER)
            name = os.urandom(NAME_BYTES)
            path = Path(socket_path(str(self.directories[0]), name))
            with self._exchange.lock:
                self._exchange.socket.bind(f"ipc://{path}")
            path.chmod(0o600)
            connection.send(name)  # an empty buffer has room for so little
            opened.pop_all()
        communicator = ZmqCommunicator(self._exchange, name, self._limits, connection.detach())

        def met() -> None:
            path.unlink(missing_ok=True)
            self._met(communicator)

        self._coming.add(communicator)
        communicator.when_met = met

    def _release(self) -> None:
        self._rendezvous.close()
        super()._release()


class TcpListener(ZmqListener):
    """Listens at a port, and lets in who holds the key."""

    def __init__(self, settings: ZmqSettings) -> None:
        host = _numeric(settings.host)
        super().__init__(Limits(settings.high_water, settings.linger, settings.peer_timeout))
        self._members: dict[int, ZmqCommunicator] = {}  # by the descriptor of their connection, which libzmq has
        server, server_secret = zmq.curve_keypair()
        public, secret = zmq.curve_keypair()
        self._known = z85.decode(public)
        try:
            self._listen(host, server_secret)
        except BaseException:
            self._release()
            raise
        endpoint = self._exchange.socket.get(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        self.address = Address(
            {
                "endpoint": endpoint.rstrip(b"\0").decode(),
                "timeout": settings.connect_timeout,
                "limits": [settings.high_water, settings.linger, settings.peer_timeout],
            },
            key=server + public + secret,
        )

    def _listen(self, host: str, secret: bytes) -> None:
        socket = self._exchange.socket
        # Before the port is open: without somebody who answers here, libzmq would let everybody in.
        self._doorman = self._exchange.open(zmq.REP)
        self._doorman.bind("inproc://zeromq.zap.01")
        self._exchange.watch(self._doorman)
        self._monitor = Monitor(self._exchange)
        for descriptor in self._exchange.descriptors[1:]:
            self._watch.add(descriptor)
        self._exchange.look_around = self._look_around
        self._exchange.meet = self._meet
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, secret)
        socket.set(zmq.ZAP_DOMAIN, b"tasklink")
        socket.set(zmq.ROUTER_HANDOVER, 1)  # to a Task that comes back before its old connection is given up
        set_up_tcp(self._exchange, self._limits)
        try:
            socket.bind(f"tcp://{host}:*")
        except zmq.ZMQError as error:
            raise ConfigError(f"communicators.zmq.host = {host!r}: no port can be opened there: {error}") from error

    def _look_around(self) -> None:
        self._monitor.look(lambda _: None, self._lost, lambda: None)
        while cast("int", self._doorman.get(zmq.EVENTS)) & zmq.POLLIN:
            self._answer()

    def _answer(self) -> None:
        """Answer a ZAP request: version, request, domain, address, identity, mechanism, credentials."""
        request = [self._doorman.recv(zmq.NOBLOCK)]
        while self._doorman.get(zmq.RCVMORE):
            request.append(self._doorman.recv(zmq.NOBLOCK))
        known = request[5:] == [b"CURVE", self._known]
        verdict = [b"200", b"OK"] if known else [b"400", b"not the key of this run"]
        for part in (b"1.0", request[1], *verdict, b""):
            self._doorman.send(part, zmq.SNDMORE)
        self._doorman.send(b"")

    def _meet(self, name: bytes, unit: Unit, descriptor: int) -> None:
        """A Task speaks for the first time. That it is one, CURVE has proved."""
        if unit.kind != units.HELLO or self._closed or len(self._arrived) >= _MOST_ARRIVALS:
            return
        communicator = ZmqCommunicator(self._exchange, name, self._limits, alarm=Timer())
        self._members[descriptor] = communicator
        communicator.when_met = lambda: self._met(communicator)
        communicator.greeted(unit)

    def _lost(self, descriptor: int) -> None:
        member = self._members.pop(descriptor, None)
        if member is not None:
            member.lost()


def _numeric(host: str) -> str:
    """The address as ZeroMQ writes it; names are refused, because they may stand for more than one.

    Raises:
        ConfigError: it is not one that a Task can go to.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or address.is_unspecified or address.is_multicast:
        raise ConfigError(
            f"communicators.zmq.host = {host!r}: allowed is the numeric address of one interface of this machine that "
            "the Task can reach, such as '127.0.0.1'; not a name, and not one that stands for all interfaces"
        )
    return f"[{address}]" if address.version == 6 else str(address)
