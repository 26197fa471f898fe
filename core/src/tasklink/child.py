"""Starting a child process and reaping it, so that none is lost and no other is taken for it.

Rules of this file:

* A child leads a session and a process group of its own from before `spawn` returns.
* Whatever fails in `spawn` leaves neither process nor descriptor behind.
* Whether a child has been reaped, and how it ended, is asked by its descriptor. Its pid is its own only until it is
  reaped, and anybody in this process may do that: a wait for any child, or the kernel where SIGCHLD is ignored.

The child has the default actions of SIGPIPE, SIGXFSZ and of every signal that is handled here. A signal that is ignored
here, or blocked in the thread that starts the child, is so in the child. To unblock it meanwhile would let loose upon
this process what its application chose to hold back, and code between fork and exec is not safe beside threads.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from signal import SIGKILL
from typing import TYPE_CHECKING

from tasklink.sentinel import open_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

P_PIDFD = 3  # os.P_PIDFD, which is absent where os.pidfd_open is


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    standard: Mapping[int, int],
    inherited: Sequence[int],
) -> tuple[int, int]:
    """Start a process that leads a session and a process group of its own.

    When this returns, the process has called both `setsid` and `exec`. A failure leaves nothing behind.

    Args:
        argv: the command and its arguments.
        env: its environment; None is ours.
        cwd: its working directory; None is ours.
        standard: which of our descriptors become its 0, 1 and 2. Without one it has /dev/null as 0, our own 1 and 2.
        inherited: descriptors that it has under the same numbers.

    Returns:
        Its pid, which the caller has to reap (`reap_child`), and the descriptor that `open_end` gives.

    Raises:
        OSError: as `subprocess.Popen`, or as `open_end`.
        ValueError: a NUL in the command, or a name in the environment that cannot be one.
    """
    popen = subprocess.Popen(
        argv,
        stdin=standard.get(0, subprocess.DEVNULL),
        stdout=standard.get(1),
        stderr=standard.get(2),
        env=env,
        cwd=cwd,
        pass_fds=inherited,
        start_new_session=True,
    )
    popen.returncode = 0  # from here on it is ours to reap: Popen shall neither do so nor warn that it did not
    try:
        return popen.pid, open_end(popen.pid)
    except OSError:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(popen.pid, SIGKILL)
            os.waitpid(popen.pid, 0)
        raise


def unreaped(end: int) -> bool:
    """Tell whether a child still keeps its pid, running or ended, so that a signal to that pid reaches it and no other.

    Args:
        end: the descriptor of `open_end`. On macOS, where that cannot tell, the answer is always yes.
    """
    if sys.platform == "darwin":
        return True
    try:
        os.waitid(P_PIDFD, end, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # ECHILD: it was reaped. EBADF, EINVAL: before open_end, even, or the descriptor is closed
        return False
    return True


def reap_child(pid: int, end: int) -> int | None:
    """Wait for the end of a child and take its exit status; its pid may be anybody's afterwards.

    Returns:
        The exit code, or the number of the signal that killed it, negative. None where somebody else has taken it:
        a wait for any child elsewhere in this process, or the kernel because SIGCHLD is ignored.
    """
    try:
        if sys.platform == "darwin":
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # Not Popen.wait, which takes a process that somebody else has reaped for one that exited with code 0.
        ended = os.waitid(P_PIDFD, end, os.WEXITED)
    except OSError:  # as in `unreaped`
        return None
    assert ended is not None  # only with WNOHANG
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
