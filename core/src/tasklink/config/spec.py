"""What is to be run, and how: one `[tasks.NAME]` table, or the same said in Python.

A `TaskSpec` is a value. It starts nothing and looks nothing up: whether the module exists, or a communicator of that
name is installed, is found out when the Task is run.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from numbers import Number
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import attrs

from tasklink.config.notation import format_value
from tasklink.config.problem import Problem, ProblemsError, suggestion
from tasklink.config.quantity import Duration, Size, parse_duration, parse_size
from tasklink.config.structure import NOT_A_KEY

WHAT_TO_RUN = 'a task needs exactly one of run = "module:attribute" and command = ["program", "argument", ...]'

_REFERENCE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_PLACEHOLDER = re.compile(r"\{([^\W\d]\w*)\}")


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"not an array of texts; write {format_value([value])}")
    texts = tuple(value)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not text")
    return texts


def _check_run(_spec: object, _field: object, value: object) -> None:
    is_reference = isinstance(value, str) and _REFERENCE.fullmatch(value)
    if not (value is None or is_reference or callable(value)):
        raise ValueError('what is run has the form "module:attribute"')


def _check_command(_spec: object, _field: object, value: tuple[str, ...] | None) -> None:
    if value is not None and not (value and value[0]):
        raise ValueError("a command begins with the name of a program")


def check_communicators(_owner: object, _field: object, value: tuple[str, ...] | None) -> None:
    """Check a list of communicators (an attrs validator): at least one name, none empty, none twice."""
    if value is not None and not value:
        raise ValueError('at least one communicator is needed, such as ["pipe"]')
    names = value or ()
    for name in names:
        if not name or names.count(name) > 1:
            raise ValueError(f"communicator {format_value(name)} is named twice" if name else "a name is empty")


def check_timeout(_owner: object, _field: object, value: Duration | None) -> None:
    """Check a time-out (an attrs validator): 0 would end every Task before it begins."""
    if value is not None and not value:
        raise ValueError("a timeout of 0 ends every Task before it begins; leave it out for no limit")


def _check_env(_spec: object, _field: object, value: Mapping[str, str]) -> None:
    for name, text in value.items():
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"{format_value(name)} cannot be set in an environment")


def _codec_of(spec: "TaskSpec") -> str:
    return "pickle" if spec.trust == "full" else "json"


def _check_depth(_limits: object, _field: object, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError("a depth below 1 allows no list and no dict; 1 is the least")


@attrs.frozen(kw_only=True)
class Limits:
    """How much is taken from a Task. What is None has no limit; in a TaskSpec without trust, that of `UNTRUSTED`.

    Attributes:
        message: bytes of the contents of one message.
        depth: how deep lists and dicts may lie in one another, where contents are JSON.
        kept: bytes of messages that are kept, for the result or until somebody has taken them; each counts 512 more
            than its contents.
        output: bytes that it prints, on both streams together.

    Raises:
        ValueError: an attribute cannot have this value.
    """

    message: Size | None = attrs.field(default=None, converter=attrs.converters.optional(parse_size))
    depth: int | None = attrs.field(default=None, validator=_check_depth)
    kept: Size | None = attrs.field(default=None, converter=attrs.converters.optional(parse_size))
    output: Size | None = attrs.field(default=None, converter=attrs.converters.optional(parse_size))


UNTRUSTED = Limits(message="64 MiB", depth=64, kept="64 MiB", output="1 GiB")


def _limits(value: Limits | Mapping[str, Any]) -> Limits:
    return Limits(**value) if isinstance(value, Mapping) else value


@attrs.frozen(kw_only=True)
class TaskSpec:
    """One Task: what it runs, and what differs from the Executor's own settings.

    Attributes:
        name: its name in the config; None for a Task that is not from a config.
        run: "module:attribute", a function or a Task class; None for a command.
        command: a program and its arguments, with `{name}` where a parameter goes; None for Python.
        parameters: keyword arguments of the function, or values for the placeholders of the command.
        communicators: names, the preferred one first; None: the Executor's.
        timeout: seconds from the start after which the Task is ended; None: the Executor's.
        grace: seconds between asking the Task to end and each harder means; None: the Executor's.
        env: variables set for the Task, beside those of the Executor's process.
        cwd: the folder in which the Task is started; None: the Executor's.
        python: the interpreter that runs the Task, a path or a name on PATH; None: the Executor's.
        prefix: a launcher in front of the Task's arguments, such as ("srun", "-n", "4").
        trust: "full": the Task's code may do what this process may, so its contents may be pickles. "none": nothing
            that it sends is run here; see docs/security.md.
        codec: how contents travel: "pickle" for any object, "json" for plain data; what is not trusted sends "json".
        limits: how much is taken from it; without trust it has limits in any case.
        routes: from a kind of message, such as "result", to the communicator that carries it.
        stdout: a file that gets the whole standard output; None: only its end is kept, in the result.
        stderr: the same for the standard error.
        keep_messages: whether the result holds the messages; False for runs too long to keep them.
        leave_descendants: whether processes that the Task has left behind may live on.

    Raises:
        ValueError: an attribute cannot have this value, or there is not exactly one of `run` and `command`.
        TypeError: a text stands where a list of texts belongs.
    """

    name: str | None = attrs.field(default=None, metadata=NOT_A_KEY)
    run: Any = attrs.field(default=None, validator=_check_run)
    command: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_texts), validator=_check_command
    )
    parameters: Mapping[str, object] = attrs.field(factory=dict)
    communicators: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_texts), validator=check_communicators
    )
    timeout: Duration | None = attrs.field(
        default=None, converter=attrs.converters.optional(parse_duration), validator=check_timeout
    )
    grace: Duration | None = attrs.field(default=None, converter=attrs.converters.optional(parse_duration))
    env: Mapping[str, str] = attrs.field(factory=dict, validator=_check_env)
    cwd: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    python: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    prefix: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    trust: Literal["full", "none"] = attrs.field(default="full", validator=attrs.validators.in_(("full", "none")))
    codec: Literal["pickle", "json"] = attrs.field(
        default=attrs.Factory(_codec_of, takes_self=True), validator=attrs.validators.in_(("pickle", "json"))
    )
    limits: Limits = attrs.field(factory=Limits, converter=_limits)
    routes: Mapping[str, str] = attrs.field(factory=dict)
    stdout: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    stderr: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    keep_messages: bool = True
    leave_descendants: bool = False

    def __attrs_post_init__(self) -> None:
        if (self.run is None) == (self.command is None):
            raise ValueError(WHAT_TO_RUN)
        if self.trust == "none" and self.codec == "pickle":
            raise ValueError(
                'with trust = "none" a Task sends no pickles, for to read one runs its code here; take '
                'codec = "pickle" out, and have it send plain data'
            )
        if self.trust == "none":
            given = attrs.asdict(self.limits, filter=lambda _, value: value is not None)
            object.__setattr__(self, "limits", attrs.evolve(UNTRUSTED, **given))

    @property
    def label(self) -> str:
        """What a person calls this Task: its name, or else what it runs."""
        if self.name is not None:
            return self.name
        if self.command is not None:
            return Path(self.command[0]).name
        return self.run if isinstance(self.run, str) else getattr(self.run, "__qualname__", repr(self.run))

    def arguments(self, parameters: Mapping[str, object] = MappingProxyType({})) -> tuple[str, ...]:
        """Return the command with the parameters in their places.

        Braces that do not hold the name of a parameter stay as they are, as in `awk '{print}'`.

        Args:
            parameters: those of this run, on top of the spec's own.

        Raises:
            ConfigError: a parameter has no place in the command, or its value cannot be an argument.
        """
        command = self.command or ()
        values = {**self.parameters, **parameters}
        problems = [Problem(("parameters", name), why, values[name]) for name, why in misplaced(command, values)]
        if problems:
            raise ProblemsError(problems).told({}, ("tasks", self.label))
        texts = {name: _format_argument(value) for name, value in values.items()}
        return tuple(_PLACEHOLDER.sub(lambda match: texts.get(match[1], match[0]), item) for item in command)


def misplaced(command: Iterable[str], parameters: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the name of each parameter that cannot be put into the command, and why."""
    places = {match[1] for item in command for match in _PLACEHOLDER.finditer(item)}
    for name, value in parameters.items():
        if name not in places:
            yield name, f"no {{{name}}} in the command; {suggestion(name, places)}"
        # Number has the scalars of numpy too.
        elif not isinstance(value, str | Number | PathLike | date | time):
            yield name, "cannot be an argument; give a text, a number, a path, true or false"


def _format_argument(value: object) -> str:
    # As the config writes it: true, not True.
    return str(value).lower() if isinstance(value, bool) else str(value)
