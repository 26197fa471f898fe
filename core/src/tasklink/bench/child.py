"""The process at the other end of a wire."""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import Any

from tasklink.bench.contender import serve


def main() -> None:
    """Open the end that standard input describes, and serve."""
    where, told = pickle.load(sys.stdin.buffer)
    serve(find(where).connect(told))


def find(where: str) -> Any:
    """Import `module:attribute`."""
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)
