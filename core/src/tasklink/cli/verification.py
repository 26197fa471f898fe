"""What `tasklink verify` does: runs the checks, shows how far it is, and prints a table or a document."""

from __future__ import annotations

import faulthandler
import logging
from typing import TYPE_CHECKING, Self

import attrs
import click

from tasklink.cli.document import dumps
from tasklink.cli.gauge import gauge
from tasklink.cli.lines import abridge
from tasklink.cli.outcome import Outcome
from tasklink.cli.report import print_finding, print_table
from tasklink.registry import Registry
from tasklink.testing.catalogue import CHECKS, GROUPS
from tasklink.testing.subject import Subject
from tasklink.testing.verification import Finding, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklink.testing.check import Check

# A check that hangs ends by itself, unless what it hangs in lets no other thread run.
_LAST_RESORT = 120.0


@attrs.define
class Verification:
    """A communicator, what is checked, and what it came to.

    Attributes:
        name: of the communicator.
        subject: the same for the checks.
        checks: in their order.
        findings: one for each check that has been run.
    """

    name: str
    subject: Subject
    checks: Sequence[Check]
    findings: list[Finding] = attrs.field(factory=list)

    @classmethod
    def of(cls, name: str, groups: Sequence[str]) -> Self:
        """Make ready to check a communicator.

        Args:
            name: of the communicator.
            groups: of which checks; none for all.

        Raises:
            PluginError: it is not installed, or cannot be used here.
            BadParameter: there is no such group.
        """
        for group in groups:
            if group not in GROUPS:
                raise click.BadParameter(f"{group!r} is no group; allowed are {', '.join(GROUPS)}", param_hint="--only")
        registry = Registry()
        subject = Subject.of(registry.get(name), registry.settings(name))
        checks = [check for check in CHECKS if not check.soak and (not groups or check.group in groups)]
        return cls(name, subject, checks)

    def run(self, *, quiet: bool) -> None:
        """Run the checks.

        Args:
            quiet: say nothing meanwhile.
        """
        # Strangers that a communicator sends away are a part of it, and no news.
        logging.getLogger("tasklink").addHandler(logging.NullHandler())
        try:
            with gauge(quiet=quiet) as show:
                for number, check in enumerate(self.checks):
                    show(number / len(self.checks), f"{check.clause} {check.name}")
                    faulthandler.dump_traceback_later(_LAST_RESORT, exit=True)
                    self.findings.append(run(check, self.subject))
        finally:
            faulthandler.cancel_dump_traceback_later()

    @property
    def outcome(self) -> Outcome:
        """What the program exits with."""
        return Outcome.TASK if self._with("fail") else Outcome.OK

    def print_tables(self) -> None:
        """Print a line for each check, then what failed and how such faults are mended."""
        rows = [("clause", "outcome", "seconds", "check"), *map(_row, self.findings)]
        skipped = [number for number, finding in enumerate(self.findings, start=1) if finding.outcome == "skipped"]
        print_table(rows, right=[2], dim=skipped)
        for finding in self._with("fail"):
            print_finding(f"{finding.check.name}: {finding.reason}")
        click.echo(f"\n{self._summary}")

    def print_document(self) -> None:
        """Print everything as JSON."""
        click.echo(
            dumps(
                {
                    "exit_code": int(self.outcome),
                    "communicator": self.name,
                    "class": f"{self.subject.kind.__module__}:{self.subject.kind.__qualname__}",
                    "capabilities": self.subject.kind.capabilities.as_dict(),
                    "passed": len(self._with("pass")),
                    "failed": len(self._with("fail")),
                    "skipped": len(self._with("skipped")),
                    "checks": [finding.as_dict() for finding in self.findings],
                }
            )
        )

    @property
    def _summary(self) -> str:
        passed, failed, skipped = (len(self._with(outcome)) for outcome in ("pass", "fail", "skipped"))
        verdict = "does not keep" if failed else "keeps"
        what = "the contract" if len(self.checks) == sum(not check.soak for check in CHECKS) else "what was checked"
        return f"{self.name} {verdict} {what}: {passed} passed, {failed} failed, {skipped} do not apply"

    def _with(self, outcome: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.outcome == outcome]


def _row(finding: Finding) -> tuple[str, ...]:
    told = finding.check.title if finding.outcome != "skipped" else f"{finding.check.name}: {finding.reason}"
    return finding.check.clause, finding.outcome, f"{finding.seconds:.2f}", abridge(told)
