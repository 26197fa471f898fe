"""Lines made of what a Task prints: any bytes, cut anywhere, and nothing that a terminal would act upon."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasklink.cli.lines import LIMIT, LineSplitter, abridge, escape

# Bytes as Tasks print them, and as no Task should.
PIECES = st.sampled_from([b"\n", b"\r", b"\r\n", b"\x1b[31m", b"\x1b[2J", "é".encode(), "€".encode(), "🎉".encode()])
OUTPUT = st.lists(PIECES | st.binary(max_size=6) | st.text(max_size=6).map(str.encode), max_size=30).map(b"".join)


def split(data: bytes, cuts: list[int], limit: int = LIMIT) -> list[str]:
    """Feed data that is cut at these places."""
    splitter = LineSplitter(limit)
    lines: list[str] = []
    begin = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        lines += splitter.feed(data[begin:cut])
        begin = cut
    return lines + splitter.end()


def model(data: bytes) -> list[str]:
    """Say in the simplest way what the lines are, where none is too long."""
    *lines, rest = data.decode("utf-8", "backslashreplace").split("\n")
    if rest.strip("\r"):
        lines.append(rest)
    return [escape(([part for part in line.split("\r") if part] or [""])[-1]).rstrip() for line in lines]


@given(OUTPUT, st.lists(st.integers(min_value=0), max_size=10))
@example(data="é".encode() + b"\xc3", cuts=[1, 2])
@example(data=b"12 %\r\n", cuts=[5])
def test_any_cut_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    """However the bytes come, the lines are those of the whole."""
    assert split(data, cuts) == model(data)


@given(OUTPUT, st.lists(st.integers(min_value=0), max_size=10), st.integers(min_value=1, max_value=12))
def test_any_limit_holds(data: bytes, cuts: list[int], limit: int) -> None:
    """No line shows more than the limit; those that are shorter are untouched, the others say how much is missing."""
    *texts, rest = data.decode("utf-8", "backslashreplace").split("\n")
    texts += [rest] if rest.strip("\r") else []
    shown = split(data, cuts, limit)
    assert len(shown) == len(texts)
    for line, text in zip(shown, texts, strict=True):
        last = ([part for part in text.split("\r") if part] or [""])[-1]
        mark = f" … {len(last) - limit} more characters" if len(last) > limit else ""
        assert line == escape(last[:limit]).rstrip() + mark


@given(OUTPUT)
def test_no_line_can_do_anything(data: bytes) -> None:
    """What is shown is printable, whatever was printed: no escape, no return, no half of a character."""
    for line in split(data, []):
        assert not [character for character in line if ord(character) < 32 and character != "\t"]
        assert not {"\x7f", "\x9b", "\u202e", "\u2028"} & set(line)
        line.encode()


@given(st.text())
def test_escaping_is_final(text: str) -> None:
    """What was escaped once has nothing more to be escaped."""
    assert escape(escape(text)) == escape(text)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\n", ["", ""]),
        (b"no end", ["no end"]),
        (b"windows\r\nlines\r\n", ["windows", "lines"]),
        (b"\r 10 %\r 50 %\r100 %\ndone\n", ["100 %", "done"]),
        (b"100 %\r", ["100 %"]),
        (b"a\tb \n", ["a\tb"]),
        (b"\xff\xfe and \x00\n", ["\\xff\\xfe and \\x00"]),
        (b"\x1b]0;title\x07\x1b[32mgreen\x1b[0m\n", ["\\x1b]0;title\\x07green"]),
        ("right \u202eto left\n".encode(), ["right \\u202eto left"]),
    ],
)
def test_what_is_shown(data: bytes, lines: list[str]) -> None:
    """Each kind of output has one way in which it is shown."""
    assert split(data, []) == lines


def test_memory_is_that_of_the_line_that_is_shown() -> None:
    """Of a line without an end, what is beyond the limit is counted and let go."""
    splitter = LineSplitter()
    for _ in range(100):
        assert splitter.feed(b"x" * 100_000) == []
    assert sum(len(value) for value in vars(splitter).values() if isinstance(value, str)) <= LIMIT
    assert splitter.feed(b"\n") == ["x" * LIMIT + f" … {100 * 100_000 - LIMIT} more characters"]


def test_abridged_text_is_one_line() -> None:
    """A name or an error of a Task becomes one line that can be shown."""
    assert abridge("two\nlines") == "two\\x0alines"
    assert abridge("long" * 10, 8) == "longlong … 32 more characters"
