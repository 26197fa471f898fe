"""A Task runs end to end: what it may be, what comes back, and how it ends."""

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import sample_tasks

from tasklink import Executor, Status, TaskSpec, hookimpl, supervision
from tasklink.errors import (
    ClosedError,
    ConfigError,
    DecodeError,
    EncodeError,
    NoResultError,
    SignalNotDeliveredError,
    TaskCancelledError,
    TaskCrashedError,
    TaskFailedError,
    TaskNotStartedError,
    TaskTimedOutError,
)


def wait_for(future, name):
    """Follow a future's messages up to a signal; the rest can be followed on."""
    messages = future.messages()
    for message in messages:
        if message.signal == name:
            return messages
    raise AssertionError(f"the run ended without {name!r}: {future.result()}")


class TestWhatATaskMayBe:
    """Everything that `run` takes."""

    def test_function(self, executor):
        """A plain function returns its value."""
        assert executor.run(sample_tasks.add, a=2, b=3).value_or_raise() == 5

    def test_name(self, executor):
        """A name of module and attribute is imported in the Task's process."""
        result = executor.run("sample_tasks:report_and_print")
        assert result.value == result.pid != os.getpid()
        assert [message.contents for message in result.messages] == ["from a function"]
        assert (result.stdout, result.stderr) == (b"printed\n", b"complained\n")

    def test_dotted_attribute(self, executor):
        """The attribute may be that of an attribute."""
        assert executor.run("os:path.basename", p="/a/b").value == "b"

    def test_lambda(self, executor):
        """A function without a name that could be imported travels by value."""
        offset = 10
        assert executor.run(lambda number: number + offset, number=1).value == 11

    def test_command(self, executor):
        """A command gets its parameters where its placeholders are, and has completed when it exits with 0."""
        result = executor.run(["printf", "%s-%s", "{word}", "{print}"], word="peak")
        assert (result.status, result.stdout, result.value) == (Status.COMPLETED, b"peak-{print}", None)

    def test_command_that_fails(self, executor):
        """A command's exit code other than 0 is a failure that shows the end of its stderr."""
        result = executor.run(["sh", "-c", "echo no such run >&2; exit 3"])
        assert (result.status, result.exit_code) == (Status.FAILED, 3)
        with pytest.raises(TaskFailedError, match=r"exited with code 3(.|\n)*no such run"):
            result.value_or_raise()

    def test_instance(self, executor):
        """An instance is refused with the words that help."""
        with pytest.raises(TypeError, match="give the class Echo itself"):
            executor.run(sample_tasks.Echo())

    def test_unknown_name(self, executor):
        """A name that the config does not have is refused."""
        with pytest.raises(ConfigError, match="count"):
            executor.run("count")

    def test_from_config(self, tmp_path, protocol):
        """A config names the task, its parameters and its module beside it."""
        (tmp_path / "mylab.py").write_text("def peaks(threshold, names):\n    return [threshold, names]\n")
        (tmp_path / "run.toml").write_text(
            f"""
            [tasks.count]
            run = "mylab:peaks"
            communicators = {json.dumps(protocol)}
            timeout = "10 s"
            [tasks.count.parameters]
            threshold = 4.5
            names = ["a", "b"]
            """
        )
        with Executor.from_config(tmp_path / "run.toml") as executor:
            result = executor.run("count", threshold=5.0)
        assert result.value == [5.0, ["a", "b"]]
        assert result.name == "count"
        assert set(protocol) <= set(result.communicators)

    def test_environment_and_folder(self, executor, tmp_path):
        """Each Task has its own variables and folder."""
        spec = TaskSpec(run="os:getenv", env={"LAB_RUN": "17"}, cwd=tmp_path)
        assert executor.run(spec, key="LAB_RUN").value == "17"
        assert executor.run(TaskSpec(run="os:getcwd", cwd=tmp_path)).value == str(tmp_path)

    def test_parameters_of_any_size(self, executor):
        """Parameters may be large: they do not have to fit any buffer."""
        values = bytes(50_000_000)
        assert executor.run(sample_tasks.add, a=values, b=b"!").value == values + b"!"

    def test_json_codec(self, executor):
        """With the data-only codec, plain data travels both ways; anything else is refused by name."""
        spec = TaskSpec(run=sample_tasks.add, codec="json")
        assert executor.run(spec, a=[1], b=[{"x": None}]).value == [1, {"x": None}]
        with pytest.raises(EncodeError, match="complex"):
            executor.run(spec, a=1j, b=2)


class TestHowItEnds:
    """The status follows from evidence, and says why."""

    def test_exception(self, executor):
        """An exception arrives itself, with its cause and the Task's traceback."""
        result = executor.run("sample_tasks:chain_of_errors")
        assert result.status is Status.FAILED
        error = result.error
        assert isinstance(error, TaskFailedError)
        assert isinstance(error.exception, ValueError)
        assert isinstance(error.exception.__cause__, KeyError)
        assert 'raise ValueError("the table has no peaks") from error' in error.traceback
        assert "the table has no peaks" in str(error)
        assert error.result is result

    def test_exception_that_cannot_travel(self, executor):
        """An exception that cannot be rebuilt here is told as text."""
        result = executor.run("sample_tasks:odd_error")
        assert result.status is Status.FAILED
        assert "OddError: 1 and 2" in str(result.error)
        assert result.error.exception is None

    def test_result_that_cannot_be_sent(self, executor):
        """A result that no codec expresses fails the run with the type's name."""
        result = executor.run("sample_tasks:return_a_lock")
        assert result.status is Status.FAILED
        assert "lock" in str(result.error)

    def test_result_that_cannot_be_read(self, executor, protocol, tmp_path):
        """A result of a class that is missing here fails the run, and says what is missing."""
        (tmp_path / "only_there.py").write_text("class Thing: pass\ndef make(): return Thing()\n")
        # pyzmq is where this environment has its packages; every other communicator needs none of them.
        packages = [folder for folder in sys.path if "zmq" in protocol and folder.endswith("site-packages")]
        path = os.pathsep.join([str(tmp_path), *packages])
        spec = TaskSpec(run="only_there:make", env={"PYTHONPATH": path}, python=Path(sys.executable).resolve())
        result = executor.run(spec)
        assert result.status is Status.FAILED
        assert isinstance(result.error.exception, DecodeError)
        assert "only_there" in str(result.error)

    def test_lambda_result(self, executor):
        """A function as a result is called here."""
        assert executor.run("sample_tasks:return_a_lambda").value(1) == 2

    @pytest.mark.parametrize(
        ("how", "status", "error", "code"),
        [
            ("return", Status.COMPLETED, None, 0),
            ("sys.exit", Status.NO_RESULT, NoResultError, 0),
            ("sys.exit(3)", Status.FAILED, TaskFailedError, 3),
            ("os._exit", Status.NO_RESULT, NoResultError, 0),
            ("os._exit(5)", Status.CRASHED, TaskCrashedError, 5),
            ("kill", Status.CRASHED, TaskCrashedError, None),
            ("segfault", Status.CRASHED, TaskCrashedError, None),
        ],
    )
    def test_end(self, executor, accepted_is_delivered, how, status, error, code):  # noqa: PLR0917 - a row of a table
        """However a Task ends, what it reported before is there, and the status says how."""
        result = executor.run("sample_tasks:end_by", how=how)
        assert (result.status, result.exit_code) == (status, code)
        numbers = [message.contents[0] for message in result.messages]
        in_good_order = how in {"return", "sys.exit", "sys.exit(3)"}
        assert numbers == ([0, 1, 2] if in_good_order or accepted_is_delivered else [0, 1, 2][: len(numbers)])
        assert result.lost == 0
        if error is not None:
            with pytest.raises(error, match="end_by"):
                result.value_or_raise()

    @pytest.mark.parametrize("runs", [1, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
    @pytest.mark.parametrize("how", ["sys.exit", "os._exit"])
    def test_no_result_is_no_success(self, executor, record_property, how, runs):
        """F05: to exit with 0 and without a result is an outcome of its own, each time."""
        for _ in range(runs):
            result = executor.run("sample_tasks:end_by", how=how, count=0)
            assert (result.status, result.exit_code) == (Status.NO_RESULT, 0)
        record_property("runs", runs)

    def test_crash_names_signal_and_last_lines(self, executor, accepted_is_delivered):
        """A crash names its signal, and Python's own account of it."""
        result = executor.run("sample_tasks:end_by", how="segfault")
        assert result.signal_name == "SIGSEGV"
        assert "SIGSEGV" in str(result.error)
        assert "after 3 messages" in str(result.error) or not accepted_is_delivered
        assert b"end_by" in result.stderr  # faulthandler's stack

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            (TaskSpec(run="no_such_module:run"), "no_such_module"),
            (TaskSpec(run="os:no_such_function"), "no_such_function"),
            (TaskSpec(run="os:sep"), "of type str"),
            (TaskSpec(run="math:pi", python=Path("/no/such/python")), "/no/such/python"),
            (TaskSpec(command=("no-such-program",)), "no-such-program"),
            (TaskSpec(command=("true",), cwd=Path("/no/such/folder")), "/no/such/folder"),
            (TaskSpec(run="os:getcwd", python=Path("/bin/true")), "before it could talk"),
        ],
    )
    def test_not_started(self, executor, spec, words):
        """What cannot begin says what is missing."""
        result = executor.run(spec)
        assert result.status is Status.NOT_STARTED
        with pytest.raises(TaskNotStartedError, match=words):
            result.value_or_raise()

    def test_never_speaks(self, executor, record_property, tmp_path, monkeypatch):
        """F06: a process that says nothing is ended when its time to begin is up."""
        monkeypatch.setattr(supervision, "START_SECONDS", 0.3)
        mute = tmp_path / "python"
        mute.write_text("#!/bin/sh\nexec sleep 60\n")
        mute.chmod(0o755)
        result = executor.run(TaskSpec(run="os:getpid", python=mute, grace=0.1))
        assert (result.status, result.signal_name) == (Status.NOT_STARTED, "SIGTERM")
        record_property("seen", f"{1e3 * (result.duration - 0.3):.1f} ms after that time")
        with pytest.raises(TaskNotStartedError, match=r"its process did not speak within 0\.3 s"):
            result.value_or_raise()

    def test_wrong_parameters(self, executor):
        """A parameter that the function does not take is told as Python tells it."""
        result = executor.run(sample_tasks.add, a=1)
        assert result.status is Status.FAILED
        assert "missing 1 required positional argument: 'b'" in str(result.error)

    def test_timeout(self, protocol):
        """A Task that takes too long is ended, and says that it was."""
        with Executor(protocol, timeout="1 s", grace=0.1) as executor:  # by then it is deaf
            result = executor.run(sample_tasks.Deaf)
        assert (result.status, result.signal_name) == (Status.TIMED_OUT, "SIGKILL")
        with pytest.raises(TaskTimedOutError, match=r"its time of 1 s was up"):
            result.value_or_raise()

    def test_unsendable_parameters(self, executor):
        """Parameters that cannot be sent are refused before anything starts."""
        with pytest.raises(EncodeError, match="lock"):
            executor.run(sample_tasks.add, a=threading.Lock(), b=1)

    def test_closed_executor(self, protocol):
        """A closed Executor says so."""
        executor = Executor(protocol)
        executor.close()
        with pytest.raises(ClosedError):
            executor.run(sample_tasks.add, a=1, b=2)

    def test_late_thread(self, executor):
        """What a Task's own thread reports after the return belongs to the run."""
        result = executor.run("sample_tasks:late_thread")
        assert result.value == "returned"
        assert [message.contents for message in result.messages] == ["late"]

    def test_descriptors_closed_under_us(self, executor, protocol):
        """A Task that closes all descriptors does not hang, and has no result but where none is needed to send it."""
        result = executor.run(TaskSpec(run="sample_tasks:close_everything", timeout=20))
        needs_none = protocol == ["shm"]  # memory stays mapped
        assert result.status in {Status.COMPLETED if needs_none else Status.NO_RESULT, Status.CRASHED}


class TestSpeakingAndHearing:
    """Messages, logs, progress and signals."""

    def test_signals_both_ways(self, protocol):
        """A Task answers what it is sent, in order."""
        with Executor(protocol) as executor:
            future = executor.submit(sample_tasks.Echo)
            wait_for(future, "ready")
            for number in range(100):
                future.signal("number", number)
            future.signal("stop")
            result = future.result()
        assert result.value == 100
        numbers = [message.contents for message in result.messages if message.signal == "number"]
        assert numbers == list(range(100))

    def test_signal_before_start(self, protocol):
        """A signal waits for the Task to start."""
        with Executor(protocol) as executor:
            future = executor.submit(sample_tasks.Echo)
            future.signal("stop")
            assert future.result().value == 0

    def test_signal_after_end(self, protocol):
        """A signal after the end is refused, not lost in silence."""
        with Executor(protocol) as executor:
            future = executor.submit(sample_tasks.add, a=1, b=1)
            future.result()
            with pytest.raises(SignalNotDeliveredError, match="has ended"):
                future.signal("stop")

    def test_reserved_signal(self, protocol):
        """Names with a meaning of their own are refused."""
        with Executor(protocol) as executor:
            future = executor.submit(sample_tasks.add, a=1, b=1)
            with pytest.raises(ValueError, match="reserved"):
                future.signal("cancel")

    def test_python_itself_speaks(self, protocol):
        """Logging, warnings and exceptions of threads arrive as log messages; basicConfig works as ever."""
        logs = []

        class Logs:
            @hookimpl
            def tasklink_log(self, level, logger, text):
                logs.append((level, logger, text.splitlines()[0]))

        with Executor(protocol, observers=[Logs()]) as executor:
            result = executor.run("sample_tasks:speak_in_every_way")
        assert ("warning", "lab.detector", "channel 7 is hot") in logs
        assert ("info", "root", "calibrated") in logs
        assert any(logger == "warnings" and "UserWarning: old format" in text for _, logger, text in logs)
        assert ("error", "threading", "an exception ended the thread 'helper':") in logs
        assert b"INFO:root:calibrated" in result.stderr

    @pytest.mark.parametrize(("threads", "count"), [(8, 200), pytest.param(16, 1000, marks=pytest.mark.soak)])
    def test_threads(self, executor, record_property, threads, count):
        """F32: many threads report at once: everything arrives, each thread's in its order."""
        result = executor.run("sample_tasks:message_from_thread", threads=threads, count=count)
        by_thread = {}
        for message in result.messages:
            name, number = message.contents
            by_thread.setdefault(name, []).append(number)
        assert by_thread == {name: list(range(count)) for name in range(threads)}
        assert result.lost == 0
        record_property("runs", threads * count)

    @pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.soak)])
    def test_writers_of_every_kind(self, executor, record_property, count):
        """F32: threads, finalizers and a signal handler report in the midst of each other: all that was accepted came.

        What interrupts a report of its own thread is sent, or refused; it waits for nothing.
        """
        result = executor.run(TaskSpec(run="sample_tasks:message_from_everywhere", timeout=50), count=count)
        accepted, refused = result.value_or_raise()
        came = {kind: [] for kind in accepted}
        for message in result.messages:
            kind, number = message.contents
            came[kind].append(number)
        assert {kind: len(numbers) for kind, numbers in came.items()} == accepted
        assert all(len(set(numbers)) == len(numbers) for numbers in came.values())
        assert accepted["thread"] == 5 * count
        assert accepted["finalizer"] + accepted["handler"] + refused > 4 * count
        assert result.lost == 0
        record_property("runs", sum(accepted.values()) + refused)

    @pytest.mark.parametrize("runs", [1, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
    def test_fork(self, executor, record_property, runs):
        """F33: a fork of the Task is told that it may not speak; its parent goes on."""
        for _ in range(runs):
            result = executor.run("sample_tasks:fork_and_report")
            assert result.value == "ForkedError"
            assert [message.contents for message in result.messages] == ["from the parent"]
        record_property("runs", runs)

    def test_programs_inherit_nothing(self, executor):
        """F34: a program that is run, as a Task or by one, has none of our descriptors."""
        # 3 is the folder that ls itself reads.
        assert executor.run("sample_tasks:open_descriptors_of_a_program").value == ["0", "1", "2", "3"]
        assert executor.run(["ls", "/proc/self/fd"]).stdout.split() == [b"0", b"1", b"2", b"3"]

    def test_handler_that_raises(self, protocol):
        """A handler that raises is told to the log, and the Task hears on."""
        with Executor(protocol) as executor:
            future = executor.submit("sample_tasks:handler_that_raises")
            wait_for(future, "ready")
            future.signal("poke")
            future.signal("done", 42)
            assert future.result().value == 42

    def test_handler_set_late(self, protocol):
        """A handler that is set after the signals came gets them all the same."""
        with Executor(protocol) as executor:
            future = executor.submit("sample_tasks:listen_late")
            for name, contents in (("early", 1), ("other", None), ("early", 2), ("last", None)):
                future.signal(name, contents)
            assert future.result().value == ([1, 2], "other")

    def test_keep_messages(self, executor):
        """Messages are not kept when that is not wanted."""
        result = executor.run(TaskSpec(run="sample_tasks:MixedTalk", keep_messages=False))
        assert (result.status, result.messages) == (Status.COMPLETED, ())


class TestEndingAndPausing:
    """Cancel, pause, resume."""

    def test_cancel_with_reason(self, protocol):
        """A Task that looks at `cancelled` ends in good order, and what it returns is there."""
        with Executor(protocol) as executor:
            future = executor.submit(sample_tasks.Patient)
            wait_for(future, "ready")
            assert future.cancel("beam dump")
            result = future.result()
        assert (result.status, result.value, result.exit_code) == (Status.CANCELLED, "beam dump", 0)
        with pytest.raises(TaskCancelledError, match="was cancelled: beam dump"):
            result.value_or_raise()

    def test_cancel_before_it_listens(self, protocol):
        """F15: a Task that is cancelled in the moment of its start is asked as soon as it can hear."""
        starts = queue.SimpleQueue()

        class Starts:
            @hookimpl
            def tasklink_task_started(self, task):
                starts.put(future.cancel("changed our mind"))

        with Executor(protocol, grace=20, observers=[Starts()]) as executor:
            future = executor.submit(sample_tasks.Patient)
            result = future.result()
        assert starts.get()
        assert (result.status, result.value, result.exit_code) == (Status.CANCELLED, "changed our mind", 0)

    @pytest.mark.timed
    def test_cancel_a_stopped_task(self, protocol, record_property):
        """F14: a Task that is stopped and deaf is continued, asked, told and killed in its time, and called stopped."""
        with Executor(protocol, grace=0.1) as executor:
            future = executor.submit(sample_tasks.Deaf)
            wait_for(future, "ready")
            pid = future._run._reception.info.pid
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
            future.cancel("enough")
            begin = time.monotonic()
            result = future.result()
            elapsed = time.monotonic() - begin
        assert (result.status, result.signal_name) == (Status.CANCELLED, "SIGKILL")
        assert "was cancelled: enough; its process was stopped then" in str(result.error)
        assert 0.2 < elapsed < 0.4
        record_property("seen", f"{1e3 * elapsed - 200:.0f} ms more than two graces")

    def test_cancel_by_sigterm(self, protocol, tmp_path):
        """A Task that does not look is terminated by an exception, so that it cleans up."""
        marker = tmp_path / "marker"
        with Executor(protocol, grace=0.5) as executor:
            future = executor.submit(sample_tasks.Stubborn, marker=str(marker))
            wait_for(future, "ready")
            future.cancel()
            result = future.result()
        assert (result.status, result.exit_code) == (Status.CANCELLED, 0)
        assert marker.read_text() == "cleaned up"

    def test_cancel_by_sigkill(self, protocol):
        """A Task that ignores everything is killed."""
        with Executor(protocol, grace=0.1) as executor:
            future = executor.submit(sample_tasks.Deaf)
            wait_for(future, "ready")
            future.cancel()
            result = future.result()
        assert (result.status, result.signal_name) == (Status.CANCELLED, "SIGKILL")

    def test_cancel_a_command(self, protocol):
        """A command is terminated."""
        with Executor(protocol) as executor:
            future = executor.submit(["sleep", "60"])
            future.cancel("enough")
            assert future.result().status is Status.CANCELLED

    def test_close_waits_for_those_that_wait(self, protocol):
        """What was submitted is run, also what has not had its turn when the Executor is closed."""
        with Executor(protocol, parallel=1) as executor:
            futures = [executor.submit(sample_tasks.add, a=number, b=1) for number in range(3)]
        assert [future.result(timeout=0).value for future in futures] == [1, 2, 3]

    def test_cancel_before_start(self, protocol):
        """A Task that waits for its turn never starts."""
        with Executor(protocol, parallel=1) as executor:
            first = executor.submit(sample_tasks.Patient)
            second = executor.submit(sample_tasks.add, a=1, b=1)
            second.cancel("not needed")
            wait_for(first, "ready")
            first.cancel()
            result = second.result()
        assert (result.status, result.pid) == (Status.CANCELLED, None)
        assert not second.cancel()

    def test_pause_cooperative(self, protocol):
        """A Task that speaks rests at its next word, and goes on when it is resumed."""
        with Executor(protocol, grace=20) as executor:
            future = executor.submit("sample_tasks:rest_while_paused")
            messages = wait_for(future, "ready")
            next(messages)
            future.pause()
            before = _settled(future)
            future.resume()
            for message in messages:
                if message.contents == before + 20:
                    break
            future.cancel()
            assert future.result().value > before + 20

    def test_handlers_may_speak_while_paused(self, protocol):
        """A handler is not held up by the pause: it runs where the end of the pause is heard."""
        with Executor(protocol, grace=20) as executor:
            future = executor.submit("sample_tasks:report_from_a_handler_while_paused")
            messages = wait_for(future, "ready")
            future.pause()
            assert next(messages).contents == "pausing"
            future.resume()
            future.cancel()
            assert future.result().status is Status.CANCELLED

    def test_pause_a_command(self, protocol, tmp_path):
        """A command is stopped by the system, and continued."""
        with Executor(protocol) as executor:
            future = executor.submit(["sh", "-c", "echo up; sleep 0.2; echo done"])
            future.messages()
            future.pause()
            future.resume()
            assert future.result().stdout == b"up\ndone\n"

    def test_exception_in_with(self, protocol):
        """Leaving the with statement by an exception ends what was submitted."""
        with pytest.raises(ZeroDivisionError), Executor(protocol, grace=0.1) as executor:
            future = executor.submit(sample_tasks.Deaf)
            wait_for(future, "ready")
            raise ZeroDivisionError
        assert future.result(timeout=1).status is Status.CANCELLED


def _settled(future):
    """Wait until a paused Task has said its last word; give its number."""
    run = future._run
    deadline = threading.Event()
    previous = -1
    while True:
        deadline.wait(0.1)
        reports = [message.contents for message in run._reception.inbox.messages if message.signal is None]
        if reports and reports[-1] == previous:
            return previous
        previous = reports[-1] if reports else -1


class TestWithoutExecutor:
    """A Task runs by hand."""

    def test_by_hand(self, capsys):
        """Logs go to stderr, the rest vanishes."""
        value = sample_tasks.MixedTalk().run(count=2)
        assert value["count"] == 2
        assert capsys.readouterr().err == "warning: nearly there\n"

    def test_current_task(self):
        """A function that asks for its Task gets one that nobody hears."""
        sample_tasks.current_task().report("unheard")
        assert not sample_tasks.current_task().cancelled
