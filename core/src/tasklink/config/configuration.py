"""The whole config, checked: what an Executor is made from, and where each value of it comes from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from tasklink.config.document import Document, read_text
from tasklink.config.notation import KeyPath, format_key, format_value, parse_assignment, parse_key
from tasklink.config.problem import COMMAND_LINE, DEFAULT, Origins, Problem, ProblemsError, suggestion
from tasklink.config.quantity import Duration, format_duration, format_size
from tasklink.config.spec import WHAT_TO_RUN, Limits, TaskSpec, check_communicators, check_timeout, misplaced
from tasklink.config.structure import Table, build
from tasklink.errors import ConfigError

_NO_OVERRIDES: Mapping[str, object] = MappingProxyType({})
_GRACE = Duration(2.0)
_INHERITED = ("communicators", "timeout", "grace")
_PATHS = ("cwd", "python", "stdout", "stderr")


def parse_overrides(assignments: Iterable[str]) -> dict[str, object]:
    """Turn the `key=value` texts of a command line into the overrides of `Config.load`.

    A value is read as TOML where it is TOML, and else as plain text: `5`, `true`, `["pipe"]`, `5 min`.

    Raises:
        ConfigError: some are not of that form; all of them are told, one a line.
    """
    overrides: dict[str, object] = {}
    problems: list[str] = []
    for assignment in assignments:
        try:
            path, value = parse_assignment(assignment)
        except ValueError as error:
            problems.append(f"{COMMAND_LINE}: {assignment}: {error}")
        else:
            overrides[format_key(path)] = value
    if problems:
        raise ConfigError("\n".join(problems))
    return overrides


@attrs.frozen
class Entry:
    """One value in force.

    Attributes:
        key: its dotted key, as `--set` takes it.
        value: the value; None when nothing is set.
        text: the value as TOML writes it; "not set" for None.
        origin: "analysis.toml:12", the name of a variable, "command line", or "default".
    """

    key: str
    value: object
    text: str
    origin: str


def _check_parallel(_owner: object, _field: object, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError("must be 1 or more")


@attrs.frozen
class _Defaults:
    """The table `[defaults]`: its attributes are the keys."""

    communicators: tuple[str, ...] | None = attrs.field(default=None, validator=check_communicators)
    timeout: Duration | None = attrs.field(default=None, validator=check_timeout)
    grace: Duration = _GRACE


@attrs.frozen
class _File:
    """The file as a whole: its attributes are the keys."""

    tasks: Mapping[str, TaskSpec] = attrs.field(factory=dict)
    defaults: _Defaults = attrs.field(factory=_Defaults)
    communicators: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict)
    observers: tuple[str, ...] = ()
    strict: bool = False
    parallel: int | None = attrs.field(default=None, validator=_check_parallel)


@attrs.frozen(kw_only=True)
class Config:
    """What a config file, the environment and the command line say.

    Attributes:
        path: the file; None when there is none.
        tasks: the tables `[tasks.NAME]`, in the order of the file.
        communicators: names for the tasks that give none, the preferred one first; None: the Executor's choice.
        settings: the tables `[communicators.NAME]`, unread; `structure` reads one with the class of the plugin.
        timeout: seconds, for the tasks that give none; None: no limit.
        grace: seconds between asking a Task to end and each harder means, for the tasks that give none.
        observers: names of the observers that are told what happens.
        strict: whether only the plugins that are asked for are loaded.
        parallel: how many Tasks run at a time; None: the Executor's choice.
    """

    path: Path | None = None
    tasks: Mapping[str, TaskSpec] = attrs.field(factory=dict)
    communicators: tuple[str, ...] | None = None
    settings: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict)
    timeout: Duration | None = None
    grace: Duration = _GRACE
    observers: tuple[str, ...] = ()
    strict: bool = False
    parallel: int | None = None
    _origins: Origins = attrs.field(factory=dict, repr=False, eq=False)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        communicators: str | Sequence[str] | None = None,
        overrides: Mapping[str, object] = _NO_OVERRIDES,
    ) -> "Config":
        """Read a config file, and lay the environment and the options of the command line over it.

        Args:
            path: a TOML file, or a pyproject.toml with a table `[tool.tasklink]`; None: defaults, environment and
                options only.
            environ: the variables; None: those of this process.
            communicators: names for all tasks, whatever they say themselves; a text has commas between them.
            overrides: values by dotted key, such as `tasks.count.timeout`; see `parse_overrides`.

        Raises:
            ConfigError: something in it cannot be used; everything that is wrong is told, one a line.
        """
        document = Document()
        if path is not None:
            document.add_file(read_text(Path(path)), str(Path(path)))
        document.add_environment(environ, overrides)
        document.add_options(communicators, overrides)
        file = _structured(document)
        return cls(
            path=None if path is None else Path(path),
            tasks={name: _placed(name, spec, document, path) for name, spec in file.tasks.items()},
            communicators=file.defaults.communicators,
            settings={
                name: Table(table, ("communicators", name), document.origins)
                for name, table in file.communicators.items()
            },
            timeout=file.defaults.timeout,
            grace=file.defaults.grace,
            observers=file.observers,
            strict=file.strict,
            parallel=file.parallel,
            origins=document.origins,
        )

    def task(self, name: str) -> TaskSpec:
        """Return the task of that name.

        Raises:
            ConfigError: there is none; the text says which there are.
        """
        if name not in self.tasks:
            place = "" if self.path is None else f"{self.path}: "
            raise ConfigError(f"{place}no task {format_value(name)}; {suggestion(name, self.tasks)}")
        return self.tasks[name]

    def origin(self, key: str) -> str:
        """Return where the value of a dotted key was written: "analysis.toml:12", or "default" if nowhere."""
        return str(self._origins.get(parse_key(key), DEFAULT))

    def entries(self) -> Iterator[Entry]:
        """Yield every value in force, the inherited ones of the tasks and the defaults too."""
        for key in _INHERITED:
            yield self._entry(("defaults", key), getattr(self, key))
        for key in ("observers", "parallel", "strict"):
            yield self._entry((key,), getattr(self, key))
        for name, spec in self.tasks.items():
            yield from self._task_entries(name, spec)
        for name, table in self.settings.items():
            yield from self._table_entries(("communicators", name), table)

    def _task_entries(self, name: str, spec: TaskSpec) -> Iterator[Entry]:
        unused = {"name", "run" if spec.run is None else "command"}
        for key in (field.name for field in attrs.fields(TaskSpec) if field.name not in unused):
            value = getattr(spec, key)
            if isinstance(value, Limits):
                yield from self._table_entries(("tasks", name, key), attrs.asdict(value))
            elif isinstance(value, Mapping):
                yield from self._table_entries(("tasks", name, key), value)
            elif value is None and key in _INHERITED:
                inherited = self._entry(("defaults", key), getattr(self, key))
                yield attrs.evolve(inherited, key=format_key(("tasks", name, key)))
            else:
                yield self._entry(("tasks", name, key), value)

    def _table_entries(self, path: KeyPath, table: Mapping[str, object]) -> Iterator[Entry]:
        for key, value in table.items():
            if isinstance(value, Mapping):
                yield from self._table_entries((*path, key), value)
            else:
                yield self._entry((*path, key), value)

    def _entry(self, path: KeyPath, value: object) -> Entry:
        return Entry(format_key(path), value, _text(path, value), str(self._origins.get(path, DEFAULT)))


def _text(path: KeyPath, value: Any) -> str:
    if value is None:
        return "not set"
    if path[0] == "tasks" and path[2:3] == ("limits",) and path[-1] != "depth":
        return format_value(format_size(value))
    is_ours = len(path) == (3 if path[0] == "tasks" else 2)  # and not a parameter or a setting of that name
    return format_value(format_duration(value) if is_ours and path[-1] in {"timeout", "grace"} else value)


def _structured(document: Document) -> _File:
    """Return the document as a checked value.

    Raises:
        ConfigError: there are problems.
    """
    problems = [*document.problems, *_task_problems(document)]
    # TOML cannot have both the tables and a list of that name, and a list is what comes to mind first.
    if isinstance(document.values.get("communicators"), list):
        text = "holds the tables [communicators.NAME]; a list for all tasks stands in [defaults]"
        problems.append(Problem(("communicators",), text, document.values.pop("communicators")))
    try:
        file = build(document.values, _File)
    except ProblemsError as error:
        problems += error.problems
    if problems:
        raise ProblemsError(problems).told(document.origins)
    return file


def _task_problems(document: Document) -> Iterator[Problem]:
    """Yield what is wrong with a task as a whole.

    `TaskSpec` refuses that too, but only once every single value of the table is right.
    """
    for name, task in document.tasks().items():
        path = ("tasks", name)
        if not name or ":" in name:
            yield Problem(path, 'the name of a task has at least one character, and no ":"')
        if ("run" in task) == ("command" in task):
            yield Problem(path, WHAT_TO_RUN)
        command, parameters = task.get("command"), task.get("parameters")
        if isinstance(command, list) and isinstance(parameters, Mapping):
            for parameter, why in misplaced(map(str, command), parameters):
                yield Problem((*path, "parameters", parameter), why, parameters[parameter])


def _placed(name: str, spec: TaskSpec, document: Document, path: str | PathLike[str] | None) -> TaskSpec:
    """Return the task with its name, and with whole paths: from the folder of the file, or of who typed the option."""
    here = Path.cwd()
    folder = here if path is None else Path(path).absolute().parent
    changes: dict[str, Any] = {"name": name}
    for key in _PATHS:
        written = document.tasks()[name].get(key)
        # Path("./python3") forgets its dot, so what was written decides.
        is_on_path = key == "python" and "/" not in str(written)
        if written is not None and not is_on_path:
            typed = document.origins.get(("tasks", name, key)) == COMMAND_LINE
            changes[key] = (here if typed else folder) / getattr(spec, key)
    return attrs.evolve(spec, **changes)
