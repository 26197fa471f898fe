"""`tasklink bench`."""

from __future__ import annotations

from typing import Any

import click

from tasklink.cli.option import Duration, complete_communicator, json_option


class Size(click.ParamType[int]):
    """A number of bytes, or a text such as "64 MiB"."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Give the bytes."""
        from tasklink.config import parse_size  # noqa: PLC0415 - not for --help

        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Measure how fast each communicator is here, and advise which to use.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_communicator)
@click.option(
    "--size",
    type=Size(),
    metavar="SIZE",
    default="64 MiB",
    show_default=True,
    help="The largest array that is sent; up to 1 GiB.",
)
@click.option(
    "--time",
    "seconds",
    type=Duration(),
    metavar="DURATION",
    default="20 s",
    show_default=True,
    help="About how long to measure; two rounds at least.",
)
@json_option
@click.option("--plot", metavar="FILE", type=click.Path(dir_okay=False), help="Draw latency and bandwidth over size.")
def bench(*, names: tuple[str, ...], size: int, seconds: float, as_json: bool, plot: str | None) -> int:
    """Measure the communicators that are named, or all that are installed, and advise which to use for what.

    It takes less than half a minute, unless larger arrays are asked for.
    """
    from tasklink.cli.benchmark import Benchmark  # noqa: PLC0415 - not for --help

    benchmark = Benchmark.of(names, size=size, seconds=seconds, plot=plot)
    benchmark.run(quiet=as_json)
    if as_json:
        benchmark.print_document()
    else:
        benchmark.print_tables()
    benchmark.draw()
    return benchmark.outcome
