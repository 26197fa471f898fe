"""`tasklink demo`."""

from __future__ import annotations

import click

from tasklink.cli.option import communicators_option, heartbeat_option, json_option, load_config


@click.command(short_help="Run three Tasks over every protocol, and compare.")
@communicators_option
@json_option
@heartbeat_option
def demo(*, communicators: str | None, as_json: bool, heartbeat: float) -> int:
    """Run three Tasks on real input over every communicator that is installed, and compare the results."""
    asked = load_config(None, communicators, ()).communicators
    from tasklink.cli.comparison import Comparison  # noqa: PLC0415 - not for --help

    comparison = Comparison.of(asked)
    comparison.run(heartbeat)
    if as_json:
        comparison.print_document()
    else:
        comparison.print_table()
    return comparison.outcome
