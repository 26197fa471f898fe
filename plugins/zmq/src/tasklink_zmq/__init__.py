"""Messages over ZeroMQ."""

from tasklink_zmq.communicator import ZmqCommunicator

__all__ = ["ZmqCommunicator"]
