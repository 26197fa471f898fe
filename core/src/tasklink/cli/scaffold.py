"""A plugin to begin with: the template, under another name.

The template is a plugin that works, `maildrop`, kept in the repository as one of its own; the wheel of core brings a
copy of it. To make another plugin of it, its name is replaced wherever it stands.
"""

from __future__ import annotations

import keyword
import re
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tasklink.errors import ConfigError
from tasklink.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable
    from pathlib import Path

_TEMPLATE = "maildrop"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFIX = "tasklink-"
# What may lie in a checkout of the template, and is not a part of it.
_LEFT_OUT = re.compile(r"\..*|__pycache__|dist|build|.*\.egg-info")


def check_name(name: str) -> None:
    """See that a plugin can be called so.

    Raises:
        ConfigError: it is no name for an entry point and a module, or it is taken.
    """
    if name.startswith(_PREFIX):
        raise ConfigError(f"{name!r}: 'tasklink-' is put in front of the name: say {name.removeprefix(_PREFIX)!r}")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a communicator: it has lower-case letters, digits and single hyphens, "
            "begins with a letter, and is no word of Python's, as 'pigeon' or 'pigeon-post'"
        )
    if name in Registry().names():
        raise ConfigError(f"a communicator {name!r} is installed already: choose another name")
    if find_spec(_module(name)) is not None:
        raise ConfigError(f"a module {_module(name)!r} can be imported already: choose another name")


def create(name: str, folder: Path) -> list[Path]:
    """Make the plugin.

    Args:
        name: what it is called in a config.
        folder: where to make it; it must not be there yet, or be empty.

    Returns:
        the files that were made.

    Raises:
        ConfigError: as `check_name`; or there is something in the folder.
        OSError: the folder cannot be made, or written to.
    """
    check_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{str(folder)!r} is there already, and is not an empty folder: choose another one with --path"
        )
    made = []
    for place, source in _files(resources.files("tasklink") / "template"):
        target = folder / _renamed("/".join(place), name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed(source.read_text(encoding="utf-8"), name), encoding="utf-8")
        made.append(target)
    return made


def _files(folder: Traversable, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if _LEFT_OUT.fullmatch(entry.name):
            continue
        if entry.is_dir():
            yield from _files(entry, (*place, entry.name))
        else:
            yield (*place, entry.name), entry


def _renamed(text: str, name: str) -> str:
    capitalised = "".join(part.capitalize() for part in name.split("-"))
    text = text.replace(_module(_TEMPLATE), _module(name))
    return text.replace(_TEMPLATE.capitalize(), capitalised).replace(_TEMPLATE, name)


def _module(name: str) -> str:
    return f"tasklink_{name.replace('-', '_')}"
