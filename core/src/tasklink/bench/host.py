"""The process that measures one contender: it reads what to do from standard input, and writes a line for each order.

Libraries print what they like, on both outputs; so the lines go to a copy of the descriptor that nobody else knows.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import sys
import traceback
from typing import TYPE_CHECKING

from tasklink.bench.child import find
from tasklink.bench.item import NotAvailableError

if TYPE_CHECKING:
    from tasklink.bench.contender import Contender
    from tasklink.bench.item import Order
    from tasklink.bench.visit import Visit


def main() -> None:
    """Carry out the visit that standard input describes."""
    answers = os.dup(1)
    os.dup2(2, 1)
    # Here and in all children: when numpy is imported, OpenBLAS starts threads, and each spins for some 50 ms. On a
    # small machine they would have the processors meanwhile, and not who is measured.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    visit: Visit = pickle.load(sys.stdin.buffer)
    sys.stderr.writelines(_results(visit, answers))


def _results(visit: Visit, answers: int) -> list[str]:
    """Write an answer for each order; give the traceback of what kept the others from being carried out."""
    kind: type[Contender] = find(visit.contender.where)
    for name in kind.requires:
        if importlib.util.find_spec(name) is None:
            _answer(answers, {"reason": f"{name} is not installed"})
            return []
    try:
        with kind.start(visit.contender.variant, visit.largest) as contender:
            for order in visit.orders:
                _answer(answers, _carry_out(contender, order))
    except NotAvailableError as error:
        _answer(answers, {"reason": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this contender's, and belongs into the results
        _answer(answers, {"reason": "".join(traceback.format_exception_only(error)).strip()})
        return traceback.format_exception(error)
    return []


def _carry_out(contender: Contender, order: Order) -> dict[str, object]:
    try:
        return {"values": contender.measure(order)}
    except NotAvailableError as error:
        return {"reason": str(error)}


def _answer(descriptor: int, answer: dict[str, object]) -> None:
    os.write(descriptor, json.dumps(answer).encode() + b"\n")
