"""`tasklink config`."""

from __future__ import annotations

import click

from tasklink.cli.option import communicators_option, config_argument, json_option, load_config, overrides_option


@click.group()
def config() -> None:
    """Look at configs."""


@config.command(short_help="Print each value, and where it comes from.")
@config_argument(required=False)
@communicators_option
@overrides_option
@json_option
def show(*, path: str | None, communicators: str | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Print each value that would be in force, and where it comes from.

    Values come from the command line, else from the environment, else from the file CONFIG, else they are defaults.
    What is not set is left out.
    """
    from tasklink.cli.listing import print_entries  # noqa: PLC0415 - not for --help

    print_entries(load_config(path, communicators, assignments).entries(), as_json=as_json)
