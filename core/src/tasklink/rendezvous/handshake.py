"""How those who meet at a rendezvous prove to each other that they hold the key.

    Executor -> Task    challenge       banner, nonce
    Task -> Executor    answer          banner, nonce, proof
    Executor -> Task    confirmation    proof

A proof is an HMAC-SHA256, by the one-shot key, of the banner, the direction, the session and both nonces. So a recorded
proof is of no use against other nonces, a proof that is sent back to its maker says the wrong direction, and one of
another run the wrong session. The Task proves first: who has no key gets nothing that was made with it.

Rules of this file: it does no I/O. Every message has a fixed length, and nothing in it is decoded, only compared. There
is one version: a peer that says another banner is refused, never met half-way. No error shows what the peer has sent.

Part of the Task side: standard library, Python 3.9; imported at a rendezvous only, for `hmac` takes 3 ms.
"""

from __future__ import annotations

import hmac
import os

from tasklink.errors import AuthenticationError

BANNER = b"tasklink-meet 1\n"
KEY_BYTES = 32
SESSION_BYTES = 16
NONCE_BYTES = 32
PROOF_BYTES = 32
CHALLENGE_BYTES = len(BANNER) + NONCE_BYTES
ANSWER_BYTES = len(BANNER) + NONCE_BYTES + PROOF_BYTES
CONFIRMATION_BYTES = PROOF_BYTES

# Who makes the proof.
_TASK = b"by the task"
_EXECUTOR = b"by the executor"


class ExecutorSide:
    """The Executor's side: challenges one peer, and tells whether it holds the key.

    Attributes:
        challenge: what to send first.

    Args:
        key: the one-shot key.
        session: names the run.
    """

    def __init__(self, key: bytes, session: bytes) -> None:
        self._key = key
        self._session = session
        self._nonce = os.urandom(NONCE_BYTES)
        self._answer = b""
        self.challenge = BANNER + self._nonce

    @property
    def wanted(self) -> int:
        """How many bytes of the peer's answer are missing; what follows them is not ours to read."""
        return ANSWER_BYTES - len(self._answer)

    def receive(self, data: bytes) -> bytes | None:
        """Take in a part of the answer, at most `wanted` bytes.

        Returns:
            the confirmation to send, when the peer has proved that it holds the key; None while bytes are missing.

        Raises:
            AuthenticationError: it does not hold the key, or is no Task of this version.
        """
        assert len(data) <= self.wanted
        self._answer += data
        _check_banner(self._answer)
        if self.wanted:
            return None
        theirs, proof = _cut(self._answer[len(BANNER) :], NONCE_BYTES)
        if not hmac.compare_digest(proof, self._prove(_TASK, theirs)):
            raise AuthenticationError("it could not prove that it holds the key of this run")
        return self._prove(_EXECUTOR, theirs)

    def _prove(self, maker: bytes, theirs: bytes) -> bytes:
        return _proof(self._key, maker, self._session, self._nonce, theirs)


class TaskSide:
    """The Task's side: answers a challenge, and checks that the Executor holds the key as well.

    Args:
        key: the one-shot key.
        session: names the run.
    """

    def __init__(self, key: bytes, session: bytes) -> None:
        self._key = key
        self._session = session
        self._nonce = os.urandom(NONCE_BYTES)
        self._theirs = b""

    def answer(self, challenge: bytes) -> bytes:
        """Give the answer to a challenge.

        Args:
            challenge: all of its `CHALLENGE_BYTES`.

        Raises:
            AuthenticationError: who challenges is no Executor of this version.
        """
        _check_banner(challenge)
        self._theirs = challenge[len(BANNER) :]
        return BANNER + self._nonce + self._prove(_TASK)

    def check(self, confirmation: bytes) -> None:
        """See that the other side holds the key.

        Args:
            confirmation: all of its `CONFIRMATION_BYTES`.

        Raises:
            AuthenticationError: it does not.
        """
        if not hmac.compare_digest(confirmation, self._prove(_EXECUTOR)):
            raise AuthenticationError("who listens at this socket could not prove that it holds the key of this run")

    def _prove(self, maker: bytes) -> bytes:
        return _proof(self._key, maker, self._session, self._theirs, self._nonce)


def _proof(key: bytes, maker: bytes, session: bytes, executor_nonce: bytes, task_nonce: bytes) -> bytes:
    # All but the maker, which is one of two, have a fixed length: no two different lists make the same bytes.
    return hmac.digest(key, b"".join((BANNER, maker, session, executor_nonce, task_nonce)), "sha256")


def _check_banner(received: bytes) -> None:
    """Refuse a stranger at its first wrong byte, rather than wait for the rest."""
    if not BANNER.startswith(received[: len(BANNER)]):
        raise AuthenticationError(f"it does not speak version {BANNER.split()[1].decode()} of the handshake")


def _cut(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]
