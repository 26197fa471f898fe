"""A fresh pair of processes for one contender, from its start to its end or its deadline.

The host leads a process group, so that it can be ended with its child whatever the two are doing; and it is guarded, so
that it ends with us.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import sys
import tempfile
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any

import attrs

from tasklink.launch import anonymous_file
from tasklink.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tasklink.guardian import Guardian

_READ_BYTES = 1 << 16
_LATE = {"late": True}


@attrs.frozen
class Entrant:
    """Somebody who takes part.

    Attributes:
        name: what it is called.
        where: its class, a `Contender`, as `module:attribute`.
        variant: which of several ways, for a class that knows several.
    """

    name: str
    where: str
    variant: str = ""


@attrs.frozen
class Visit:
    """What one pair of processes has to do.

    Attributes:
        contender: who does it.
        orders: what is to be done, one after the other.
        seconds: after which it is ended.
    """

    contender: Entrant
    orders: Sequence[Mapping[str, Any]]
    seconds: float = 60.0

    @property
    def largest(self) -> int:
        """The most bytes that a message has."""
        return max((int(order.get("bytes", 0)) for order in self.orders), default=0)


@attrs.frozen
class Outcome:
    """What came of one order.

    Attributes:
        contender: the name of who did it.
        key: what the order calls its results.
        values: by name and unit; empty where there are none.
        reason: why there are none.
    """

    contender: str
    key: str
    values: Mapping[str, float] = attrs.field(factory=dict)
    reason: str = ""


def carry_out(visit: Visit, guardian: Guardian) -> list[Outcome]:
    """Start the processes, have them carry out the orders, and give what came of each.

    Raises:
        TaskNotStartedError: no process can be started.
        OSError: there are no descriptors, or there is no memory.
    """
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        answers, theirs = os.pipe()
        stack.callback(os.close, answers)
        request = anonymous_file(pickle.dumps(visit))
        try:
            code = f"import sys; sys.path[:] = {sys.path!r}; from tasklink.bench.host import main; main()"
            process = Process.start(
                [sys.executable, "-c", code],
                standard={0: request, 1: theirs, 2: errors.fileno()},
                inherited=(),
                guardian=guardian,
            )
        finally:
            os.close(request)
            os.close(theirs)
        stack.enter_context(process)
        given = list(_answers(answers, monotonic() + visit.seconds))
        errors.seek(0)
        said = errors.read().decode("utf-8", "backslashreplace").strip()
    return list(_outcomes(visit, given, said))


def _answers(descriptor: int, deadline: float) -> Iterator[dict[str, Any]]:
    """Read the lines of the host until its end; the last one says so if it was late."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rest = b""
    while poll.poll(max(0.0, deadline - monotonic()) * 1000):
        data = os.read(descriptor, _READ_BYTES)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from map(json.loads, lines)
    yield _LATE


def _outcomes(visit: Visit, given: list[dict[str, Any]], said: str) -> Iterator[Outcome]:
    name = visit.contender.name
    answers = [answer for answer in given if answer != _LATE]
    for order, answer in zip(visit.orders, answers, strict=False):
        yield Outcome(name, order["key"], answer.get("values", {}), answer.get("reason", ""))
    if _LATE in given:
        reason = f"it was ended after {visit.seconds:.0f} s"
    elif answers and answers[-1].get("reason"):
        reason = answers[-1]["reason"]
    else:
        reason = f"its process ended: {said.splitlines()[-1] if said else 'it said nothing'}"
    for order in visit.orders[len(answers) :]:
        yield Outcome(name, order["key"], reason=reason)
