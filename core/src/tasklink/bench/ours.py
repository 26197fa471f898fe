"""tasklink's own: a communicator by itself, and an Executor with its Tasks.

`CommunicatorWire` is imported by both processes; what only the host needs is imported there.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

from tasklink.bench.contender import Contender, Wire
from tasklink.bench.item import NotAvailableError
from tasklink.bench.statistic import median
from tasklink.communicator import Address
from tasklink.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasklink.bench.item import Order, Values
    from tasklink.communicator import Communicator, Listener

_SECONDS_TO_COME = 10.0


class CommunicatorWire(Wire):
    """A communicator: `variant` is its name."""

    def __init__(self, communicator: Communicator | None, listener: Listener | None = None) -> None:
        self._listener = listener
        self._use(communicator)

    def _use(self, communicator: Communicator | None) -> None:
        if communicator is not None:
            self._communicator = communicator
            self._write, self._read = communicator.write, communicator.read

    @classmethod
    def listen(cls, variant: str, largest: int) -> tuple[Self, Any, Sequence[int]]:
        """Open the Listener."""
        from tasklink.registry import Registry  # noqa: PLC0415 - not for the child

        registry = Registry()
        kind = registry.get(variant)
        listener = kind.listen(registry.settings(variant))
        address = listener.address
        told = (kind, address.details, address.descriptors, address.key)
        return cls(None, listener), told, address.descriptors

    @classmethod
    def connect(cls, told: Any) -> Self:
        """Connect to the Address."""
        kind, details, descriptors, key = told
        return cls(kind.connect(Address(details, descriptors, key)))

    def accept(self) -> None:
        """Accept the child."""
        assert self._listener is not None
        self._use(self._listener.accept(_SECONDS_TO_COME))
        self._listener.close()

    def write(self, contents: Any) -> None:
        """Write a Message."""
        self._write(Message(contents))

    def read(self) -> Any:
        """Read a Message, and decode what it holds."""
        return self._read().contents

    def allocate(self, nbytes: int) -> memoryview:
        """Have the communicator give memory."""
        allocate = getattr(self._communicator, "allocate", None)
        if allocate is None:
            raise NotAvailableError("it gives out no memory that it need not copy")
        memory: memoryview = allocate(nbytes)
        return memory

    def close(self) -> None:
        """Close the communicator."""
        self._communicator.close()


class Runs(Contender):
    """An Executor and its Tasks, over the communicator that `variant` names."""

    def __init__(self, name: str) -> None:
        self._name = name

    @classmethod
    def start(cls, variant: str, largest: int) -> Self:
        """Make ready; each order has an Executor of its own."""
        return cls(variant)

    def measure(self, order: Order) -> Values:
        """Carry out an order."""
        item: Callable[[Order], Values] | None = getattr(self, f"_{order['item']}", None)
        if item is None:
            raise NotAvailableError("it is no matter of a run")
        return item(order)

    def close(self) -> None:
        """Nothing is left open."""

    def _noop(self, order: Order) -> Values:
        """Run Tasks that do nothing, one after the other: each from the call to its result."""
        from tasklink.executor import Executor  # noqa: PLC0415 - the child of a wire imports this module too

        times = []
        with Executor(self._name) as executor:
            executor.run("time:monotonic")
            for _ in range(order["count"]):
                begun = perf_counter()
                executor.run("time:monotonic").value_or_raise()
                times.append(perf_counter() - begun)
        return {"median_ms": median(times) * 1e3}

    def _first_message(self, order: Order) -> Values:
        """Run Tasks that report one thing: each from the call to when an observer has it."""
        from tasklink.bench.observing import Watch  # noqa: PLC0415 - as above
        from tasklink.executor import Executor  # noqa: PLC0415 - as above

        watch, times = Watch(), []
        with Executor(self._name, observers=[watch]) as executor:
            executor.run("tasklink.bench.errand:report")
            for _ in range(order["count"]):
                begun = perf_counter()
                executor.run("tasklink.bench.errand:report").value_or_raise()
                times.append(watch.message_at - begun)
        return {"median_ms": median(times) * 1e3}

    def _at_once(self, order: Order) -> Values:
        """Run Tasks that do nothing, several at a time."""
        from tasklink.executor import Executor  # noqa: PLC0415 - as above

        with Executor(self._name, parallel=order["parallel"]) as executor:
            executor.run("time:monotonic")
            begun = perf_counter()
            futures = [executor.submit("time:monotonic") for _ in range(order["count"])]
            for future in futures:
                future.result().value_or_raise()
            return {"per_s": order["count"] / (perf_counter() - begun)}

    def _capture(self, order: Order) -> Values:
        """Run a program that prints, and have an observer count what comes."""
        from tasklink.bench.errand import printing  # noqa: PLC0415 - as above
        from tasklink.bench.observing import Watch  # noqa: PLC0415 - as above
        from tasklink.executor import Executor  # noqa: PLC0415 - as above

        watch = Watch()
        with Executor(self._name, observers=[watch]) as executor:
            executor.run(printing(0))  # what an Executor does once is no matter of output
            begun = perf_counter()
            executor.run(printing(order["lines"]))
            seconds = perf_counter() - begun
        return captured(order["lines"], watch.lines, watch.bytes, seconds)


def captured(lines: int, seen: int, nbytes: int, seconds: float) -> Values:
    """Say how fast output was captured, once it is certain that all of it was.

    Raises:
        ValueError: some of it is missing.
    """
    if seen != lines:
        raise ValueError(f"of {lines} lines, {seen} were captured")
    return {"lines_per_s": lines / seconds, "mb_per_s": nbytes / seconds / 1e6}
