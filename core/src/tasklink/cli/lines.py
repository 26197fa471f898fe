r"""From what a Task prints, bytes cut anywhere, to lines that can be shown on anyone's terminal.

Rules of this file:

* Any bytes may come. What is no UTF-8 is shown as `\xff`; so is what a terminal would act upon, so that no Task can
  move the cursor, rename the window, or turn a text around. Only colours are dropped: they do no harm, and say nothing.
* A carriage return takes back what stands in the line: of a progress bar, its last state is shown.
* No line is too long: it is cut, and says so. What is held in memory is a line of the length that is shown.
* How the bytes were cut makes no difference.

It does no I/O.
"""

from __future__ import annotations

import codecs
import re

LIMIT = 2000
"""How many characters of a line are shown."""

# Control characters but the tab (C0, DEL, C1), marks that change the direction of text, separators that some terminals
# take for the end of a line, and halves of characters, which no encoding can write.
_ACTED_UPON = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")


def escape(text: str) -> str:
    r"""Show what a terminal would act upon, instead of having it acted upon.

    >>> print(escape("\x1b[2Jno screen was \x1b[31mcleared\x1b[0m"))
    \x1b[2Jno screen was cleared
    """
    return _ACTED_UPON.sub(_escaped, _COLOUR.sub("", text))


def abridge(text: str, limit: int = LIMIT) -> str:
    """Put a text into one line that can be shown: escaped, and cut where it is too long."""
    cut = len(text) - limit
    return escape(text[:limit]) + (_mark(cut) if cut > 0 else "")


class LineSplitter:
    r"""Makes lines of one stream.

    Args:
        limit: how many characters of a line are shown.

    >>> splitter = LineSplitter()
    >>> splitter.feed(b"one\ntw"), splitter.feed(b"o\n 10 %\r 90 %\r100 %\nthe end"), splitter.end()
    (['one'], ['two', '100 %'], ['the end'])
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._forget()

    def feed(self, data: bytes) -> list[str]:
        """Take in what came, and give the lines that are whole."""
        *whole, rest = self._decoder.decode(data).split("\n")
        lines = [self._line(part) for part in whole]
        self._add(rest)
        return lines

    def end(self) -> list[str]:
        """Give what stands in a last line without an end."""
        self._add(self._decoder.decode(b"", final=True))
        return [self._line()] if self._begun else []

    def _line(self, last_part: str = "") -> str:
        self._add(last_part)
        line = escape(self._text).rstrip() + (_mark(self._cut) if self._cut else "")
        self._forget()
        return line

    def _add(self, part: str) -> None:
        """Take in a part of a line."""
        text, *others = part.split("\r")
        self._append(text)
        for text in others:
            # Only what follows takes the line back: a return before the end of the line means nothing.
            self._returned = True
            self._append(text)

    def _append(self, text: str) -> None:
        if not text:
            return
        if self._returned:
            self._forget()
        self._begun = True
        room = self._limit - len(self._text)
        self._text += text[:room]
        self._cut += max(0, len(text) - room)

    def _forget(self) -> None:
        self._text = ""
        self._cut = 0  # characters that had no room
        self._begun = False
        self._returned = False


def _mark(cut: int) -> str:
    return f" … {cut} more characters"


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
