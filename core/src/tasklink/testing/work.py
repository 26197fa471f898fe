"""What goes on at the same time: a call in a thread of its own, whose end can be waited for; and how long it is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

# Of a processor: who does nothing but wait uses less.
AT_WORK = 0.002
_PARTS = 4
_LONGEST = 10

P = ParamSpec("P")
T = TypeVar("T")


class Work(Generic[T]):
    """A call that goes on in a thread of its own, and that nobody has to wait for: it may hang.

    Attributes:
        thread: which one.
        error: what it raised; None while it goes on, and when it returned.
    """

    def __init__(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> None:
        self.error: BaseException | None = None
        self._value: T | None = None
        self._end = threading.Event()
        name = f"tasklink.testing {getattr(function, '__name__', '')}"
        self.thread = threading.Thread(target=self._run, args=(function, arguments, options), daemon=True, name=name)
        self.thread.start()

    def _run(self, function: Callable[..., T], arguments: tuple[object, ...], options: dict[str, object]) -> None:
        try:
            self._value = function(*arguments, **options)
        except BaseException as error:  # noqa: BLE001 - it is raised, or looked at, where the end is waited for
            self.error = error
        finally:
            self._end.set()

    def ended(self, seconds: float) -> bool:
        """Wait until it has ended; False when it has not in time."""
        return self._end.wait(seconds)

    def result(self, seconds: float) -> T:
        """Wait for what it returns.

        Raises:
            TimeoutError: it has not ended in time.
            BaseException: what it raised.
        """
        if not self._end.wait(seconds):
            raise TimeoutError(f"{self.thread.name} has not ended after {seconds:g} s")
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # it is what the function returned


def waited(wait: Callable[[float], bool], seconds: float, worked: Callable[[], float]) -> bool:
    """Wait for something, and on while it is worked on: where others want the processors, too, seconds say little.

    It counts as missing when the time is over and nobody has worked on it in the last part of that, when it has had as
    much of a processor as it may take, or after ten times as long.

    Args:
        wait: waits so many seconds; whether it has come.
        seconds: how long it may take where nobody else wants the processors.
        worked: how many seconds of a processor were spent on it until now.
    """
    part = seconds / _PARTS
    begun = worked()
    if wait(seconds - part):
        return True
    for _ in range(_PARTS * _LONGEST):
        before = worked()
        if wait(part):
            return True
        now = worked()
        if now - before < AT_WORK * part or now - begun > seconds:
            return False
    return False
