"""All checks, in the order in which they are run: first what everything else needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklink.testing.check import Check
from tasklink.testing.checks import (
    api,
    delivery,
    ends,
    flow,
    handlers,
    machines,
    many,
    meeting,
    output,
    promises,
    traces,
)

if TYPE_CHECKING:
    from types import ModuleType

_MODULES = (api, delivery, flow, many, handlers, ends, meeting, promises, output, traces, machines)


def _checks(module: ModuleType) -> list[Check]:
    return [value for value in vars(module).values() if isinstance(value, Check) and _home(value) == module.__name__]


def _home(check: Check) -> str:
    return check.function.__module__


CHECKS: tuple[Check, ...] = tuple(check for module in _MODULES for check in _checks(module))
"""Every check."""

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(check.group for check in CHECKS))
"""The groups that checks belong to, for `tasklink verify --only`."""
