"""iceoryx2: publish and subscribe, a slice of bytes each way; the reader spins, or waits for events.

The sender copies into loaned memory; the reader gets arrays that are views of it, until its next read.
"""

import ctypes
import os
import pickle
import struct

from tasklink.bench.contender import Wire
from tasklink.bench.item import SAME, NotAvailableError

_SMALL = 256  # bytes
_LARGE = 64 << 10
_SLOTS = 256  # messages that a reader may be behind
_LARGE_SLOTS = 2


class Spinning(Wire):
    """The reader asks again and again."""

    requires = ("iceoryx2", "numpy")

    def __init__(self, name, largest, outgoing, incoming):
        import iceoryx2 as iox2

        iox2.set_log_level(iox2.LogLevel.Error)
        self._iox2 = iox2
        self._node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
        self._sample = None
        slots = _LARGE_SLOTS if largest > _LARGE else _SLOTS
        there, back = self._service(name + outgoing, slots), self._service(name + incoming, slots)
        self._subscriber = back.subscriber_builder().buffer_size(slots).create()
        self._publisher = (
            there.publisher_builder()
            .max_loaned_samples(1)
            .initial_max_slice_len(max(4096, largest + 4096))
            .backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        self._prepare_waiting(name, outgoing, incoming)

    def _service(self, name, slots):
        builder = self._node.service_builder(self._iox2.ServiceName.new(name))
        return (
            builder.publish_subscribe(self._iox2.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(slots)
            .subscriber_max_borrowed_samples(1)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()
        )

    def _prepare_waiting(self, name, outgoing, incoming):
        pass

    @classmethod
    def listen(cls, variant, largest):
        """Make both services."""
        name = f"tasklink-bench-{os.getpid()}"
        return cls(name, largest, "/there", "/back"), (name, largest), []

    @classmethod
    def connect(cls, told):
        """Open both services; say so, since what is published before that is lost."""
        wire = cls(*told, "/back", "/there")
        wire.write("here")
        return wire

    def accept(self):
        """Wait for the child to be there."""
        self.read()

    def measure(self, order):
        """See `Wire.measure`."""
        if order["placement"] == SAME and not hasattr(self, "_listener"):
            raise NotAvailableError("two who spin on one CPU wait for each other's slice of time")
        return super().measure(order)

    def write(self, contents):
        """Loan, copy, send. A pickle knows its own end, so a small one needs no length."""
        buffers = []
        body = pickle.dumps(contents, 5, buffer_callback=buffers.append)
        if not buffers and len(body) <= _SMALL:
            sample = self._publisher.loan_slice_uninit(_SMALL)
            ctypes.memmove(sample.payload_ptr, body, len(body))
        else:
            view = buffers[0].raw() if buffers else b""
            head = struct.pack("<BQQ", 0, len(body), len(view)) + body
            sample = self._publisher.loan_slice_uninit(max(_SMALL, len(head) + len(view)))
            ctypes.memmove(sample.payload_ptr, head, len(head))
            if buffers:
                ctypes.memmove(sample.payload_ptr + len(head), _address(view), len(view))
        sample.assume_init().send()

    def read(self):
        """Wait for a sample; keep it until the next one, if an array refers to it."""
        self._sample = None
        receive = self._subscriber.receive
        while (sample := receive()) is None:
            self._wait()
        at = sample.payload_ptr
        data = ctypes.string_at(at, _SMALL)
        if data[0]:
            return pickle.loads(data)
        self._sample = sample
        _, length, size = struct.unpack_from("<BQQ", data)
        start = at + 17 + length
        buffers = [(ctypes.c_uint8 * size).from_address(start)] if size else []
        return pickle.loads(ctypes.string_at(at + 17, length), buffers=buffers)

    def _wait(self):
        pass

    def close(self):
        """Let go of everything."""
        self._sample = self._subscriber = self._publisher = self._node = None


class Waiting(Spinning):
    """The reader waits for an event that the writer sends with each message."""

    def _prepare_waiting(self, name, outgoing, incoming):
        there, back = self._event(name + outgoing), self._event(name + incoming)
        self._listener = back.listener_builder().create()
        self._notifier = there.notifier_builder().create()

    def _event(self, name):
        return self._node.service_builder(self._iox2.ServiceName.new(name)).event().open_or_create()

    def write(self, contents):
        """Send, then notify."""
        super().write(contents)
        self._notifier.notify()

    def _wait(self):
        self._listener.blocking_wait()

    def close(self):
        """Let go of everything."""
        self._listener = self._notifier = None
        super().close()


def _address(view):
    import numpy as np

    return np.frombuffer(view, np.uint8).ctypes.data
