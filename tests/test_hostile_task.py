"""A Task that says what no Task says: the run has a named outcome, and the Executor's loop goes on.

What a pickle does when it is decoded is not in question here: with the default codec, a Task is trusted that much.
"""

import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from tasklink import Executor, Status, TaskSpec, codec, hookimpl
from tasklink.errors import DecodeError, ProtocolError, TaskCrashedError

TASKS = Path(__file__).parent / "tasks"


class Heard:
    """An observer that keeps what it was told."""

    def __init__(self):
        self.logs, self.progress, self.broken = [], [], []
        self.tell = lambda: None

    @hookimpl
    def tasklink_log(self, level, logger, text):
        """Keep it."""
        self.logs.append((level, logger, text))

    @hookimpl
    def tasklink_progress(self, done, total, note):
        """Keep it."""
        self.progress.append((done, total, note))

    @hookimpl
    def tasklink_communicator_broken(self, communicator, error):
        """Keep it."""
        self.broken.append((communicator, error))
        self.tell()


def run(name, *, communicators=("unix",), **spec):
    """Run a hostile Task; its result, and what was told."""
    heard = Heard()
    with Executor(list(communicators), observers=[heard], grace=0.1) as executor:
        result = executor.run(TaskSpec(run=f"hostile_tasks:{name}", timeout=30, **spec))
    assert result.error is None or str(result.error)
    assert not psutil.pid_exists(result.pid)
    return result, heard


@pytest.fixture
def impostor(tmp_path):
    """An interpreter whose Tasks are served by another worker than ours."""
    path = tmp_path / "python"
    path.write_text(
        textwrap.dedent(
            f"""\
            #!{sys.executable}
            import sys
            sys.path.insert(0, {str(TASKS)!r})
            sys.path.append({str(Path(codec.__file__).parent.parent)!r})
            import hostile_tasks
            hostile_tasks.become_a_task(sys.argv[2])
            """
        )
    )
    path.chmod(0o755)

    def run_impostor(what, **more):
        return run("never_run", python=path, env={"HOSTILE": what}, **more)

    return run_impostor


class TestOddities:
    """What is odd, and no reason to end anything."""

    @pytest.mark.parametrize(
        "name",
        [
            "odd_logs", "odd_progress", "words_of_the_executor", "odd_contents", "unnumbered", "the_same_again",
            "numbers_that_jump", "waits_for_what_never_comes",
        ],
    )  # fmt: skip
    def test_the_run_goes_on(self, protocol, name):
        """Over every protocol, the Task gives its result."""
        result, heard = run(name, communicators=protocol)
        assert (result.status, result.value, result.exit_code) == (Status.COMPLETED, "done", 0)
        assert heard.broken == []

    def test_logs(self):
        """Absent texts are empty, and a level that is none is taken for a warning."""
        _, heard = run("odd_logs")
        assert heard.logs[0] == ("warning", "", "")
        assert heard.logs[1] == ("info", "", "")
        assert heard.logs[2] == ("warning", "\\xff\\xfe", "caf\\xe9 \\xed\\xb2\\x80 \x1b[31m")
        assert heard.logs[3] == ("warning", "x", "x")
        assert len(heard.logs[4][2]) == 3_000_000

    def test_progress(self):
        """What is no number, or none that a bar could show, is told as a warning of bounded length."""
        _, heard = run("odd_progress")
        assert heard.progress == [(1.0, None, "note"), (1.0, 2.0, "sound")]
        assert len(heard.logs) == 19
        assert all(level == "warning" and len(text) < 200 for level, _, text in heard.logs)

    def test_contents(self):
        """Contents that cannot be read are messages that say so."""
        result, _ = run("odd_contents")
        for message in result.messages[:4]:
            with pytest.raises(DecodeError):
                _ = message.contents
        assert result.messages[4].contents == (b"",) * 65_536

    def test_words_of_the_executor(self):
        """They mean nothing from a Task; nor are they shown as messages of its."""
        result, heard = run("words_of_the_executor")
        assert (result.messages, heard.logs) == ((), [])

    def test_numbers(self):
        """Each number counts once, and what is missing is named, however much it is."""
        result, _ = run("the_same_again")
        assert (result.messages, result.lost) == ((), 0)
        result, _ = run("unnumbered")
        assert (len(result.messages), result.lost) == (1000, 0)
        result, _ = run("without_the_last_word", parameters={"what": "numbers_that_jump"})
        assert [message.signal for message in result.messages] == ["farthest", "near"]
        assert 2**64 - 1000 < result.lost < 2**64
        assert result.missing[-1] == range(1001, 2**64 - 1)
        result, _ = run("without_the_last_word", parameters={"what": "waits_for_what_never_comes"})
        assert len(result.messages) == 1000
        assert 9_900 < result.lost < 10_000


class TestReceipts:
    """The first receipt counts."""

    @pytest.mark.parametrize(
        ("name", "status", "value", "words"),
        [
            ("two_results", Status.COMPLETED, b"first", None),
            ("result_and_failure", Status.COMPLETED, b"first", None),
            ("failure_and_result", Status.FAILED, None, "failure_and_result raised ValueError: first"),
            ("bare_failure", Status.FAILED, None, r"raised \xff: "),
            ("failure_that_explodes", Status.FAILED, None, "raised ValueError: bang"),
            ("the_number_of_the_result", Status.NO_RESULT, None, "without giving a result"),
            ("result_of_an_unknown_codec", Status.FAILED, None, "codec 99 is not known here"),
        ],
    )
    def test_receipt(self, name, status, value, words):
        """What follows it changes nothing; what is not in it is left out."""
        result, _ = run(name)
        assert (result.status, result.value) == (status, value)
        assert words is None or words in str(result.error)

    @pytest.mark.parametrize(
        ("what", "status", "words"),
        [
            ("result before start", Status.COMPLETED, None),
            ("leaves", Status.NO_RESULT, "without giving a result"),
            ("without a hello", Status.NOT_STARTED, "before it could talk"),
        ],
    )
    def test_before_the_start(self, impostor, what, status, words):
        """A process that does not wait to be asked has the outcome that it gives itself, or none."""
        result, heard = impostor(what)
        assert result.status is status
        assert words is None or words in str(result.error)
        assert heard.broken == []

    def test_a_hello_that_names_nobody(self, impostor):
        """A Task that calls its communicators something else is spoken to all the same."""
        result, _ = impostor("other names", communicators=["unix", "pipe"])
        assert (result.status, result.value) == (Status.COMPLETED, "tasklink.start")


class TestBrokenChannels:
    """What makes the rest of a channel worthless ends the Task, and is named."""

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("after_in_the_future", "message 100 says that it comes after message 9223372036854775808"),
            ("another_rank", "the peer of rank 0 sent a message of rank 7"),
            ("noise", "a frame begins with b'TL'; here is b'GE'"),
            ("another_version", "the peer speaks wire version 9"),
            ("signal_that_is_no_text", "the name of a signal is not UTF-8"),
        ],
    )
    @pytest.mark.parametrize("communicator", ["unix", "pipe"])
    def test_the_only_one(self, name, words, communicator):
        """The Task, which cannot be heard any more, is ended at once."""
        result, heard = run(name, communicators=[communicator])
        assert result.status is Status.CRASHED
        assert isinstance(result.error, TaskCrashedError)
        assert isinstance(result.error.__cause__, ProtocolError)
        assert f"communicator {communicator!r} broke, and no other is left: " in str(result.error)
        assert words in str(result.error)
        assert [(name, type(error)) for name, error in heard.broken] == [(communicator, ProtocolError)]
        assert result.duration < 10

    def test_what_came_before(self):
        """What was said before is there."""
        result, _ = run("after_in_the_future")
        assert [message.signal for message in result.messages] == ["first"]

    def test_one_of_two(self):
        """Another channel serves on: the Task is heard and ended over it."""
        broken = threading.Event()
        heard = Heard()
        heard.tell = broken.set
        with Executor(["unix", "pipe"], observers=[heard], grace=20) as executor:
            future = executor.submit("hostile_tasks:noise_beside_a_sound_channel")
            assert broken.wait(30)
            future.cancel("enough")
            result = future.result()
        assert (result.status, result.value) == (Status.CANCELLED, "enough")
        assert [message.contents for message in result.messages] == ["still here"]
        assert [name for name, _ in heard.broken] == ["unix"]

    def test_one_that_is_deaf(self, impostor):
        """A Task that hears neither the end of its channel nor SIGTERM is killed, without a time limit of its own."""
        result, _ = impostor("noise")
        assert (result.status, result.signal_name) == (Status.CRASHED, "SIGKILL")
        assert "a frame begins with b'TL'; here is b'no'" in str(result.error)
        assert result.duration < 10

    def test_a_claim(self):
        """A length that nothing follows costs no memory, and the end of the Task is told with it."""
        before = psutil.Process().memory_info().rss
        result, heard = run("a_length_of_a_thousand_terabytes")
        assert psutil.Process().memory_info().rss - before < 64 << 20
        assert result.status in {Status.NO_RESULT, Status.CRASHED}
        assert "communicator 'unix' broke" in str(result.error)
        assert len(heard.broken) == 1


class TestDataOnly:
    """With codec json, no code of the Task's runs in the Executor."""

    @pytest.mark.parametrize("name", ["pickled_result", "pickled_report", "pickled_failure"])
    def test_pickles(self, tmp_path, name):
        """A pickle that comes all the same is not decoded, whatever it is said to be."""
        marker = tmp_path / "marker"
        spec = TaskSpec(run=f"hostile_tasks:{name}", codec="json", parameters={"marker": str(marker)})
        with Executor(["unix"]) as executor:
            result = executor.run(spec)
        for message in result.messages:
            with pytest.raises(DecodeError, match="data only"):
                _ = message.contents
        assert not marker.exists()
        assert (result.status is Status.COMPLETED) == (name == "pickled_report")
