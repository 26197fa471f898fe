"""The command line of the benchmarks."""

import compileall
import importlib
import json
import mmap
import shlex
import sys
from pathlib import Path

import attrs
import click

from tasklink.bench.machine import describe, machine_facts, version_of
from tasklink.bench.session import MEMORY, Tally, key_of
from tasklink.bench.visit import Outcome, Visit, carry_out
from tasklink.config import parse_size
from tasklink.guardian import Guardian
from tests.benchmarks.items import ARRAYS, ITEMS, LATENCIES, ONCE, Extent
from tests.benchmarks.judgement import judge
from tests.benchmarks.roster import NOT_HERE, everyone
from tests.benchmarks.tables import markdown, print_values, print_verdicts

_VISIT_SECONDS = 60.0
_LARGE = 256 << 20  # bytes of an array, of which the machine may not have the memory at hand
_DISTRIBUTIONS = ("pyzmq", "pynng", "iceoryx2", "faster-fifo", "execnet", "distributed", "loky")


@attrs.define
class Results:
    """What was measured, where, and how."""

    machine: dict
    command: str
    rounds: int
    ours: list
    names: list
    keys: list
    tally: Tally

    def as_document(self):
        """Give everything as plain values."""
        return {
            "machine": self.machine,
            "command": self.command,
            "rounds": self.rounds,
            "ours": self.ours,
            "keys": self.keys,
            "contenders": {name: self.tally.values(name) for name in self.names},
            "left_out": {name: self.tally.reasons(name) for name in self.names if self.tally.reasons(name)},
            "compared": [attrs.asdict(verdict) for verdict in self.verdicts()],
        }

    @classmethod
    def of(cls, document):
        """Take them from a document."""
        tally = Tally()
        for name, keys in document["contenders"].items():
            for key, values in keys.items():
                for number in range(len(next(iter(values.values()))["rounds"])):
                    tally.add(Outcome(name, key, {value: one["rounds"][number] for value, one in values.items()}))
        for name, reasons in document["left_out"].items():
            for number, reason in enumerate(reasons):
                tally.add(Outcome(name, f"left out {number}", reason=reason))
        facts = (document[key] for key in ("machine", "command", "rounds", "ours"))
        return cls(*facts, list(document["contenders"]), document["keys"], tally)

    def verdicts(self):
        """Judge them."""
        return judge(self.tally, self.ours, self.keys)

    def where(self):
        """Say in a line where, when and how it was measured."""
        return (
            f"{describe(self.machine)}; {self.machine['date'][:10]}, `{self.command}`, medians of {self.rounds} rounds"
        )


def measure(items, everybody, rounds, extent):
    """Measure: in each round each item, of each item all who take part."""
    tally, keys = Tally(), []
    absent = set()
    with Guardian() as guardian:
        for number in range(rounds):
            for item in items:
                if number and item in ONCE:
                    continue
                click.echo(f"round {number + 1} of {rounds}: {item}", err=True)
                for group, peer in _turns(item, everybody, extent, number):
                    keys += [order["key"] for order in group if order["key"] not in keys]
                    name = peer.entrant.name
                    if name in absent:
                        continue
                    fetch_memory(3 * max(order.get("bytes", 0) for order in group))
                    for outcome in carry_out(Visit(peer.entrant, group, _VISIT_SECONDS), guardian):
                        tally.add(outcome)
                        if outcome.reason.endswith("is not installed"):
                            absent.add(name)
                    if name in absent:
                        click.echo(f"{name} is left out: {tally.reasons(name)[-1]}", err=True)
    return tally, keys


def _turns(item, everybody, extent, number):
    """Give each group of orders with each who takes part; who begins changes from round to round."""
    taking_part = [peer for peer in everybody if item in peer.items]
    start = number * 5 % max(1, len(taking_part))
    taking_part = taking_part[start:] + taking_part[:start]
    groups = {peer: list(ITEMS[item](extent, peer.share)) for peer in taking_part}
    for index in range(max(map(len, groups.values()), default=0)):
        for peer in taking_part:
            yield groups[peer][index], peer


def fetch_memory(nbytes):
    """Touch so many bytes, and give them back.

    The host of a virtual machine may take what is free (the kernel reports it), and has to find it again when it is
    touched, at a quarter of the speed. Who is measured first after a while would pay for that, and no other.
    """
    if nbytes < 3 * _LARGE:
        return
    with mmap.mmap(-1, nbytes) as memory:
        memory[:: mmap.PAGESIZE] = bytes(nbytes // mmap.PAGESIZE)


def draw(results, path):
    """Draw latency and bandwidth over size."""
    from tasklink.bench.picture import LIMIT, OURS, PEER, Curve, draw

    def by_size(name, item, sizes, value):
        medians = {size: results.tally.median(name, key_of(item, size), value) for size in sizes}
        return {size: median for size, median in medians.items() if median is not None}

    curves = []
    for name in results.names:
        kind = LIMIT if name == MEMORY else OURS if name in results.ours else PEER
        # A copy of a few bytes is no limit for anybody.
        sizes = [size for size in LATENCIES if name != MEMORY or size in ARRAYS]
        latency = by_size(name, "transfer", sizes, "median_us")
        bandwidth = by_size(name, "stream", ARRAYS, "gb_per_s")
        if latency or bandwidth:
            curves.append(Curve(name, kind, latency, bandwidth))
    draw(curves, Path(path), "tasklink and its peers", results.where().replace("`", ""))


def compile_all():
    """Have everything compiled that a process will import: compiling is no part of what is measured."""
    for name in ("tasklink", "tasklink_pipe", "tasklink_unix", "tasklink_shm", "tasklink_zmq"):
        try:
            folder = Path(importlib.import_module(name).__file__).parent
        except ModuleNotFoundError:
            continue
        compileall.compile_dir(folder, quiet=2)
    compileall.compile_dir(Path(__file__).parent, quiet=2)


@click.command(help=f"Measure tasklink beside its peers. ITEM is one of {', '.join(ITEMS)}; without one, all.")
@click.argument("items", nargs=-1, metavar="[ITEM]...", type=click.Choice(list(ITEMS)))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often all take turns.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this communicator or peer; may be repeated.")
@click.option("--scale", default=1.0, show_default=True, help="How many of the messages; 0.01 to try whether it works.")
@click.option("--largest", default="1 GiB", show_default=True, help="The largest array.")
@click.option("--load", type=click.Path(exists=True), help="Measure nothing; take what --json has written.")
@click.option("--json", "json_path", type=click.Path(), help="Write all values of all rounds into this file.")
@click.option("--plot", type=click.Path(), help="Draw latency and bandwidth over size into this file.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print all tables as Markdown.")
@click.option(
    "--into", type=click.Path(exists=True, dir_okay=False), help="Put all tables into this file, between its markers."
)
def run(*, items, rounds, only, scale, largest, load, json_path, plot, as_markdown, into):
    """Do what the command line asks for."""
    if load:
        results = Results.of(json.loads(Path(load).read_text()))
    else:
        results = _measured(items or list(ITEMS), rounds, only, Extent(scale, parse_size(largest)))
    if json_path:
        Path(json_path).write_text(json.dumps(results.as_document(), indent=1))
    if plot:
        draw(results, plot)
    verdicts = results.verdicts()
    if into:
        put_into(Path(into), _as_markdown(results))
    if as_markdown:
        click.echo(_as_markdown(results))
        return
    click.echo(results.where())
    print_values(results.tally, results.names)
    if verdicts:
        click.echo("")
        print_verdicts(verdicts)
    for line in _left_out(results):
        click.echo(line)


def put_into(path, tables):
    """Put the tables between the two markers of a file."""
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    head, found, rest = path.read_text().partition(begin)
    _, found_too, tail = rest.partition(end)
    if not (found and found_too):
        raise click.ClickException(f"{path} lacks the lines {begin} and {end}, between which the tables go")
    path.write_text(f"{head}{begin}\n\n{tables}\n\n{end}{tail}")


def _as_markdown(results):
    tables = markdown(results.tally, results.names, results.verdicts())
    left_out = "\n".join(f"- {line}" for line in _left_out(results))
    return f"Measured on {results.where()}.\n\n{tables}\n\n### Not measured\n\n{left_out}"


def _measured(items, rounds, only, extent):
    compile_all()
    try:
        everybody = everyone(only)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--only") from error
    for name, reason in NOT_HERE.items():
        click.echo(f"{name} is left out: {reason}", err=True)
    tally, keys = measure(items, everybody, rounds, extent)
    machine = machine_facts()
    machine["packages"].update({name: version_of(name) for name in _DISTRIBUTIONS if version_of(name)})
    command = shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]])
    names = list(dict.fromkeys(peer.entrant.name for peer in everybody))
    ours = list(dict.fromkeys(peer.entrant.name for peer in everybody if peer.ours))
    return Results(machine, command, rounds, ours, names, keys, tally)


def _left_out(results):
    """Say what was not measured, and why."""
    reasons = [(name, reason) for name in results.names for reason in results.tally.reasons(name)]
    return [f"{name}: {reason}" for name, reason in dict.fromkeys([*NOT_HERE.items(), *reasons])]
