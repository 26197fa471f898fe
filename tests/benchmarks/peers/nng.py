"""pynng: Pair0 over ipc."""

import os
import pickle

from tasklink.bench.contender import Wire


class Pair(Wire):
    """Buffers out of band, in messages of their own. It takes bytes only, so they are copied first."""

    requires = ("pynng",)

    def __init__(self, **address):
        import pynng

        self._socket = pynng.Pair0(recv_max_size=0, send_buffer_size=128, recv_buffer_size=128, **address)

    @classmethod
    def listen(cls, variant, largest):
        """Listen at an abstract socket."""
        address = f"abstract://tasklink-bench-{os.getpid()}"
        return cls(listen=address), address, []

    @classmethod
    def connect(cls, told):
        """Dial it."""
        return cls(dial=told)

    def write(self, contents):
        """Send a pickle; the buffers of an array behind it, as messages of their own."""
        buffers = []
        body = pickle.dumps(contents, 5, buffer_callback=buffers.append)
        self._socket.send(bytes([len(buffers)]) + body)
        for buffer in buffers:
            self._socket.send(buffer.raw().tobytes())

    def read(self):
        """Receive one."""
        body = self._socket.recv()
        return pickle.loads(body[1:], buffers=[self._socket.recv() for _ in range(body[0])])

    def close(self):
        """Close it."""
        self._socket.close()
