"""The demonstration over every protocol, and the table that compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import attrs
import click

from tasklink.cli.document import dumps, result_document
from tasklink.cli.outcome import Outcome, outcome_of
from tasklink.cli.progress import make_reporter
from tasklink.cli.report import figures, print_error, print_table, tell
from tasklink.demo.trial import PINGS, TASKS, Trial, protocols_of, task_names, try_protocols
from tasklink.errors import PluginNotFoundError
from tasklink.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasklink.communicator import Communicator

_INTRODUCTION = """\
Three Tasks, over {protocols}:
  library   parses the standard library of this Python: its result holds an array of several MiB
  listing   a program that knows nothing of tasklink, and prints thousands of lines
  echo      obeys signals: it answers {pings} pings, is paused, goes on, and stops when told to
"""
_NEXT = "Next: the tour of five minutes in README.md, and `tasklink run --help`."


@attrs.define
class Comparison:
    """The same Tasks over several protocols.

    Attributes:
        protocols: names of communicators; where there are several, they are used as one.
        trials: what became of each Task over each protocol, once they have run.
    """

    protocols: Sequence[tuple[str, ...]]
    trials: list[Trial] = attrs.field(factory=list)

    @classmethod
    def of(cls, names: Sequence[str] | None) -> Self:
        """Compare these communicators, or all that can be used here.

        Raises:
            PluginError: one that was asked for cannot be used, or there is none at all.
        """
        registry: Registry[type[Communicator]] = Registry()
        carrying: list[str] = []
        capturing: list[str] = []
        for name in names or _usable(registry):
            carries_messages = registry.get(name).capabilities.carries_messages
            (carrying if carries_messages else capturing).append(name)
        return cls(protocols_of(carrying, capturing))

    def run(self, heartbeat: float) -> None:
        """Run everything.

        Args:
            heartbeat: seconds between two words about how far everything is.
        """
        tell(_INTRODUCTION.format(protocols=", ".join(map(_over, self.protocols)), pings=PINGS))
        with make_reporter(task_names(self.protocols), heartbeat=heartbeat, output=False) as reporter:
            self.trials = list(try_protocols(self.protocols, [reporter]))

    @property
    def outcome(self) -> Outcome:
        """What the program exits with."""
        outcome = outcome_of(trial.result for trial in self.trials)
        if outcome is Outcome.OK and any(trial.identical is False for trial in self.trials):
            return Outcome.COMMUNICATION
        return outcome

    def print_table(self) -> None:
        """Print errors, the table, and what was found."""
        for trial in self.trials:
            print_error(trial.result)
        tell()
        head = ("task", "over", "status", "seconds", "messages", "MiB", "lost", "compared")
        in_order = sorted(self.trials, key=lambda trial: TASKS.index(trial.task))
        print_table([head, *map(_row, in_order)], right=[3, 4, 5, 6])
        click.echo("")
        for task in TASKS:
            found = ", ".join(_findings([trial for trial in self.trials if trial.task == task]))
            click.echo(f"{task}: {found}")
        tell(f"\n{_NEXT}")

    def print_document(self) -> None:
        """Print everything but the large things as JSON."""
        click.echo(dumps({"exit_code": int(self.outcome), "trials": [_document(trial) for trial in self.trials]}))


def _usable(registry: Registry[object]) -> list[str]:
    usable = [plugin for plugin in registry.plugins() if plugin.status == "ok"]
    if not any(plugin.capabilities and plugin.capabilities.carries_messages for plugin in usable):
        raise PluginNotFoundError(
            "no communicator can be used here; begin with: pip install tasklink-unix tasklink-pipe"
        )
    return [plugin.name for plugin in usable]


def _over(names: Sequence[str]) -> str:
    return "+".join(names)


def _row(trial: Trial) -> tuple[str, ...]:
    compared = {None: "", True: "identical", False: "DIFFERENT"}[trial.identical]
    return trial.task, _over(trial.communicators), str(trial.result.status), *figures(trial.result), compared


def _findings(trials: Sequence[Trial]) -> Iterator[str]:
    """Say what a Task gave over every protocol alike, and how fast each of them answers."""
    yield from dict.fromkeys(trial.found for trial in trials if trial.found)
    times = [
        f"{trial.round_trip * 1e6:.0f} µs over {_over(trial.communicators)}"
        for trial in trials
        if trial.round_trip is not None
    ]
    if times:
        yield f"each in {', '.join(times)}"


def _document(trial: Trial) -> dict[str, object]:
    result = result_document(trial.result)
    for large in ("value", "stdout", "stderr"):
        del result[large]
    own = {"task": trial.task, "protocol": list(trial.communicators)}
    return {**own, **result, "found": trial.found, "round_trip": trial.round_trip, "identical": trial.identical}
