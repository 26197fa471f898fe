"""The Executor's side of the pty communicator until the Task has started: the terminals, and how they are set.

What the Task writes is captured as it is: the terminal changes nothing in it (unless `crlf` asks for that), and echoes
nothing. Nothing is ever typed: who reads from the terminal finds the end of input, at once and every time. Only a
program that takes the terminal over, to get single keys as an editor does, or that polls before it reads, waits on.

The terminal is not the controlling terminal of the Task, although it leads a session:

* What makes programs treat their output as a terminal, `isatty`, the size, the modes, needs no controlling terminal.
* /dev/tty is where programs ask for passwords and confirmations, past every redirection, and wait. Nobody is there.
  Without a controlling terminal it cannot be opened, and they say so and end.
* When the Executor lets go of the terminal, the kernel sends no SIGHUP: what the Task was to leave behind lives on
  (`leave_descendants`), and finds EIO when it prints.
* No key and no resizing of a window sends a signal; signals come from the Executor alone.
* To get one, a process has to act between fork and exec, or to open the terminal by name and for reading. The former is
  not safe beside threads. A Task that does the latter has it, and what comes with it.
"""

from __future__ import annotations

import errno
import os
import sys
import termios
from typing import TYPE_CHECKING

from tasklink import vocabulary
from tasklink.communicator import Address, Listener
from tasklink.errors import ClosedError
from tasklink.output import set_capacity
from tasklink_pty.communicator import PtyCommunicator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasklink_pty.settings import PtySettings

_PIPE_BYTES = 1 << 18


class PtyListener(Listener):
    """Makes a terminal for the Task's output and one for its errors, or what else the settings ask for.

    Raises:
        OSError: there is no terminal or no descriptor left.
    """

    def __init__(self, settings: PtySettings) -> None:
        self.address = Address()
        self.output = self
        self._settings = settings
        self._streams: dict[int, str] = {}  # our ends, and the signal that their bytes arrive under
        self._theirs: list[int] = []
        self._standard: dict[int, int] = {}
        try:
            terminal = self._open_terminal(vocabulary.STDOUT)
            if settings.stdin == "terminal":
                self._standard[0] = terminal
            self._standard[1] = terminal
            self._standard[2] = terminal if settings.stderr == "together" else self._open_error()
        except OSError:
            self.close()
            raise

    @property
    def standard_descriptors(self) -> Mapping[int, int]:
        """The Task's ends, by the descriptor that each becomes."""
        return self._standard

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells programs how to use the terminal.

        A pager, which some start as soon as they find one (git, man, psql), would wait for keys for ever.
        """
        term = {"TERM": self._settings.term} if self._settings.term else {}
        return {**term, "PAGER": "cat"}

    def accept(self, timeout: float | None = None) -> PtyCommunicator:
        """Give our ends away and close the Task's: it has its own now, and the end can be seen."""
        if not self._streams:
            raise ClosedError("this Listener was closed, or its output has been accepted")
        self._close_theirs()
        streams, self._streams = self._streams, {}
        return PtyCommunicator(streams)

    def close(self) -> None:
        """Close what was not given away."""
        self._close_theirs()
        while self._streams:
            os.close(self._streams.popitem()[0])

    def _open_error(self) -> int:
        return self._open_pipe() if self._settings.stderr == "pipe" else self._open_terminal(vocabulary.STDERR)

    def _open_pipe(self) -> int:
        ours, theirs = os.pipe()
        self._add(ours, theirs, vocabulary.STDERR)
        set_capacity(ours, _PIPE_BYTES)
        return theirs

    def _open_terminal(self, signal: str) -> int:
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            raise _explained(error) from error
        self._add(ours, theirs, signal)
        try:
            _set_modes(theirs, crlf=self._settings.crlf)
            termios.tcsetwinsize(theirs, (self._settings.rows, self._settings.columns))
        except termios.error as error:  # which is no OSError
            raise OSError(*error.args) from error
        return theirs

    def _add(self, ours: int, theirs: int, signal: str) -> None:
        self._streams[ours] = signal
        self._theirs.append(theirs)

    def _close_theirs(self) -> None:
        self._standard = {}
        while self._theirs:
            os.close(self._theirs.pop())


def _set_modes(terminal: int, *, crlf: bool) -> None:
    """Have a terminal pass on what is written as it is, echo nothing, and be at its end for whoever reads."""
    modes = termios.tcgetattr(terminal)
    modes[1] = modes[1] | termios.OPOST | termios.ONLCR if crlf else modes[1] & ~termios.OPOST
    # Not line by line, no less than 0 bytes, and no time to wait: a read that finds nothing gives nothing, which is
    # how the end of a file looks. Keys that end input would have to be pressed once for each read, and would be thrown
    # away by who asks for a password.
    modes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
    modes[6][termios.VMIN] = modes[6][termios.VTIME] = 0
    termios.tcsetattr(terminal, termios.TCSANOW, modes)


def _explained(error: OSError) -> OSError:
    """Say which of the things that a terminal takes is used up, and what to do; the error of the system names none."""
    if error.errno == errno.ENOSPC:
        limit = "; the limit is in /proc/sys/kernel/pty/max" if sys.platform == "linux" else ""
        text = f"this machine has no pseudo-terminals left for the Task; run fewer Tasks at a time{limit}"
    elif error.errno == errno.EMFILE:
        text = "no descriptors left for a pseudo-terminal (ulimit -n); raise the limit, or run fewer Tasks at a time"
    else:
        text = f"the system gives no pseudo-terminal for the Task ({error.strerror})"
    return OSError(error.errno, text)
