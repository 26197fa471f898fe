"""On which line each key of a TOML text stands: what tomllib knows and does not tell.

Rules of this module:

* The text has been accepted by tomllib already: this module finds places and judges nothing.
* A value is where its key is; an element of an array is where it begins; a table is where its header is, or, without
  one, where it is first spoken of.
* It does no I/O.
"""

from tasklink.config.notation import KeyPath, parse_key, tokens


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, of every key path in a TOML text."""
    walk = _Walk(text)
    walk.document()
    return walk.lines


class _Walk:
    """One pass over the tokens of a document, in the order of TOML's grammar."""

    def __init__(self, text: str) -> None:
        # The last statement ends as every other does.
        self._tokens = [*tokens(text), *tokens("\n")]
        self._next = 0
        # Arrays of tables: the index of the element that is being written.
        self._current: dict[KeyPath, int] = {}
        self.lines: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while self._next < len(self._tokens):
            if self._text == "\n":
                self._next += 1
            elif self._text == "[":
                table = self._header()
            else:
                self._pair(table)

    @property
    def _text(self) -> str:
        return self._tokens[self._next].text

    @property
    def _line(self) -> int:
        return self._tokens[self._next].line

    def _header(self) -> KeyPath:
        """Read `[key]` or `[[key]]`, and return the path of the table that it opens."""
        line = self._line
        self._next += 1
        is_array = self._text == "["
        self._next += 1 if is_array else 0
        *outer, last = self._key("]")
        self._next += 2 if is_array else 1
        path: KeyPath = (*self._descend((), outer, line), last)
        if is_array:
            # The array stands where its first element does.
            self.lines.setdefault(path, line)
            self._current[path] = self._current.get(path, -1) + 1
            path = (*path, self._current[path])
        self.lines[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        """Read `key = value`."""
        line = self._line
        path = self._descend(table, self._key("="), line)
        self._next += 1
        self._value(path)

    def _key(self, end: str) -> tuple[str, ...]:
        start = self._next
        while self._text != end:
            self._next += 1
        return parse_key("".join(token.text for token in self._tokens[start : self._next]))

    def _descend(self, table: KeyPath, keys: tuple[str, ...] | list[str], line: int) -> KeyPath:
        """Go from a table down to what `keys` name in it, and note what is met for the first time."""
        path = table
        for key in keys:
            # TOML reaches into an array of tables by its name alone, and means the last element.
            path = (*path, key)
            self.lines.setdefault(path, line)
            if path in self._current:
                path = (*path, self._current[path])
        return path

    def _value(self, path: KeyPath) -> None:
        if self._text == "[":
            self._array(path)
        elif self._text == "{":
            self._inline_table(path)
        else:
            while self._text not in {",", "]", "}", "\n"}:
                self._next += 1

    def _array(self, path: KeyPath) -> None:
        self._next += 1
        index = 0
        while self._text != "]":
            if self._text == ",":
                index += 1
            if self._text in {",", "\n"}:
                self._next += 1
                continue
            self.lines[(*path, index)] = self._line
            self._value((*path, index))
        self._next += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._next += 1
        while self._text != "}":
            if self._text in {",", "\n"}:
                self._next += 1
            else:
                self._pair(path)
        self._next += 1
