"""Every communicator of the repository keeps the contract: the same checks for all of them."""

import pytest

from tasklink.registry import Registry
from tasklink.testing import CommunicatorConformance, Subject
from tasklink.testing.suite import CommunicatorSoak


def subject_of(name, **settings):
    """A communicator by its name, with some settings of its own."""
    registry = Registry()
    return Subject(registry.get(name), registry.settings(name, settings))


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
