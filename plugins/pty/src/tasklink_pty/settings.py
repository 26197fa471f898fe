"""What can be set for pseudo-terminals, in the config under `[communicators.pty]`."""

from typing import Literal

import attrs
from attrs.validators import and_, ge, in_, le, matches_re

# The kernel keeps both as unsigned shorts. 0 stands for "unknown", which programs take for anything.
_COUNT = and_(ge(1), le(65535))
_STDERR = ("separate", "together", "pipe")
_STDIN = ("empty", "terminal")


@attrs.frozen(kw_only=True)
class PtySettings:
    r"""Settings of the pty communicator.

    Attributes:
        rows: how many lines the terminal shows, as programs are told that ask.
        columns: how many characters fit into a line.
        term: the variable TERM of the Task, which says what escape sequences the terminal knows; empty: the Executor's.
        stderr: where the Task's standard error goes. `"separate"`: to a terminal of its own, so that both streams are
            terminals and yet can be told apart. `"together"`: to the terminal of standard output, and all of it is
            captured as that, in the order in which it was printed. `"pipe"`: to a pipe, for programs whose messages
            shall be plain.
        stdin: what the Task's standard input is. `"empty"`: /dev/null, as over every other communicator. `"terminal"`:
            the terminal of standard output, on which nobody types: who reads finds the end.
        crlf: line ends are captured as `\r\n`, as a terminal gets them, instead of the `\n` that was printed.
    """

    rows: int = attrs.field(default=24, validator=_COUNT)
    columns: int = attrs.field(default=80, validator=_COUNT)
    term: str = attrs.field(default="xterm-256color", validator=matches_re(r"[\w.+-]*"))
    stderr: Literal["separate", "together", "pipe"] = attrs.field(default="separate", validator=in_(_STDERR))
    stdin: Literal["empty", "terminal"] = attrs.field(default="empty", validator=in_(_STDIN))
    crlf: bool = False
