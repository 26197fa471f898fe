"""What tasklink is to reach, as data: by how much it is to be better than whom, and what it may take at most.

A floor has to hold in the median of each round; an aim is where prototypes stood.
"""

import attrs

from tasklink.bench.session import MEMORY, MIB, key_of


@attrs.frozen
class Target:
    """How one value compares with that of others.

    Attributes:
        metric: what it is called.
        key, value: where the results have it.
        unit: in which it is shown, with the factor to it.
        ours: the communicators that have to reach it; `"*"` for the best of them.
        against: by the name of a peer: floor and aim, as the ratio by which ours is the better one.
        less: whether less is better.
    """

    metric: str
    key: str
    value: str
    unit: str
    ours: tuple[str, ...]
    against: dict[str, tuple[float, float]]
    less: bool = False
    factor: float = 1.0


@attrs.frozen
class Limit:
    """What one value may be at most.

    Attributes:
        metric, key, value, unit: as for `Target`.
        ours: the communicators for which it holds.
        most: the limit.
    """

    metric: str
    key: str
    value: str
    unit: str
    ours: tuple[str, ...]
    most: float


PIPE, UNIX = "multiprocessing.Pipe", "connection AF_UNIX"
ZMQ, ZMQ_PARTS = "pyzmq copy=True", "pyzmq copy=False"
ICEORYX, DASK, SOCKET = "iceoryx2 busy poll", "distributed.comm tcp", "raw socketpair"
REUSED, LUTE = "2 reused shared_memory", "LUTE"


def _trips(metric, place, ours, against, value="median_us"):
    return Target(metric, f"rtt_{place}", value, "µs", ours, against, less=True)


def _stream(metric, size, ours, against):
    return Target(metric, key_of("stream", size * MIB), "gb_per_s", "GB/s", ours, against)


def _messages(ours, against):
    return Target("small messages", "messages", "per_s", "k/s", ours, against, factor=1e-3)


SHM_TRIPS = {PIPE: (10, 20), ZMQ: (15, 30), ICEORYX: (1.5, 2.4), DASK: (30, 60)}

TARGETS = [
    _trips("round trip, free", "free", ("shm",), SHM_TRIPS),
    _trips("round trip, two CPUs", "split", ("shm",), SHM_TRIPS),
    _trips("round trip, one CPU", "same", ("shm", "unix"), {PIPE: (1.2, 2), ZMQ: (1.7, 3)}),
    _trips("round trip, free, p99", "free", ("shm",), {PIPE: (10, 25)}, "p99_us"),
    _trips("round trip, free", "free", ("pipe", "unix"), {PIPE: (0.95, 1.05)}),
    _trips("round trip, free", "free", ("zmq",), {ZMQ: (0.85, 0.95)}),
    _messages(("shm", "pipe"), {PIPE: (2.5, 3.9), ZMQ: (1.4, 2), ICEORYX: (1.8, 2.6), LUTE: (6, 10)}),
    _messages(("unix",), {UNIX: (2, 3.5)}),
    _messages(("zmq",), {ZMQ: (0.7, 0.9)}),
    Target("write() in a busy Task", "busy", "median_us", "µs", ("shm",), {PIPE: (5, 9)}, less=True),
    _stream("1 MiB arrays", 1, ("shm",), {PIPE: (10, 15), SOCKET: (2, 2.7), ZMQ_PARTS: (2.5, 3.6), REUSED: (1, 1.3)}),
    _stream("16 MiB arrays", 16, ("shm",), {PIPE: (12, 18), ZMQ_PARTS: (2.3, 3.3), ICEORYX: (0.9, 1.1)}),
    _stream(
        "256 MiB arrays, cold ones too",
        256,
        ("shm",),
        {PIPE: (10, 15), ZMQ_PARTS: (3, 4.2), ICEORYX: (1.2, 1.7), DASK: (1.5, 2.2)},
    ),
    Target("256 MiB arrays, warm", "warm", "steady_gb_per_s", "GB/s", ("shm",), {MEMORY: (0.8, 0.95)}),
    Target("16 MiB from task.empty", "handover", "gb_per_s", "GB/s", ("shm",), {MEMORY: (10, 30)}),
    _stream("one array of 1 GiB", 1024, ("*",), {PIPE: (8, 12), ZMQ_PARTS: (2.5, 3.5), ICEORYX: (2.5, 3.4)}),
    _stream("1 MiB arrays", 1, ("unix",), {UNIX: (5, 8)}),
    _stream("16 MiB arrays", 16, ("unix",), {UNIX: (8, 11)}),
    _stream("256 MiB arrays", 256, ("unix",), {UNIX: (6, 8)}),
    _stream("1 MiB arrays", 1, ("zmq",), {ZMQ_PARTS: (0.9, 1)}),
    _stream("16 MiB arrays", 16, ("zmq",), {ZMQ_PARTS: (0.9, 1)}),
    _stream("256 MiB arrays", 256, ("zmq",), {ZMQ_PARTS: (0.9, 1)}),
    _stream("1 MiB arrays", 1, ("pipe",), {PIPE: (2.5, 3)}),
    _stream("16 MiB arrays", 16, ("pipe",), {PIPE: (3.5, 4.5)}),
    Target(
        "captured text",
        "capture",
        "mb_per_s",
        "MB/s",
        ("pipe",),
        {"selectors + os.read": (0.8, 0.95), "communicate()": (1.4, 1.7), LUTE: (100, 190)},
    ),
    Target(
        "start to first message",
        "start",
        "median_ms",
        "ms",
        ("unix",),
        {"new ProcessPoolExecutor": (1.4, 2), "raw socketpair child": (0.8, 0.95)},
        less=True,
    ),
    Target("noop Task", "noop", "median_ms", "ms", ("unix",), {"subprocess.run": (0.8, 1)}, less=True),
]

COPYING = ("pipe", "unix", "zmq")
OURS = (*COPYING, "shm")

LIMITS = [
    Limit("256 MiB array: receiver, private", "memory", "receiver_private_x", "x", COPYING, 1.1),
    Limit("256 MiB array: sender, private", "memory", "sender_private_x", "x", COPYING, 0.1),
    Limit("256 MiB array: receiver, private", "memory", "receiver_private_x", "x", ("shm",), 0.05),
    Limit("256 MiB array: sender, private", "memory", "sender_private_x", "x", ("shm",), 0.05),
    Limit("10 000 arrays of 1 MiB: receiver grows", "flat", "receiver_growth_mib", "MiB", OURS, 8),
    Limit("10 000 arrays of 1 MiB: sender grows", "flat", "sender_growth_mib", "MiB", OURS, 8),
]
