"""What a process has: descriptors, threads, children, files. Before and after, to see what is left behind."""

from __future__ import annotations

import gc
import os
import select
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable


def holdings(directory: Path | None = None) -> dict[str, Counter[str]]:
    """Count what this process has.

    Args:
        directory: where its temporary files go.
    """
    from collections import Counter  # noqa: PLC0415 - it is a type only above

    return {
        "descriptors": Counter(_kind(target) for target in descriptors().values()),
        "threads": Counter(thread.name for thread in threading.enumerate()),
        "tasks": Counter("thread" for _ in _listed("/proc/self/task")),
        "children": Counter(_children()),
        "files": Counter([] if directory is None else map(str, directory.rglob("*"))),
    }


def settled(before: dict[str, Counter[str]], look: Callable[[], dict[str, Counter[str]]], seconds: float) -> str:
    """Wait until what there is was there before; say what is left, nothing where all is well.

    What a library ends in the background may take a moment: so threads, and child processes, are waited for until the
    time is up. What they had is gone with them; only /proc lists a thread for a moment longer.
    """
    deadline = time.monotonic() + seconds
    while True:
        gc.collect()
        after = look()
        left = {what: dict(after[what] - before[what]) for what in after if after[what] - before[what]}
        if not left:
            return ""
        _wait_for(left, deadline)
        if time.monotonic() >= deadline:
            return ", ".join(f"{what}: {found}" for what, found in left.items())


def _wait_for(left: dict[str, dict[str, int]], deadline: float) -> None:
    """Wait for the end of threads and of children; where it is neither, let others have the CPU."""
    for thread in threading.enumerate():
        if thread.name in left.get("threads", ()):
            thread.join(max(0.0, deadline - time.monotonic()))
    for child in left.get("children", ()):
        _wait_for_child(int(child), max(0.0, deadline - time.monotonic()))
    os.sched_yield()


def _wait_for_child(pid: int, seconds: float) -> None:
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([end], [], [], seconds)
    finally:
        os.close(end)


def descriptors() -> dict[int, str]:
    """The descriptors of this process, and what each one is."""
    folder = "/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"
    found = {}
    for entry in _listed(folder):
        try:
            os.fstat(int(entry))
            found[int(entry)] = str(Path(folder, entry).readlink()) if folder.startswith("/proc") else entry
        except OSError:
            continue  # the one that listed them
    return found


def _kind(target: str) -> str:
    """Sockets and pipes have numbers that are never the same twice."""
    return target.partition(":[")[0]


def _listed(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []


def _children() -> list[str]:
    found = []
    for task in _listed("/proc/self/task"):
        try:
            found += Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii").split()
        except OSError:
            continue  # a thread that has just ended, or a kernel that does not tell
    return found
