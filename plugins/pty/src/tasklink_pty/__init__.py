"""The capture of what programs print on a terminal."""

from tasklink_pty.communicator import PtyCommunicator

__all__ = ["PtyCommunicator"]
