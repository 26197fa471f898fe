"""From tables of plain values to attrs classes, and nothing coerced on the way.

Rules of this module:

* The class says everything: its attributes are the keys, their types and validators what is allowed, their defaults
  what may be left out. A key it does not know is a problem.
* cattrs finds the hook for a type (`Size`, `X | None`, `Literal`, a class in a class); the hooks are ours, because
  cattrs' own make `int("5")`, `bool("no")` and `tuple("pipe")` of what should be refused.
* All problems of a table are found in one go, those of the validators too.
"""

import collections.abc
import contextlib
import enum
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
import cattrs

from tasklink.config.notation import KeyPath, format_value, parse_key
from tasklink.config.problem import Origins, Problem, ProblemsError, collecting, reason, suggestion
from tasklink.config.quantity import NOT_A_DURATION, NOT_A_SIZE, Duration, Size, parse_duration, parse_size
from tasklink.errors import ConfigError

T = TypeVar("T")

# Metadata of an attribute that is no key of the table: `attrs.field(metadata=NOT_A_KEY)`.
NOT_A_KEY: Mapping[str, bool] = {"tasklink.key": False}

_REFUSALS = {bool: "not true or false", int: "not a whole number", float: "not a number", str: "not text"}
_ARRAYS = (list, tuple, set, frozenset, collections.abc.Sequence)
_TABLES = (dict, collections.abc.Mapping)


@attrs.frozen(eq=False)
class Table(Mapping[str, object]):
    """A table of a config that is handed on unread, such as `[communicators.shm]`: a mapping that knows its place.

    Attributes:
        entries: the values as TOML gives them.
        path: the key of the table in the config.
        origins: where each key of the config was written.
    """

    entries: Mapping[str, object]
    path: KeyPath = attrs.field(repr=False)
    origins: Origins = attrs.field(repr=False)

    def __getitem__(self, key: str) -> object:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def structure(table: Mapping[str, object], cls: type[T], *, where: str = "") -> T:
    """Make an instance of an attrs class from a table.

    Args:
        table: the values; one from `Config.settings` lets errors name the file and line.
        cls: any attrs class. Beside the plain types it may have attributes of the types `Size` and `Duration`, which
            take text such as "64 MiB" and "10 min".
        where: the dotted key that errors show in front of the table's own keys, for a table that has no place.

    Raises:
        ConfigError: the table does not suit the class; all the reasons are told, one a line.
    """
    try:
        return build(table, cls)
    except ProblemsError as problems:
        if isinstance(table, Table):
            raise problems.told(table.origins, table.path) from None
        raise problems.told({}, parse_key(where) if where else ()) from None


def build(table: Mapping[str, object], cls: type[T]) -> T:
    """Do what `structure` does, and leave the telling to the caller.

    Raises:
        ProblemsError: the table does not suit the class.
    """
    return _converter().structure(table, cls)


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for plain in _REFUSALS:
        converter.register_structure_hook(plain, _structure_plain)
    converter.register_structure_hook(Path, _structure_path)
    converter.register_structure_hook(Size, _structure_size)
    converter.register_structure_hook(Duration, _structure_duration)
    converter.register_structure_hook_func(_is_anything, lambda value, _: value)
    converter.register_structure_hook_func(_is_literal, _structure_literal)
    converter.register_structure_hook_func(_is_enum, _structure_enum)
    converter.register_structure_hook_func(_is_array, _structure_array)
    converter.register_structure_hook_func(_is_table, _structure_table)
    converter.register_structure_hook_func(attrs.has, _structure_class)
    return converter


def _structure_plain(value: object, kind: Any) -> object:
    accepted = int | float if kind is float else kind
    # To isinstance, True is an int.
    if not isinstance(value, accepted) or isinstance(value, bool) is not (kind is bool):
        could_be_text = kind is str and isinstance(value, int | float)
        hint = f"; write it in quotes: {format_value(format_value(value))}" if could_be_text else ""
        raise TypeError(f"{_REFUSALS[kind]}{hint}")
    return kind(value)


def _structure_path(value: object, _: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("not a path; write it as text")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"not a path here: {error}") from None


def _structure_size(value: Any, _: object) -> Size:
    try:
        return parse_size(value)
    except ValueError:
        raise ValueError(NOT_A_SIZE) from None


def _structure_duration(value: Any, _: object) -> Duration:
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(NOT_A_DURATION) from None


def _structure_literal(value: object, kind: Any) -> object:
    return _choose(value, {choice: choice for choice in get_args(kind)})


def _structure_enum(value: object, kind: type[enum.Enum]) -> object:
    return _choose(value, {member.value: member for member in kind})


def _choose(value: object, choices: Mapping[Any, object]) -> object:
    # The type is compared too: True == 1.
    for choice, meaning in choices.items():
        if choice == value and type(choice) is type(value):
            return meaning
    raise ValueError(f"not one of the values it can have; {suggestion(str(value), map(str, choices))}")


def _is_anything(kind: Any) -> bool:
    return kind is object or kind is Any


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_array(kind: Any) -> bool:
    return kind in _ARRAYS or get_origin(kind) in _ARRAYS


def _is_table(kind: Any) -> bool:
    return kind in _TABLES or get_origin(kind) in _TABLES


def _structure_array(value: object, kind: Any) -> object:
    if not isinstance(value, list | tuple):
        raise TypeError(f"not an array; write {format_value([value])}")
    items = _structure_each(enumerate(value), _elements(kind, len(value)))
    build = get_origin(kind) or kind
    return (tuple if build is collections.abc.Sequence else build)(items.values())


def _elements(kind: Any, count: int) -> tuple[Any, ...]:
    """Return the type of each element."""
    kinds = get_args(kind) or (object,)
    if get_origin(kind) is not tuple or kinds[1:] == (...,):
        return kinds[:1] * count
    if len(kinds) != count:
        raise ValueError(f"not an array of {len(kinds)} values")
    return kinds


def _structure_table(value: object, kind: Any) -> object:
    if not isinstance(value, Mapping):
        raise TypeError("not a table")
    (*_, element) = get_args(kind) or (object,)
    return _structure_each(value.items(), (element,) * len(value))


def _structure_each(pairs: Iterable[tuple[Any, object]], kinds: Iterable[Any]) -> dict[str | int, object]:
    problems: list[Problem] = []
    items: dict[str | int, object] = {}
    for (key, value), kind in zip(pairs, kinds, strict=True):
        with collecting(problems, key, value):
            items[key] = _converter().structure(value, kind)
    if problems:
        raise ProblemsError(problems)
    return items


def _structure_class(table: object, cls: Any) -> object:
    if not isinstance(table, Mapping):
        raise TypeError("not a table")
    attributes = _keys(cls)
    unknown = sorted(set(table) - set(attributes))
    problems = [Problem((key,), f"unknown key; {_meant(key, attributes)}") for key in unknown]
    values: dict[str, object] = {}
    for key, attribute in attributes.items():
        if key in table:
            with collecting(problems, key, table[key]):
                values[key] = _convert(attribute, _converter().structure(table[key], attribute.type or object))
        elif attribute.default is attrs.NOTHING:
            problems.append(Problem((key,), "missing, and there is no default"))
    problems += _invalid(cls, values, table)
    if problems:
        raise ProblemsError(problems)
    return _construct(cls, values)


def _keys(cls: Any) -> dict[str, "attrs.Attribute[Any]"]:
    attrs.resolve_types(cls, include_extras=True)
    return {a.alias: a for a in attrs.fields(cls) if a.init and a.metadata.get("tasklink.key", True)}


def _meant(key: str, attributes: Mapping[str, "attrs.Attribute[Any]"]) -> str:
    """Say which key may have been meant: one with a similar name, or the same one in a table further in."""
    for outer, attribute in attributes.items():
        kind = attribute.type or object
        if attrs.has(kind) and key in _keys(kind):
            return f"it belongs in [{outer}]"
    return suggestion(key, attributes)


def _convert(attribute: "attrs.Attribute[Any]", value: object) -> object:
    # An attrs.Converter wants the finished instance, so it has to wait until there is one.
    convert = attribute.converter
    return value if convert is None or isinstance(convert, attrs.Converter) else convert(value)


def _invalid(cls: Any, values: Mapping[str, object], table: Mapping[str, object]) -> list[Problem]:
    """Run the validator of each value by itself.

    The constructor would stop at the first one that refuses, and not say which. So they run on an instance that has
    these values and no others; a validator that misses another attribute there is left to the constructor.
    """
    draft = object.__new__(cls)
    given = {key: attribute for key, attribute in _keys(cls).items() if key in values}
    for key, attribute in given.items():
        # Around the class's own, which a frozen class refuses.
        object.__setattr__(draft, attribute.name, values[key])
    problems: list[Problem] = []
    for key, attribute in given.items():
        with collecting(problems, key, table[key]), contextlib.suppress(AttributeError):
            if attribute.validator is not None:
                attribute.validator(draft, attribute, values[key])
    return problems


def _construct(cls: Callable[..., object], values: Mapping[str, object]) -> object:
    try:
        return cls(**values)
    except (ValueError, TypeError, ConfigError) as error:
        raise ProblemsError([Problem((), reason(error))]) from error
