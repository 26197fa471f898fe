"""What Python itself has to say in a Task: logging, warnings and the exceptions of its threads become log messages.

A starting Task must not pay 5 ms for `logging` that it may never use. So nothing is imported here: a finder at the
head of `sys.meta_path` waits for the modules, and sets them up in the moment the Task imports them.

Log records are taken where a logger hands them to its handlers, `Logger.callHandlers`. A handler on the root logger
would be the obvious way, and would make `logging.basicConfig()`, which half of all analysis scripts begin with, do
nothing: it looks whether root has handlers. It would also miss loggers that do not propagate.

This module is part of the Task side.
"""

from __future__ import annotations

import sys

from tasklink import vocabulary
from tasklink.errors import TasklinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from tasklink.message import Message


def install(say: Callable[[Message], None]) -> None:
    """Have everything sent by `say` from now on, in this process."""
    tellers = {
        "logging": lambda module: _tell_of_records(module, say),
        "threading": lambda module: _tell_of_threads(module, say),
    }
    for name in [name for name in tellers if name in sys.modules]:
        tellers.pop(name)(sys.modules[name])
    if tellers:
        sys.meta_path.insert(0, _Finder(tellers))
    _tell_of_warnings(say)


class _Finder:
    """Finds nothing itself; watches what the other finders find."""

    def __init__(self, tellers: dict[str, Callable[[Any], None]]) -> None:
        self._tellers = tellers

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        teller = self._tellers.pop(name, None)
        if teller is None:
            return None
        if not self._tellers:
            sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, teller)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Loads a module as another loader does, and then tells.

    That other loader is left as it is, because it may load more modules, as that of a zip file does.
    """

    def __init__(self, loader: Any, teller: Callable[[Any], None]) -> None:
        self._loader = loader
        self._teller = teller

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._teller(module)


def _tell_of_records(logging: Any, say: Callable[[Message], None]) -> None:
    hand_on = logging.Logger.callHandlers
    last_resort = logging.lastResort

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        said = _say(say, _level(record.levelno), record.name, _text_of(record, logging))
        if not (said or logger.hasHandlers()) and record.levelno >= last_resort.level:
            last_resort.handle(record)
        hand_on(logger, record)

    logging.Logger.callHandlers = call_handlers
    # Where no handler is set up, Python prints warnings to stderr: they would be told twice.
    logging.lastResort = logging.NullHandler()


def _text_of(record: logging.LogRecord, logging: Any) -> str:
    try:
        text = record.getMessage()
    # Python's own handlers do not fail for a wrong format or an argument that cannot be shown, so we do not.
    except Exception as error:  # noqa: BLE001
        what = repr(record.msg) if isinstance(record.msg, str) else type(record.msg).__name__
        text = f"{what} (its arguments cannot be put in: {type(error).__name__})"
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        text += "\n" + record.stack_info
    return text


def _level(number: int) -> str:
    if number >= 50:
        return "critical"
    if number >= 40:
        return "error"
    if number >= 30:
        return "warning"
    return "info" if number >= 20 else "debug"


def _tell_of_threads(threading: Any, say: Callable[[Message], None]) -> None:
    show = threading.excepthook

    def tell(args: Any) -> None:
        if args.exc_type is not SystemExit:
            import traceback  # noqa: PLC0415 - only for those who need it

            text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
            name = args.thread.name if args.thread else "?"
            _say(say, "error", "threading", f"an exception ended the thread {name!r}:\n{text}")
        show(args)

    threading.excepthook = tell


def _tell_of_warnings(say: Callable[[Message], None]) -> None:
    # Python's C code shows a warning without this module as long as nobody has imported it. It is small.
    import warnings  # noqa: PLC0415 - not needed by those who import this module without installing it

    show = warnings.showwarning

    def tell(  # noqa: PLR0917 - the signature is Python's
        message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if not _say(say, "warning", "warnings", f"{filename}:{lineno}: {category.__name__}: {message}"):
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = tell


def _say(say: Callable[[Message], None], level: str, logger: str, text: str) -> bool:
    """Send a log; False when it could not be sent.

    The Executor is gone, or this is a fork, or a signal handler. Whoever logs must not fail for that; the text goes
    where it would have gone without tasklink.
    """
    try:
        say(vocabulary.record(vocabulary.LOG, level, logger, text))
    except TasklinkError:
        return False
    return True
