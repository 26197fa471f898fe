"""How an Executor talks with the Tasks it runs, over any protocol.

    from tasklink import Executor, Task, current_task

Names are imported when they are first used: a Task's process must not pay for the Executor's side.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.config import Config as Config
    from tasklink.config import TaskSpec as TaskSpec
    from tasklink.executor import Executor as Executor
    from tasklink.executor import TaskFuture as TaskFuture
    from tasklink.hooks import hookimpl as hookimpl
    from tasklink.message import Message as Message
    from tasklink.result import Status as Status
    from tasklink.result import TaskResult as TaskResult
    from tasklink.task import Task as Task
    from tasklink.task import current_task as current_task

if sys.platform == "win32":
    raise ImportError(
        "tasklink runs on Linux and macOS: it stands on process groups, inherited descriptors and poll, which Windows "
        "does not have; there, use it within WSL"
    )

_HOMES = {
    "Config": "tasklink.config",
    "Executor": "tasklink.executor",
    "Message": "tasklink.message",
    "Status": "tasklink.result",
    "Task": "tasklink.task",
    "TaskFuture": "tasklink.executor",
    "TaskResult": "tasklink.result",
    "TaskSpec": "tasklink.config",
    "current_task": "tasklink.task",
    "hookimpl": "tasklink.hooks",
}

__all__ = [
    "Config",
    "Executor",
    "Message",
    "Status",
    "Task",
    "TaskFuture",
    "TaskResult",
    "TaskSpec",
    "current_task",
    "hookimpl",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"tasklink has no {name!r}; it has {', '.join(__all__)}, and errors in tasklink.errors")
    __import__(home)
    return getattr(sys.modules[home], name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
