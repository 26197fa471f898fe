"""What a file, the environment and the command line say together: plain values, each with its origin.

Rules of this module:

* A later layer replaces single keys of an earlier one: default < file < environment < command line.
* It does not know what the keys mean, but for the two that an operator sets for all tasks at once.
* No other module reads TOML files.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tasklink.config.notation import KeyPath, parse_key
from tasklink.config.position import key_lines
from tasklink.config.problem import COMMAND_LINE, Origin, Problem, ProblemsError, nearest, suggestion
from tasklink.config.spec import check_communicators
from tasklink.config.structure import build
from tasklink.config.variable import Variables, split_names, variables
from tasklink.errors import ConfigError

_PYPROJECT = ("tool", "tasklink")
_TOML_ERROR = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def read_text(path: Path) -> str:
    """Return the text of a config file.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is not UTF-8.
    """
    try:
        # Some editors mark UTF-8 with three bytes in front, which tomllib would not take.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        match = nearest(path.name, (other.name for other in path.absolute().parent.glob("*.toml")))
        raise ConfigError(f"{path}: no such file" + (f'; did you mean "{match}"?' if match else "")) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8: {error.object[error.start : error.end]!r}") from error


@attrs.define
class Document:
    """The layers, one over the other.

    Attributes:
        values: tables, arrays and plain values as TOML has them.
        origins: where each key was written, tables and elements of arrays too.
        problems: what is wrong with the layers as such.
    """

    values: dict[str, Any] = attrs.field(factory=dict)
    origins: dict[KeyPath, Origin] = attrs.field(factory=dict)
    problems: list[Problem] = attrs.field(factory=list)

    def add_file(self, text: str, name: str) -> None:
        """Add the text of a config file; in a pyproject.toml it is the table `[tool.tasklink]`.

        Raises:
            ConfigError: the text is not TOML, or a pyproject.toml has no such table.
        """
        values, lines = _parse(text, name)
        if Path(name).name == "pyproject.toml":
            values, lines = _tool_table(values, lines, name)
        self.values = values
        self.origins = {path: Origin(name, line) for path, line in lines.items()}

    def add_environment(self, environ: Mapping[str, str] | None, overrides: Mapping[str, object]) -> None:
        """Add the variables, except those that an option of the command line speaks over."""
        table = variables(environ)
        self.origins |= {(name,): Origin("environment") for name in table}
        try:
            given = build(table, Variables)
        except ProblemsError as error:
            self.problems += error.problems
            return
        if given.strict is not None:
            self._put(("strict",), given.strict, Origin("TASKLINK_STRICT"))
        for key in ("communicators", "timeout"):
            value = getattr(given, key)
            # Else the variable, set in every task, would hide the default that was typed.
            if value is not None and f"defaults.{key}" not in overrides:
                self._put_for_all_tasks(key, value, Origin(f"TASKLINK_{key.upper()}"))

    def add_options(self, communicators: str | Sequence[str] | None, overrides: Mapping[str, object]) -> None:
        """Add the options of the command line: communicators for all tasks, and values by dotted key."""
        if communicators is not None:
            self._choose(split_names(communicators) if isinstance(communicators, str) else list(communicators))
        for key, value in overrides.items():
            self._override(key, value)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return those of the tasks that are tables at all."""
        tasks = self.values.get("tasks")
        items = tasks.items() if isinstance(tasks, dict) else ()
        return {name: task for name, task in items if isinstance(task, dict)}

    def _choose(self, names: list[str]) -> None:
        try:
            check_communicators(None, None, tuple(names))
        except ValueError as error:
            self._refuse(("--with",), str(error), names)
        else:
            self._put_for_all_tasks("communicators", names, COMMAND_LINE)

    def _override(self, key: str, value: object) -> None:
        try:
            path = parse_key(key)
        except ValueError as error:
            self._refuse((key,), str(error), value)
            return
        if path[0] == "tasks" and len(path) > 2 and path[1] not in self.tasks():
            self._refuse(path, f"no such task; {suggestion(path[1], self.tasks())}", value)
        else:
            self._put(path, value, COMMAND_LINE)

    def _refuse(self, path: KeyPath, why: str, value: object) -> None:
        self.origins[path] = COMMAND_LINE
        self.problems.append(Problem(path, why, value))

    def _put_for_all_tasks(self, key: str, value: object, origin: Origin) -> None:
        """Set a key as the default, and in every task, whatever the task says itself."""
        # The default serves what is not from the file: functions and commands that a program runs.
        self._put(("defaults", key), value, origin)
        for name in self.tasks():
            self._put(("tasks", name, key), value, origin)
            if key == "communicators":
                self._drop_routes(name, value)

    def _drop_routes(self, name: str, communicators: object) -> None:
        """Forget a task's routes to communicators that it shall not use this time: to change them takes one word."""
        task = self.tasks()[name]
        routes = task.get("routes")
        if isinstance(routes, dict) and isinstance(communicators, list):
            task["routes"] = {kind: to for kind, to in routes.items() if to in communicators}

    def _put(self, path: tuple[str, ...], value: object, origin: Origin) -> None:
        """Set one key, and make the tables on the way to it."""
        table = self.values
        for depth, key in enumerate(path[:-1], start=1):
            inner = table.get(key)
            if not isinstance(inner, dict):
                self._note(path[:depth], {}, origin)
            # A copy, because the table may be one that a caller gave as a value.
            table[key] = dict(inner) if isinstance(inner, dict) else {}
            table = table[key]
        table[path[-1]] = value
        self._note(path, value, origin)

    def _note(self, path: KeyPath, value: object, origin: Origin) -> None:
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]
        self.origins.update(dict.fromkeys(_paths(path, value), origin))


def _paths(path: KeyPath, value: object) -> Iterator[KeyPath]:
    """Yield the path of a value, and of all that is in its tables."""
    yield path
    for key, item in value.items() if isinstance(value, Mapping) else ():
        yield from _paths((*path, key), item)


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    try:
        # Both follow the nesting with Python's own stack.
        return tomllib.loads(text), key_lines(text)
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        match = _TOML_ERROR.fullmatch(str(error))
        message, line, column = match.groups() if match else (str(error), None, None)
        line = line or text.rstrip("\n").count("\n") + 1
        place = f", column {column}" if column else ""
        raise ConfigError(f"{name}:{line}: not TOML: {message}{place}") from None
    except RecursionError:
        raise ConfigError(f"{name}: its arrays or tables are nested too deeply to be read") from None


def _tool_table(
    values: Mapping[str, Any], lines: Mapping[KeyPath, int], name: str
) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    tool = values.get("tool")
    table = tool.get("tasklink") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: has no table [tool.tasklink]")
    depth = len(_PYPROJECT)
    return table, {path[depth:]: line for path, line in lines.items() if path[:depth] == _PYPROJECT}
