"""Running checks: what each one came to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import attrs

from tasklink.testing.catalogue import CHECKS
from tasklink.testing.check import ConformanceError, Skipped
from tasklink.testing.contract import CLAUSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasklink.testing.check import Check
    from tasklink.testing.subject import Subject


@attrs.frozen
class Finding:
    """What a check came to.

    Attributes:
        check: which one.
        outcome: `"pass"`, `"fail"` or `"skipped"`.
        reason: why it failed, with the clause and how it is mended, or why it does not apply; empty when it passed.
        seconds: how long it took.
    """

    check: Check
    outcome: Literal["pass", "fail", "skipped"]
    reason: str
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Everything by its name, as JSON can hold it."""
        return {
            "check": self.check.name,
            "clause": self.check.clause,
            "clause_text": CLAUSES.get(self.check.clause, ""),
            "group": self.check.group,
            "title": self.check.title,
            "outcome": self.outcome,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
        }


def verify(subject: Subject, checks: Sequence[Check] | None = None) -> Iterator[Finding]:
    """Run checks, one after the other.

    Args:
        subject: what is checked.
        checks: which ones; None: all but those for long runs.
    """
    for check in [check for check in CHECKS if not check.soak] if checks is None else checks:
        yield run(check, subject)


def run(check: Check, subject: Subject) -> Finding:
    """Run a check."""
    begun = time.monotonic()
    try:
        check(subject)
    except Skipped as reason:
        return Finding(check, "skipped", str(reason), time.monotonic() - begun)
    except ConformanceError as error:
        return Finding(check, "fail", str(error), time.monotonic() - begun)
    return Finding(check, "pass", "", time.monotonic() - begun)
