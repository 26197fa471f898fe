"""`tasklink plugins`."""

from __future__ import annotations

import click

from tasklink.cli.option import json_option


@click.command(short_help="List what is installed, and whether it works here.")
@click.option("--markdown", is_flag=True, help="Print a catalogue of the communicators, for a document.")
@json_option
def plugins(*, markdown: bool, as_json: bool) -> None:
    """List the communicators and observers that are installed, and say of each whether it can be used here."""
    from tasklink.cli.listing import print_catalogue, print_plugins  # noqa: PLC0415 - not for --help
    from tasklink.registry import COMMUNICATORS, OBSERVERS, Registry  # noqa: PLC0415 - as above

    if markdown and as_json:
        raise click.UsageError("--markdown and --json are two forms of the same: choose one")
    if markdown:
        print_catalogue(Registry())
        return
    installed = [plugin for group in (COMMUNICATORS, OBSERVERS) for plugin in Registry(group).plugins()]
    print_plugins(installed, as_json=as_json)
