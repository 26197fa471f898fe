"""`tasklink verify`."""

from __future__ import annotations

import click

from tasklink.cli.option import complete_communicator, json_option
from tasklink.cli.outcome import Outcome
from tasklink.errors import PluginNotFoundError


@click.command(short_help="Prove that a communicator keeps the contract of communicators.")
@click.argument("name", shell_complete=complete_communicator)
@click.option("--only", "groups", metavar="GROUP", multiple=True, help="Only the checks of a group. May be repeated.")
@json_option
def verify(*, name: str, groups: tuple[str, ...], as_json: bool) -> int:
    """Run every check of the contract on a communicator that is installed, with its settings as they are by default.

    It takes less than a minute. The exit code is 0 when no check fails, and 1 when one does.
    """
    from tasklink.cli.verification import Verification  # noqa: PLC0415 - not for --help

    try:
        verification = Verification.of(name, groups)
    except PluginNotFoundError as error:  # what was typed is wrong
        click.echo(f"Error: {error}", err=True)
        return Outcome.USAGE
    verification.run(quiet=as_json)
    if as_json:
        verification.print_document()
    else:
        verification.print_tables()
    return verification.outcome
