"""pyzmq: PAIR sockets over ipc, in the two ways that its documentation shows."""

import os
import pickle

from tasklink.bench.contender import Wire


class Copying(Wire):
    """Everything is copied."""

    requires = ("zmq",)
    copy = True

    def __init__(self, address, *, bind):
        import zmq

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = -1 if not bind else 0  # what was sent goes out
        (self._socket.bind if bind else self._socket.connect)(address)

    @classmethod
    def listen(cls, variant, largest):
        """Bind to an abstract socket."""
        address = f"ipc://@tasklink-bench-{os.getpid()}"
        return cls(address, bind=True), address, []

    @classmethod
    def connect(cls, told):
        """Connect to it."""
        return cls(told, bind=False)

    def write(self, contents):
        """Send a pickle; buffers as parts of their own, behind an empty one."""
        buffers = []
        body = pickle.dumps(contents, 5, buffer_callback=buffers.append)
        if buffers:
            self._socket.send_multipart([b"", body, *buffers], copy=self.copy)
        else:
            self._socket.send(body)

    def read(self):
        """Receive one."""
        first = self._socket.recv()
        if first:
            return pickle.loads(first)
        body, *buffers = self._socket.recv_multipart(copy=self.copy)
        return pickle.loads(body, buffers=buffers)

    def finish(self):
        """Have the last word sent before the socket is closed."""
        self._socket.linger = 1000
        super().finish()

    def close(self):
        """Close the socket."""
        self._socket.close()
        self._context.term()


class Sharing(Copying):
    """Large buffers are not copied by Python: an array refers to the frame that came."""

    copy = False

    def read(self):
        """Receive one."""
        first = self._socket.recv()
        if first:
            return pickle.loads(first)
        body, *frames = self._socket.recv_multipart(copy=False)
        return pickle.loads(body.buffer, buffers=[frame.buffer for frame in frames])
