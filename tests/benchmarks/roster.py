"""Who takes part. A peer is a class of `peers` and a line here."""

from typing import ClassVar

import attrs

from tasklink.bench.session import MEMORY
from tasklink.bench.visit import Entrant
from tasklink.registry import Registry

WIRE_ITEMS = frozenset({"rtt", "messages", "busy", "arrays", "latency", "memory"})
OUR_WIRE_ITEMS = WIRE_ITEMS | {"warm", "handover", "flat"}
RUN_ITEMS = frozenset({"start", "noop", "parallel", "capture"})

NOT_HERE = {"LUTE": "it cannot be installed from a package index"}


@attrs.frozen
class Peer:
    """Somebody whom tasklink is compared with, or tasklink itself.

    Attributes:
        entrant: who.
        items: which items it takes part in.
        share: how many of the messages it gets: less than 1 for the slow.
        ours: whether it is tasklink.
    """

    entrant: Entrant
    items: frozenset[str] = WIRE_ITEMS
    share: float = 1.0
    ours: bool = False

    FOLDER: ClassVar[str] = "tests.benchmarks.peers"

    @classmethod
    def of(cls, name, where, items=WIRE_ITEMS, share=1.0):
        """Make a peer of a class in `peers`."""
        return cls(Entrant(name, f"{cls.FOLDER}.{where}"), frozenset(items), share)


PEERS = [
    Peer.of("multiprocessing.Pipe", "standard:Pipe"),
    Peer.of("multiprocessing.Queue", "standard:Queue"),
    Peer.of("connection AF_UNIX", "standard:UnixConnection"),
    Peer.of("raw socketpair", "standard:SocketPair"),
    Peer.of("2 reused shared_memory", "standard:SharedMemory"),
    Peer.of("pyzmq copy=True", "zeromq:Copying"),
    Peer.of("pyzmq copy=False", "zeromq:Sharing"),
    Peer.of("pynng", "nng:Pair"),
    Peer.of("iceoryx2 busy poll", "iceoryx:Spinning"),
    Peer.of("iceoryx2 event", "iceoryx:Waiting"),
    Peer.of("faster-fifo", "fifo:Fifo"),
    Peer.of("execnet", "gateway:Gateway", share=0.5),
    Peer.of("distributed.comm tcp", "dask:Comm", share=0.25),
    Peer.of("ProcessPoolExecutor", "pools:Pool", WIRE_ITEMS - {"busy", "memory"}, share=0.1),
    Peer.of("loky", "pools:Loky", WIRE_ITEMS - {"busy", "memory"}, share=0.1),
    Peer.of("new ProcessPoolExecutor", "processes:FirstOfPool", {"start"}),
    Peer.of("raw socketpair child", "processes:FirstOfSocket", {"start"}),
    Peer.of("subprocess.run", "processes:Interpreter", {"noop", "parallel"}),
    Peer.of("selectors + os.read", "processes:Selecting", {"capture"}),
    Peer.of("communicate()", "processes:Communicating", {"capture"}),
    Peer(Entrant(MEMORY, "tasklink.bench.copying:MemoryCopy"), frozenset({"arrays", "latency", "warm", "handover"})),
]


def everyone(only=()):
    """Give all who take part: what is installed of tasklink and all peers, or of these the ones that are named.

    Raises:
        ValueError: there is none of such a name.
    """
    usable = [
        plugin.name
        for plugin in Registry().plugins()
        if plugin.status == "ok" and plugin.capabilities is not None and plugin.capabilities.carries_messages
    ]
    ours = [
        peer
        for name in usable
        for peer in (
            Peer(Entrant(name, "tasklink.bench.ours:CommunicatorWire", name), OUR_WIRE_ITEMS, ours=True),
            Peer(Entrant(name, "tasklink.bench.ours:Runs", name), RUN_ITEMS, ours=True),
        )
    ]
    known = {peer.entrant.name for peer in ours + PEERS}
    for name in only:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(sorted(known))}")
    return [peer for peer in ours + PEERS if not only or peer.entrant.name in only]
