"""What the other process does: each errand takes a `Peer`, with the Task's end of the channel.

Standard library and the Task side only, so that it is there soon.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from tasklink.errors import EndOfMessages
from tasklink.message import Message
from tasklink.testing.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.communicator import Communicator
    from tasklink.testing.child import Peer

_PERIOD = bytes(range(251))  # a prime number of bytes: no block of a power of two looks like the next one


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes in which any that is missing, doubled or from elsewhere shows."""
    start = seed % len(_PERIOD)
    return (_PERIOD * (size // len(_PERIOD) + 2))[start : start + size]


def attempt(call: Callable[..., Any], *arguments: object) -> tuple[str, Any]:
    """Call something; give `("value", what it returned)` or `("raised", the name of the error)`."""
    try:
        return "value", call(*arguments)
    except Exception as error:  # noqa: BLE001 - its name is what is asked for
        return "raised", type(error).__name__


def echo(peer: Peer) -> None:
    """Write back what comes, until the end."""
    try:
        while True:
            peer.end.write(Message(peer.end.read().contents))
    except EndOfMessages:
        peer.end.close()


def obey(peer: Peer) -> None:
    """Do what the other process says, one order after the other, until `leave`."""
    signal.signal(signal.SIGUSR1, lambda *_: None)  # interrupts system calls, and no more
    orders: dict[str, Callable[..., Any]] = {
        "write": lambda contents, timeout: peer.end.write(Message(contents), timeout),
        "tell": lambda contents, name, timeout: peer.end.write(Message(contents, name), timeout),
        "read": lambda timeout: heard(peer.end.read(timeout)),
        "skim": lambda count, timeout: skim(peer.end, count, timeout),
        "close": peer.end.close,
    }
    while True:
        order, *arguments = peer.hear()
        if order == "leave":
            return
        peer.say("value", attempt(orders[order], *arguments))


def skim(end: Communicator, count: int, timeout: float) -> list[object]:
    """Read so many messages, or up to one that is no tuple: that, and what each of the others begins with."""
    begins: list[object] = []
    while len(begins) < count:
        contents = end.read(timeout).contents
        if not isinstance(contents, tuple):
            return [*begins, contents]
        begins.append(contents[0])
    return begins


def heard(message: Message) -> tuple[str | None, Any]:
    """What a message says, as another process can be told."""
    return message.signal, message.contents


def listen_to_the_end(peer: Peer) -> tuple[list[object], str]:
    """Read until something is raised: the contents, and the name of the error."""
    contents: list[object] = []
    while True:
        kind, value = attempt(peer.end.read, 60)
        if kind == "raised":
            return contents, value
        contents.append(value.contents)


def write_and_count(peer: Peer, counter: int, largest: int) -> None:
    """Write numbered messages of all sizes for ever, and count in shared memory those whose `write` has returned."""
    tally = Tally(counter)
    for number in range(1, 1 << 40):
        peer.end.write(Message([number, pattern(number * 7919 % largest, number)]))
        tally.accepted = number


def write_and_leave(peer: Peer, count: int) -> None:
    """Write, close, and be gone."""
    for number in range(count):
        peer.end.write(Message([number, pattern(number * 101, number)]))
    peer.end.close()


def write_and_wait(peer: Peer, contents: list[object]) -> None:
    """Write, say that it is written, and wait to be killed."""
    for content in contents:
        peer.end.write(Message(content))
    peer.say("value", "written")
    signal.pause()


def write_flush_and_die(peer: Peer, count: int, size: int) -> None:
    """When told to: write, flush, and be gone, without a word to whoever would clean up."""
    peer.end.read()
    for number in range(count):
        peer.end.write(Message([number, pattern(size, number)]))
    peer.end.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def write_for_ever(peer: Peer, size: int) -> None:
    """Write a message before it, and then one that is never written whole: nobody reads."""
    peer.end.write(Message("before"))
    peer.say("value", "begun")
    peer.end.write(Message(pattern(size)))
    peer.end.read()


def print_and_leave(_: Peer, out: bytes, err: bytes) -> None:
    """Print to standard output and error."""
    for descriptor, data in ((1, out), (2, err)):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def print_and_wait(peer: Peer, out: bytes, err: bytes) -> None:
    """Print, say so, and wait to be killed."""
    print_and_leave(peer, out, err)
    peer.say("value", "printed")
    signal.pause()


def anonymous_bytes() -> int:
    """How much memory of its own this process has, without what it shares."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes 20 ms to import
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))


def build_in_place(peer: Peer, size: int) -> int:
    """Fill memory of `allocate`, and send it; by how many bytes this process has grown for it."""
    peer.end.write(Message.encoded(0, [b"warm", peer.end.allocate(1 << 20)]))
    before = anonymous_bytes()
    memory = peer.end.allocate(size)
    block = pattern(251 << 12)
    for start in range(0, size, len(block)):
        memory[start : start + len(block)] = block[: size - start]
    peer.end.write(Message.encoded(0, [b"large", memory]))
    grown = anonymous_bytes() - before
    peer.end.read()
    return grown


class Tripwire:
    """Something that another process can find only by decoding."""

    def __init__(self, value: int) -> None:
        self.value = value
