"""Messages over a pair of pipes, and the capture of a Task's standard output and error."""

from tasklink_pipe.communicator import PipeCommunicator

__all__ = ["PipeCommunicator"]
