"""The lines of keys, held against tomllib: documents are written here together with the line of each key."""

import json
import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tasklink.config.position import key_lines

# What a careless reader of TOML trips over, inside strings, keys and comments.
TRAPS = st.lists(
    st.sampled_from(['"', "'", "=", "#", "[", "]", "[[", "{", "}", ",", ".", "\\", "\n", "\t", " ", "a", "é", "𝄞"]),
    max_size=6,
).map("".join)
BLANKS = st.sampled_from(["", " ", "\t", "  "])
BARE_VALUES = [
    "0",
    "-1.5e3",
    "0x1F",
    "true",
    "inf",
    "1979-05-27T07:32:00Z",
    "1979-05-27 07:32:00.5",
    "07:32:00",
    "1_000",
]


class Writer:
    """Writes a random document, and notes the line on which it writes each key."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.arrays: dict[tuple[str | int, ...], int] = {}
        self.tables: list[tuple[tuple[str, ...], tuple[str | int, ...]]] = [((), ())]
        self.implied: list[tuple[str, ...]] = []
        self.count = 0

    def document(self) -> "Writer":
        """Write pairs, then tables and arrays of tables with pairs in them."""
        self.pairs(())
        for _ in range(self.draw(st.integers(0, 5))):
            self.gap()
            self.draw(st.sampled_from([self.table, self.super_table, self.array_of_tables]))()
        return self

    @property
    def line(self) -> int:
        """The line that is being written, counted from 1."""
        return self.text.count("\n") + 1

    def blank(self) -> None:
        """Write some blanks, or none."""
        self.text += self.draw(BLANKS)

    def end(self) -> None:
        """End the line, with a comment or without."""
        comment = self.draw(TRAPS).replace("\n", "")
        self.text += self.draw(st.sampled_from(["", f" # {comment}"])) + self.draw(st.sampled_from(["\n", "\r\n"]))

    def gap(self) -> None:
        """Write empty lines and comments."""
        for _ in range(self.draw(st.integers(0, 2))):
            self.blank()
            self.end()

    def note(self, path) -> None:
        """Note the line of a path that is met for the first time."""
        self.lines.setdefault(path, self.line)

    def key(self) -> tuple[str, str]:
        """Return a key that no other table has, and one of the ways to write it."""
        self.count += 1
        name = f"{self.draw(TRAPS)}{self.count}"
        forms = [json.dumps(name, ensure_ascii=False), '"' + "".join(f"\\U{ord(c):08x}" for c in name) + '"']
        if not set(name) & set("'\n"):
            forms.append(f"'{name}'")
        if name.isascii() and name.isalnum():
            forms.append(name)
        return name, self.draw(st.sampled_from(forms))

    def pairs(self, table) -> None:
        """Write some `key = value` lines, dotted keys that share a table among them."""
        shared = self.key()
        for _ in range(self.draw(st.integers(0, 4))):
            self.gap()
            self.pair(table, [shared] if self.draw(st.booleans()) else [])
            self.end()

    def pair(self, table, outer) -> None:
        """Write one `key = value`."""
        self.blank()
        keys = [*outer, *(self.key() for _ in range(self.draw(st.integers(1, 2))))]
        for depth, (_, written) in enumerate(keys, start=1):
            path = (*table, *(name for name, _ in keys[:depth]))
            self.note(path)
            self.text += ("." if depth > 1 else "") + written
            self.blank()
        self.text += "="
        self.blank()
        self.value(path)

    def value(self, path) -> None:
        """Write a value of any kind."""
        self.draw(st.sampled_from([self.bare, self.string, self.string, self.array, self.inline_table]))(path)

    def bare(self, _path) -> None:
        """Write a number, a date, a time or a switch."""
        self.text += self.draw(st.sampled_from(BARE_VALUES))

    def string(self, _path) -> None:
        """Write one of the four kinds of strings."""
        content = self.draw(TRAPS)
        basic = json.dumps(content, ensure_ascii=False)
        many_lines = content.replace("\\", "\\\\").replace('"""', '""\\"')
        literal = content.replace("'", "").replace("\t", "")
        forms = [basic, f"'{literal}'".replace("\n", ""), f"'''{literal}'''", f"'''\n{literal}'''''"]
        forms += [f'"""{many_lines}x"""', f'"""{many_lines}x""""', f'"""\n{many_lines}x"""""', '""""""', '""', "''"]
        forms += [f"'''{literal}x''''", '"""a \\\n   b"""']
        self.text += self.draw(st.sampled_from(forms))

    def array(self, path) -> None:
        """Write an array, over one line or many."""
        self.text += "["
        for index in range(self.draw(st.integers(0, 3))):
            if self.draw(st.booleans()):
                self.end()
            self.note((*path, index))
            self.value((*path, index))
            self.blank()
            self.text += ","
        if self.draw(st.booleans()):
            self.end()
            self.gap()
        self.text += "]"

    def inline_table(self, path) -> None:
        """Write a table in braces."""
        self.text += "{"
        for index in range(self.draw(st.integers(0, 2))):
            self.text += "," if index else ""
            self.pair(path, [])
        self.text += "}"

    def header(self, written: tuple[str, ...], path, marks: str) -> None:
        """Write the header of a table, and the pairs of the table."""
        self.blank()
        self.lines[path] = self.line
        self.text += marks.replace("key", ".".join(written))
        self.end()
        self.pairs(path)
        self.tables.append((written, path))

    def new(self) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
        """Return a table that can be written next, with a new table around it or without."""
        written, path = self.draw(st.sampled_from([table for table in self.tables if self.is_current(table[1])]))
        if self.draw(st.booleans()):
            name, form = self.key()
            written, path = (*written, form), (*path, name)
            self.note(path)
            self.implied.append((written, path))
        name, form = self.key()
        return (*written, form), (*path, name)

    def is_current(self, path) -> bool:
        """Tell whether headers still reach this table: of an array of tables they reach the last element."""
        return all(self.arrays.get(path[:at], index) == index for at, index in enumerate(path))

    def table(self) -> None:
        """Write a new table with a header of its own."""
        written, path = self.new()
        self.header(written, path, "[key]")

    def super_table(self) -> None:
        """Write the header of a table that was spoken of before: its header is where it stands."""
        reachable = [table for table in self.implied if self.is_current(table[1])]
        if reachable:
            written, path = self.draw(st.sampled_from(reachable))
            self.implied.remove((written, path))
            self.header(written, path, "[key]")

    def array_of_tables(self) -> None:
        """Write an element: the first of a new array, or one more of an array."""
        known = [(w, p) for w, p in self.tables if p and isinstance(p[-1], int) and self.is_current(p)]
        if known and self.draw(st.booleans()):
            written, (*path, index) = self.draw(st.sampled_from(known))
            index += 1
        else:
            written, path = self.new()
            index = 0
        self.note(tuple(path))
        self.arrays[tuple(path)] = index
        self.header(written, (*path, index), "[[key]]")


def paths(value, path=()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of everything in a value of tomllib."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


@st.composite
def documents(draw) -> Writer:
    """A document and the lines of its keys."""
    return Writer(draw).document()


@given(documents())
def test_every_key_of_tomllib_has_the_line_on_which_it_was_written(document):
    """Over strings of all kinds, arrays, inline tables, dotted and quoted keys, tables and arrays of tables."""
    assert key_lines(document.text) == document.lines
    assert set(document.lines) == set(paths(tomllib.loads(document.text)))


def test_a_table_stands_where_its_header_is():
    """It was spoken of before, but its header is where a reader looks for it."""
    lines = key_lines("[a.b]\nx = 1\n\n[a]\ny = 2\n")
    assert lines == {("a",): 4, ("a", "b"): 1, ("a", "b", "x"): 2, ("a", "y"): 5}


def test_a_last_line_without_an_end_is_a_line():
    """Editors leave such files behind."""
    assert key_lines("a = 1\nb = 2") == {("a",): 1, ("b",): 2}


def test_a_long_string_takes_no_long_time():
    """A script inside a config is one token; a million quotes, brackets and line ends do not slow it down."""
    text = 'script = """\n' + "x = ['\"', 1]\n" * 200_000 + '"""\nafter = 1\n'
    assert key_lines(text) == {("script",): 1, ("after",): 200_003}
