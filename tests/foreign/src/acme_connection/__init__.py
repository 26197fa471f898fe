"""Messages over a connection of multiprocessing."""

from acme_connection.communicator import ConnectionCommunicator

__all__ = ["ConnectionCommunicator"]
