"""The clauses of the contract, read from where they stand for people: the documentation of `tasklink.communicator`."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from tasklink import communicator

if TYPE_CHECKING:
    from collections.abc import Mapping

# A number of two parts, and the text up to the next number.
_CLAUSE = re.compile(r"^ +(\d+\.\d+) +(.*?)(?=^ *\d+\.|^\S|\Z)", re.MULTILINE | re.DOTALL)


def _read(text: str) -> Mapping[str, str]:
    return MappingProxyType({number: " ".join(clause.split()) for number, clause in _CLAUSE.findall(text)})


CLAUSES = _read(communicator.__doc__ or "")
"""The text of each clause by its number; empty under `python -OO`, which has no documentation."""
