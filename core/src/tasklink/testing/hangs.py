"""A plugin of pytest: a test that runs out of time tells where every thread of every process of it stands.

    [tool.pytest.ini_options]
    addopts = ["-p", "tasklink.testing.hangs"]
    timeout = 60

pytest-timeout sees when it is time, shows the threads of its own process, and fails the test. Before that, this one
shows those of all processes that come from it and are Pythons: a test of two processes most often hangs in the other
one. Left out are those that were started without our environment, or ignore it (`-I`, `-E`).

What even the time-out cannot interrupt, because a library holds the interpreter, ends half a minute later with the
stacks of this process, and the process with it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tasklink.testing.stacks import Stacks, descendants

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType
    from typing import Any

_LAST_RESORT = 30.0


class Hangs:
    """Tells of tests that hang."""

    def __init__(self) -> None:
        self._stacks = Stacks()
        self._path = os.environ.get("PYTHONPATH")
        os.environ.update(self._stacks.environment)  # for whatever is started from now on
        self._terminal = os.dup(2)  # not what is captured of a test: that is lost when the process ends

    def close(self) -> None:
        """Leave everything as it was."""
        self._stacks.close()
        os.close(self._terminal)
        if self._path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = self._path

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_timeout_set_timer(self, settings: Any) -> Generator[None, object, object]:
        """Be told first when a test has run out of time."""
        done = yield
        fail = signal.getsignal(signal.SIGALRM)
        if settings.method == "signal" and callable(fail):

            def tell_and_fail(number: int, frame: FrameType | None) -> object:
                __tracebackhide__ = True
                print(self._stacks.of(descendants(os.getpid())), file=sys.stderr, flush=True)  # noqa: T201 - for people
                return fail(number, frame)

            signal.signal(signal.SIGALRM, tell_and_fail)
        faulthandler.dump_traceback_later(settings.timeout + _LAST_RESORT, file=self._terminal, exit=True)
        return done

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self) -> Generator[None, object, object]:
        """The test has ended."""
        done = yield
        faulthandler.cancel_dump_traceback_later()
        return done


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    hangs = Hangs()
    config.pluginmanager.register(hangs)
    config.add_cleanup(hangs.close)
