"""Messages over Unix sockets."""

from tasklink_unix.communicator import SocketCommunicator

__all__ = ["SocketCommunicator"]
