"""What `tasklink verify --soak` does: chaos over real Executors, how far it is, and a report."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Self

import attrs
import click

from tasklink.cli.document import dumps
from tasklink.cli.gauge import gauge
from tasklink.cli.interrupt import Interrupted
from tasklink.cli.number import count_of, spell_roughly, spell_seconds
from tasklink.cli.outcome import Outcome
from tasklink.cli.report import print_finding, print_table, tell
from tasklink.errors import PluginNotFoundError
from tasklink.testing.chaos import AT_ONCE, Chaos, protocols

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklink.testing.life import Record

_INTRODUCTION = """\
{minutes} of Tasks that live for a random while and return, raise, exit, crash, are killed or stopped, {at_once} at a
time; over {over}"""
_FINDINGS = ("lost", "twice", "untrue", "hangs", "leaks")
_HEAD = ("communicators", "runs", "messages", "lines", *_FINDINGS, "worst, s")
_MEANING = "lost: promised and not there; worst: from the end of a Task to its result"


@attrs.define
class Soak:
    """Chaos over several protocols, and what it came to.

    Attributes:
        chaos: the runs.
        took: seconds.
        interrupted: whether it was ended before its time.
    """

    chaos: Chaos
    took: float = 0.0
    interrupted: bool = False

    @classmethod
    def of(cls, names: Sequence[str], seconds: float) -> Self:
        """Make ready to try communicators.

        Args:
            names: of the communicators; none for all that can be used here.
            seconds: for how long.

        Raises:
            PluginError: one that was asked for cannot be used, or there is none at all.
        """
        over = protocols(names)
        if not over:
            raise PluginNotFoundError(
                "no communicator that carries messages is installed; begin with: pip install tasklink-unix"
            )
        return cls(Chaos(over, seconds=seconds))

    def run(self, *, as_json: bool) -> Outcome:
        """Do it, and print what it came to, also when it is interrupted.

        Args:
            as_json: print a document, and say nothing meanwhile.

        Returns:
            what the program exits with.

        Raises:
            Interrupted: it was; the report is printed.
        """
        if not as_json:
            over = ", ".join(record.label for record in self.chaos.records)
            tell(_INTRODUCTION.format(minutes=spell_roughly(self.chaos.seconds), at_once=AT_ONCE, over=over))
        with self.chaos:
            begun = time.monotonic()
            try:
                with gauge(quiet=as_json) as show:
                    for done, what in self.chaos.steps():
                        show(done, what)
            except Interrupted:
                # At once: the Tasks are ended afterwards, and that may take longer than there is time.
                self._report(begun, as_json=as_json, interrupted=True)
                raise
            self._report(begun, as_json=as_json)
        if self.chaos.hangs:
            sys.stdout.flush()
            os._exit(self.outcome)  # the thread of a run that hangs would be waited for
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        """What the program exits with."""
        return Outcome.TASK if self.chaos.faults else Outcome.OK

    def print_tables(self) -> None:
        """Print a line for each protocol, then what was found, and a summary."""
        print_table([_HEAD, *map(_row, self.chaos.records)], right=range(1, len(_HEAD)))
        click.echo(_MEANING)
        for fault in self.chaos.faults:
            print_finding(fault)
        click.echo(f"\n{self._summary}")

    def print_document(self) -> None:
        """Print everything as JSON."""
        click.echo(
            dumps(
                {
                    "exit_code": int(self.outcome),
                    "seconds": round(self.took, 1),
                    "interrupted": self.interrupted,
                    "runs": self.chaos.runs,
                    "memory_mb_per_1000_runs": self.chaos.growth.per_thousand,
                    "communicators": {record.label: record.as_dict() for record in self.chaos.records},
                    "faults": self.chaos.faults,
                }
            )
        )

    def _report(self, begun: float, *, as_json: bool, interrupted: bool = False) -> None:
        self.took, self.interrupted = time.monotonic() - begun, interrupted
        if as_json:
            self.print_document()
        else:
            self.print_tables()

    @property
    def _summary(self) -> str:
        records = self.chaos.records
        found = ", ".join(f"{sum(getattr(record, name) for record in records)} {name}" for name in _FINDINGS)
        so_far = "interrupted after" if self.interrupted else "in"
        grown = self.chaos.growth.per_thousand
        memory = "" if grown is None else f"; memory grows by {grown:.2f} MB in 1,000 runs"
        return f"{count_of(self.chaos.runs, 'run')} {so_far} {spell_seconds(self.took)}: {found}{memory}"


def _row(record: Record) -> tuple[str, ...]:
    counts = (f"{getattr(record, name):,}" for name in _HEAD[1:-1])
    return record.label, *counts, f"{record.worst:.2f}"
