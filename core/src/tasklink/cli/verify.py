"""`tasklink verify`."""

from __future__ import annotations

from typing import Any

import click

from tasklink.cli.option import Duration, complete_communicator, json_option
from tasklink.cli.outcome import Outcome
from tasklink.errors import PluginNotFoundError


class Minutes(Duration):
    """A number of minutes, or a text such as "20 s"; gives seconds."""

    name = "minutes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Give the seconds."""
        seconds = super().convert(f"{value} min" if _is_number(value) else value, param, ctx)
        if not seconds:
            self.fail("it takes some time", param, ctx)
        return seconds


@click.command(short_help="Prove that a communicator keeps the contract of communicators.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_communicator)
@click.option("--only", "groups", metavar="GROUP", multiple=True, help="Only the checks of a group. May be repeated.")
@click.option(
    "--soak",
    type=Minutes(),
    metavar="MINUTES",
    help="Instead of the checks, so many minutes of chaos over the communicators that are named, or all that are "
    "installed: Tasks end in every way, 8 at a time. Nothing may be lost, come twice, hang, or be left behind.",
)
@json_option
def verify(*, names: tuple[str, ...], groups: tuple[str, ...], soak: float | None, as_json: bool) -> int:
    """Run every check of the contract on a communicator that is installed, with its settings as they are by default.

    It takes less than a minute, or with --soak as long as that says. The exit code is 0 when nothing fails, and 1 when
    something does.
    """
    if soak is not None and groups:
        raise click.UsageError("--only chooses among the checks, of which --soak runs none: leave out one of the two.")
    if soak is None and len(names) != 1:
        raise click.UsageError("Missing argument 'NAME'." if not names else "The checks are run on one communicator.")
    try:
        return _check(names[0], groups, as_json=as_json) if soak is None else _soak(names, soak, as_json=as_json)
    except PluginNotFoundError as error:  # what was typed is wrong
        click.echo(f"Error: {error}", err=True)
        return Outcome.USAGE


def _check(name: str, groups: tuple[str, ...], *, as_json: bool) -> int:
    from tasklink.cli.verification import Verification  # noqa: PLC0415 - not for --help

    verification = Verification.of(name, groups)
    verification.run(quiet=as_json)
    if as_json:
        verification.print_document()
    else:
        verification.print_tables()
    return verification.outcome


def _soak(names: tuple[str, ...], seconds: float, *, as_json: bool) -> int:
    from tasklink.cli.soak import Soak  # noqa: PLC0415 - not for --help

    return Soak.of(names, seconds).run(as_json=as_json)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
