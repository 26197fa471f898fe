"""The terminals by themselves: how they are set, what comes through them to the byte, and what the system refuses."""

from __future__ import annotations

import errno
import os
import resource
import select
import subprocess
import termios
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklink import vocabulary
from tasklink.errors import ClosedError, CommunicatorError, ConfigError, EndOfMessages
from tasklink.message import Message
from tasklink.registry import Registry
from tasklink_pty import PtyCommunicator
from tasklink_pty.settings import PtySettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasklink.communicator import Listener

OUT, ERR = vocabulary.STDOUT, vocabulary.STDERR
PATIENCE = 20

# More than any terminal holds that nobody reads.
FLOOD = 1 << 20


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


@contextmanager
def opened(**values: Any) -> Iterator[tuple[PtyCommunicator, dict[int, int]]]:
    """What reads the terminals, and the ends of a program that prints, by their numbers there."""
    with PtyCommunicator.listen(PtySettings(**values)) as listener:
        ends = {number: os.dup(descriptor) for number, descriptor in listener.standard_descriptors.items()}
        communicator = listener.accept()
    assert isinstance(communicator, PtyCommunicator)
    with communicator:
        try:
            yield communicator, ends
        finally:
            for end in ends.values():
                os.close(end)


def take(communicator: PtyCommunicator, timeout: float = 0) -> dict[str | None, bytes]:
    """What has come by now, by signal."""
    found: dict[str | None, bytes] = {}
    try:
        while True:
            message = communicator.read(timeout)
            assert message.buffers is not None
            found[message.signal] = found.get(message.signal, b"") + bytes(message.buffers[0])
    except (TimeoutError, EndOfMessages):
        return found


class TestModes:
    """What the Task finds at its end."""

    def test_two_terminals(self) -> None:
        """Output and error are terminals, of the size that is set, and not the same one; input is not of them."""
        with opened(rows=50, columns=132) as (_, ends):
            assert set(ends) == {1, 2}
            assert [os.get_terminal_size(end) for end in ends.values()] == [(132, 50)] * 2
            assert os.ttyname(ends[1]) != os.ttyname(ends[2])

    def test_one_terminal(self) -> None:
        """Together, they are one; and all of it is output, in its order."""
        with opened(stderr="together", stdin="terminal") as (communicator, ends):
            assert len({os.ttyname(ends[number]) for number in (0, 1, 2)}) == 1
            for number in (1, 2, 1, 2):
                os.write(ends[number], b"%d\n" % number)
            assert take(communicator) == {OUT: b"1\n2\n1\n2\n"}

    def test_a_terminal_and_a_pipe(self) -> None:
        """Errors on a pipe are told apart, and are no terminal."""
        with opened(stderr="pipe") as (communicator, ends):
            assert [os.isatty(ends[number]) for number in (1, 2)] == [True, False]
            os.write(ends[2], b"plain\n")
            os.write(ends[1], b"shown\n")
            assert take(communicator) == {OUT: b"shown\n", ERR: b"plain\n"}

    @pytest.mark.parametrize(("crlf", "captured"), [(False, b"a\nb\r\n\tc"), (True, b"a\r\nb\r\r\n\tc")])
    def test_line_ends(self, crlf: bool, captured: bytes) -> None:
        """They are what was written, or what a terminal gets."""
        with opened(crlf=crlf) as (communicator, ends):
            os.write(ends[1], b"a\nb\r\n\tc")
            assert take(communicator) == {OUT: captured}

    def test_nothing_is_typed(self) -> None:
        """What got into the terminal by other means would be no signal, and would not come back as output."""
        with opened(crlf=True) as (_, ends):
            modes = termios.tcgetattr(ends[1])
            assert not modes[3] & (termios.ECHO | termios.ISIG | termios.ICANON)

    def test_input_is_at_its_end(self) -> None:
        """However often it is read; also after what was typed is thrown away, as by who asks for passwords."""
        with opened(stdin="terminal") as (_, ends):
            for _ in range(3):
                assert os.read(ends[0], 100) == b""
                modes = termios.tcgetattr(ends[0])
                modes[3] &= ~termios.ECHO
                termios.tcsetattr(ends[0], termios.TCSAFLUSH, modes)

    def test_variables(self) -> None:
        """The Task is told what terminal it is, and not to wait for somebody who turns pages."""
        with PtyCommunicator.listen(PtySettings(term="vt100")) as listener:
            assert listener.environment == {"TERM": "vt100", "PAGER": "cat"}
        with PtyCommunicator.listen(PtySettings(term="")) as listener:
            assert listener.environment == {"PAGER": "cat"}

    def test_programs_inherit_nothing_else(self) -> None:
        """No end of a terminal is there in a program that is started meanwhile."""
        with opened(stderr="pipe"), PtyCommunicator.listen(PtySettings()) as listener:
            assert not any(os.get_inheritable(end) for end in listener.standard_descriptors.values())
            command = ["ls", "-l", "/proc/self/fd"]
            run = subprocess.run(command, capture_output=True, text=True, check=True, close_fds=False, stdin=-3)
            assert "pipe" in run.stdout
            assert "ptmx" not in run.stdout
            assert "pts" not in run.stdout


class TestReading:
    """What comes through."""

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=300)), max_size=12))
    def test_any_bytes(self, prints: list[tuple[int, bytes]]) -> None:
        """Nothing is a key, an end or an escape: every byte of both streams arrives as it was written."""
        with opened() as (communicator, ends):
            expected: dict[str | None, bytes] = {}
            for number, data in prints:
                os.write(ends[number], data)
                signal = {1: OUT, 2: ERR}[number]
                expected[signal] = expected.get(signal, b"") + data
            assert take(communicator) == expected

    def test_a_part_of_a_line(self) -> None:
        """It does not wait for the rest."""
        with opened() as (communicator, ends):
            os.write(ends[1], b"Loading")
            poll = select.poll()
            poll.register(communicator, select.POLLIN)
            assert poll.poll(PATIENCE * 1000)
            assert take(communicator) == {OUT: b"Loading"}

    def test_nobody_reads(self) -> None:
        """Who prints waits, and what it prints meanwhile is not lost, and not kept here."""
        with opened() as (communicator, ends):
            os.set_blocking(ends[1], False)
            data = os.urandom(FLOOD)
            written = 0
            with pytest.raises(BlockingIOError):
                while written < FLOOD:
                    written += os.write(ends[1], data[written:])
            assert written < FLOOD // 4
            assert take(communicator)[OUT] == data[:written]

    def test_a_flood(self) -> None:
        """Its writer is woken as it is read, and all of it comes, while the other stream has its turn."""
        data = os.urandom(FLOOD)
        with opened() as (communicator, ends):

            def write() -> None:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(ends[1], rest) :]
                os.write(ends[2], b"done")

            thread = threading.Thread(target=write)
            thread.start()
            found: dict[str | None, bytes] = {}
            while ERR not in found or len(found[OUT]) < FLOOD:
                for signal, some in _one(communicator, PATIENCE).items():
                    found[signal] = found.get(signal, b"") + some
            thread.join()
            assert found == {OUT: data, ERR: b"done"}

    def test_the_end(self) -> None:
        """It is found when both terminals are given up by all who had them; before it comes what was printed last."""
        with opened() as (communicator, ends):
            copy = os.dup(ends[1])
            os.write(copy, b"the last word")
            for end in ends.values():
                os.close(end)
            ends.clear()
            assert take(communicator) == {OUT: b"the last word"}
            with pytest.raises(TimeoutError):
                communicator.read(timeout=0)
            os.close(copy)
            with pytest.raises(EndOfMessages):
                communicator.read(timeout=PATIENCE)

    def test_waiting(self) -> None:
        """A read with a time gives up when it is over, and loses nothing."""
        with opened() as (communicator, ends):
            with pytest.raises(TimeoutError):
                communicator.read(timeout=0.01)
            os.write(ends[2], b"late")
            assert _one(communicator, PATIENCE) == {ERR: b"late"}

    def test_what_nobody_reads_any_more(self) -> None:
        """A program that prints after the run gets an error, and no signal: it is not its controlling terminal."""
        with opened() as (communicator, ends):
            communicator.close()
            with pytest.raises(OSError, match="Input/output error"):
                os.write(ends[1], b"too late")
            with pytest.raises(ClosedError):
                communicator.read()

    def test_no_messages(self) -> None:
        """It has no other direction, and says what to do."""
        with opened() as (communicator, _):
            assert not communicator.capabilities.carries_messages
            with pytest.raises(CommunicatorError, match="add a communicator that does"):
                communicator.write(Message("hello"))


class TestSystem:
    """What the system refuses."""

    @pytest.mark.parametrize("left", range(4))
    def test_no_descriptors(self, left: int) -> None:
        """Wherever they run out, nothing stays open, and the error says what it was for."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = os.open(os.devnull, os.O_RDONLY)
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + left, limits[1]))
        try:
            with pytest.raises(OSError, match=r"no descriptors left for a pseudo-terminal \(ulimit -n\)") as caught:
                listen()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert caught.value.errno == errno.EMFILE

    def test_no_terminals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes every terminal of the machine to see this: here the system is played."""
        monkeypatch.setattr(os, "openpty", refusing(errno.ENOSPC))
        with pytest.raises(OSError, match=r"no pseudo-terminals left .*run fewer Tasks at a time") as caught:
            listen()
        assert caught.value.errno == errno.ENOSPC
        assert PtyCommunicator.unavailable() is None

    def test_no_second_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first one is closed; the fixture looks."""
        real, times = os.openpty, iter([True, False])
        monkeypatch.setattr(os, "openpty", lambda: real() if next(times) else refusing(errno.ENOSPC)())
        with pytest.raises(OSError, match="no pseudo-terminals left"):
            listen()

    def test_no_terminals_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there cannot be any, it is unavailable, with the reason and a remedy."""
        assert PtyCommunicator.unavailable() is None
        monkeypatch.setattr(os, "openpty", refusing(errno.ENOENT))
        reason = PtyCommunicator.unavailable()
        assert reason is not None
        assert "No such file or directory" in reason
        assert "devpts" in reason


class TestSettings:
    """What a config may say."""

    def test_all(self) -> None:
        """Every key, as a config has it."""
        table: dict[str, Any] = {
            "rows": 50,
            "columns": 200,
            "term": "",
            "stderr": "pipe",
            "stdin": "terminal",
            "crlf": True,
        }
        assert Registry().settings("pty", table) == PtySettings(**table)

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"rows": 0}, "rows"),
            ({"columns": 65536}, "columns"),
            ({"columns": "wide"}, "columns"),
            ({"term": "x term"}, "term"),
            ({"stderr": "seperate"}, 'did you mean "separate"'),
            ({"stdin": "full"}, "allowed: empty, terminal"),
            ({"colums": 80}, 'did you mean "columns"'),
        ],
    )
    def test_wrong(self, table: dict[str, object], words: str) -> None:
        """The key is named, and what is allowed."""
        with pytest.raises(ConfigError, match=words):
            Registry().settings("pty", table)


def _one(communicator: PtyCommunicator, timeout: float) -> dict[str | None, bytes]:
    message = communicator.read(timeout)
    assert message.buffers is not None
    return {message.signal: bytes(message.buffers[0])}


def listen() -> Listener:
    """Open, over the settings that nobody has changed."""
    return PtyCommunicator.listen(PtySettings())


def refusing(number: int) -> Any:
    """A system call that fails."""

    def refuse() -> tuple[int, int]:
        raise OSError(number, os.strerror(number))

    return refuse
