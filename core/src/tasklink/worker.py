"""The Task's process: connects, learns what to run, runs it, sends the receipt.

The Executor starts an interpreter with `-c` and this module's `main`, and hands over a descriptor from which the
addresses are read. What happens then is in `serve`, which knows nothing of processes.

A Task's process ends with its Executor: the reading thread sees the end of the channel, which the kernel closes
however the Executor died, and takes the whole process group with it.

Rules of this file: standard library only, Python 3.9, and nothing imported that a Task of a moment can do without.
"""

from __future__ import annotations

import atexit
import os
import sys
from _signal import SIGKILL, SIGTERM, signal  # type: ignore[import-not-found]  # `signal` costs 3 ms, for its enums
from _thread import allocate_lock, start_new_thread

from tasklink import codec, diagnostics, framing, vocabulary
from tasklink.communicator import Address
from tasklink.errors import CommunicatorError, EncodeError, EndOfMessages, TaskInterrupt
from tasklink.link import Link
from tasklink.message import Message
from tasklink.task import Conversation, Task, begin, end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# sysexits.h: EX_PROTOCOL. The reason stands on stderr.
NOT_CONNECTED = 76


def main(descriptor: int) -> None:
    """Run the Task that the Executor on the other side of `descriptor` describes; ends the process.

    Args:
        descriptor: where the handover is read from: its length in 8 bytes, then a pickled dictionary.
    """
    handover = _read_handover(descriptor)
    _check_descriptors(handover)
    if handover["path"] is not None:
        sys.path[:] = handover["path"]
    sys.path[:0] = handover["folders"]
    sys.argv = [handover["label"]]
    link = _connect(handover)
    if any(member.communicator.capabilities.delivery == "flush" for member in link.members):
        atexit.register(link.close)  # now, so it comes last: what is only queued goes out
    _put_away(descriptor)
    _prepare_output()
    sys.exit(serve(link, own_process=True))


def serve(link: Link, *, own_process: bool = False) -> int:
    """Run one Task over a Link, from its hello to its receipt.

    Args:
        link: connected to the Executor.
        own_process: this process is the Task's alone: its signals, logging and warnings are the Task's, and it ends
            when the Executor does.

    Returns:
        the exit code of the process: 0, or 1 after an exception, or what the Task gave to `sys.exit`.
    """
    conversation = Conversation(link.write, link.allocate)
    names = [member.name for member in link.members]
    link.write(vocabulary.record(vocabulary.HELLO, str(framing.VERSION), "python", sys.version.split()[0], *names))
    try:
        order = _wait_for_start(link, conversation)
        _start_listening(link, conversation, _die if own_process else _nothing)
        if own_process:
            signal(SIGTERM, lambda *_: conversation.interrupt())
            diagnostics.install(conversation.say)
        code = _run(order, link, conversation)
    except EndOfMessages:
        return NOT_CONNECTED  # the Executor has thought better of it
    _flush(link)
    if own_process:
        _join_threads()
    link.finish()
    end()
    return code


# Running


def _run(order: Message, link: Link, conversation: Conversation) -> int:
    try:
        task, parameters = _prepare(order)
        begin(task, conversation)
    except TaskInterrupt:
        link.write(Message(None, vocabulary.CANCELLED))
        return 0
    except BaseException as error:  # noqa: BLE001 - importing foreign code may raise anything; all of it is reported
        link.write(_failure(vocabulary.REFUSED, error, link))
        return 1
    link.write(vocabulary.record(vocabulary.STARTED))
    _flush(link)  # whatever becomes of it: a Task that is said not to have started has done nothing
    try:
        _send_value(link, conversation, task.run(**parameters))
    except SystemExit as error:
        return _exited(link, error)
    except TaskInterrupt:
        link.write(Message(None, vocabulary.CANCELLED))
    except BaseException as error:  # noqa: BLE001 - it is the Task's, and the Executor is told of all of it
        traceback = error.__traceback__
        # Without the frame of this function: the traceback begins in the Task's own code.
        link.write(_failure(vocabulary.FAILURE, error.with_traceback(traceback and traceback.tb_next), link))
        return 1
    return 0


def _send_value(link: Link, conversation: Conversation, value: object) -> None:
    cancelled = conversation.cancel_reason is not None
    link.write(Message(value, vocabulary.CANCELLED if cancelled else vocabulary.RESULT))


def _exited(link: Link, error: SystemExit) -> int:
    """`sys.exit` in a Task: with 0 it has ended in good order, and has no result; with anything else it has failed."""
    if error.code is None or error.code == 0:
        return 0
    link.write(_failure(vocabulary.FAILURE, error, link))
    return error.code if isinstance(error.code, int) else 1


def _prepare(order: Message) -> tuple[Task, dict[str, Any]]:
    """Make the Task of what the Executor sent: `{"task": …, "parameters": {…}}`."""
    contents = order.contents
    assert isinstance(contents, dict)
    what = contents["task"]
    if isinstance(what, str):
        what = _find(what)
    if isinstance(what, type) and issubclass(what, Task):
        return what(), contents["parameters"]
    if not callable(what):
        raise TypeError(f"a Task is a Task class or a function; {contents['task']!r} is of type {type(what).__name__}")
    return _FunctionTask(what), contents["parameters"]


def _find(name: str) -> Any:
    """Import `module:attribute`; the attribute may be dotted."""
    module, _, path = name.partition(":")
    __import__(module)
    found: Any = sys.modules[module]
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return found


class _FunctionTask(Task):
    """A plain function as a Task."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.run = function  # type: ignore[method-assign]


def _failure(name: str, error: BaseException, link: Link) -> Message:
    """Put an exception into a record: for readers of any kind as text, for our own as objects."""
    import traceback  # noqa: PLC0415 - 3 ms that only a failure costs

    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if kind.startswith("builtins."):
        kind = type(error).__qualname__
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    message = vocabulary.record(name, kind, _text(error), lines)
    if link.encoding == codec.PICKLE:
        assert message.buffers is not None
        message.buffers.append(_pickled_chain(error))
    return message


def _text(error: BaseException) -> str:
    try:
        return str(error)
    # The class is the Task's, and its failure must be told even if it cannot tell itself.
    except Exception as another:  # noqa: BLE001
        return f"(its text cannot be shown: {type(another).__name__})"


def _pickled_chain(error: BaseException) -> codec.Buffer:
    """Pickle an exception and what caused it, each by itself: one that refuses must not take the others with it.

    The pickle of a list: for the exception, its cause, the cause of that, …, a codec and its buffers; no buffers where
    one refuses.
    """
    chain: list[tuple[int, list[bytes]]] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        try:
            number, buffers = codec.encode(cause)
        except EncodeError:
            chain.append((codec.RAW, []))
        else:
            chain.append((number, [bytes(buffer) for buffer in buffers]))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return codec.encode(chain)[1][0]


def _flush(link: Link) -> None:
    """See that what was said is delivered before foreign code runs, which may end the process at any moment."""
    try:
        link.flush()
    except TimeoutError as error:
        if sys.stderr is not None:
            sys.stderr.write(f"tasklink: {error}\n")


# Hearing the Executor


def _wait_for_start(link: Link, conversation: Conversation) -> Message:
    while True:
        message = link.read()
        if message.signal == vocabulary.START:
            return message
        conversation.hear(message)


def _start_listening(link: Link, conversation: Conversation, at_end: Callable[[], object]) -> None:
    """Hear the Executor in a thread; when this returns, it runs.

    A thread that starts up looks for signals, and may take one that is meant for the main thread (in Linux, when it
    restores its mask). The handler runs in the main thread all the same, but not while that waits in the kernel, from
    where such a signal does not call it back: a Task that waits for SIGTERM would wait for ever.
    """
    runs = allocate_lock()
    runs.acquire()

    def listen() -> None:
        runs.release()
        _listen(link, conversation, at_end)

    start_new_thread(listen, ())
    runs.acquire()


def _listen(link: Link, conversation: Conversation, at_end: Callable[[], object]) -> None:
    try:
        while True:
            conversation.hear(link.read())
    except EndOfMessages:
        conversation.hang_up()
        # Not if somebody has closed our descriptors under us, as daemon libraries do. What the Task sends will fail,
        # loudly; and if the Executor has gone all the same, its guardian ends us.
        if not link.reading_failed:
            at_end()
    except CommunicatorError:
        conversation.hang_up()  # we have closed the Link ourselves


def _die() -> None:
    """The Executor has gone without a word: end the process, and all that it has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, SIGKILL)
    os._exit(1)


def _nothing() -> None:
    pass


def _join_threads() -> None:
    """Wait for the Task's own threads, as the interpreter would: what they still report belongs to the run."""
    threading = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()


# Starting up


def _read_handover(descriptor: int) -> dict[str, Any]:
    length = int.from_bytes(_read_exactly(descriptor, 8), "little")
    handover = codec.decode(codec.PICKLE, [_read_exactly(descriptor, length)])
    assert isinstance(handover, dict)
    return handover


def _check_descriptors(handover: dict[str, Any]) -> None:
    """See that the launcher has passed on what was meant for us: nothing else may be taken for it."""
    for descriptor, device, inode, text in handover["expected"]:
        try:
            found = os.fstat(descriptor)
        except OSError:
            _give_up(text)
        if (found.st_dev, found.st_ino) != (device, inode):
            _give_up(text)


def _put_away(descriptor: int) -> None:
    """Close what the handover was read from. A Task that reads standard input finds it empty, as it always does."""
    if descriptor != 0:
        os.close(descriptor)
        return
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(descriptor, count - len(data))
        if not more:
            _give_up("the Executor ended before it had said what to run")
        data += more
    return data


def _connect(handover: dict[str, Any]) -> Link:
    """Connect every communicator; those that fail are reported over those that do not."""
    members = []
    failures = []
    for name, where, details, descriptors, key in handover["communicators"]:
        try:
            members.append((name, _find(where).connect(Address(details, descriptors, key))))
        # Foreign code; and a Task that lacks one of several ways to talk can still be run.
        except Exception as error:  # noqa: BLE001
            failures.append(f"communicator {name!r} cannot be used by the Task: {type(error).__name__}: {error}")
    if not members:
        _give_up("; ".join(failures) or "no communicator was given")
    link = Link(members, routes=handover["routes"], encoding=handover["codec"], rank=handover["rank"])
    for text in failures:
        link.write(vocabulary.record(vocabulary.LOG, "warning", "tasklink", text))
    return link


def _give_up(reason: str) -> NoReturn:
    sys.stderr.write(f"tasklink: {reason}\n")
    sys.stderr.flush()
    os._exit(NOT_CONNECTED)


def _prepare_output() -> None:
    """Let each line of output leave at once, and a crash leave its stack: what was printed is what is known of it."""
    import faulthandler  # noqa: PLC0415 - not for those who call serve() in their own process

    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if sys.stderr is not None:
        faulthandler.enable()
