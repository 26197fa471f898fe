"""Who is measured.

A `Contender` carries out orders (see `item`). Most are a `Wire`: two ends that write and read objects, one in this
process and one in a child. A wire says how the two ends come to be; what is measured between them is the same for all.

Standard library only: both processes import it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tasklink.bench.item import ASK, SERVE, NotAvailableError, prepare, take_place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tasklink.bench.item import Order, Values

_LAST_MOMENT = 5.0  # seconds that a child has to end in good order


class Contender(ABC):
    """Carries out orders. A context manager, closed at its end.

    Attributes:
        requires: the modules without which it is skipped.
    """

    requires: ClassVar[Sequence[str]] = ()

    @classmethod
    @abstractmethod
    def start(cls, variant: str, largest: int) -> Self:
        """Make everything ready.

        Args:
            variant: which of several ways, for those who know several.
            largest: the most bytes of a message that will be asked for.

        Raises:
            NotAvailableError: it cannot carry messages of that size, or not here.
        """

    @abstractmethod
    def measure(self, order: Order) -> Values:
        """Carry out an order.

        Raises:
            NotAvailableError: it does not do that.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Wire(Contender):
    """One end of something that carries objects between two processes.

    Attributes:
        child: the other process, where this is the host's end.
    """

    child: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def listen(cls, variant: str, largest: int) -> tuple[Self, Any, Sequence[int]]:
        """Open the host's end: the end, what the child's end is told, and the descriptors that it inherits.

        Args:
            variant: which of several ways.
            largest: the most bytes of a message.
        """

    @classmethod
    @abstractmethod
    def connect(cls, told: Any) -> Self:
        """Open the child's end."""

    def accept(self) -> None:
        """The child is started: close what is its own, or wait for it."""

    @abstractmethod
    def write(self, contents: Any) -> None:
        """Send an object."""

    @abstractmethod
    def read(self) -> Any:
        """Wait for an object."""

    def allocate(self, nbytes: int) -> memoryview:
        """Give memory, to be filled and sent, that is not copied any more.

        Raises:
            NotAvailableError: it is always copied.
        """
        raise NotAvailableError("it gives out no memory that it need not copy")

    @classmethod
    def start(cls, variant: str, largest: int) -> Self:
        """Open both ends, this one here, the other in a child."""
        wire, told, descriptors = cls.listen(variant, largest)
        wire.child = start_child(cls, told, descriptors)
        wire.accept()
        return wire

    def measure(self, order: Order) -> Values:
        """Have the child serve an order, and ask."""
        prepare(order)
        take_place(order["placement"], 0)
        self.write(order)
        return ASK[order["item"]](self, order)

    def finish(self) -> None:
        """Let the child end, and close. Whoever measures calls it when all went well."""
        self.write(None)
        if self.child is not None:
            self.child.wait(_LAST_MOMENT)
        self.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        # After an error the other end is in the middle of something: it ends with this process group.


def serve(wire: Wire) -> None:
    """Serve orders in the child until there are no more."""
    while (order := wire.read()) is not None:
        prepare(order)
        take_place(order["placement"], 1)
        SERVE[order["item"]](wire, order)
    wire.close()


def start_child(kind: type[Wire], told: Any, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start the process that has the other end of a wire."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from tasklink.bench.child import main; main()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=descriptors)
    assert child.stdin is not None
    with child.stdin as file:  # not among the arguments: there may be a key in it
        pickle.dump((f"{kind.__module__}:{kind.__qualname__}", told), file)
    return child
