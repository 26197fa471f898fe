"""Who takes part in a benchmark and misbehaves."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from tasklink.bench.contender import Contender
from tasklink.bench.item import NotAvailableError

if TYPE_CHECKING:
    from tasklink.bench.item import Order, Values


class Steady(Contender):
    """Gives back what it was ordered; prints, as libraries do."""

    @classmethod
    def start(cls, variant: str, largest: int) -> Self:
        """Start."""
        print("hello from a library")
        return cls()

    def measure(self, order: Order) -> Values:
        """Do as the order says."""
        print("working")
        return {"value": order["value"]}

    def close(self) -> None:
        """Close."""


class Hanging(Steady):
    """Does the first order, and hangs in the second; so does a child that it has started. A lock lives as long as both.

    `variant` is the path of the lock.
    """

    lock: int

    @classmethod
    def start(cls, variant: str, largest: int) -> Self:
        """Take the lock."""
        contender = super().start(variant, largest)
        contender.lock = os.open(variant, os.O_CREAT | os.O_RDWR)
        fcntl.flock(contender.lock, fcntl.LOCK_EX)
        return contender

    def measure(self, order: Order) -> Values:
        """Hang."""
        if order["value"] > 1:
            os.fork()
            time.sleep(600)
        return super().measure(order)


class Dying(Steady):
    """Does the first order, and dies in the second."""

    def measure(self, order: Order) -> Values:
        """Die."""
        if order["value"] > 1:
            sys.stderr.write("the cable is cut\n")
            sys.stderr.flush()
            os._exit(3)
        return super().measure(order)


class Choosy(Steady):
    """Does not do the second order."""

    def measure(self, order: Order) -> Values:
        """Refuse."""
        if order["value"] == 2:
            raise NotAvailableError("not this one")
        return super().measure(order)


class Failing(Steady):
    """Raises."""

    def measure(self, order: Order) -> Values:
        """Raise."""
        raise OSError("no more room")


class Absent(Steady):
    """Needs what is not there."""

    requires = ("semaphore_alphabet",)

    @classmethod
    def start(cls, variant: str, largest: int) -> Any:
        """Nobody comes here."""
        raise AssertionError
