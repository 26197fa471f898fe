"""The Executor's side of the zmq communicator until its peers have come.

Over ipc they come to a rendezvous, where they prove the key; see `tasklink.rendezvous`. Nobody whom it has not let in
gets near a ZeroMQ socket: two are opened for each peer in the private directory, which take one connection each, and
hear nobody but who begins with a proof that only that peer was told. Their paths are taken away when both have spoken.

That is not only for secrecy. When a process has no descriptor left, libzmq 4.3 aborts it as soon as somebody connects
over ipc; so nobody shall be able to connect for whom there is no room.

Over tcp CURVE encrypts everything, and a ZAP handler lets in who holds the one key that was made for the Task of this
run. Who asks at the port that the address names is told two others, which are for this peer. libzmq makes room for what
a stranger claims to send before it has asked who that is, so every port has a limit for what may be claimed.

The Executor's side only.
"""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import zmq
from zmq.backend import Context
from zmq.utils import z85

from tasklink.communicator import Address, Listener
from tasklink.errors import BrokenError, ClosedError, ConfigError, ProtocolError
from tasklink.rendezvous.executor_side import Rendezvous
from tasklink.rendezvous.timer import Timer
from tasklink_zmq.communicator import WHOLE_BYTES_TCP, Limits, ZmqCommunicator, missing
from tasklink_zmq.line import NOBLOCK, Again, check_descriptors, descriptor_of, end, open_socket
from tasklink_zmq.task_side import PROOF_BYTES, socket_paths
from tasklink_zmq.watch import Watch
from tasklink_zmq.wiring import Doorman, Wiring

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from zmq.backend import Socket

    from tasklink_zmq.settings import ZmqSettings

# What a part may have, in bytes: at the door, where there is nothing but the handshake of CURVE; on a line, whose
# largest part is a whole message or a piece, and what CURVE adds to it.
DOOR_BYTES = 4096
LINE_BYTES = WHOLE_BYTES_TCP + 4096


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


class _Guest:
    """A peer that was let in, and has not said hello on both lines yet."""

    def __init__(self, wiring: Wiring, limits: Limits, proof: bytes, alarm: Timer | None) -> None:
        self.proof = proof
        self.paths: list[Path] = []
        self.descriptors = [wiring.outgoing.descriptor, wiring.outgoing.news]
        self.communicator = ZmqCommunicator(wiring, limits, alarm)
        self.descriptors.append(self.communicator.fileno())

    def take_paths_away(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)


class ZmqListener(Listener):
    """What both transports have in common: peers come, say hello, and are given away.

    Args:
        limits: for the communicators.
    """

    def __init__(self, limits: Limits) -> None:
        self._owner = os.getpid()
        self._limits = limits
        self._closed = False
        self._guests: list[_Guest] = []
        self._watch = Watch()

    def accept(self, timeout: float | None = None) -> ZmqCommunicator:
        """Wait for one more peer that holds the key; see `Listener.accept`."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if self._closed:
                raise ClosedError("this listener was closed")
            for guest in self._let_in():
                self._guests.append(guest)
                for descriptor in guest.descriptors:
                    self._watch.add(descriptor)
            for guest in list(self._guests):
                if self._is_met(guest):
                    return guest.communicator
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError("the Task has not come in time")
            self._watch.wait(None if deadline is None else deadline - monotonic())

    def _let_in(self) -> Iterator[_Guest]:
        """Let in those who wait."""
        raise NotImplementedError

    def _is_met(self, guest: _Guest) -> bool:
        try:
            met = guest.communicator.is_met(guest.proof)
        except (BrokenError, ProtocolError):
            self._forget(guest)
            guest.communicator.abandon()
            return False
        if met:
            self._forget(guest)
        return met

    def _forget(self, guest: _Guest) -> None:
        self._guests.remove(guest)
        guest.take_paths_away()
        for descriptor in guest.descriptors:
            self._watch.drop(descriptor)

    def fileno(self) -> int:
        """Readable when somebody knocks, answers, or has come; see `Listener.fileno`."""
        return self._watch.fileno()

    def close(self) -> None:
        """Stop listening, and send away who was not accepted; see `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        self.address = Address(self.address.details)
        for guest in self._guests:
            if os.getpid() == self._owner:
                guest.take_paths_away()
            guest.communicator.abandon()
        self._release()

    def _release(self) -> None:
        self._watch.close()


class IpcListener(ZmqListener):
    """Lets in who has proved the key at a rendezvous; any number of them."""

    def __init__(self, settings: ZmqSettings) -> None:
        self._rendezvous = Rendezvous(
            settings.directory, table="communicators.zmq", timeout=settings.connect_timeout, several=True
        )
        try:
            super().__init__(Limits(settings.high_water, settings.linger, 0.0))
        except BaseException:
            self._rendezvous.close()
            raise
        self._numbers = count()
        self._watch.add(self._rendezvous.fileno())
        self.directories = self._rendezvous.directories
        details = {**self._rendezvous.details, "limits": [settings.high_water, settings.linger, 0.0]}
        self.address = Address(details, key=self._rendezvous.key)

    def _let_in(self) -> Iterator[_Guest]:
        with suppress(TimeoutError):
            while True:
                with self._rendezvous.accept(timeout=0) as connection:
                    yield self._invited(connection)

    def _invited(self, connection: socket.socket) -> _Guest:
        number, proof = b"%04x" % (next(self._numbers) % (1 << 16)), os.urandom(PROOF_BYTES)
        paths = socket_paths(str(self.directories[0]), number)
        with ExitStack() as opened:
            wiring = Wiring()
            opened.callback(wiring.close)
            for line, path in zip((wiring.outgoing, wiring.incoming), paths, strict=True):
                line.socket.bind(f"ipc://{path}")
                Path(path).chmod(0o600)
            guest = _Guest(wiring, self._limits, proof, None)
            opened.pop_all()
        guest.paths += map(Path, paths)
        with suppress(OSError):  # who has hung up is not heard
            connection.send(number + proof)  # an empty buffer has room for so little
        return guest

    def _release(self) -> None:
        self._rendezvous.close()
        super()._release()


class TcpListener(ZmqListener):
    """Listens at a port, and lets in who holds the key."""

    def __init__(self, settings: ZmqSettings) -> None:
        self._host = _numeric(settings.host)
        super().__init__(Limits(settings.high_water, settings.linger, settings.peer_timeout))
        server, self._secret = zmq.curve_keypair()
        public, secret = zmq.curve_keypair()
        self._allowed = z85.decode(public)
        self._context: Context | None = None
        try:
            endpoint = self._listen()
        except BaseException:
            self._release()
            raise
        self.address = Address(
            {
                "endpoint": endpoint,
                "timeout": settings.connect_timeout,
                "limits": [settings.high_water, settings.linger, settings.peer_timeout],
            },
            key=server + public + secret,
        )

    def _listen(self) -> str:
        check_descriptors()
        self._context = Context(1)
        self._doorman = Doorman(self._context, self._allowed)
        self._socket = open_socket(self._context, int(zmq.REP))
        self._socket.set(zmq.HANDSHAKE_IVL, 2000)
        self._socket.set(zmq.IPV6, 1)
        self._guard(self._socket)
        self._socket.set(zmq.MAXMSGSIZE, DOOR_BYTES)
        self._watch.add(self._doorman.descriptor)
        self._watch.add(descriptor_of(self._socket))
        return self._bind(self._socket)

    def _guard(self, socket: Socket) -> None:
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, self._secret)
        socket.set(zmq.ZAP_DOMAIN, b"tasklink")
        socket.set(zmq.MAXMSGSIZE, LINE_BYTES)

    def _bind(self, socket: Socket) -> str:
        try:
            socket.bind(f"tcp://{self._host}:*")
        except zmq.ZMQError as error:
            raise ConfigError(
                f"communicators.zmq.host = {self._host!r}: no port can be opened there: {error}"
            ) from error
        endpoint = socket.get(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        return endpoint.rstrip(b"\0").decode()

    def _let_in(self) -> Iterator[_Guest]:
        self._doorman.answer()
        while True:
            try:
                self._socket.recv(NOBLOCK)
            except Again:
                return
            yield self._invited()

    def _invited(self) -> _Guest:
        ports = b""
        try:
            with ExitStack() as opened:
                wiring = Wiring(self._limits.patience, self._allowed)
                opened.callback(wiring.close)
                wiring.set_up(self._guard)
                endpoints = map(self._bind, (wiring.outgoing.socket, wiring.incoming.socket))
                ports = " ".join(endpoint.rpartition(":")[2] for endpoint in endpoints).encode()
                guest = _Guest(wiring, self._limits, b"", Timer())
                opened.pop_all()
        finally:
            self._socket.send(ports, NOBLOCK)  # none: there are no descriptors left
        return guest

    def _release(self) -> None:
        if self._context is not None and os.getpid() == self._owner:
            self._socket.close(0)
            self._doorman.close()
            end(self._context)
            self._context = None
        super()._release()


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
