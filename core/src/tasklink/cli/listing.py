"""What there is: plugins, and the values of a config."""

from __future__ import annotations

from importlib.metadata import metadata
from typing import TYPE_CHECKING

import attrs
import click

from tasklink.cli.document import dumps, plain
from tasklink.cli.lines import abridge
from tasklink.cli.report import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tasklink.communicator import Capabilities, Communicator
    from tasklink.config import Entry
    from tasklink.registry import Plugin, Registry


def print_plugins(installed: Sequence[Plugin], *, as_json: bool) -> None:
    """Print a table of plugins, and why those that cannot be used cannot."""
    if as_json:
        click.echo(dumps([plugin.as_dict() for plugin in installed]))
        return
    if not installed:
        click.echo("No plugin is installed. Begin with: pip install tasklink-unix tasklink-pipe")
        return
    print_table([("name", "kind", "package", "status", "what it can do"), *map(_plugin_row, installed)])
    for plugin in installed:
        if plugin.reason:
            click.echo(f"\n{abridge(plugin.reason)}")


def print_catalogue(registry: Registry[type[Communicator]]) -> None:
    """Print a table in Markdown: what each communicator that can be used here is, can do, and lets one set."""
    click.echo("| communicator | what it is | what it can do | settings |\n| --- | --- | --- | --- |")
    for plugin in registry.plugins():
        if plugin.status == "ok" and plugin.capabilities is not None:
            abilities = ", ".join(_abilities(plugin.capabilities))
            keys = ", ".join(f"`{field.name}`" for field in attrs.fields(registry.settings_class(plugin.name)))
            about = metadata(plugin.distribution)["Summary"].removesuffix(", for tasklink")
            click.echo(f"| `{plugin.name}` ({plugin.distribution}) | {about} | {abilities} | {keys} |")


def print_entries(entries: Iterable[Entry], *, as_json: bool) -> None:
    """Print the values of a config with their origins; in the table, those that are set."""
    if as_json:
        document = [{"key": entry.key, "value": plain(entry.value), "origin": entry.origin} for entry in entries]
        click.echo(dumps(document))
        return
    rows = [(abridge(entry.key), abridge(entry.text), abridge(entry.origin)) for entry in entries if _is_set(entry)]
    dim = [number for number, row in enumerate(rows, start=1) if row[-1] == "default"]
    print_table([("key", "value", "origin"), *rows], dim=dim)


def _is_set(entry: Entry) -> bool:
    return entry.value is not None


def _plugin_row(plugin: Plugin) -> tuple[str, ...]:
    abilities = ", ".join(_abilities(plugin.capabilities)) if plugin.capabilities else ""
    return plugin.name, plugin.kind, f"{plugin.distribution} {plugin.version}", plugin.status, abilities


def _abilities(capabilities: Capabilities) -> Iterator[str]:
    if capabilities.carries_messages:
        yield "messages" if capabilities.delivery == "write" else "messages (delivered when it is closed)"
    if capabilities.captures_output:
        yield "output"
    if capabilities.zero_copy:
        yield "large data without copies"
    if capabilities.crosses_hosts:
        yield "other hosts"
    if capabilities.survives_launcher:
        yield "through launchers"
    if capabilities.multi_peer:
        yield "many ranks"
    if capabilities.max_message is not None:
        yield f"up to {capabilities.max_message:,} bytes"
