"""How many forks lie between this process and the one that imported tasklink.

What a process opened is not its fork's to use: two processes that write to one channel tear each other's messages. To
ask for the process number before every message is a system call (0.1 us, a tenth of a small message). So it is counted
when it happens; os.fork does so, and with it multiprocessing, subprocess and all that follows Python's rules for forks.

This module is part of the Task side.
"""

from __future__ import annotations

import os

generation = 0


def _count() -> None:
    global generation  # noqa: PLW0603 - a property of the process
    generation += 1


os.register_at_fork(after_in_child=_count)
