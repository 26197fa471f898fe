"""The environment: the few variables that tasklink reads, and what Tasks are started with.

No other module of tasklink reads os.environ, and none writes to it.
"""

import os
from collections.abc import Mapping

import attrs

from tasklink.config.notation import parse_value
from tasklink.config.quantity import Duration
from tasklink.config.spec import check_communicators, check_timeout

ORIGIN = "TASKLINK_ORIGIN"
"""The variable that names the Task which a process, or an ancestor of it, began as: a word that nobody else has.

Where that Task runs others, their words follow after spaces.
"""


@attrs.frozen
class Variables:
    """What the environment sets, for all tasks; None: nothing.

    Attributes:
        communicators: names, the preferred one first; in the variable they stand with commas between them.
        timeout: seconds.
        strict: whether only the plugins that are asked for are loaded.
    """

    communicators: tuple[str, ...] | None = attrs.field(
        default=None, alias="TASKLINK_COMMUNICATORS", validator=check_communicators
    )
    timeout: Duration | None = attrs.field(default=None, alias="TASKLINK_TIMEOUT", validator=check_timeout)
    strict: bool | None = attrs.field(default=None, alias="TASKLINK_STRICT")


def environment(extra: Mapping[str, str], origin: str = "") -> dict[str, str]:
    """Return the environment of this process with some variables added or replaced: what a Task is started with.

    Args:
        extra: the variables.
        origin: a word by which the Task's processes are known, beside those of the Task that this one may belong to.
    """
    origins = {ORIGIN: f"{os.environ.get(ORIGIN, '')} {origin}".strip()} if origin else {}
    return {**os.environ, **extra, **origins}


def unbound_environment() -> dict[str, str]:
    """Return the environment of this process for one that is not ended with the Task that this one may belong to."""
    return {name: text for name, text in os.environ.items() if name != ORIGIN}


def variables(environ: Mapping[str, str] | None) -> dict[str, object]:
    """Return every variable that claims to be tasklink's, as the table from which `Variables` are made.

    Args:
        environ: None stands for the environment of this process. A variable that is empty says nothing.
    """
    given = os.environ if environ is None else environ
    texts = {name: text.strip() for name, text in given.items() if name.startswith("TASKLINK_") and name != ORIGIN}
    return {name: _read(name, text) for name, text in texts.items() if text}


def _read(name: str, text: str) -> object:
    return split_names(text) if name == "TASKLINK_COMMUNICATORS" else parse_value(text)


def split_names(text: str) -> list[str]:
    """Turn "pipe, unix" into the two names."""
    return [name.strip() for name in text.split(",")]
