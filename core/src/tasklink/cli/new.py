"""`tasklink new`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command(short_help="Begin a plugin of your own.")
@click.argument("name")
@click.option(
    "--path",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to make it.  [default: tasklink-NAME, here]",
)
def new(*, name: str, folder: Path | None) -> None:
    """Begin a communicator plugin that is called NAME in a config.

    What is made is a whole plugin that works: messages as files in a directory, with settings, documentation and
    tests. Install it, see it pass, and replace its protocol by yours.
    """
    from tasklink.cli.scaffold import create  # noqa: PLC0415 - not for --help
    from tasklink.errors import ConfigError  # noqa: PLC0415 - as above

    folder = folder or Path(f"tasklink-{name}")
    try:
        made = create(name, folder)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"Made a plugin in {folder} ({len(made)} files). Its protocol is in {_protocol(made)}.\n\nNext:\n")
    click.echo(f"  cd {shlex.quote(str(folder))}")
    click.echo("  pip install -e '.[test]'")
    click.echo(f"  tasklink verify {name}")


def _protocol(made: list[Path]) -> Path:
    return next(path for path in made if path.name == "communicator.py")
