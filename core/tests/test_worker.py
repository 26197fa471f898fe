"""The Task's process: what it answers to every order, and how it ends."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
from _thread import start_new_thread
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import pytest

from tasklink import Status, Task, TaskSpec, codec, current_task, vocabulary
from tasklink.errors import EndOfMessages, MessageTooLargeError, TaskInterrupt
from tasklink.launch import anonymous_file, python_arguments
from tasklink.link import Link
from tasklink.memory import MemoryCommunicator
from tasklink.message import Message
from tasklink.task import Conversation
from tasklink.worker import NOT_CONNECTED, _find, _listen, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tasklink.result import TaskResult

    RunOver = Callable[..., tuple[TaskResult, list[str]]]

PATIENCE = 20


@attrs.frozen
class Served:
    """What `serve` has answered, and returned."""

    answers: list[Message]
    code: int

    @property
    def signals(self) -> list[str]:
        """The signals, without their common prefix."""
        return [(message.signal or "").removeprefix(vocabulary.PREFIX) for message in self.answers]

    @property
    def texts(self) -> list[str]:
        """The texts of the receipt."""
        return vocabulary.texts(self.answers[-2])


def order(task: object, **parameters: object) -> Message:
    """A START."""
    return Message({"task": task, "parameters": parameters}, vocabulary.START)


def served(*orders: Message, encoding: int = codec.PICKLE) -> Served:
    """Have a Task served that was told this much; what it does goes on until its end."""
    near, far = MemoryCommunicator.pair()
    ours, theirs = Link([("memory", near)], encoding=encoding), Link([("memory", far)], encoding=encoding)
    for message in orders:
        ours.write(message)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(serve(theirs)))
    thread.start()
    thread.join(timeout=PATIENCE)
    assert not thread.is_alive()
    answers = []
    try:
        while True:
            answers.append(near.read(timeout=0))
    except TimeoutError:
        pass
    ours.close()
    theirs.close()
    assert [message.sequence for message in answers] == list(range(1, len(answers) + 1))
    assert answers[-1].signal == vocabulary.END
    return Served(answers, codes[0])


def chain_of(receipt: Message) -> list[object]:
    """The exceptions in a failure record; None for each that was not carried over."""
    assert receipt.buffers is not None
    chain = pickle.loads(receipt.buffers[3])
    return [codec.decode(number, parts) if parts else None for number, parts in chain]


class TestReceipts:
    """However a Task ends, its last words say so."""

    def test_result(self) -> None:
        """Hello, started, the value, the end; the code is 0."""
        done = served(order("builtins:divmod"))
        assert done.signals == ["hello", "started", "failure", "end"]
        done = served(order("os:path.basename", p="/a/b"))
        assert done.signals == ["hello", "started", "result", "end"]
        assert (done.answers[-2].contents, done.code) == ("b", 0)

    def test_hello(self) -> None:
        """It names the wire, the implementation, and the communicators that the Task has."""
        done = served(order(os.getcwd))
        version = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
        assert vocabulary.texts(done.answers[0]) == ["1", "python", version, "memory"]

    def test_failure(self) -> None:
        """Type, text and traceback as texts, then the exception and its causes as objects; the code is 1."""
        done = served(order(fail_in_chain))
        assert (done.signals, done.code) == (["hello", "started", "failure", "end"], 1)
        kind, text, traceback = done.texts[:3]
        assert (kind, text) == ("ValueError", "the table has no peaks")
        assert traceback.startswith("Traceback (most recent call last):")
        assert "KeyError: 'peaks'" in traceback
        assert "the direct cause" in traceback
        assert "tasklink/worker.py" not in traceback
        error, cause, context = chain_of(done.answers[-2])
        assert isinstance(error, ValueError)
        assert error.args == ("the table has no peaks",)
        assert isinstance(cause, KeyError)
        assert isinstance(context, ZeroDivisionError)

    def test_kinds_are_named_with_their_modules(self) -> None:
        """But for Python's own."""
        assert served(order(raise_this, kind=OddError)).texts[0] == f"{__name__}.OddError"
        assert served(order(raise_this, kind=KeyboardInterrupt)).texts[0] == "KeyboardInterrupt"
        assert served(order(raise_this, kind=BaseExceptionGroup, arguments=("two", [OSError()]))).texts[0] == (
            "ExceptionGroup"
        )

    def test_causes_that_cannot_travel(self) -> None:
        """One that cannot be pickled leaves a gap, and takes none of the others along."""
        done = served(order(fail_with_unsendable_cause))
        error, unsendable, cause = chain_of(done.answers[-2])
        assert isinstance(error, ValueError)
        assert unsendable is None
        assert isinstance(cause, KeyError)
        assert "an object with a lock" in done.texts[2]

    def test_causes_in_a_circle(self) -> None:
        """Each is carried over once."""
        assert len(chain_of(served(order(fail_in_a_circle)).answers[-2])) == 2

    def test_suppressed_context(self) -> None:
        """What `from None` hides stays hidden."""
        assert [type(error) for error in chain_of(served(order(fail_from_none)).answers[-2])] == [ValueError]

    def test_an_exception_that_cannot_say_what_it_is(self) -> None:
        """Its failure is told all the same."""
        done = served(order(raise_this, kind=Mute))
        assert (done.signals, done.code) == (["hello", "started", "failure", "end"], 1)
        assert done.texts[:2] == [f"{__name__}.Mute", "(its text cannot be shown: ZeroDivisionError)"]

    def test_a_text_that_is_no_unicode(self) -> None:
        """It is escaped."""
        done = served(order(raise_this, kind=OSError, arguments=("no file \udce9",)))
        assert done.texts[1] == "no file \\udce9"

    def test_data_only(self) -> None:
        """With codec json nothing that the Task sends is a pickle."""
        for task, kinds in ((fail_in_chain, ["failure"]), (current_name, ["result"])):
            message = Message({"task": f"{__name__}:{task.__name__}", "parameters": {}}, vocabulary.START)
            done = served(message, encoding=codec.JSON)
            assert done.signals[2:-1] == kinds
            encoded = [message.encode() for message in done.answers]
            assert {number for number, _ in encoded} <= {codec.RAW, codec.JSON}
            assert not any(b"\x80\x05" in bytes(buffer) for _, buffers in encoded for buffer in buffers)

    def test_a_result_that_cannot_be_sent(self) -> None:
        """It is a failure that names its type."""
        done = served(order(threading.Lock))
        assert (done.signals, done.code) == (["hello", "started", "failure", "end"], 1)
        assert done.texts[0] == "tasklink.errors.EncodeError"
        assert "_thread.lock" in done.texts[1]

    @pytest.mark.parametrize(
        ("arguments", "receipt", "code"),
        [
            ((), None, 0),
            ((None,), None, 0),
            ((0,), None, 0),
            ((False,), None, 0),
            ((1,), "1", 1),
            ((3,), "3", 3),
            ((-1,), "-1", -1),
            ((256,), "256", 256),
            ((True,), "True", True),
            (("no beam",), "no beam", 1),
            (("",), "", 1),
            (([],), "[]", 1),
        ],
        ids=repr,
    )
    def test_exits(self, arguments: tuple[object, ...], receipt: str | None, code: int) -> None:
        """`sys.exit` without a code is a good end without a result; with one it is a failure, with that code."""
        done = served(order(raise_this, kind=SystemExit, arguments=arguments))
        assert done.signals == ["hello", "started", *(["failure"] if receipt is not None else []), "end"]
        if receipt is not None:
            assert done.texts[:2] == ["SystemExit", receipt]
        assert done.code == code

    def test_cancelled(self) -> None:
        """What a Task returns after a cancel, and that it was interrupted, are receipts of a cancel."""
        cancel = vocabulary.record(vocabulary.CANCEL, "enough")
        done = served(cancel, order(cancel_reason))
        assert (done.signals, done.code) == (["hello", "started", "cancelled", "end"], 0)
        assert done.answers[-2].contents == "enough"
        done = served(order(raise_this, kind=TaskInterrupt))
        assert (done.signals, done.code) == (["hello", "started", "cancelled", "end"], 0)
        assert done.answers[-2].contents is None

    def test_failed_after_a_cancel(self) -> None:
        """A failure is a failure; what it means is the Executor's to say."""
        done = served(vocabulary.record(vocabulary.CANCEL, "enough"), order(raise_this, kind=OSError))
        assert done.signals == ["hello", "started", "failure", "end"]


class TestRefusals:
    """What cannot begin is refused in words, before anything is said to have started."""

    @pytest.mark.parametrize(
        ("task", "kind", "words"),
        [
            ("no_such_module:run", "ModuleNotFoundError", "no_such_module"),
            ("os:no_such_function", "AttributeError", "no_such_function"),
            ("os:path.no_such_function", "AttributeError", "no_such_function"),
            ("os", "AttributeError", ""),
            ("", "ValueError", "Empty module name"),
            ("os:sep", "TypeError", "'os:sep' is of type str"),
            (None, "TypeError", "None is of type NoneType"),
            ({"a": 1}, "TypeError", "{'a': 1} is of type dict"),
            (0, "TypeError", "0 is of type int"),
        ],
        ids=repr,
    )
    def test_what_is_no_task(self, task: object, kind: str, words: str) -> None:
        """Neither a class nor a function, nor the name of one."""
        done = served(order(task))
        assert (done.signals, done.code) == (["hello", "refused", "end"], 1)
        assert done.texts[0] == kind
        assert words in done.texts[1]

    @pytest.mark.parametrize("error", [OSError, SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_a_task_that_cannot_be_made(self, error: type[BaseException]) -> None:
        """Whatever its constructor raises."""
        Unmade.error = error
        done = served(order(Unmade))
        assert (done.signals, done.code) == (["hello", "refused", "end"], 1)
        assert done.texts[0] == error.__name__

    def test_interrupted_before_it_began(self) -> None:
        """A Task that is terminated while it is being imported was cancelled, not refused."""
        Unmade.error = TaskInterrupt
        done = served(order(Unmade))
        assert (done.signals, done.code) == (["hello", "cancelled", "end"], 0)

    def test_an_order_that_cannot_be_read(self) -> None:
        """It says what is missing."""
        body = pickle.dumps(Point(1), 5).replace(b"Point", b"Paint")
        done = served(Message.encoded(codec.PICKLE, [body], vocabulary.START))
        assert (done.signals, done.code) == (["hello", "refused", "end"], 1)
        assert done.texts[0] == "tasklink.errors.DecodeError"
        assert "Paint" in done.texts[1]

    @pytest.mark.parametrize("contents", [None, [], {}, {"task": "os:getcwd"}], ids=repr)
    def test_an_order_that_is_none(self, contents: object) -> None:
        """A START that does not say what to do is refused, and does not hang."""
        assert served(Message(contents, vocabulary.START)).signals == ["hello", "refused", "end"]

    def test_the_executor_thinks_better_of_it(self) -> None:
        """Without an order there is nothing to do: the code says that it was not connected."""
        near, far = MemoryCommunicator.pair()
        with near, far:
            theirs = Link([("memory", far)])
            codes: list[int] = []
            thread = threading.Thread(target=lambda: codes.append(serve(theirs)))
            thread.start()
            assert near.read(timeout=PATIENCE).signal == vocabulary.HELLO
            near.close()
            thread.join(timeout=PATIENCE)
        assert codes == [NOT_CONNECTED]


class TestNames:
    """`module:attribute`."""

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("os:getcwd", os.getcwd),
            ("os:path.join", os.path.join),
            ("os.path:join", os.path.join),
            ("builtins:int.from_bytes", int.from_bytes),
            (f"{__name__}:TestNames.test_find", None),
        ],
    )
    def test_find(self, name: str, found: object) -> None:
        """The module may be a submodule, and the attribute that of an attribute."""
        assert _find(name) == (found or TestNames.test_find)


class TestListening:
    """The thread that hears the Executor."""

    @staticmethod
    def ended(data: bytes, wires: ModuleType) -> tuple[list[str], Conversation]:
        """What happens when these are the last bytes of the Executor."""
        ours, theirs = socket.socketpair()
        descriptor = ours.detach()
        link = Link([("wire", wires.Wire(descriptor, descriptor))])
        conversation = Conversation(link.write)
        theirs.sendall(data)
        theirs.close()
        ends: list[str] = []
        _listen(link, conversation, lambda: ends.append("ended"))
        link.close()
        return ends, conversation

    def test_the_executor_has_gone(self, wires: ModuleType) -> None:
        """Its end is the Task's end, and nobody waits for a signal of its."""
        ends, conversation = self.ended(b"", wires)
        assert ends == ["ended"]
        with pytest.raises(EndOfMessages):
            conversation.received(None)

    def test_the_channel_has_broken(self, wires: ModuleType) -> None:
        """The Task lives on, and will fail where it speaks; nobody waits for a signal."""
        ends, conversation = self.ended(b"GET / HTTP/1.1\r\n\r\n" * 4, wires)
        assert ends == []
        with pytest.raises(EndOfMessages):
            conversation.received(None)

    def test_it_runs_before_the_task_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While it starts up it may take a signal for which the Task waits, and nobody would wake the Task."""
        runs = threading.Event()

        def start_late(work: Callable[[], object], arguments: tuple[()]) -> int:
            return start_new_thread(lambda: runs.wait(PATIENCE) and work(*arguments), ())

        monkeypatch.setattr("tasklink.worker.start_new_thread", start_late)
        near, far = MemoryCommunicator.pair()
        ours, theirs = Link([("memory", near)]), Link([("memory", far)])
        ours.write(order(current_name))
        with ThreadPoolExecutor(1) as pool:
            serving = pool.submit(serve, theirs)
            assert near.read(PATIENCE).signal == vocabulary.HELLO
            with pytest.raises(TimeoutError):
                near.read(timeout=0.2)
            runs.set()
            assert near.read(PATIENCE).signal == vocabulary.STARTED
            assert serving.result(PATIENCE) == 0
        ours.close()
        theirs.close()


class TestProcess:
    """A process of its own: from the handover to the exit code."""

    def test_a_peer_that_is_gone_when_it_is_accepted(
        self, run_over: RunOver, wires: ModuleType, errands: ModuleType
    ) -> None:
        """It is named, and the run goes on over the others; a run without others has a result as well."""
        result, _ = run_over(TaskSpec(run=errands.in_process), wires.TornWire, wires.Wire)
        assert (result.status, list(result.broken)) == (Status.COMPLETED, ["TornWire0"])
        result, _ = run_over(TaskSpec(run=errands.in_process), wires.TornWire)
        assert (result.status, list(result.broken)) == (Status.NOT_STARTED, ["TornWire0"])

    def test_a_run(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """A Task runs over any protocol that can be imported."""
        result, logs = run_over(TaskSpec(run=errands.in_process), wires.Wire)
        assert (result.status, result.exit_code, logs) == (Status.COMPLETED, 0, [])
        assert result.value == (result.name, sys.path[0], "function")

    @pytest.mark.parametrize("cut", [0, 1])
    def test_one_of_two_cannot_be_connected(
        self, run_over: RunOver, wires: ModuleType, errands: ModuleType, cut: int
    ) -> None:
        """The Task goes on over the other one, whichever is preferred; the log tells."""
        kinds = [wires.Wire, wires.Wire]
        kinds[cut] = wires.CutWire
        name = f"CutWire{cut}"
        result, logs = run_over(TaskSpec(run="os:path.basename", timeout=PATIENCE), *kinds, p="/a/b")
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, "b", 0)
        assert logs == [f"warning: communicator {name!r} cannot be used by the Task: OSError: the wire is cut"]
        assert result.communicators[name].messages == 0

    def test_a_large_order(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """Parameters of any size go where the Task listens."""
        spec = TaskSpec(run=errands.length, timeout=PATIENCE)
        result, _ = run_over(spec, wires.CutWire, wires.Wire, data=bytes(5_000_000))
        assert result.value == 5_000_000

    def test_a_large_order_that_no_way_takes(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """The Task does not wait for ever for what cannot be sent: the error says what each way takes."""
        spec = TaskSpec(run=errands.length, timeout=PATIENCE, grace=0.1)
        result, _ = run_over(spec, wires.NarrowWire, wires.NarrowWire, data=bytes(5000))
        assert result.status is Status.NOT_STARTED
        assert isinstance(result.error.__cause__, MessageTooLargeError)
        assert "NarrowWire0 takes 2000, NarrowWire1 takes 2000" in str(result.error)

    def test_a_large_result_that_no_way_takes(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """It is a failure of the Task's, and so is a report."""
        result, _ = run_over(TaskSpec(run="builtins:bytes", timeout=PATIENCE), wires.NarrowWire, source=5000)
        assert result.status is Status.FAILED
        assert "tasklink.errors.MessageTooLargeError" in str(result.error)

    def test_none_can_be_connected(self, run_over: RunOver, wires: ModuleType) -> None:
        """The process ends with a code of its own, and says on stderr why."""
        result, _ = run_over(TaskSpec(run="os:getcwd", timeout=PATIENCE), wires.CutWire, wires.CutWire)
        assert (result.status, result.exit_code) == (Status.NOT_STARTED, NOT_CONNECTED)
        assert result.stderr.decode() == (
            "tasklink: communicator 'CutWire0' cannot be used by the Task: OSError: the wire is cut; "
            "communicator 'CutWire1' cannot be used by the Task: OSError: the wire is cut\n"
        )
        assert "the wire is cut" in str(result.error)

    @pytest.mark.parametrize("handover", [b"", b"\x05", (1000).to_bytes(8, "little") + b"half"], ids=len)
    def test_a_handover_that_ends_early(self, handover: bytes) -> None:
        """An Executor that died meanwhile is named on stderr."""
        descriptor = anonymous_file(handover)
        done = subprocess.run(
            python_arguments(sys.executable, descriptor, None),
            pass_fds=[descriptor],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        os.close(descriptor)
        assert (done.returncode, done.stdout) == (NOT_CONNECTED, b"")
        assert done.stderr == b"tasklink: the Executor ended before it had said what to run\n"

    def test_the_code_of_sys_exit(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """It is the code of the process."""
        result, _ = run_over(TaskSpec(run="sys:exit"), wires.Wire)
        assert (result.status, result.exit_code) == (Status.NO_RESULT, 0)
        result, _ = run_over(TaskSpec(run=errands.exit_with), wires.Wire, code=7)
        assert (result.status, result.exit_code) == (Status.FAILED, 7)

    def test_a_protocol_that_queues(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """What is queued goes out at the end, even what exit handlers have said."""
        result, _ = run_over(TaskSpec(run=errands.report_at_exit, timeout=PATIENCE), wires.LazyWire)
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, "returned", 0)
        assert [message.contents for message in result.messages] == ["while running", "at exit"]

    def test_sigterm_from_outside(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """A Task that somebody terminates cleans up, and was cancelled."""
        result, _ = run_over(TaskSpec(run=errands.terminate_oneself), wires.Wire)
        assert (result.status, result.exit_code, result.stdout) == (Status.CANCELLED, 0, b"cleaned up\n")

    def test_sigterm_within_a_report(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """The report is whole, and nothing is lost."""
        result, _ = run_over(TaskSpec(run=errands.terminate_oneself_while_reporting), wires.Wire)
        assert (result.status, result.lost) == (Status.CANCELLED, 0)
        numbers = [message.contents[0] for message in result.messages]  # type: ignore[index]
        assert numbers == list(range(len(numbers)))

    def test_threads_of_the_task(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """The run lasts as long as the Task's own threads, not its daemons; what they report belongs to it."""
        result, _ = run_over(TaskSpec(run=errands.leave_a_thread), wires.Wire)
        assert [message.contents for message in result.messages] == ["late"]
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, "returned", 0)

    def test_output_is_kept_in_lines(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """What was printed before a crash is known, though nobody flushed it."""
        result, _ = run_over(TaskSpec(run=errands.print_and_die, env={"PYTHONUNBUFFERED": ""}), wires.Wire)
        assert (result.status, result.signal_name) == (Status.CRASHED, "SIGKILL")
        assert result.stdout == b"the last line\n"

    def test_descriptors_closed_under_us(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """A Task that closes them cannot be heard any more; its stderr tells."""
        result, _ = run_over(TaskSpec(run=errands.close_everything, timeout=PATIENCE), wires.Wire)
        assert (result.status, result.exit_code) == (Status.CRASHED, 1)
        assert [message.contents for message in result.messages] == ["before"]
        assert "BrokenError: no communicator is left" in str(result.error)

    def test_a_fork_that_returns(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """A forked child that runs on to the end of the Task gives no second receipt."""
        result, _ = run_over(TaskSpec(run=errands.fork_and_return, timeout=PATIENCE), wires.Wire)
        assert (result.status, result.value) == (Status.COMPLETED, "parent")
        assert result.lost == 0


class Point:
    """Something to be sent."""

    def __init__(self, x: int) -> None:
        self.x = x


class OddError(Exception):
    """An error of a module."""


class Mute(Exception):  # noqa: N818
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        return str(1 // 0)


class Unmade(Task):
    """A Task that cannot be made."""

    error: type[BaseException]

    def __init__(self) -> None:
        raise self.error


def raise_this(kind: type[BaseException], arguments: tuple[Any, ...] = ()) -> NoReturn:
    """Raise."""
    raise kind(*arguments)


def fail_in_chain() -> NoReturn:
    """Raise something with a cause that has a context."""
    try:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            {}["peaks"]
    except KeyError as error:
        raise ValueError("the table has no peaks") from error


def fail_with_unsendable_cause() -> NoReturn:
    """Raise something whose cause cannot be pickled."""
    unsendable = OddError("an object with a lock", threading.Lock())
    unsendable.__cause__ = KeyError("first")
    raise ValueError from unsendable


def fail_in_a_circle() -> NoReturn:
    """Raise something that is the cause of its cause."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def fail_from_none() -> NoReturn:
    """Raise something whose context is hidden."""
    try:
        {}["peaks"]
    except KeyError:
        raise ValueError from None


def current_name() -> str:
    """The kind of the current Task."""
    return type(current_task()).__name__


def cancel_reason() -> str:
    """Why this Task was cancelled."""
    return current_task().cancel_reason
