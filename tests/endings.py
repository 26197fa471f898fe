"""How a Task may end: where, how, and what comes of it. `test_endings` proves the table, and that users read this one.

A Task reports five times and then ends, at one of the moments, in one of the ways. A message was *accepted* when the
call that sends it has returned.
"""

from functools import partial

import attrs

from tasklink import Status


@attrs.frozen
class Outcome:
    """What is seen of a Task that has ended.

    Attributes:
        status: of the result.
        ended: the exit code of its process, or the name of the signal that killed it.
    """

    status: Status
    ended: int | str

    def __str__(self) -> str:
        """As users read it."""
        return f"{self.status.name}, {self.ended}"


_not_started = partial(Outcome, Status.NOT_STARTED)
_failed = partial(Outcome, Status.FAILED)
_crashed = partial(Outcome, Status.CRASHED)
_cancelled = partial(Outcome, Status.CANCELLED)
_completed = partial(Outcome, Status.COMPLETED)
_no_result = partial(Outcome, Status.NO_RESULT)

HOW = {
    "exception": "raises an exception",
    "sys.exit": "`sys.exit(3)`",
    "os._exit": "`os._exit(5)`",
    "SIGSEGV": "SIGSEGV",
    "SIGKILL": "SIGKILL",
    "SIGSTOP": "SIGSTOP, then `cancel`",
    "exec": "becomes another program",
}
"""The ways. One that is stopped is cancelled, and goes on; the other program exits with 0."""

WHERE = {
    "start": "before it has a channel",
    "handshake": "connected, before its first word",
    "encode": "while a report is pickled",
    "mid frame": "within a large message",
    "between frames": "between two messages",
    "decode": "while a signal's contents are unpickled",
    "signal handler": "in a signal handler, most likely within `report`",
    "result": "after its result was sent",
    "close": "in an `atexit` function",
}
"""The moments."""

# In the order of HOW.
_SILENT = (
    _not_started(1), _not_started(3), _not_started(5), _not_started("SIGSEGV"), _not_started("SIGKILL"),
    _cancelled(0), _not_started(0),
)  # fmt: skip
_WORKING = (
    _failed(1), _failed(3), _crashed(5), _crashed("SIGSEGV"), _crashed("SIGKILL"), _cancelled(0), _no_result(0),
)  # fmt: skip
_DECODING = (_failed(1), _failed(1), *_WORKING[2:])  # what a pickle raises is a DecodeError, SystemExit too
_DONE = (
    _completed(1), _completed(3), _completed(5), _completed("SIGSEGV"), _completed("SIGKILL"), _completed(0),
    _completed(0),
)  # fmt: skip
_LEAVING = (_completed(0), _completed(0), *_DONE[2:])  # Python shows what an atexit function raises, and goes on

_ROWS = {
    "start": _SILENT,
    "handshake": _SILENT,
    "encode": _WORKING,
    "mid frame": _WORKING,
    "between frames": _WORKING,
    "decode": _DECODING,
    "signal handler": _WORKING,
    "result": _DONE,
    "close": _LEAVING,
}

OUTCOMES = {(where, how): outcome for where, row in _ROWS.items() for how, outcome in zip(HOW, row, strict=True)}
"""What comes of a Task that ends there, and so."""

ORDERLY = {"exception", "sys.exit", "SIGSTOP"}
"""After these the Task itself still closes its communicators."""

RETURNED = {"result", "close"}
"""By then the Executor has confirmed the receipt, and all that was sent before."""


def table() -> str:
    """The table as Markdown."""
    rows = ["| the Task ends … | " + " | ".join(HOW.values()) + " |", "| --- " * (len(HOW) + 1) + "|"]
    for where, words in WHERE.items():
        cells = [str(OUTCOMES[where, how]) for how in HOW]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
