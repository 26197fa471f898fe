"""What a check needs: each says why it does not apply to a Subject, or None when it does."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasklink.testing.subject import Subject


def messages(subject: Subject) -> str | None:
    """It carries messages."""
    return None if subject.kind.capabilities.carries_messages else "it declares carries_messages=False"


def processes(subject: Subject) -> str | None:
    """Its two ends can be in two processes."""
    return subject.one_process or None


def interrupts(subject: Subject) -> str | None:
    """Its calls bear exceptions at any moment."""
    return subject.uninterruptible or None


def listener(subject: Subject) -> str | None:
    """It has a Listener."""
    return subject.one_process or None


def examples(_: Subject) -> str | None:
    """Hypothesis, which thinks of examples."""
    if importlib.util.find_spec("hypothesis") is None:
        return "hypothesis is not installed: pip install 'tasklink[testing]'"
    return None


def linux(_: Subject) -> str | None:
    """The system says of processes what /proc does."""
    return None if sys.platform == "linux" else "it is counted in /proc, which only Linux has"
