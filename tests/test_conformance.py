"""Every communicator of the repository keeps the contract: the same checks for all of them."""

import pytest

from tasklink.registry import Registry
from tasklink.testing import CommunicatorConformance, Subject
from tasklink.testing.suite import CommunicatorSoak


def subject_of(name, **settings):
    """A communicator by its name, with some settings of its own."""
    registry = Registry()
    return Subject.of(registry.get(name), registry.settings(name, settings))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """The kit counts what is left by itself, in processes of its own."""


class TestUnix(CommunicatorConformance):
    """Inherited sockets."""

    def subject(self):
        """As it is by default."""
        return subject_of("unix")


class TestPipe(CommunicatorConformance):
    """Inherited pipes."""

    def subject(self):
        """As it is by default."""
        return subject_of("pipe")


class TestSharedMemory(CommunicatorConformance):
    """Inherited memory."""

    def subject(self):
        """As it is by default."""
        return subject_of("shm")


class TestZmq(CommunicatorConformance):
    """A socket of ZeroMQ in a private directory: delivered when it is closed, several peers, a key."""

    def subject(self):
        """It does not wait long for who does not read, and holds little."""
        return subject_of("zmq", linger=1.0, high_water="4 MiB")


class TestTerminal(CommunicatorConformance):
    """A terminal, which carries no messages."""

    def subject(self):
        """As it is by default."""
        return subject_of("pty")


@pytest.mark.soak
class TestUnixNamed(CommunicatorConformance):
    """A socket with a name, a key, and strangers."""

    def subject(self):
        """For launchers."""
        return subject_of("unix", named=True)


@pytest.mark.soak
class TestSharedMemoryNamed(CommunicatorConformance):
    """Memory that is handed over at a socket with a name."""

    def subject(self):
        """For launchers."""
        return subject_of("shm", named=True)


@pytest.mark.soak
class TestPipeInBand(CommunicatorConformance):
    """Standard input and output."""

    def subject(self):
        """For launchers."""
        return subject_of("pipe", in_band=True)


@pytest.mark.soak
class TestZmqOverTcp(CommunicatorConformance):
    """A port and a pair of keys; a connection that is lost may come back."""

    def subject(self):
        """It does not wait long for who is gone."""
        return subject_of("zmq", transport="tcp", linger=1.0, peer_timeout=1.0, high_water="4 MiB")


@pytest.mark.soak
@pytest.mark.timeout(900)
class TestUnixForLong(CommunicatorSoak):
    """A gigabyte, and conversations by the thousand."""

    def subject(self):
        """As it is by default."""
        return subject_of("unix")


@pytest.mark.soak
@pytest.mark.timeout(900)
class TestPipeForLong(CommunicatorSoak):
    """As above."""

    def subject(self):
        """As it is by default."""
        return subject_of("pipe")


@pytest.mark.soak
@pytest.mark.timeout(900)
class TestSharedMemoryForLong(CommunicatorSoak):
    """As above."""

    def subject(self):
        """As it is by default."""
        return subject_of("shm")


@pytest.mark.soak
@pytest.mark.timeout(900)
class TestZmqForLong(CommunicatorSoak):
    """As above."""

    def subject(self):
        """As it is by default."""
        return subject_of("zmq")
