"""What several commands take on the command line, and how a shell completes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from tasklink.errors import TasklinkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.config import Config

F = TypeVar("F", bound="Callable[..., Any]")


class Duration(click.ParamType[float]):
    """A number of seconds, or a text such as "10 min"."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Give the seconds."""
        from tasklink.config import parse_duration  # noqa: PLC0415 - not for --help

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def config_argument(*, required: bool) -> Callable[[F], F]:
    """CONFIG."""
    return click.argument("path", metavar="CONFIG" if required else "[CONFIG]", type=click.Path(), required=required)


def communicators_option(function: F) -> F:
    """--with."""
    return click.option(
        "--with",
        "communicators",
        metavar="NAMES",
        help="Communicators for all tasks, the preferred one first, as in: --with unix,pipe",
        shell_complete=_complete_communicators,
    )(function)


def overrides_option(function: F) -> F:
    """--set."""
    return click.option(
        "--set",
        "assignments",
        metavar="KEY=VALUE",
        multiple=True,
        help="Another value than the config has, as in: --set tasks.count.timeout='5 min'. May be repeated.",
    )(function)


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def heartbeat_option(function: F) -> F:
    """--heartbeat."""
    return click.option(
        "--heartbeat",
        type=Duration(),
        metavar="SECONDS",
        default="10 s",
        show_default=True,
        help="How often to say how far everything is, where stderr is no terminal; 0: never.",
    )(function)


def load_config(path: str | None, communicators: str | None, assignments: tuple[str, ...]) -> Config:
    """Make the config of a command line.

    Raises:
        ConfigError: something in it cannot be used.
    """
    from tasklink.config import Config, parse_overrides  # noqa: PLC0415 - not for --help

    return Config.load(path, communicators=communicators, overrides=parse_overrides(assignments))


def complete_tasks(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a task from the config that stands before it."""
    try:
        names = load_config(ctx.params.get("path"), None, ()).tasks
    except TasklinkError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_communicator(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a communicator, one argument each."""
    from tasklink.registry import Registry  # noqa: PLC0415 - not for --help

    given = ctx.params.get("names") or ()
    return [name for name in Registry().names() if name.startswith(incomplete) and name not in given]


def _complete_communicators(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of the names."""
    from tasklink.registry import Registry  # noqa: PLC0415 - not for --help

    chosen, comma, begun = incomplete.rpartition(",")
    names = [name for name in Registry().names() if name not in chosen.split(",") and name.startswith(begun)]
    return [chosen + comma + name for name in names]
