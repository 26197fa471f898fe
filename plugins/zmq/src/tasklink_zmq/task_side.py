"""The Task's side: reach the Executor, prove the key, and connect both lines.

Over ipc the way leads through a rendezvous (see `tasklink.rendezvous`), where both sides prove that they hold the key.
The Executor then opens two sockets for this Task alone, and says where they are, with what to say there first.

Over tcp libzmq itself does all this: CURVE encrypts and proves, both ways. Who asks at the Executor's port is told two
other ports, which are this Task's own.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

import os
from time import monotonic

import zmq
from zmq.backend import Context

from tasklink.errors import AuthenticationError, BrokenError
from tasklink.rendezvous import task_side
from tasklink_zmq.communicator import Limits, ZmqCommunicator
from tasklink_zmq.control import HELLO, WELCOME, control, read_control
from tasklink_zmq.line import Line, check_descriptors, end
from tasklink_zmq.watch import wait
from tasklink_zmq.wiring import Wiring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zmq.backend import Socket

    from tasklink.communicator import Address

PROOF_BYTES = 16
# The number of the peer in hexadecimal, and the proof.
INVITATION_BYTES = 4 + PROOF_BYTES
_KEY_CHARACTERS = 40  # of a CURVE key in Z85


def socket_paths(folder: str, number: bytes) -> tuple[str, str]:
    """Where the sockets of a peer are, as the Task sees them: for what comes in, and what goes out."""
    place = f"{folder}/{number.decode()}"
    return f"{place}-i", f"{place}-o"  # as long as the path of the rendezvous itself


def reach(address: Address) -> ZmqCommunicator:
    """Connect; see `Communicator.connect`."""
    details = address.details
    numbers, timeout = details["limits"], details["timeout"]
    assert isinstance(numbers, list)
    assert isinstance(timeout, (int, float))
    limits = Limits(*numbers)
    deadline = monotonic() + timeout
    if "endpoint" in details:
        return _over_tcp(address, limits, deadline)
    return _over_ipc(address, limits, deadline)


def _over_ipc(address: Address, limits: Limits, deadline: float) -> ZmqCommunicator:
    path = address.details["path"]
    assert isinstance(path, str)
    connection = task_side.reach(address)
    try:
        invitation = _read_invitation(connection, deadline)
    finally:
        os.close(connection)
    incoming, outgoing = socket_paths(os.path.dirname(path), invitation[:-PROOF_BYTES])  # noqa: PTH120 - pathlib takes 5 ms
    return _connected(
        Wiring(), limits, (f"ipc://{incoming}", f"ipc://{outgoing}"), invitation[-PROOF_BYTES:], path, deadline
    )


def _read_invitation(connection: int, deadline: float) -> bytes:
    if not wait([connection], deadline - monotonic()):
        raise TimeoutError("the Executor did not say where to go in time")
    invitation = os.read(connection, INVITATION_BYTES)  # so little comes in one
    if len(invitation) != INVITATION_BYTES:
        raise BrokenError("the Executor hung up: it has no descriptors left, or the run is over")
    return invitation


def _over_tcp(address: Address, limits: Limits, deadline: float) -> ZmqCommunicator:
    endpoint = address.details["endpoint"]
    assert isinstance(endpoint, str)
    server, public, secret = (address.key[start : start + _KEY_CHARACTERS] for start in (0, 40, 80))

    def prove(socket: Socket) -> None:
        try:
            socket.set(zmq.CURVE_SERVERKEY, server)
            socket.set(zmq.CURVE_PUBLICKEY, public)
            socket.set(zmq.CURVE_SECRETKEY, secret)
        except zmq.ZMQError as error:  # of some letters libzmq says that they cannot be a key
            raise AuthenticationError("the key of this run is no pair of keys of CURVE") from error

    check_descriptors()
    context = Context(1)
    line = Line(context, int(zmq.REQ), limits.patience)
    try:
        prove(line.socket)
        line.socket.connect(endpoint)
        line.say(b"")  # there is nobody to say it to where we were refused already, which is found next
        ports = _heard(line, [line], endpoint, deadline).split()
    finally:
        line.close(0)
        end(context)
    wiring = Wiring(limits.patience)
    wiring.set_up(prove)
    host = endpoint.rpartition(":")[0]
    incoming, outgoing = (f"{host}:{int(port)}" for port in ports)
    return _connected(wiring, limits, (incoming, outgoing), b"", endpoint, deadline)


def _connected(  # noqa: PLR0917 - all that there is to know, once
    wiring: Wiring, limits: Limits, endpoints: tuple[str, str], proof: bytes, place: str, deadline: float
) -> ZmqCommunicator:
    """Connect both lines, say hello on each, and wait until the Executor has heard it."""
    lines = (wiring.incoming, wiring.outgoing)
    try:
        for line, endpoint in zip(lines, endpoints):
            line.socket.connect(endpoint)
            line.say(control(HELLO) + proof)
        _check_welcome(_heard(wiring.incoming, lines, place, deadline), place)
        return ZmqCommunicator(wiring, limits)
    except BaseException:
        wiring.close()
        raise


def _check_welcome(word: bytes, place: str) -> None:
    if read_control(word)[0] != WELCOME:
        raise BrokenError(f"who listens at {place} says something else than that we are welcome")


def _heard(line: Line, lines: tuple[Line, ...] | list[Line], place: str, deadline: float) -> bytes:
    """Wait for the first word on a line."""
    while True:
        for each in lines:
            each.look()
        if any(each.refused for each in lines):  # and what was never asked has no answer to receive
            raise AuthenticationError(f"who listens at {place} does not know the key of this run, or we not theirs")
        word = line.hear()
        if word:
            return word
        if any(each.is_gone for each in lines):
            raise BrokenError("the Executor hung up: it has no descriptors left, or the run is over")
        if monotonic() >= deadline:
            raise TimeoutError(f"the Executor, which listens at {place}, did not answer in time")
        descriptors = [descriptor for each in lines for descriptor in (each.descriptor, each.news)]
        wait(descriptors, deadline - monotonic())
