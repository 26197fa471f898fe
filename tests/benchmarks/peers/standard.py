"""What Python brings: pipes, queues, sockets, shared memory."""

import multiprocessing
import os
import pickle
import socket
import struct
import tempfile
from collections import deque
from multiprocessing import connection, resource_tracker, shared_memory
from pathlib import Path

from tasklink.bench.contender import Wire, serve


class Pipe(Wire):
    """multiprocessing.Pipe."""

    def __init__(self, end, theirs=None):
        self._end, self._theirs = end, theirs
        self.write, self.read = end.send, end.recv

    write = read = None  # they are the connection's own

    @classmethod
    def listen(cls, variant, largest):
        """Make the pair."""
        ours, theirs = multiprocessing.Pipe()
        return cls(ours, theirs), theirs.fileno(), [theirs.fileno()]

    @classmethod
    def connect(cls, told):
        """Take over the inherited end."""
        return cls(connection.Connection(told))

    def accept(self):
        """Close the child's end."""
        self._theirs.close()

    def close(self):
        """Close it."""
        self._end.close()


class UnixConnection(Pipe):
    """multiprocessing.connection over a Unix socket."""

    @classmethod
    def listen(cls, variant, largest):
        """Listen at a path."""
        folder = tempfile.TemporaryDirectory(prefix="tasklink-bench-")
        listener = connection.Listener(str(Path(folder.name, "socket")), "AF_UNIX")
        wire = cls.__new__(cls)
        wire._listener, wire._folder = listener, folder
        return wire, listener.address, []

    @classmethod
    def connect(cls, told):
        """Connect to the path."""
        return cls(connection.Client(told, "AF_UNIX"))

    def accept(self):
        """Accept the child."""
        self.__init__(self._listener.accept())
        self._listener.close()
        self._folder.cleanup()


class Spawned(Wire):
    """For what only a child of multiprocessing can inherit."""

    @classmethod
    def ends(cls, context, largest):
        """Give what the host's end is made of, and the child's."""
        raise NotImplementedError

    @classmethod
    def start(cls, variant, largest):
        """Start the child by multiprocessing."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = cls.ends(context, largest)
        wire = cls(*ours)
        wire._process = context.Process(target=_serve, args=(cls, theirs))
        wire._process.start()
        return wire

    @classmethod
    def listen(cls, variant, largest):
        """Nobody calls this."""
        raise NotImplementedError

    connect = listen

    def close(self):
        """Let the child end."""
        process = getattr(self, "_process", None)
        if process is not None:
            process.join(5)


def _serve(kind, ends):
    serve(kind(*ends))


class Queue(Spawned):
    """multiprocessing.Queue, one each way."""

    def __init__(self, outgoing, incoming):
        self.write, self.read = outgoing.put, incoming.get

    write = read = None

    @classmethod
    def ends(cls, context, largest):
        """Two queues."""
        there, back = context.Queue(), context.Queue()
        return (there, back), (back, there)


class SocketPair(Wire):
    """A raw Unix socket: pickle 5, large buffers out of band, sendmsg and recv_into."""

    _HEAD = struct.Struct("<QQ")  # bytes of the body, number of buffers

    def __init__(self, end, theirs=None):
        self._socket, self._theirs = end, theirs

    @classmethod
    def listen(cls, variant, largest):
        """Make the pair."""
        ours, theirs = socket.socketpair()
        return cls(ours, theirs), theirs.fileno(), [theirs.fileno()]

    @classmethod
    def connect(cls, told):
        """Take over the inherited end."""
        return cls(socket.socket(fileno=told))

    def accept(self):
        """Close the child's end."""
        self._theirs.close()

    def write(self, contents):
        """Send head, lengths, body and buffers in one call, if it takes them."""
        buffers = []
        body = pickle.dumps(contents, 5, buffer_callback=buffers.append)
        if not buffers:
            self._socket.sendall(self._HEAD.pack(len(body), 0) + body)
            return
        views = [buffer.raw() for buffer in buffers]
        lengths = struct.pack(f"<{len(views)}Q", *map(len, views))
        rest = [memoryview(self._HEAD.pack(len(body), len(views)) + lengths + body), *views]
        while rest:
            sent = self._socket.sendmsg(rest)
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if sent:
                rest[0] = rest[0][sent:]

    def read(self):
        """Receive each part into memory of its own."""
        size, count = self._HEAD.unpack(self._receive(self._HEAD.size))
        lengths = struct.unpack(f"<{count}Q", self._receive(8 * count)) if count else ()
        body = self._receive(size)
        return pickle.loads(body, buffers=[self._receive(length) for length in lengths])

    def _receive(self, size):
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return data

    def close(self):
        """Close it."""
        self._socket.close()


class SharedMemory(Pipe):
    """multiprocessing.shared_memory: two segments that take turns, and a Pipe that says which; read without a copy."""

    requires = ("numpy",)

    def __init__(self, end, acknowledgements, theirs=()):
        self._end, self._acks, self._theirs = end, acknowledgements, theirs
        self._free = deque()
        self._made, self._seen = [], {}
        self._held = None

    @classmethod
    def listen(cls, variant, largest):
        """Two pipes: one for messages, one for segments that come back."""
        ours, theirs = multiprocessing.Pipe()
        our_acks, their_acks = multiprocessing.Pipe()
        descriptors = [theirs.fileno(), their_acks.fileno()]
        return cls(ours, our_acks, (theirs, their_acks)), descriptors, descriptors

    @classmethod
    def connect(cls, told):
        """Take over the inherited ends."""
        return cls(*map(connection.Connection, told))

    def accept(self):
        """Close the child's ends."""
        for end in self._theirs:
            end.close()

    def write(self, contents):
        """Put an array into a free segment; send all else as it is."""
        import numpy as np

        self._give_back()
        if not isinstance(contents, np.ndarray):
            self._end.send((None, contents))
            return
        if not self._made or self._made[0].size < contents.nbytes:
            self._made = [shared_memory.SharedMemory(create=True, size=contents.nbytes) for _ in range(2)]
            self._free.extend(self._made)
        segment = self._free.popleft() if self._free else self._made[self._acks.recv()]
        np.ndarray(contents.shape, contents.dtype, segment.buf)[:] = contents
        self._end.send((segment.name, (self._made.index(segment), contents.shape, contents.dtype.str)))

    def read(self):
        """Give a view of the segment; it goes back with the next call."""
        import numpy as np

        self._give_back()
        name, what = self._end.recv()
        if name is None:
            return what
        self._held, shape, dtype = what
        if name not in self._seen:
            self._seen[name] = shared_memory.SharedMemory(name)
            resource_tracker.unregister(self._seen[name]._name, "shared_memory")  # it is the other side's
        return np.ndarray(shape, dtype, self._seen[name].buf)

    def _give_back(self):
        if self._held is not None:
            self._acks.send(self._held)
            self._held = None

    def close(self):
        """Close and unlink."""
        self._end.close()
        for segment in self._made:
            segment.unlink()
        if self.child is None:
            # What was read is still referred to: let the system close it.
            os._exit(0)
