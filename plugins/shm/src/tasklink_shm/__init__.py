"""Messages through shared memory."""

from tasklink_shm.communicator import SharedMemoryCommunicator

__all__ = ["SharedMemoryCommunicator"]
