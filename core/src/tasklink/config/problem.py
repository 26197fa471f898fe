"""What is wrong in a config, where it stands, and how it is told.

Rules of this module:

* A problem knows its key and its value; an origin knows the file and line. They meet only when the text is written.
* All problems of a config are told in one error, a line each, in the order of the file.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import attrs

from tasklink.config.notation import KeyPath, abridge, format_key, format_value
from tasklink.errors import ConfigError


@attrs.frozen
class Origin:
    """Where a value was written.

    Attributes:
        name: a file, "environment", the name of a variable, "command line", or "default".
        line: the line in the file, counted from 1; None outside of files.
    """

    name: str
    line: int | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


Origins: TypeAlias = Mapping[KeyPath, Origin]

_ABSENT = object()

DEFAULT = Origin("default")
COMMAND_LINE = Origin("command line")


@attrs.frozen
class Problem:
    """One thing that is wrong.

    Attributes:
        path: the key, relative to the table that was looked at.
        text: what is wrong with it and what is allowed.
        value: what stands there; left out when the key itself is the problem.
    """

    path: KeyPath
    text: str
    value: object = _ABSENT

    def below(self, outer: KeyPath) -> "Problem":
        """Return the same problem as seen from a table further out."""
        return attrs.evolve(self, path=(*outer, *self.path))

    def describe(self, origins: Origins) -> str:
        """Say where it is, which key, which value, and what is wrong."""
        origin = nearest_origin(origins, self.path)
        value = "" if self.value is _ABSENT else f" = {abridge(format_value(self.value))}"
        place = "" if origin is DEFAULT else f"{origin}: "
        return f"{place}{format_key(self.path)}{value}: {self.text}"


class ProblemsError(ConfigError):
    """Several problems on their way out of nested tables; `told` makes one plain ConfigError of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__()
        self.problems = tuple(problems)

    def told(self, origins: Origins, outer: KeyPath = ()) -> ConfigError:
        """Return the error for the user, every problem on a line of its own."""
        problems = [problem.below(outer) for problem in self.problems]
        # What has no line, from the environment and the command line, comes first.
        problems.sort(key=lambda problem: nearest_origin(origins, problem.path).line or 0)
        return ConfigError("\n".join(dict.fromkeys(problem.describe(origins) for problem in problems)))


@contextmanager
def collecting(problems: list[Problem], key: str | int, value: object = _ABSENT) -> Iterator[None]:
    """Add what the block raises about `key` to the problems, and go on."""
    try:
        yield
    except ProblemsError as error:
        problems.extend(problem.below((key,)) for problem in error.problems)
    except (ValueError, TypeError, OverflowError, ConfigError) as error:
        problems.append(Problem((key,), reason(error), value))


def reason(error: Exception) -> str:
    """Return the text of an error. The validators of attrs put more than the text into it."""
    return str(error.args[0]) if error.args else repr(error)


def nearest_origin(origins: Origins, path: KeyPath) -> Origin:
    """Return the origin of a key, or else of the innermost table around it that has one."""
    ends = range(len(path), 0, -1)
    return next((origins[path[:end]] for end in ends if path[:end] in origins), DEFAULT)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that looks most like `name`; None when none comes near."""
    matches = difflib.get_close_matches(name, list(names), n=1)
    return matches[0] if matches else None


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Say which name may have been meant, and which names there are."""
    names = sorted(allowed)
    match = nearest(name, names)
    listed = ", ".join(names) or "none"
    return f"did you mean {format_value(match)}? Allowed: {listed}" if match else f"allowed: {listed}"
