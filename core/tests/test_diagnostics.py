"""Logging, warnings and the exceptions of threads, each in an interpreter of its own: what is told, what untouched."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import attrs
import pytest

import tasklink

SOURCE = str(Path(tasklink.__file__).parent.parent)
HEAD = f"""
import sys
sys.path.append({SOURCE!r})
from tasklink import diagnostics, errors, vocabulary
said = []
refusals = []
def say(message):
    for refusal in refusals:
        raise refusal
    assert message.signal == vocabulary.LOG
    said.append(vocabulary.texts(message))
"""
INSTALL = """
diagnostics.install(say)
"""
TAIL = """
import json
print(json.dumps(said))
"""


@attrs.frozen
class Told:
    """What a program has said to the Executor, and what it has printed to stderr."""

    said: list[list[str]]
    stderr: str


def told(code: str, *, before: str = "") -> Told:
    """Run a program, some of it before the hooks are installed."""
    program = HEAD + dedent(before) + INSTALL + dedent(code) + TAIL
    done = subprocess.run([sys.executable, "-S", "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Told(json.loads(done.stdout), done.stderr)


class TestCost:
    """A Task that never logs pays nothing."""

    def test_nothing_is_imported(self) -> None:
        """The hooks bring in neither logging nor threading, nor what those would."""
        done = told("said.append(sorted(sys.modules))")
        assert not {"logging", "threading", "traceback", "re", "enum", "json", "string", "weakref"} & set(done.said[0])

    def test_the_hooks_go(self) -> None:
        """When both modules are there, imports are looked for as ever, and the modules look as ever."""
        done = told(
            """
            before = len(sys.meta_path)
            import logging, threading, inspect, importlib
            for module in logging, threading:
                said.append([type(module.__loader__).__name__, type(module.__spec__.loader).__name__])
                assert inspect.getsource(module)
                importlib.reload(module)
            assert len(sys.meta_path) == before - 1
            """
        )
        assert done.said == [["SourceFileLoader", "SourceFileLoader"]] * 2


class TestLogging:
    """What loggers say."""

    @pytest.mark.parametrize("before", ["", "import logging"], ids=["later", "before"])
    def test_levels_and_loggers(self, before: str) -> None:
        """A record is told with its level, its logger and its text, whenever logging was imported."""
        done = told(
            """
            import logging
            logging.getLogger().setLevel(1)
            logging.getLogger("lab.detector").warning("channel %d is hot", 7)
            for level in (5, 10, 19, 20, 29, 30, 40, 49, 50, 99):
                logging.getLogger().log(level, "at %d", level)
            """,
            before=before,
        )
        names = ["debug"] * 3 + ["info"] * 2 + ["warning"] + ["error"] * 2 + ["critical"] * 2
        texts = [f"at {level}" for level in (5, 10, 19, 20, 29, 30, 40, 49, 50, 99)]
        assert done.said == [
            ["warning", "lab.detector", "channel 7 is hot"],
            *[[name, "root", text] for name, text in zip(names, texts, strict=True)],
        ]
        assert not done.stderr

    @pytest.mark.parametrize("before", ["", "import logging"], ids=["later", "before"])
    def test_last_resort(self, before: str) -> None:
        """Without any handler, Python would print a warning: told is enough."""
        done = told("import logging; logging.getLogger('lab').warning('hot')", before=before)
        assert (done.said, done.stderr) == ([["warning", "lab", "hot"]], "")

    def test_basic_config(self) -> None:
        """It does what it always does, because the root logger has no handler of ours."""
        done = told(
            """
            import logging
            logging.basicConfig(level=logging.INFO, format="<%(levelname)s %(message)s>")
            assert len(logging.getLogger().handlers) == 1
            logging.info("calibrated")
            logging.debug("unheard")
            """
        )
        assert (done.said, done.stderr) == ([["info", "root", "calibrated"]], "<INFO calibrated>\n")

    def test_loggers_that_do_not_propagate(self) -> None:
        """They are told; and one that does is told once, though many handlers hear it."""
        done = told(
            """
            import logging
            alone = logging.getLogger("alone")
            alone.propagate = False
            alone.addHandler(logging.NullHandler())
            alone.error("I am alone")
            logging.basicConfig()
            logging.getLogger("a").addHandler(logging.StreamHandler())
            logging.getLogger("a.b.c").error("once")
            """
        )
        assert done.said == [["error", "alone", "I am alone"], ["error", "a.b.c", "once"]]
        assert done.stderr == "once\nERROR:a.b.c:once\n"

    def test_filters(self) -> None:
        """What a logger filters is not said; what a handler filters is only not shown by it."""
        done = told(
            """
            import logging
            handler = logging.StreamHandler()
            handler.addFilter(lambda record: "secret" not in record.getMessage())
            handler.setLevel("ERROR")
            logging.getLogger().addHandler(handler)
            logger = logging.getLogger("lab")
            logger.addFilter(lambda record: "never" not in record.getMessage())
            for text in ("shown", "secret", "never"):
                logger.error(text)
            logger.warning("low")
            logger.info("lower")
            """
        )
        assert [text for _, _, text in done.said] == ["shown", "secret", "low"]
        assert done.stderr == "shown\n"

    def test_exceptions_and_stacks(self) -> None:
        """Tracebacks and stacks belong to the text."""
        done = told(
            """
            import logging
            try:
                1 / 0
            except ZeroDivisionError:
                logging.exception("failed")
            logging.error("here", stack_info=True)
            logging.error("none", exc_info=True)
            """
        )
        failed, here, none = (text for _, _, text in done.said)
        assert failed.startswith("failed\nTraceback (most recent call last):\n")
        assert failed.endswith("ZeroDivisionError: division by zero")
        assert here.startswith("here\nStack (most recent call last):\n")
        assert none == "none\nNoneType: None"

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            ("logging.error('%d', 'x')", "'%d' (its arguments cannot be put in: TypeError)"),
            ("logging.error('%s %s', 1)", "'%s %s' (its arguments cannot be put in: TypeError)"),
            ("logging.error('%s', Odd())", "'%s' (its arguments cannot be put in: ZeroDivisionError)"),
        ],
    )
    def test_records_that_cannot_be_formatted(self, call: str, text: str) -> None:
        """Whoever logs does not fail for it, as with Python's own handlers."""
        done = told(
            f"""
            import logging
            class Odd:
                def __str__(self):
                    return str(1 // 0)
            {call}
            logging.basicConfig()
            {call}
            """
        )
        assert done.said == [["error", "root", text]] * 2
        assert "--- Logging error ---" in done.stderr

    def test_a_message_that_cannot_be_shown(self) -> None:
        """Not even that is a reason to fail."""
        done = told(
            """
            import logging
            class Odd:
                def __str__(self):
                    return str(1 // 0)
                __repr__ = __str__
            logging.getLogger().error(Odd())
            """
        )
        assert done.said == [["error", "root", "Odd (its arguments cannot be put in: ZeroDivisionError)"]]

    def test_a_logger_class_of_ones_own(self) -> None:
        """Libraries derive from Logger; theirs are told too."""
        done = told(
            """
            import logging
            class Library(logging.Logger):
                def trace(self, text):
                    self._log(5, text, ())
            logging.setLoggerClass(Library)
            logging.getLogger("lib").trace("deep")
            """
        )
        assert done.said == [["debug", "lib", "deep"]]

    def test_an_interpreter_in_a_zip(self, tmp_path: Path) -> None:
        """Some keep the standard library in a zip, whose one loader loads all of it."""
        with zipfile.ZipFile(tmp_path / "lib.zip", "w") as bundle:
            for file in Path(logging.__file__).parent.glob("*.py"):
                bundle.write(file, f"logging/{file.name}")
            bundle.writestr("other.py", "value = 5")
        done = told(
            f"""
            sys.path.insert(0, {str(tmp_path / "lib.zip")!r})
            import other, logging, logging.handlers
            import other
            del sys.modules["other"]
            import other
            assert ".zip" in logging.__file__
            assert type(logging.__loader__).__name__ == "zipimporter"
            logging.warning("from a zip")
            """
        )
        assert done.said == [["warning", "root", "from a zip"]]


class TestWarnings:
    """What `warnings.warn` says."""

    def test_told(self) -> None:
        """With its place and its category, and not printed as well; by the rules of the filters."""
        done = told(
            """
            import warnings
            for _ in range(3):
                warnings.warn("old format", stacklevel=1)
            warnings.warn("going", DeprecationWarning, stacklevel=1)
            warnings.simplefilter("ignore")
            warnings.warn("ignored", stacklevel=1)
            """
        )
        assert [level + logger for level, logger, _ in done.said] == ["warningwarnings"] * 2
        assert done.said[0][2].startswith("<string>:")
        assert [text.partition(": ")[2] for _, _, text in done.said] == [
            "UserWarning: old format", "DeprecationWarning: going",
        ]  # fmt: skip
        assert not done.stderr

    def test_whoever_catches_them(self) -> None:
        """`catch_warnings`, errors and `captureWarnings` work as ever."""
        done = told(
            """
            import warnings
            with warnings.catch_warnings(record=True) as caught:
                warnings.warn("caught", stacklevel=1)
            assert len(caught) == 1
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    warnings.warn("raised", stacklevel=1)
                except UserWarning:
                    said.append("raised")
            import logging
            logging.captureWarnings(True)
            warnings.warn("logged", stacklevel=1)
            logging.captureWarnings(False)
            warnings.warn("told", stacklevel=1)
            """
        )
        assert done.said[0] == "raised"
        assert [(logger, text.splitlines()[0][-6:]) for _, logger, text in done.said[1:]] == [
            ("py.warnings", "logged"),
            ("warnings", ": told"),
        ]

    def test_of_the_interpreter(self) -> None:
        """What C code warns of is told as well."""
        done = told("eval('1 is 1')")
        assert "SyntaxWarning" in done.said[0][2]


class TestThreads:
    """What ends a thread."""

    @pytest.mark.parametrize("before", ["", "import threading"], ids=["later", "before"])
    def test_exceptions(self, before: str) -> None:
        """They are told with the thread's name, and printed as ever."""
        done = told(
            """
            import threading
            def fail():
                raise ValueError("no beam")
            thread = threading.Thread(target=fail, name="helper")
            thread.start()
            thread.join()
            """,
            before=before,
        )
        ((level, logger, text),) = done.said
        assert (level, logger) == ("error", "threading")
        assert text.startswith("an exception ended the thread 'helper':\nTraceback")
        assert text.endswith("ValueError: no beam\n")
        assert "Exception in thread helper:" in done.stderr
        assert "ValueError: no beam" in done.stderr

    def test_exits(self) -> None:
        """A thread that ends itself has nothing to tell."""
        done = told(
            """
            import threading
            thread = threading.Thread(target=sys.exit)
            thread.start()
            thread.join()
            """
        )
        assert (done.said, done.stderr) == ([], "")

    def test_without_a_thread(self) -> None:
        """Who calls the hook by hand need not have one."""
        done = told(
            """
            import threading
            threading.excepthook(threading.ExceptHookArgs([ValueError, ValueError("x"), None, None]))
            """
        )
        assert done.said[0][2].startswith("an exception ended the thread '?'")


class TestNobodyListens:
    """A log that cannot be sent is no reason to fail."""

    @pytest.mark.parametrize(
        "error", ["BrokenError", "ForkedError", "BusyError", "ClosedError", "MessageTooLargeError"]
    )
    def test_stderr(self, error: str) -> None:
        """It goes where it would have gone without tasklink."""
        done = told(
            f"""
            refusals.append(errors.{error}("gone"))
            import logging, threading, warnings
            logging.getLogger().setLevel(0)
            logger = logging.getLogger("lab")
            logger.warning("hot")
            logger.info("unheard")
            logging.basicConfig()
            logger.warning("hotter")
            warnings.warn("old", stacklevel=1)
            thread = threading.Thread(target=lambda: 1 // 0)
            thread.start()
            thread.join()
            """
        )
        assert done.said == []
        lines = done.stderr.splitlines()
        assert lines[:2] == ["hot", "WARNING:lab:hotter"]
        assert lines[2].endswith(": UserWarning: old")
        assert done.stderr.count("Exception in thread") == done.stderr.count("Traceback") == 1

    def test_no_stderr(self) -> None:
        """Without one, it vanishes."""
        done = told(
            """
            refusals.append(errors.BrokenError("gone"))
            import logging, warnings
            sys.stderr = None
            logging.getLogger("lab").warning("hot")
            warnings.warn("old", stacklevel=1)
            """
        )
        assert (done.said, done.stderr) == ([], "")

    def test_the_end_of_the_task(self) -> None:
        """The exception that ends a Task passes through a log."""
        done = told(
            """
            refusals.append(errors.TaskInterrupt())
            import logging
            try:
                logging.warning("hot")
            except errors.TaskInterrupt:
                said.append("interrupted")
            """
        )
        assert done.said == ["interrupted"]
