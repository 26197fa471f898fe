"""What `tasklink bench` does: measures, shows how far it is, and prints tables, a document, a picture and an advice."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs
import click

from tasklink.bench.advice import Advice, advise, spell_size
from tasklink.bench.machine import describe, machine_facts
from tasklink.bench.session import MEMORY, Bench, key_of
from tasklink.cli.document import dumps
from tasklink.cli.gauge import gauge
from tasklink.cli.lines import abridge
from tasklink.cli.outcome import Outcome
from tasklink.cli.report import print_table, tell
from tasklink.errors import PluginNotFoundError
from tasklink.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasklink.communicator import Communicator
    from tasklink.registry import Plugin

_LARGEST = 1 << 30
_INTRODUCTION = (
    "Measuring {names}: in rounds, each time between two new processes. Other programs that run now are measured, too."
)


@attrs.define
class Benchmark:
    """A measurement and what is made of it.

    Attributes:
        bench: what is measured.
        skipped: by the name of a communicator, why it is not.
        plot: where the picture goes; None for no picture.
        zero_copy: the names of those who do not copy what is large.
        facts: where it is measured.
    """

    bench: Bench
    skipped: dict[str, str]
    plot: Path | None
    zero_copy: frozenset[str]
    facts: dict[str, object] = attrs.field(factory=machine_facts)

    @classmethod
    def of(cls, names: Sequence[str], *, size: int, seconds: float, plot: str | None) -> Self:
        """Measure these communicators, or all that are installed.

        Args:
            names: of the communicators; none for all.
            size: bytes of the largest array.
            seconds: about how long to measure.
            plot: where the picture goes; None for no picture.

        Raises:
            PluginError: one that was asked for is not installed, or there is none at all.
            ClickException: the size or the picture is not possible.
        """
        if not 1 <= size <= _LARGEST:
            raise click.BadParameter(
                f"{spell_size(size)} is not between 1 B and {spell_size(_LARGEST)}", param_hint="--size"
            )
        if plot is not None:
            _check_plot(Path(plot))
        registry: Registry[type[Communicator]] = Registry()
        installed = {plugin.name: plugin for plugin in registry.plugins()}
        for name in names:
            if name not in installed:
                registry.get(name)
        chosen = dict.fromkeys(names or installed)
        skipped = {name: reason for name in chosen if (reason := _obstacle(installed.get(name)))}
        measured = [name for name in chosen if name not in skipped]
        zero_copy = frozenset(
            name for name, plugin in installed.items() if plugin.capabilities and plugin.capabilities.zero_copy
        )
        if not chosen:
            raise PluginNotFoundError(
                "no communicator is installed; begin with: pip install tasklink-unix tasklink-pipe"
            )
        return cls(Bench(measured, largest=size, seconds=seconds), skipped, Path(plot) if plot else None, zero_copy)

    def run(self, *, quiet: bool) -> None:
        """Measure.

        Args:
            quiet: say nothing meanwhile.

        Raises:
            TaskNotStartedError, OSError: no process can be started.
        """
        if not self.bench.names:
            return
        if not quiet:
            tell(_INTRODUCTION.format(names=", ".join(self.bench.names)))
        with gauge(quiet=quiet) as show:
            for done, what in self.bench.steps():
                show(done, what)

    @property
    def outcome(self) -> Outcome:
        """What the program exits with."""
        return Outcome.OK if self.bench.usable() else Outcome.SETUP

    @property
    def advice(self) -> Advice | None:
        """What to use; None where nothing could be measured."""
        tally, names = self.bench.tally, self.bench.usable()
        if not names:
            return None
        trips = {name: tally.median(name, "round_trip_free", "median_us") or 0.0 for name in names}
        transfers = {name: self._by_size(name, "transfer", "median_us", self.bench.all_sizes) for name in names}
        return advise(trips, transfers)

    def print_tables(self) -> None:
        """Print what was measured, and the advice."""
        usable = self.bench.usable()
        if usable:
            tell()
            click.echo(f"{describe(self.facts)}; {self._rounds}")
            for title, head, rows in (
                (_SMALL, _SMALL_HEAD, map(self._small_row, usable)),
                (_LARGE, ("", *map(spell_size, self.bench.sizes)), map(self._large_row, (*usable, MEMORY))),
            ):
                click.echo(f"\n{title}")
                print_table([head, *rows], right=range(1, len(head)))
            click.echo("")
        for line in self._obstacles():
            click.echo(line)
        advice = self.advice
        if advice is not None:
            for reason in advice.reasons:
                click.echo(reason)
            click.echo(click.style(str(advice), bold=True))
            click.echo(f"in a config: {self._config_line(advice)}")

    def _config_line(self, advice: Advice) -> str:
        """Say how a config has it: results go by themselves to who does not copy them, or else by a route."""
        names = dict.fromkeys((advice.small, advice.large))
        quoted = ", ".join(f'"{name}"' for name in names)
        line = f"communicators = [{quoted}]"
        routed = advice.large != advice.small and advice.large not in self.zero_copy
        return line + (f', routes = {{ result = "{advice.large}" }}' if routed else "")

    def print_document(self) -> None:
        """Print everything as JSON."""
        click.echo(dumps(self.document()))

    def document(self) -> dict[str, object]:
        """Give everything as plain values: every figure with its unit in its name, as the median and of each round."""
        advice, tally = self.advice, self.bench.tally
        return {
            "exit_code": int(self.outcome),
            "machine": self.facts,
            "rounds": self.bench.rounds,
            "sizes_bytes": self.bench.sizes,
            "communicators": {name: tally.values(name) for name in self.bench.names},
            MEMORY: tally.values(MEMORY),
            "skipped": {
                **self.skipped,
                **{name: tally.reasons(name)[0] for name in self.bench.names if tally.reasons(name)},
            },
            "advice": advice and {"text": str(advice), **attrs.asdict(advice)},
        }

    def draw(self) -> None:
        """Draw the picture, where one was asked for.

        Raises:
            ClickException: the file cannot be written.
        """
        if self.plot is None or not self.bench.usable():
            return
        from tasklink.bench.picture import LIMIT, OURS, Curve, draw  # noqa: PLC0415 - matplotlib takes half a second

        curves = [
            Curve(
                name,
                LIMIT if name == MEMORY else OURS,
                self._by_size(
                    name, "transfer", "median_us", self.bench.sizes if name == MEMORY else self.bench.all_sizes
                ),
                self._by_size(name, "stream", "gb_per_s", self.bench.sizes),
            )
            for name in (*self.bench.usable(), MEMORY)
        ]
        note = f"tasklink bench, {str(self.facts['date'])[:10]}: {describe(self.facts)}; {self._rounds}"
        try:
            draw(curves, self.plot, "tasklink: which communicator for what", note)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"the picture cannot be written to {str(self.plot)!r}: {error}") from error
        tell(f"The picture is in {self.plot}")

    @property
    def _rounds(self) -> str:
        return f"medians of {self.bench.rounds} rounds"

    def _by_size(self, name: str, item: str, value: str, sizes: Sequence[int]) -> dict[int, float]:
        medians = {size: self.bench.tally.median(name, key_of(item, size), value) for size in sizes}
        return {size: median for size, median in medians.items() if median is not None}

    def _small_row(self, name: str) -> tuple[str, ...]:
        tally = self.bench.tally

        def figure(key: str, value: str, scale: float, digits: int) -> str:
            median = tally.median(name, key, value)
            return "-" if median is None else f"{median * scale:,.{digits}f}"

        return (
            name,
            figure("round_trip_free", "median_us", 1, 1),
            figure("round_trip_free", "p99_us", 1, 0),
            figure("round_trip_same", "median_us", 1, 1),
            figure("round_trip_same", "p99_us", 1, 0),
            figure("messages", "per_s", 1e-3, 0),
            figure("first_message", "median_ms", 1, 1),
            figure("noop_task", "median_ms", 1, 1),
        )

    def _large_row(self, name: str) -> tuple[str, ...]:
        def cell(size: int) -> str:
            first = self.bench.tally.median(name, key_of("stream", size), "first_gb_per_s")
            steady = self.bench.tally.median(name, key_of("stream", size), "steady_gb_per_s")
            return "-" if first is None or steady is None else f"{_rate(first)} → {_rate(steady):>3}"

        return (name, *map(cell, self.bench.sizes))

    def _obstacles(self) -> Iterator[str]:
        """Say what was not measured, and why."""
        for name, reason in self.skipped.items():
            yield abridge(f"{name} was not measured: {reason}")
        for name in (*self.bench.names, MEMORY):
            for reason in self.bench.tally.reasons(name):
                yield abridge(f"{name}: {reason}")


_SMALL = """\
A small message and its answer: on any CPUs, and both ends on one; thousands of
messages a second; a Task: until its first message, and one that does nothing."""
_SMALL_HEAD = ("", "answer, µs", "p99", "one CPU, µs", "p99", "1000/s", "first, ms", "Task, ms")
_LARGE = "Large arrays, in GB/s: the first one → later ones."


def _rate(gigabytes: float) -> str:
    return f"{gigabytes:.1f}" if gigabytes < 9.95 else f"{gigabytes:.0f}"


def _obstacle(plugin: Plugin | None) -> str:
    """Say why a communicator that is installed cannot be measured; empty when it can."""
    if plugin is None:
        return ""  # a qualified name, which the registry knows how to read
    if plugin.status != "ok":
        return plugin.reason
    if plugin.capabilities is not None and not plugin.capabilities.carries_messages:
        return "it carries no messages"
    return ""


def _check_plot(path: Path) -> None:
    """See that a picture can be drawn before anything is measured.

    Raises:
        ClickException: matplotlib is missing, or the folder is.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException("--plot needs matplotlib: pip install 'tasklink[plot]'")
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(
            f"there is no folder {str(path.absolute().parent)!r}; create it, or name another", param_hint="--plot"
        )
