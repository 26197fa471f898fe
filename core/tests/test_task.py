"""What a Task says and hears, over a Link in memory, and what it does when nobody runs it."""

from __future__ import annotations

import io
import sys
import threading
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import Task, current_task, vocabulary
from tasklink.errors import BrokenError, EncodeError, EndOfMessages, TaskInterrupt
from tasklink.link import Link
from tasklink.memory import MemoryCommunicator
from tasklink.message import Message
from tasklink.task import LEVELS, Conversation, begin, check_name, end
from tasklink.worker import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Nothing takes that long, unless it hangs.
PATIENCE = 20


class Running:
    """A Task that runs in a thread of this process, and the Executor's end of its Link. A context manager."""

    def __init__(self, task: object, **parameters: object) -> None:
        near, far = MemoryCommunicator.pair()
        self._theirs = Link([("memory", far)])
        self.link = Link([("memory", near)])
        self.code: int | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self.read().signal == vocabulary.HELLO
        self.link.write(Message({"task": task, "parameters": parameters}, vocabulary.START))
        assert self.read().signal == vocabulary.STARTED

    def _serve(self) -> None:
        # With nobody to tell its end to, `serve` raises.
        with suppress(BrokenError):
            self.code = serve(self._theirs)

    def read(self) -> Message:
        """The next message of the Task."""
        return self.link.read(timeout=PATIENCE)

    def tell(self, signal: str, *texts: str) -> None:
        """Send a control message."""
        self.link.write(vocabulary.record(signal, *texts))

    def result(self) -> object:
        """What the Task returns, if it has nothing else to say."""
        message = self.read()
        assert message.signal in {vocabulary.RESULT, vocabulary.CANCELLED}
        return message.contents

    def __enter__(self) -> Running:
        return self

    def hang_up(self) -> None:
        """Leave the Task alone."""
        self.link.close()

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=PATIENCE)
        assert not self._thread.is_alive()
        self.link.close()
        self._theirs.close()


class Says(Task):
    """Says what it is told to say, and returns what that raised."""

    def run(self, what: str, *arguments: Any, **more: Any) -> object:
        """Call a method of itself."""
        arguments = more.pop("arguments", arguments)
        try:
            getattr(self, what)(*arguments, **more)
        except (TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "said"


def said(what: str, *arguments: Any, **more: Any) -> Message:
    """What arrives when a Task says something."""
    with Running(Says, what=what, arguments=arguments, **more) as running:
        message = running.read()
        assert running.result() == "said"
        return message


def refused(what: str, *arguments: Any, **more: Any) -> str:
    """What a Task gets when it says something that cannot be; nothing arrives."""
    with Running(Says, what=what, arguments=arguments, **more) as running:
        answer = running.result()
    assert isinstance(answer, str)
    return answer


@pytest.fixture
def written() -> SimpleQueue[Message]:
    """What a conversation has written."""
    return SimpleQueue()


@pytest.fixture
def conversation(written: SimpleQueue[Message]) -> Conversation:
    """A conversation that is had in this thread."""
    return Conversation(written.put)


class TestSpeaking:
    """Each method of a Task becomes one message."""

    def test_report(self) -> None:
        """A report has any contents and no signal."""
        message = said("report", {"peak": (1, 2)})
        assert (message.signal, message.contents) == (None, {"peak": (1, 2)})

    def test_signal(self) -> None:
        """A signal has a name, and contents or none."""
        message = said("signal", "milestone", 5)
        assert (message.signal, message.contents) == ("milestone", 5)
        message = said("signal", "ready")
        assert (message.signal, message.contents) == ("ready", None)

    @pytest.mark.parametrize("level", LEVELS)
    def test_log(self, level: str) -> None:
        """A log has a level, and the Task as its logger."""
        message = said("log", "nearly there", level)
        assert (message.signal, vocabulary.texts(message)) == (vocabulary.LOG, [level, "task", "nearly there"])

    def test_log_of_anything(self) -> None:
        """What is no text is shown as `print` shows it; what is no Unicode is escaped."""
        assert vocabulary.texts(said("log", KeyError("x")))[2] == "'x'"
        assert vocabulary.texts(said("log", "file \udce9\udcff"))[2] == "file \\udce9\\udcff"

    @pytest.mark.parametrize("level", ["", "warn", "INFO", None, 20])
    def test_wrong_level(self, level: object) -> None:
        """A level that is none is refused with those that are."""
        assert refused("log", "text", level) == (
            f"ValueError: the level of a log is one of debug, info, warning, error, critical; not {level!r}"
        )

    @pytest.mark.parametrize(
        ("number", "digits"),
        [
            (3, "3"),
            (0.1, "0.1"),
            (True, "1"),
            (-1e-300, "-1e-300"),
            (2**53 + 1, "9007199254740993"),
            (10**30, "1" + "0" * 30),
            (np.int64(2**60 + 1), "1152921504606846977"),
            (np.uint8(200), "200"),
            (np.float64(1.5), "1.5"),
            (np.float32(0.25), "0.25"),
            (np.array(2.5), "2.5"),
            (np.array(7), "7"),
            (Decimal("1.25"), "1.25"),
            (Fraction(1, 2), "0.5"),
            (float("inf"), "inf"),
        ],
        ids=lambda value: f"{type(value).__name__} {value}",
    )
    def test_progress(self, number: Any, digits: str) -> None:
        """A number of any kind travels as digits that every reader understands, integers without loss."""
        message = said("progress", number, number, "note")
        assert (message.signal, vocabulary.texts(message)) == (vocabulary.PROGRESS, [digits, digits, "note"])
        assert float(digits) == float(number)

    def test_progress_towards_the_unknown(self) -> None:
        """A total, and a note, need not be known."""
        assert vocabulary.texts(said("progress", 1)) == ["1", "", ""]
        assert vocabulary.texts(said("progress", 1, note="half\udce9")) == ["1", "", "half\\udce9"]
        assert vocabulary.texts(said("progress", 1, note=5)) == ["1", "", "5"]

    @pytest.mark.parametrize("number", [None, "many", 1j, [1]], ids=repr)
    def test_progress_that_is_no_number(self, number: object) -> None:
        """What is no number is refused where it was said."""
        assert refused("progress", number).startswith(("TypeError", "ValueError"))
        if number is not None:
            assert refused("progress", 1, number).startswith(("TypeError", "ValueError"))

    def test_what_cannot_be_sent(self) -> None:
        """A report that cannot be sent is refused by its type, and nothing else is harmed."""
        with Running(report_badly) as running:
            assert running.read().contents == "fine"
            answer = running.result()
        assert isinstance(answer, str)
        assert answer.startswith("an object of type _thread.lock cannot be pickled")

    def test_threads(self) -> None:
        """Any thread may speak."""
        with Running(speak_in_threads) as running:
            assert {running.read().contents for _ in range(8)} == set(range(8))


def report_badly() -> str:
    """Report what cannot be sent, then what can."""
    task = current_task()
    try:
        task.report(threading.Lock())
    except EncodeError as error:
        task.report("fine")
        return str(error)
    return "nothing"


def speak_in_threads() -> None:
    """Report from eight threads."""
    threads = [threading.Thread(target=current_task().report, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestMemory:
    """`empty` and `buffer`: memory that can be sent without a copy."""

    def test_an_array_lies_in_the_memory_of_the_communicator(self) -> None:
        """`empty` has shape and type as asked for, and its memory is what the communicator gave."""
        given: list[memoryview] = []

        def allocate(nbytes: int) -> memoryview:
            given.append(memoryview(bytearray(nbytes)))
            return given[-1]

        task = Task()
        task._conversation = Conversation(lambda _: None, allocate)
        array = task.empty((3, 4), "float32")
        array[:] = 1
        assert (array.shape, array.dtype, [memory.nbytes for memory in given]) == ((3, 4), np.float32, [48])
        assert np.frombuffer(given[0], np.float32).tolist() == [1.0] * 12
        assert task.empty(5).dtype == float

    @pytest.mark.parametrize("shape", [0, (0, 7), (), 1, (2, 3, 4)])
    def test_any_shape(self, shape: int | tuple[int, ...]) -> None:
        """The shapes of `numpy.empty`, those without an element too."""
        assert Task().empty(shape).shape == np.empty(shape).shape

    def test_objects_are_refused(self) -> None:
        """Memory that another process reads holds no Python objects."""
        with pytest.raises(ValueError, match="object"):
            Task().empty(3, object)

    def test_without_numpy(self) -> None:
        """`buffer` is writable memory of that size, with an Executor or without."""
        memory = Task().buffer(10)
        memory[:] = b"0123456789"
        assert (memory.nbytes, bytes(memory)) == (10, b"0123456789")


class TestNames:
    """What a signal may be called."""

    @pytest.mark.parametrize("name", ["a", "x" * 255, "größer", "é" * 127, "\0", " ", "tasklink", "Cancel"])
    def test_free(self, name: str) -> None:
        """Any Unicode of 1 to 255 bytes that means nothing else."""
        check_name(name)
        assert said("signal", name).signal == name

    @pytest.mark.parametrize("name", ["cancel", "pause", "resume", "tasklink.", vocabulary.RESULT])
    def test_reserved(self, name: str) -> None:
        """What has a meaning of its own cannot be sent as a signal."""
        assert f"the signal {name!r} is reserved" in refused("signal", name)

    @pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "x" * 10_000_000], ids=len)
    def test_length(self, name: str) -> None:
        """The error says how many bytes there are, and does not show all of them."""
        text = refused("signal", name)
        assert text.startswith("ValueError: the name of a signal has 1 to 255 bytes of UTF-8")
        assert text.endswith(f" has {len(name.encode())}")
        assert len(text) < 200

    @pytest.mark.parametrize("name", ["\ud800", "file \udce9", "\udfff" * 85])
    def test_lone_surrogates(self, name: str) -> None:
        """A name that is not Unicode is refused in words that say so."""
        assert "lone surrogate" in refused("signal", name)

    @given(st.text())
    def test_checked_names_can_be_written(self, name: str) -> None:
        """Whatever the check lets through, the wire takes."""
        try:
            check_name(name)
        except ValueError:
            return
        near, far = MemoryCommunicator.pair()
        with near, far:
            near.write(Message(None, name))
            assert far.read(0).signal == name


class Listens(Task):
    """Answers what it is sent with a report of it, until the Executor says no more."""

    def run(self) -> str:
        """Answer."""
        try:
            while True:
                message = self.received()
                self.report((message.signal, message.contents))
        except EndOfMessages as error:
            return str(error)


class TestHearing:
    """`received`, `on`, `cancelled`."""

    def test_received(self) -> None:
        """Signals come in order, plain contents too."""
        with Running(Listens) as running:
            for signal, contents in (("step", 1), (None, [2]), ("step", 3)):
                running.link.write(Message(contents, signal))
            assert [running.read().contents for _ in range(3)] == [("step", 1), (None, [2]), ("step", 3)]
            running.hang_up()

    def test_nobody_will_send_any_more(self) -> None:
        """When the Executor has hung up, each thread that waits is told so, also later on."""
        ended: SimpleQueue[str] = SimpleQueue()
        with Running(wait_in_threads, count=3, ended=Names.keep(ended)) as running:
            running.hang_up()
        assert [ended.get(timeout=PATIENCE) for _ in range(4)] == ["the Executor will send no more signals"] * 4

    @pytest.mark.parametrize("timeout", [0, -1, 0.001, -float("inf")])
    def test_none_in_time(self, conversation: Conversation, timeout: float) -> None:
        """A wait that reaches its end says so; one that is over already looks once."""
        with pytest.raises(TimeoutError, match="no signal came within"):
            conversation.received(timeout)
        conversation.hear(Message(5, "step"))
        assert conversation.received(timeout).contents == 5

    @pytest.mark.parametrize("timeout", [None, 1e30, float("inf")])
    def test_long_waits(self, conversation: Conversation, timeout: float | None) -> None:
        """No time is too long."""
        conversation.hear(Message(5, "step"))
        assert conversation.received(timeout).contents == 5

    def test_control_is_not_received(self, conversation: Conversation) -> None:
        """What tasklink itself says, or a later version may say, is no signal for the Task's code."""
        for signal in (vocabulary.CANCEL, vocabulary.PAUSE, vocabulary.RESUME, vocabulary.START, "tasklink.later"):
            conversation.hear(vocabulary.record(signal))
        with pytest.raises(TimeoutError):
            conversation.received(0)

    def test_handlers(self, conversation: Conversation) -> None:
        """A handler gets every signal of its name, and nobody else does."""
        heard: list[object] = []
        conversation.on("step", lambda message: heard.append(message.contents))
        for number, signal in enumerate(("step", "other", "step")):
            conversation.hear(Message(number, signal))
        assert heard == [0, 2]
        assert conversation.received(0).signal == "other"

    def test_handlers_that_are_set_late(self, conversation: Conversation) -> None:
        """A handler gets what came before it; the rest stays as it was, in its order."""
        for number, signal in enumerate(("step", "other", "step", None)):
            conversation.hear(Message(number, signal))
        heard: list[object] = []
        conversation.on("step", lambda message: heard.append(message.contents))
        conversation.hear(Message(4, "step"))
        assert heard == [0, 2, 4]
        assert [conversation.received(0).contents for _ in range(2)] == [1, 3]

    def test_a_late_handler_does_not_undo_the_end(self, conversation: Conversation) -> None:
        """That no more will come is known after the inbox was looked through, too."""
        conversation.hear(Message(1, "other"))
        conversation.hang_up()
        conversation.on("step", lambda _: None)
        assert conversation.received(None).contents == 1
        with pytest.raises(EndOfMessages):
            conversation.received(None)

    def test_handlers_of_control(self) -> None:
        """Cancel, pause and resume can be handled, in tasklink's own thread, while the Task does something else."""
        with Running(HandlesControl) as running:
            assert running.read().signal == "ready"
            for signal in (vocabulary.PAUSE, vocabulary.RESUME):
                running.tell(signal)
                assert running.read().contents == signal
            running.tell(vocabulary.CANCEL, "enough")
            assert running.read().contents == vocabulary.CANCEL
            assert running.result() == "enough"

    def test_a_handler_for_a_cancel_that_has_come(self, conversation: Conversation) -> None:
        """It is called at once: the Task's code cannot know how early a cancel comes."""
        conversation.hear(vocabulary.record(vocabulary.CANCEL, "early"))
        heard: list[str] = []
        conversation.on(vocabulary.CANCEL, lambda message: heard.extend(vocabulary.texts(message)))
        assert heard == ["early"]

    @pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit(3)], ids=repr)
    def test_a_handler_that_raises(
        self, conversation: Conversation, written: SimpleQueue[Message], error: BaseException
    ) -> None:
        """What it raises goes to the log; the thread that hears a cancel goes on."""
        conversation.on("step", raiser(error))
        conversation.hear(Message(None, "step"))
        level, logger, text = vocabulary.texts(written.get(False))
        assert (level, logger) == ("error", "tasklink")
        assert text.startswith("the handler of 'step' raised:\nTraceback")
        assert type(error).__name__ in text

    def test_a_handler_that_raises_when_nobody_listens(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Where it cannot be sent it is printed, and is no reason to hear no more."""
        conversation = Conversation(raiser(BrokenError("gone")))
        conversation.on("step", raiser(ZeroDivisionError()))
        conversation.hear(Message(None, "step"))
        assert capsys.readouterr().err.startswith("error: the handler of 'step' raised:\nTraceback")

    def test_cancelled(self, conversation: Conversation) -> None:
        """A Task that was not cancelled knows it, and one that was knows why, even if there is no reason."""
        task = Task()
        begin(task, conversation)
        try:
            assert (task.cancelled, task.cancel_reason) == (False, "")
            conversation.hear(vocabulary.record(vocabulary.CANCEL, ""))
            assert (task.cancelled, task.cancel_reason) == (True, "")
            conversation.hear(vocabulary.record(vocabulary.CANCEL, "beam dump"))
            assert (task.cancelled, task.cancel_reason) == (True, "beam dump")
        finally:
            end()

    def test_what_is_returned_after_a_cancel(self) -> None:
        """A Task that ends in good order is cancelled, with what it returns."""
        with Running(current_reason) as running:
            running.tell(vocabulary.CANCEL, "enough")
            message = running.read()
            assert (message.signal, message.contents) == (vocabulary.CANCELLED, "enough")


class Names:
    """Objects of this process, for Tasks in its threads: by name, because a parameter is copied."""

    kept: dict[str, Any] = {}  # noqa: RUF012 - it is emptied by nobody

    @classmethod
    def keep(cls, thing: object) -> str:
        """Give a name to a thing."""
        cls.kept[str(id(thing))] = thing
        return str(id(thing))


def raiser(error: BaseException) -> Callable[[Any], None]:
    """A function that raises."""

    def function(_: object) -> None:
        raise error

    return function


def wait_in_threads(count: int, ended: str) -> None:
    """Wait for a signal in several threads, and then once more."""
    task = current_task()

    def wait() -> None:
        try:
            task.received()
        except EndOfMessages as error:
            Names.kept[ended].put(str(error))

    threads = [threading.Thread(target=wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait()


class HandlesControl(Task):
    """Reports every control message, and ends when it is cancelled."""

    def run(self) -> str:
        """Wait for a cancel."""
        done = threading.Event()

        def leave(message: Message) -> None:
            self.report(message.signal)
            done.set()

        for name in ("pause", "resume", "cancel"):
            self.on(name, lambda message: self.report(message.signal))
        self.signal("ready")
        self.on("cancel", leave)
        assert done.wait(PATIENCE)
        return self.cancel_reason


def current_reason() -> str:
    """Wait for a cancel; its reason."""
    done = threading.Event()
    current_task().on("cancel", lambda _: done.set())
    assert done.wait(PATIENCE)
    return current_task().cancel_reason


class TestPausing:
    """A paused Task rests at its next word."""

    @pytest.fixture
    def speakers(self, conversation: Conversation) -> Iterator[Callable[..., threading.Thread]]:
        """Start a thread that says something, or waits for something."""
        threads = []

        def speak(function: Callable[..., object], *arguments: object) -> threading.Thread:
            thread = threading.Thread(target=function, args=arguments)
            thread.start()
            threads.append(thread)
            return thread

        yield speak
        for thread in threads:
            thread.join(timeout=PATIENCE)
            assert not thread.is_alive()

    @pytest.mark.parametrize("signal", [vocabulary.RESUME, vocabulary.CANCEL])
    def test_rest(
        self,
        conversation: Conversation,
        written: SimpleQueue[Message],
        speakers: Callable[..., threading.Thread],
        signal: str,
    ) -> None:
        """Each thread says that it rests, and what it has to say when it may go on, or shall end."""
        conversation.hear(vocabulary.record(vocabulary.PAUSE))
        for number in range(3):
            speakers(conversation.say, Message(number))
        assert [written.get(timeout=PATIENCE).signal for _ in range(3)] == [vocabulary.PAUSED] * 3
        assert written.empty()
        conversation.hear(vocabulary.record(signal))
        assert {written.get(timeout=PATIENCE).contents for _ in range(3)} == {0, 1, 2}
        conversation.say(Message("on"))
        assert written.get(timeout=PATIENCE).contents == "on"

    def test_rest_while_waiting(
        self, conversation: Conversation, written: SimpleQueue[Message], speakers: Callable[..., threading.Thread]
    ) -> None:
        """To ask for a signal is a word, too."""
        conversation.hear(Message(1, "step"))
        conversation.hear(vocabulary.record(vocabulary.PAUSE))
        heard: SimpleQueue[object] = SimpleQueue()
        speakers(lambda: heard.put(conversation.received(None).contents))
        assert written.get(timeout=PATIENCE).signal == vocabulary.PAUSED
        assert heard.empty()
        conversation.hear(vocabulary.record(vocabulary.RESUME))
        assert heard.get(timeout=PATIENCE) == 1

    def test_more_than_once(self, conversation: Conversation, written: SimpleQueue[Message]) -> None:
        """To pause what is paused, or resume what is not, changes nothing."""
        for signal in (vocabulary.RESUME, vocabulary.PAUSE, vocabulary.PAUSE, vocabulary.RESUME, vocabulary.RESUME):
            conversation.hear(vocabulary.record(signal))
        conversation.say(Message("on"))
        assert written.get(False).contents == "on"

    def test_handlers_do_not_rest(self, conversation: Conversation, written: SimpleQueue[Message]) -> None:
        """The thread that hears would never hear that it may go on."""
        conversation.on(vocabulary.PAUSE, lambda _: conversation.say(Message("going to sleep")))
        conversation.hear(vocabulary.record(vocabulary.PAUSE))
        assert written.get(False).contents == "going to sleep"

    def test_a_pause_before_the_start(self) -> None:
        """A Task that is paused before it begins rests at its first word."""
        near, far = MemoryCommunicator.pair()
        theirs, ours = Link([("memory", far)]), Link([("memory", near)])
        ours.write(vocabulary.record(vocabulary.PAUSE))
        ours.write(Message({"task": Says, "parameters": {"what": "report", "arguments": (1,)}}, vocabulary.START))
        thread = threading.Thread(target=serve, args=(theirs,))
        thread.start()
        signals = [ours.read(timeout=PATIENCE).signal for _ in range(3)]
        assert signals == [vocabulary.HELLO, vocabulary.STARTED, vocabulary.PAUSED]
        ours.write(vocabulary.record(vocabulary.RESUME))
        assert ours.read(timeout=PATIENCE).contents == 1
        thread.join(timeout=PATIENCE)
        ours.close()
        theirs.close()


class TestInterrupt:
    """SIGTERM ends the main thread by an exception, but tears no message."""

    def test_between_messages(self, conversation: Conversation) -> None:
        """It strikes at once, with the reason of the cancel."""
        with pytest.raises(TaskInterrupt):
            conversation.interrupt()
        conversation.hear(vocabulary.record(vocabulary.CANCEL, "beam dump"))
        with pytest.raises(TaskInterrupt, match="beam dump"):
            conversation.interrupt()

    def test_within_a_message(self) -> None:
        """It waits for the end of the message, then strikes, once."""
        written: list[object] = []

        def write(message: Message) -> None:
            if not written:
                talk.interrupt()
            written.append(message.contents)

        talk = Conversation(write)
        with pytest.raises(TaskInterrupt):
            talk.say(Message("whole"))
        talk.say(Message("cleaned up"))
        assert written == ["whole", "cleaned up"]

    def test_within_a_message_that_fails(self) -> None:
        """It is not forgotten because the message could not be sent."""

        def write(_: Message) -> None:
            talk.interrupt()
            raise EncodeError("not to be sent")

        talk = Conversation(write)
        with pytest.raises(TaskInterrupt) as caught:
            talk.say(Message())
        assert isinstance(caught.value.__context__, EncodeError)

    def test_within_a_message_that_another_one_interrupts(self) -> None:
        """A user's signal handler reports within a report; the outer one is whole before the end."""
        written: list[object] = []

        def write(message: Message) -> None:
            if message.contents == "outer":
                talk.say(Message("inner"))
            else:
                talk.interrupt()
            written.append(message.contents)

        talk = Conversation(write)
        with pytest.raises(TaskInterrupt):
            talk.say(Message("outer"))
        assert written == ["inner", "outer"]

    def test_at_rest(self) -> None:
        """The word that the Task rests is a message, too."""
        written: list[str | None] = []

        def write(message: Message) -> None:
            talk.interrupt()
            written.append(message.signal)

        talk = Conversation(write)
        talk.hear(vocabulary.record(vocabulary.PAUSE))
        with pytest.raises(TaskInterrupt):
            talk.say(Message("unsaid"))
        assert written == [vocabulary.PAUSED]

    def test_other_threads(self) -> None:
        """What another thread writes does not hold it up: it strikes in the main thread only."""
        conversation = Conversation(lambda _: interrupt())
        struck: list[BaseException] = []

        def interrupt() -> None:
            try:
                conversation.interrupt()
            except TaskInterrupt as error:
                struck.append(error)

        thread = threading.Thread(target=conversation.say, args=(Message(),))
        thread.start()
        thread.join()
        assert len(struck) == 1


class TestWithoutExecutor:
    """A Task runs by hand, in a notebook, in a test."""

    def test_everything_can_be_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Logs go to stderr; what only an Executor could want vanishes, also if it could not be sent."""
        task = Says()
        task.report(threading.Lock())
        task.signal("ready", 5)
        task.progress(1, 2)
        task.log("nearly there", "warning")
        task.on("cancel", raiser(AssertionError()))
        assert (task.cancelled, task.cancel_reason) == (False, "")
        assert capsys.readouterr() == ("", "warning: nearly there\n")

    def test_progress_at_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A person sees how far it is."""
        terminal = io.StringIO()
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", terminal)
        task = Task()
        task.progress(1, 2, "reading")
        task.progress(2)
        assert terminal.getvalue() == "1/2 reading\n2\n"

    def test_no_stderr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a stderr nothing is shown, and nothing fails."""
        monkeypatch.setattr(sys, "stderr", None)
        Task().log("unheard")

    def test_nobody_answers(self) -> None:
        """Whoever waits for a signal is told that none will come, instead of waiting for ever."""
        with pytest.raises(EndOfMessages, match="no Executor"):
            Task().received()

    def test_mistakes_are_mistakes(self) -> None:
        """What an Executor would refuse is refused without it."""
        task = Task()
        with pytest.raises(ValueError, match="level"):
            task.log("text", "loud")
        with pytest.raises(ValueError, match="reserved"):
            task.signal("cancel")
        with pytest.raises(TypeError):
            task.progress(None)  # type: ignore[arg-type]

    def test_no_run(self) -> None:
        """A Task that does not say what it does is told how to."""

        class Empty(Task):
            pass

        with pytest.raises(NotImplementedError, match=r"Empty has no run\(\); define it"):
            Empty().run()


class TestCurrentTask:
    """For functions, and for code that is far from the Task's own."""

    def test_in_a_task(self) -> None:
        """It is the Task that runs, in every thread of it, and nobody when it has ended."""
        with Running(find_current) as running:
            assert running.read().contents == "from afar"
            assert running.result() is True
        assert type(current_task()) is Task

    def test_in_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It is one that nobody hears."""
        current_task().report("unheard")
        current_task().log("heard")
        assert capsys.readouterr().err == "info: heard\n"
        assert current_task() is current_task()


def find_current() -> bool:
    """Report from another thread; is the Task the same one there?"""
    found: list[Task] = []

    def look() -> None:
        found.append(current_task())
        current_task().report("from afar")

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found == [current_task()]
