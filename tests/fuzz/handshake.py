"""The handshake of a rendezvous: an input is what a stranger, or a peer that knows nearly everything, may send.

    0  bytes          an answer, for the Executor's side
    1  bytes          a challenge and a confirmation, for the Task's side
    2  visits         strangers at the socket of a rendezvous

A visit is a byte that says what the visitor does (bit 0: it hangs up afterwards, bit 1: it does so at once), a byte
that says how much it sends, and what it sends. The nonces and the key are fixed, so an input can hold the right proof;
and what the right one is, is said here a second time, from the description of the handshake.
"""

import hashlib
import hmac
import logging
import re
import select
import socket
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tasklink.errors import AuthenticationError
from tasklink.rendezvous import handshake, task_side
from tasklink.rendezvous.executor_side import MOST_VISITORS, Rendezvous
from tests.fuzz.cut import chance_of, cut
from tests.fuzz.oracle import harmless

TOKENS = (handshake.BANNER, b"tasklink-meet 2\n", b"\x02\x00\x00\x02\x00\x00\x03\x00\x00")

_KEY, _SESSION = bytes(range(32)), bytes(range(16))
_OURS = b"o" * 32
# Nothing of what a stranger sends is shown, so these are all the words there are.
_LOGGED = re.compile(
    r"refused a connection from process \d+ of user \d+: (it hung up|the run is over|the Task has come|"
    r"it could not prove that it holds the key of this run|there are 16 others|"
    r"it does not speak version 1 of the handshake)|refused \d+ more connections"
)


def _proof(maker, executor_nonce, task_nonce):
    return hmac.new(_KEY, handshake.BANNER + maker + _SESSION + executor_nonce + task_nonce, hashlib.sha256).digest()


def mend(data, chance):
    """Put in what cannot be guessed: the banner, and proofs of what is sent."""
    kind = data[:1] or b"\0"
    if kind[0] % 3 == 2:
        return data
    body = bytearray(data[1:] if chance.randrange(2) else handshake.BANNER + data[17:])
    nonce = bytes(body[16:48]).ljust(32, b"\0")
    body[16:48] = nonce
    if kind[0] % 3 == 0:
        body[48:80] = _proof(b"by the task", _OURS, nonce)
    else:
        body[48:80] = _proof(b"by the executor", nonce, _OURS)
    if chance.randrange(3) == 0:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return kind + bytes(body[: 80 + chance.randrange(2)])


def check(data):
    """Let one side, or a rendezvous, meet what came."""
    if not data:
        return
    look = (_executor_side, _task_side, _rendezvous)[data[0] % 3]
    look(data[1:])


def _executor_side(answer):
    """It lets in who holds the key and nobody else, however the answer is cut; and refuses at the first wrong byte."""
    right = handshake.BANNER + answer[16:48] + _proof(b"by the task", _OURS, answer[16:48])
    chunks = cut(answer[: handshake.ANSWER_BYTES], chance_of(answer))
    with harmless(0):
        us = handshake.ExecutorSide(_KEY, _SESSION)
        us._nonce = _OURS
        confirmation = error = None
        try:
            for chunk in chunks:
                assert confirmation is None
                confirmation = us.receive(chunk)
        except AuthenticationError as problem:
            error = str(problem)
    if error is not None:
        assert _LOGGED.fullmatch("refused a connection from process 1 of user 1: " + error)
    assert (confirmation is not None) == answer.startswith(right)
    if confirmation is not None:
        assert confirmation == _proof(b"by the executor", _OURS, answer[16:48])
    elif len(answer) >= handshake.ANSWER_BYTES or not handshake.BANNER.startswith(answer[:16]):
        assert error is not None
    else:
        assert error is None
        assert us.wanted == handshake.ANSWER_BYTES - len(answer)


def _task_side(said):
    """It goes on with an Executor that holds the key and with nobody else, and no word of a stranger ends in a wait."""
    right = handshake.BANNER + said[16:48] + _proof(b"by the executor", said[16:48], _OURS)
    with harmless(0):
        here, there = socket.socketpair()
        with here, there:
            there.sendall(said)
            there.shutdown(socket.SHUT_WR)
            us = handshake.TaskSide(_KEY, _SESSION)
            us._nonce = _OURS
            line = task_side._Line(here, "socket", monotonic() + 10)
            try:
                proven = task_side._proven(line, us)
            except AuthenticationError:
                proven = False
            answer = _received(there)
    assert proven == said.startswith(right)
    # Who says the banner gets a proof of what it has sent, and whoever does not gets nothing.
    expected = handshake.BANNER + _OURS + _proof(b"by the task", said[16:48], _OURS)
    assert answer == (expected if len(said) >= 48 and said.startswith(handshake.BANNER) else b"")


def _received(connection):
    try:
        return connection.recv(1000, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


class _Log(logging.Handler):
    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


@cache
def _folder():
    log = _Log()
    logging.getLogger("tasklink.rendezvous").addHandler(log)
    logging.getLogger("tasklink.rendezvous").propagate = False
    return TemporaryDirectory(), log


def _rendezvous(data):
    """Whoever comes and whatever they send: nobody gets in, all is said in our own words, and then the Task gets in."""
    folder, log = _folder()
    visitors = []
    meeting = Rendezvous(Path(folder.name), table="communicators.fuzz", timeout=10)
    try:
        with harmless(0):
            _visit(data, meeting, visitors)
            assert len(meeting._visitors) <= MOST_VISITORS
            _good_peer(meeting)
    finally:
        for visitor in visitors:
            visitor.close()
        meeting.close()
    assert all(map(_LOGGED.fullmatch, log.said)), log.said
    log.said.clear()


def _visit(data, meeting, visitors):
    while len(data) >= 2 and len(visitors) < 2 * MOST_VISITORS:
        deed, size = data[0], data[1]
        visitor = socket.socket(socket.AF_UNIX)
        visitor.connect(meeting.details["path"])
        visitors.append(visitor)
        if deed & 2 == 0:
            _serve(meeting)
        try:
            visitor.send(data[2 : 2 + size])
        except (BrokenPipeError, ConnectionResetError):
            assert deed & 2 == 0, "nobody is sent away unheard"
        if deed & 1:
            visitor.close()
        data = data[2 + size :]
    _serve(meeting)


def _serve(meeting):
    for _ in range(10 * MOST_VISITORS):
        if not select.select([meeting], [], [], 0)[0]:
            return
        try:
            meeting.accept(0)
        except TimeoutError:
            pass
        else:
            raise AssertionError("a stranger was let in")
    raise AssertionError("there is no end to what it has to do")


def _good_peer(meeting):
    with socket.socket(socket.AF_UNIX) as task:
        task.settimeout(10)
        task.connect(meeting.details["path"])
        _serve(meeting)
        us = handshake.TaskSide(meeting.key, bytes.fromhex(meeting.details["session"]))
        task.send(us.answer(task.recv(handshake.CHALLENGE_BYTES)))
        meeting.accept(0).close()
        us.check(task.recv(handshake.CONFIRMATION_BYTES))
