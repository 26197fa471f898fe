"""Results as JSON.

Rules of this file: what JSON has is given as it is, and what it has not by its type and its text, under the key
`not_json`, so that one array in a result does not cost the rest of it. Bytes are given as text, with backslashes where
they are none. NaN and the infinities, which JSON does not have, become null.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from datetime import date, time
from numbers import Integral, Real
from pathlib import PurePath
from typing import TYPE_CHECKING

from tasklink.errors import TaskFailedError

if TYPE_CHECKING:
    from tasklink.result import TaskResult

# Deeper values are shown as text.
_DEPTH = 50
# Python refuses to write out an integer of more than 4300 digits.
_LARGEST = 10**1000
# Characters of a value's text.
_WIDTH = 500

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 200
_repr.maxlevel = 3
_repr.maxarray = _repr.maxdict = _repr.maxlist = _repr.maxtuple = _repr.maxset = 8


def dumps(document: object) -> str:
    """Write a document of plain values."""
    return json.dumps(document, indent=2)


def result_document(result: TaskResult) -> dict[str, object]:
    """Everything of a result, as plain values."""
    return {
        "name": result.name,
        "status": str(result.status),
        "value": plain(result.value),
        "error": _error_document(result.error),
        "exit_code": result.exit_code,
        "signal_name": result.signal_name,
        "stdout": _text(result.stdout),
        "stderr": _text(result.stderr),
        "messages": len(result.messages),
        "lost": result.lost,
        "missing": [[numbers.start, numbers.stop - 1] for numbers in result.missing],
        "duration": round(result.duration, 6),
        "communicators": {
            name: {"messages": traffic.messages, "bytes": traffic.bytes}
            for name, traffic in result.communicators.items()
        },
        "pid": result.pid,
    }


def plain(value: object, within: tuple[int, ...] = ()) -> object:
    """Turn a value into what JSON has.

    Args:
        value: anything.
        within: the identities of the lists and tables around it, for values that contain themselves.

    >>> plain({"peaks": (3, 4.5), "noise": float("nan"), 7: b"raw"})
    {'peaks': [3, 4.5], 'noise': None, '7': {'not_json': 'bytes', 'text': "b'raw'"}}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        return _number(value)
    if isinstance(value, PurePath | date | time):
        return str(value)
    if len(within) < _DEPTH and id(value) not in within:
        inside = (*within, id(value))
        if isinstance(value, list | tuple):
            return [plain(item, inside) for item in value]
        if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
            return {str(key): plain(item, inside) for key, item in value.items()}
    return _told(value)


def summary(value: object) -> str:
    """Show a value in a few words, whatever it is and however large."""
    try:
        text = _repr.repr(value)
    except Exception as error:  # noqa: BLE001 - a value's own code may raise anything, and must not hide the rest
        return f"<{type_name(value)} that cannot be shown: {type(error).__name__}>"
    return text if len(text) <= _WIDTH else text[:_WIDTH] + "…"


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module where that says something."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _number(value: Real) -> object:
    if isinstance(value, Integral):
        return int(value) if abs(int(value)) < _LARGEST else _told(value)
    try:
        number = float(value)
    except OverflowError:  # a fraction that is larger than any float
        return _told(value)
    return number if math.isfinite(number) else None


def _told(value: object) -> dict[str, str]:
    return {"not_json": type_name(value), "text": summary(value)}


def _error_document(error: BaseException | None) -> dict[str, object] | None:
    if error is None:
        return None
    document: dict[str, object] = {"type": type(error).__name__, "text": str(error), "exception": None, "traceback": ""}
    cause = error.__cause__
    if cause is not None:
        document["exception"] = {"type": type_name(cause), "text": str(cause)}
    if isinstance(error, TaskFailedError):
        document["traceback"] = error.traceback
    return document


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
