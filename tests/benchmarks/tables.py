"""Results for people: on a terminal, and as Markdown for core/docs/performance.md."""

import sys

from tasklink.bench.session import key_of
from tasklink.cli.table import table
from tests.benchmarks.items import ARRAYS
from tests.benchmarks.judgement import MISS, NONE, OK

_COLOURS = {OK: "\x1b[32m", MISS: "\x1b[31;1m", NONE: "\x1b[2m"}
_HEAD = ("metric", "ours", "against", "value", "theirs", "ratio", "worst", "floor", "aim", "verdict")
_RIGHT = range(3, 9)

# Title, key, value, factor.
COLUMNS = [
    ("round trip, µs: free", "rtt_free", "median_us", 1),
    ("p99", "rtt_free", "p99_us", 1),
    ("two CPUs", "rtt_split", "median_us", 1),
    ("p99", "rtt_split", "p99_us", 1),
    ("one CPU", "rtt_same", "median_us", 1),
    ("p99", "rtt_same", "p99_us", 1),
    ("k messages/s", "messages", "per_s", 1e-3),
    ("write(), busy, µs", "busy", "median_us", 1),
]
ARRAY_COLUMNS = [
    (title, key_of("stream", size), "gb_per_s", 1)
    for title, size in zip(("64 KiB, GB/s", "1 MiB", "16 MiB", "256 MiB", "1 GiB"), ARRAYS, strict=True)
]
FIRST_COLUMNS = [
    (title, key_of("stream", size), value, 1)
    for name, size in zip(("64 KiB", "1 MiB", "16 MiB", "256 MiB"), ARRAYS, strict=False)
    for title, value in ((f"{name} first", "first_gb_per_s"), ("steady", "steady_gb_per_s"))
]
RUN_COLUMNS = [
    ("start to first message, ms", "start", "median_ms", 1),
    ("noop Task, ms", "noop", "median_ms", 1),
    ("Tasks/s, 1 at once", "at_once_1", "per_s", 1),
    ("8 at once", "at_once_8", "per_s", 1),
    ("64 at once", "at_once_64", "per_s", 1),
    ("captured, MB/s", "capture", "mb_per_s", 1),
    ("M lines/s", "capture", "lines_per_s", 1e-6),
]
MEMORY_COLUMNS = [
    ("receiver, private, x array", "memory", "receiver_private_x", 1),
    ("shared", "memory", "receiver_shared_x", 1),
    ("sender, private", "memory", "sender_private_x", 1),
    ("shared", "memory", "sender_shared_x", 1),
    ("10 000 x 1 MiB: receiver grows, MiB", "flat", "receiver_growth_mib", 1),
    ("sender grows, MiB", "flat", "sender_growth_mib", 1),
]
TABLES = {
    "small messages": COLUMNS,
    "arrays, the cold ones included": ARRAY_COLUMNS,
    "arrays, the first and the second half of them": FIRST_COLUMNS,
    "Tasks": RUN_COLUMNS,
    "memory": MEMORY_COLUMNS,
}


def value_rows(tally, names, columns):
    """Make the rows of those who have a value in any of these columns; the first row is the head."""
    columns = [column for column in columns if any(tally.rounds(name, *column[1:3]) for name in names)]
    rows = []
    for name in names:
        medians = [tally.median(name, key, value) for _, key, value, _ in columns]
        if any(median is not None for median in medians):
            cells = [
                NONE if median is None else spell(median * column[3])
                for median, column in zip(medians, columns, strict=True)
            ]
            rows.append((name, *cells))
    return [("", *(column[0] for column in columns)), *rows] if rows else []


def verdict_rows(verdicts):
    """Make the rows of the comparison; the first row is the head."""
    return [_HEAD, *map(_verdict_row, verdicts)]


def _verdict_row(verdict):
    unit = f" {verdict.unit}"
    numbers = [
        *(NONE if value is None else spell(value) + unit for value in (verdict.value, verdict.theirs)),
        *(
            NONE if value is None else spell(value)
            for value in (verdict.ratio, verdict.worst, verdict.floor, verdict.aim)
        ),
    ]
    return (verdict.metric, verdict.ours, verdict.peer, *numbers, verdict.verdict)


def print_verdicts(verdicts):
    """Print the comparison: the verdict as a word, and in colour where it is a terminal."""
    lines = table(verdict_rows(verdicts), right=list(_RIGHT))
    print(lines[0])
    for line, verdict in zip(lines[1:], verdicts, strict=True):
        colour = _COLOURS.get(verdict.verdict, "\x1b[33m")
        print(f"{colour}{line}\x1b[0m" if sys.stdout.isatty() else line)
    for reason in dict.fromkeys(verdict.reason for verdict in verdicts if verdict.reason):
        print(f"  {reason}")


def print_values(tally, names):
    """Print what was measured of each."""
    for title, columns in TABLES.items():
        rows = value_rows(tally, names, columns)
        if rows:
            print(f"\n{title}")
            print("\n".join(table(rows, right=list(range(1, len(rows[0]))))))


def markdown(tally, names, verdicts):
    """Give everything as Markdown."""
    parts = []
    if verdicts:
        parts.append("### Compared\n\n" + _markdown_table(verdict_rows(verdicts), _RIGHT))
    for title, columns in TABLES.items():
        rows = value_rows(tally, names, columns)
        if rows:
            parts.append(f"### {title[0].upper()}{title[1:]}\n\n{_markdown_table(rows, range(1, len(rows[0])))}")
    return "\n\n".join(parts)


def _markdown_table(rows, right):
    head, *body = rows
    marks = ["--:" if number in right else "---" for number in range(len(head))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, marks, *body))


def spell(value):
    """Write a number with three digits or so.

    >>> [spell(value) for value in (0.034, 0.95, 3.14159, 71.44, 1234.5)]
    ['0.034', '0.95', '3.14', '71.4', '1,234']
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
