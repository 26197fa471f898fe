"""`tasklink run`."""

from __future__ import annotations

import click

from tasklink.cli.option import (
    communicators_option,
    complete_tasks,
    config_argument,
    heartbeat_option,
    json_option,
    load_config,
    overrides_option,
)


@click.command(short_help="Run tasks of a config.")
@config_argument(required=True)
@click.argument("tasks", metavar="[TASK]...", nargs=-1, shell_complete=complete_tasks)
@communicators_option
@overrides_option
@json_option
@click.option(
    "-q", "--quiet", is_flag=True, help="Show neither news nor what the tasks print; only results and errors."
)
@heartbeat_option
def run(
    *,
    path: str,
    tasks: tuple[str, ...],
    communicators: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    heartbeat: float,
) -> int:
    """Run tasks of the file CONFIG: those named, or all of them, in the order of the file.

    They run one after the other, or as many at a time as `parallel` in the config says. One that fails does not keep
    the others from running. CONFIG is a TOML file, or a pyproject.toml with a table [tool.tasklink].
    """
    config = load_config(path, communicators, assignments)
    names = tasks or tuple(config.tasks)
    if not names:
        raise click.UsageError(f'{path} has no tasks; add one: [tasks.NAME] with run = "module:attribute" below it')
    from tasklink.cli.batch import Batch  # noqa: PLC0415 - not for --help

    batch = Batch(config, names, quiet=quiet)
    batch.run(heartbeat)
    if as_json:
        batch.print_document()
    else:
        batch.print_table()
    return batch.exit_code
