"""How TOML writes keys and values: tokens, dotted keys, `key=value`, and values as text.

Rules of this module:

* Strings are the one hard part of TOML, and they are a regular language: one expression cuts a text into tokens, so
  that no quote, bracket or `=` inside a string or a comment is ever taken for a mark of the document.
* What a key *means* (escapes, dots inside quotes) is left to tomllib; this module only finds where it ends.
* It does no I/O.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""The way to one value: the keys of tables and the indices of arrays, from the outside in."""

# "*+" gives nothing back: a string of megabytes takes time in proportion to its length, and no memory for retries.
_TOKEN = re.compile(
    r'''
      """ (?: \\. | (?!""") [^\\] )*+ "{3,5}  # a string of many lines; up to two quotes stand before the closing ones
    | \'\'\' (?: (?!\'\'\') . )*+ '{3,5}
    | " (?: \\. | [^"\\] )*+ "
    | ' [^']* '
    | \# [^\n]*
    | [][{}=,.\n]
    | [^][{}=,.\n\#"'\s]+                     # a bare key, or a piece of a number, a date, true, false
    ''',
    re.VERBOSE | re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NOT_IN_KEYS = frozenset("[]{}=,\n")
_NOT_A_KEY = "not a key; write names with dots between them"
_WIDTH = 60  # characters of a value that a message shows


class Token(NamedTuple):
    """One piece of a TOML text: a string, a mark, or a bare word. `start` is its offset, `line` counts from 1."""

    text: str
    start: int
    line: int


def tokens(text: str) -> Iterator[Token]:
    """Cut a text into its tokens, without blanks and comments. Ends of lines are tokens."""
    line = 1
    for match in _TOKEN.finditer(text):
        if not match[0].startswith("#"):
            yield Token(match[0], match.start(), line)
        line += match[0].count("\n")


def parse_key(text: str) -> tuple[str, ...]:
    """Turn a dotted key, such as `tasks."my task".timeout`, into its parts.

    Raises:
        ValueError: it is not a key as TOML has it.
    """
    if any(token.text in _NOT_IN_KEYS for token in tokens(text)):
        raise ValueError(_NOT_A_KEY)
    try:
        rest: object = tomllib.loads(f"{text} = 0")
    except ValueError:
        raise ValueError(_NOT_A_KEY) from None
    parts: list[str] = []
    # One key makes tables of one key each, down to the 0.
    while isinstance(rest, dict):
        ((part, rest),) = rest.items()
        parts.append(part)
    return tuple(parts)


def parse_assignment(text: str) -> tuple[tuple[str, ...], object]:
    """Turn `key=value` into the parts of the key and the value: as TOML has it, or else as plain text.

    Raises:
        ValueError: there is no `=`, or no key before it.
    """
    equals = next((token.start for token in tokens(text) if token.text == "="), None)
    if equals is None:
        raise ValueError("not of the form key=value")
    return parse_key(text[:equals]), parse_value(text[equals + 1 :].strip())


def parse_value(text: str) -> object:
    """Turn a text into what it is as a value in TOML; one that is none is meant as it stands, without quotes."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def format_key(path: KeyPath) -> str:
    """Write a key path as TOML writes dotted keys, an index in brackets: `tasks.count.command[2]`."""
    parts = (f"[{part}]" if isinstance(part, int) else "." + _format_part(part) for part in path)
    return "".join(parts).removeprefix(".")


def _format_part(part: str) -> str:
    return part if _BARE_KEY.fullmatch(part) else _quote(part)


def format_value(value: object) -> str:
    """Write a value as TOML would, where TOML has such a value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | PurePath):
        return _quote(str(value))
    if isinstance(value, Mapping):
        pairs = (f"{_format_part(str(key))} = {format_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(format_value, value)) + "]"
    return str(value)


def abridge(text: str) -> str:
    """Cut a text that is too long to stand in a message."""
    return text if len(text) <= _WIDTH else text[:_WIDTH] + "…"


def _quote(text: str) -> str:
    # JSON's strings are TOML's, except that TOML wants DEL escaped too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
