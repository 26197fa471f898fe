"""What tasklink itself says: the reserved signals, and the records they carry.

A record is a tuple of UTF-8 texts, sent as raw buffers. So whoever moves messages may read them without decoding a
pickle, and a peer in any language can write them. core/docs/wire.md lists them for people.

From the Task:

    tasklink.hello       the process is up: wire version, implementation
    tasklink.started     the Task begins to run
    tasklink.refused     it could not begin: a failure record
    tasklink.log         level, logger, text
    tasklink.progress    done, total, note
    tasklink.paused      it has come to rest
    tasklink.result      the return value, in the codec of the run
    tasklink.failure     a failure record: type, text, traceback; then the exceptions, in the codec of the run
    tasklink.cancelled   it ended because it was told to; what it returned, in the codec of the run

From the Executor:

    tasklink.start       what to run, in the codec of the run
    tasklink.cancel      the reason
    tasklink.pause, tasklink.resume

From the Link of either side:

    tasklink.void        the message of this number was never sent: its writer was told so by an exception
    tasklink.end         the last message: its own number is the number of all

Between the Links, where they have several communicators:

    tasklink.acknowledged    the highest number that has come, what is missing below it as "FIRST-LAST FIRST-LAST …",
                             then the names of the communicators that are not read any more
    tasklink.acknowledge     do so at once
    tasklink.broken          a communicator that is written no more, why, how many messages were written again, and
                             the numbers of those that could not be, as above

Captured output:

    tasklink.stdout, tasklink.stderr    bytes as they came; outside the numbering

This module is part of the Task side.
"""

from __future__ import annotations

from tasklink.codec import RAW
from tasklink.message import Message

PREFIX = "tasklink."

HELLO = "tasklink.hello"
STARTED = "tasklink.started"
REFUSED = "tasklink.refused"
LOG = "tasklink.log"
PROGRESS = "tasklink.progress"
PAUSED = "tasklink.paused"
RESULT = "tasklink.result"
FAILURE = "tasklink.failure"
CANCELLED = "tasklink.cancelled"

START = "tasklink.start"
CANCEL = "tasklink.cancel"
PAUSE = "tasklink.pause"
RESUME = "tasklink.resume"

VOID = "tasklink.void"
END = "tasklink.end"

ACKNOWLEDGED = "tasklink.acknowledged"
ACKNOWLEDGE = "tasklink.acknowledge"
BROKEN = "tasklink.broken"

STDOUT = "tasklink.stdout"
STDERR = "tasklink.stderr"

# What a route in the config may be given for; see `kind`.
KINDS = ("report", "signal", "log", "progress", "result", "control")

# These do not wait for what was sent before them.
URGENT = frozenset({CANCEL, PAUSE, RESUME, PAUSED, VOID, ACKNOWLEDGED, ACKNOWLEDGE, BROKEN})
OUTPUT = frozenset({STDOUT, STDERR})
# These are for the Link that reads; it does not give them.
UNHEARD = frozenset({VOID, END, ACKNOWLEDGED, ACKNOWLEDGE, BROKEN})


def kind(signal: str | None) -> str:
    """Which kind of message a signal belongs to, for the routes of the config."""
    if signal is None:
        return "report"
    if not signal.startswith(PREFIX):
        return "signal"
    return _KINDS.get(signal, "control")


_KINDS = {LOG: "log", PROGRESS: "progress", RESULT: "result", FAILURE: "result", CANCELLED: "result"}


def record(signal: str, *texts: str) -> Message:
    """Make a message that carries texts.

    What is not Unicode, such as the lone surrogates of file names and broken output, is escaped with backslashes.
    """
    return Message.encoded(RAW, [text.encode("utf-8", "backslashreplace") for text in texts] or [b""], signal)


def texts(message: Message, count: int | None = None) -> list[str]:
    """Read the texts of a record; what is not UTF-8 is escaped with backslashes.

    Args:
        message: a record. One of a later version may have more texts than this version knows, one of another's making
            fewer than it should.
        count: how many to give, whatever there is: those that are absent are empty. None: all.
    """
    assert message.buffers is not None
    texts = [bytes(buffer).decode("utf-8", "backslashreplace") for buffer in message.buffers[:count]]
    return texts if count is None else texts + [""] * (count - len(texts))
