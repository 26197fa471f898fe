"""The rendezvous: the Task gets in, and nobody else does, whatever they try. Real sockets and processes."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import select
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasklink.communicator import Address
from tasklink.errors import AuthenticationError, BrokenError, ClosedError, ConfigError
from tasklink.rendezvous.executor_side import MOST_VISITORS, PATIENCE, Rendezvous
from tasklink.rendezvous.handshake import ANSWER_BYTES, BANNER, CHALLENGE_BYTES, ExecutorSide, TaskSide
from tasklink.rendezvous.task_side import reach

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a stranger sends: other protocols, pickles that would run code, our own frames, nothing that proves anything.
GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00" * 500,
    b"cos\nsystem\n(S'touch /tmp/tasklink-was-here'\ntR." * 20,
    b"TL\x01\x01" + b"\xff" * 200,
    BANNER,
    BANNER + os.urandom(ANSWER_BYTES - len(BANNER)),
    BANNER + os.urandom(1 << 16),
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves the descriptors of this process as they were."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


@contextlib.contextmanager
def opened(parent: Path | None) -> Iterator[Rendezvous]:
    """A rendezvous; closed at the end."""
    with contextlib.closing(Rendezvous(parent, table="communicators.pigeon", timeout=10.0)) as listener:
        yield listener


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Rendezvous]:
    """A rendezvous whose directory is within `tmp_path`."""
    with opened(tmp_path) as listener:
        yield listener


def address_of(listener: Rendezvous) -> Address:
    """What the Task is told."""
    return Address(listener.details, key=listener.key)


def connect(address: Address) -> socket.socket:
    """Go there as the Task does."""
    return socket.socket(fileno=reach(address))


@contextlib.contextmanager
def stranger(listener: Rendezvous) -> Iterator[socket.socket]:
    """Somebody who has connected."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(listener.details["path"]))
        yield connection


def serve(listener: Rendezvous, seconds: float = 0.0) -> None:
    """Let the listener work as the Executor's loop does: whenever its descriptor is readable, for so long."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    deadline = time.monotonic() + seconds
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        with pytest.raises(TimeoutError):
            listener.accept(timeout=0)


def serve_until_hung_up(listener: Rendezvous, connection: socket.socket, seconds: float = 10) -> bytes:
    """Let the listener work until it hangs up on a connection; what it had sent before."""
    received = b""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    poll.register(connection, select.POLLIN)
    deadline = time.monotonic() + seconds
    while ready := poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        descriptors = [descriptor for descriptor, _ in ready]
        if listener.fileno() in descriptors:
            with pytest.raises(TimeoutError):
                listener.accept(timeout=0)
        if connection.fileno() in descriptors:
            try:
                more = connection.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                return received
            received += more
    pytest.fail("it was not hung up on")


def check_good_peer(listener: Rendezvous) -> None:
    """The good peer gets in within a second, and both can send: nothing of the handshake is left in the way."""
    start = time.monotonic()
    address = address_of(listener)
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(connect, address)
        with listener.accept(timeout=10) as ours, task.result() as theirs:
            assert time.monotonic() - start < 1
            assert not os.get_blocking(ours.fileno())
            assert not os.get_blocking(theirs.fileno())
            ours.send(b"there")
            theirs.send(b"back")
            assert (theirs.recv(100), ours.recv(100)) == (b"there", b"back")


class TestAccepting:
    """What a listener does for the one that it waits for."""

    def test_a_peer_that_holds_the_key(self, listener: Rendezvous) -> None:
        """It gets in, and bytes go both ways."""
        check_good_peer(listener)

    def test_nothing_is_left_once_it_has_come(self, listener: Rendezvous, tmp_path: Path) -> None:
        """The socket and its directory are removed at once, and the key is worth nothing any more."""
        address = address_of(listener)
        check_good_peer(listener)
        assert list(tmp_path.iterdir()) == []
        assert listener.key == b""
        with pytest.raises(BrokenError, match="nobody listens at"):
            connect(address)
        with pytest.raises(ClosedError, match="works once"):
            listener.accept(timeout=0)

    def test_one_descriptor_stands_for_it(self, listener: Rendezvous) -> None:
        """An Executor's loop that asks when the descriptor is readable, and never waits in `accept`, gets the peer."""
        poll = select.poll()
        poll.register(listener.fileno(), select.POLLIN)
        assert not poll.poll(0)
        with ThreadPoolExecutor(1) as pool:
            task = pool.submit(connect, address_of(listener))
            for _ in range(10):
                assert poll.poll(10_000)
                try:
                    ours = listener.accept(timeout=0)
                except TimeoutError:
                    continue
                break
            ours.close()
            task.result().close()

    def test_nobody_comes(self, listener: Rendezvous) -> None:
        """`accept` ends in time, and the listener goes on."""
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError, match="has not come"):
                listener.accept(timeout)
        check_good_peer(listener)

    def test_closing(self, tmp_path: Path) -> None:
        """A listener that is closed leaves nothing, hangs up on everybody, and can be closed again."""
        listener = Rendezvous(tmp_path, table="communicators.pigeon", timeout=10.0)
        with stranger(listener) as silent:
            serve(listener)
            silent.recv(CHALLENGE_BYTES)
            listener.close()
            listener.close()
            assert silent.recv(1) == b""
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ClosedError):
            listener.accept(timeout=0)

    def test_closing_with_a_peer_that_nobody_took(self, tmp_path: Path) -> None:
        """A run that ends at the wrong moment leaves nothing either."""
        with opened(tmp_path) as listener, stranger(listener) as peer:
            serve(listener)
            us = TaskSide(listener.key, bytes.fromhex(str(listener.details["session"])))
            peer.send(us.answer(peer.recv(CHALLENGE_BYTES)))
        assert list(tmp_path.iterdir()) == []

    def test_a_fork_leaves_the_files_to_its_parent(self, listener: Rendezvous) -> None:
        """A child that closes its copy does not take the name away."""
        pid = os.fork()
        if pid == 0:
            listener.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        check_good_peer(listener)


class TestName:
    """The name in the file system."""

    @pytest.mark.parametrize("umask", [0o000, 0o002, 0o022])
    def test_only_this_user_can_connect(self, umask: int, tmp_path: Path) -> None:
        """Directory 0700 and socket 0600, whatever the umask is."""
        before = os.umask(umask)
        try:
            with opened(tmp_path) as listener:
                path = Path(str(listener.details["path"]))
                modes = [stat.S_IMODE(place.lstat().st_mode) for place in (path.parent, path)]
                assert modes == [0o700, 0o600]
                assert path.lstat().st_uid == os.geteuid()
        finally:
            os.umask(before)

    def test_it_is_told_to_the_guardian(self, listener: Rendezvous) -> None:
        """Whoever supervises can have the directory removed in case of its own death."""
        (directory,) = listener.directories
        assert str(listener.details["path"]) == str(directory / "socket")

    def test_a_path_that_is_too_long(self, tmp_path: Path) -> None:
        """The error comes before the Task is started, and nothing is left behind."""
        place = tmp_path / ("x" * 100)
        place.mkdir()
        with pytest.raises(ConfigError, match=r"`directory` in \[communicators.pigeon\]"):
            Rendezvous(place, table="communicators.pigeon", timeout=10.0)
        assert list(place.iterdir()) == []

    @pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's own")
    def test_it_has_no_abstract_name(self, listener: Rendezvous) -> None:
        """The kernel lists no socket of ours that anybody on the machine could connect to."""
        inode = os.fstat(listener._socket.fileno()).st_ino
        (line,) = [line for line in Path("/proc/net/unix").read_text().splitlines() if f" {inode} " in line]
        assert line.split()[-1] == listener.details["path"]


class TestStrangers:
    """Those who lack something are refused, logged, and do not disturb the one who does not."""

    def test_a_wrong_key(self, listener: Rendezvous, caplog: pytest.LogCaptureFixture) -> None:
        """Both sides learn of it, the log says who it was, and the next good one is served."""
        wrong = Address(listener.details, key=os.urandom(32))
        with ThreadPoolExecutor(1) as pool:
            task = pool.submit(connect, wrong)
            with pytest.raises(TimeoutError):
                listener.accept(timeout=0.5)
            with pytest.raises(AuthenticationError, match="refused the key"):
                task.result()
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("tasklink.rendezvous", logging.WARNING)
        expected = f"process {os.getpid()} of user {os.geteuid()}: it could not prove that it holds the key of this run"
        assert record.getMessage().endswith(expected)
        check_good_peer(listener)

    @pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
    def test_garbage(self, garbage: bytes, listener: Rendezvous) -> None:
        """It is refused without an answer, at the latest when its time is up, and the next good one is served."""
        with stranger(listener) as connection:
            connection.sendall(garbage)
            if garbage == BANNER:  # so far this is right
                connection.shutdown(socket.SHUT_WR)
            received = serve_until_hung_up(listener, connection)
        assert len(received) in (0, CHALLENGE_BYTES)
        check_good_peer(listener)

    def test_a_recorded_handshake(self, listener: Rendezvous) -> None:
        """An answer made with the right key for one connection does not open another."""
        us = TaskSide(listener.key, bytes.fromhex(str(listener.details["session"])))
        with stranger(listener) as first, stranger(listener) as second:
            serve(listener)
            recorded = us.answer(first.recv(CHALLENGE_BYTES))
            second.recv(CHALLENGE_BYTES)
            second.send(recorded)
            assert serve_until_hung_up(listener, second) == b""
        check_good_peer(listener)

    def test_a_listener_that_echoes(self, tmp_path: Path) -> None:
        """A Task that is sent its own words back does not take them for the Executor's."""
        path = tmp_path / "socket"
        details = {"path": str(path), "session": "00" * 16, "timeout": 10.0}
        with socket.socket(socket.AF_UNIX) as fake, ThreadPoolExecutor(1) as pool:
            fake.bind(str(path))
            fake.listen()
            task = pool.submit(connect, Address(details, key=os.urandom(32)))
            connection, _ = fake.accept()
            with connection:
                connection.send(BANNER + os.urandom(32))
                answer = connection.recv(ANSWER_BYTES)
                connection.send(answer[-32:])
                with pytest.raises(AuthenticationError, match="could not prove"):
                    task.result()

    def test_a_task_that_was_sent_away_for_the_crowd(self, tmp_path: Path) -> None:
        """It was not heard yet, so it comes again."""
        path = tmp_path / "socket"
        details = {"path": str(path), "session": "00" * 16, "timeout": 10.0}
        key = os.urandom(32)
        with socket.socket(socket.AF_UNIX) as busy, ThreadPoolExecutor(1) as pool:
            busy.bind(str(path))
            busy.listen()
            task = pool.submit(connect, Address(details, key=key))
            for _ in range(3):
                busy.accept()[0].close()
            connection, _ = busy.accept()
            with connection:
                us = ExecutorSide(key, bytes(16))
                connection.send(us.challenge)
                confirmation = us.receive(connection.recv(ANSWER_BYTES))
                assert confirmation is not None
                connection.send(confirmation)
                task.result().close()

    def test_a_listener_that_says_nothing(self, tmp_path: Path) -> None:
        """A Task waits as long as it was told, and no longer; a byte now and then does not prolong it."""
        path = tmp_path / "socket"
        details = {"path": str(path), "session": "00" * 16, "timeout": 0.3}
        with socket.socket(socket.AF_UNIX) as fake, ThreadPoolExecutor(1) as pool:
            fake.bind(str(path))
            fake.listen()
            start = time.monotonic()
            task = pool.submit(connect, Address(details, key=os.urandom(32)))
            connection, _ = fake.accept()
            with connection, contextlib.suppress(BrokenPipeError):
                for byte in BANNER[:8]:
                    if task.done():
                        break
                    connection.send(bytes([byte]))
                    with contextlib.suppress(TimeoutError):
                        task.exception(0.1)
            with pytest.raises(TimeoutError, match="did not answer in time"):
                task.result()
            assert 0.25 < time.monotonic() - start < 2

    def test_a_listener_whose_queue_is_full(self, tmp_path: Path) -> None:
        """A Task that cannot even knock gives up in time."""
        path = tmp_path / "socket"
        details = {"path": str(path), "session": "00" * 16, "timeout": 0.2}
        with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as others:
            busy.bind(str(path))
            busy.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other = others.enter_context(socket.socket(socket.AF_UNIX))
                    other.setblocking(False)
                    other.connect(str(path))
            with pytest.raises(TimeoutError):
                connect(Address(details, key=os.urandom(32)))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    @pytest.mark.parametrize("umask", [0o000, 0o002, 0o022])
    def test_another_user_cannot_reach_it(self, umask: int, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Its connect fails with EACCES, whatever the umask was."""
        place = tmp_path_factory.mktemp("place")
        for folder in [place, *place.parents][:-1]:  # so that it is the directory of ours that keeps them out
            if folder.stat().st_mode & 0o055 != 0o055 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o055)
        before = os.umask(umask)
        try:
            with opened(place) as listener:
                code = as_user(65534, lambda: connect_code(listener))
                check_good_peer(listener)
        finally:
            os.umask(before)
        assert code == errno.EACCES

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_another_user_whom_no_mode_keeps_out(self, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
        """Root can reach every socket; a listener of somebody else refuses it by what the kernel says, unheard."""
        with opened(tmp_path) as listener:
            os.seteuid(65534)  # now the listener is this user's
            try:
                pid = os.fork()
                if pid == 0:
                    os.seteuid(0)
                    os._exit(knock_and_hear(listener))
                with pytest.raises(TimeoutError):
                    listener.accept(timeout=0.3)
                assert os.waitpid(pid, 0)[1] == 0
            finally:
                os.seteuid(0)
        assert f"process {pid} of user 0: it is not of user 65534" in caplog.text


class TestCrowd:
    """Many strangers at once."""

    def test_fifty_silent_ones(self, listener: Rendezvous) -> None:
        """They do not keep the good peer out, not even for a second."""
        with contextlib.ExitStack() as strangers:
            for _ in range(50):
                strangers.enter_context(stranger(listener))
            check_good_peer(listener)

    def test_no_more_than_sixteen(self, listener: Rendezvous) -> None:
        """The oldest one goes for the next one, and no more descriptors are held."""
        with contextlib.ExitStack() as strangers:
            before = len(os.listdir("/dev/fd"))
            connections = [strangers.enter_context(stranger(listener)) for _ in range(40)]
            serve(listener)
            assert len(os.listdir("/dev/fd")) == before + 40 + MOST_VISITORS
            hung_up = []
            for connection in connections:
                assert len(connection.recv(CHALLENGE_BYTES)) == CHALLENGE_BYTES
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    hung_up.append(connection.recv(1))
            assert hung_up == [b""] * (40 - MOST_VISITORS)

    def test_an_answer_that_is_there_counts_before_the_crowd(self, listener: Rendezvous) -> None:
        """Who has answered is not sent away for those who came later."""
        us = TaskSide(listener.key, bytes.fromhex(str(listener.details["session"])))
        with contextlib.ExitStack() as strangers:
            good = strangers.enter_context(stranger(listener))
            serve(listener)
            good.send(us.answer(good.recv(CHALLENGE_BYTES)))
            for _ in range(50):
                strangers.enter_context(stranger(listener))
            listener.accept(timeout=0).close()

    def test_an_answer_that_comes_at_the_last_moment(self, listener: Rendezvous) -> None:
        """Before somebody is sent away it is looked whether the answer has just come."""
        us = TaskSide(listener.key, bytes.fromhex(str(listener.details["session"])))
        with contextlib.ExitStack() as strangers:
            oldest, *_ = [strangers.enter_context(stranger(listener)) for _ in range(MOST_VISITORS)]
            serve(listener)
            oldest.send(us.answer(oldest.recv(CHALLENGE_BYTES)))
            strangers.enter_context(stranger(listener))
            listener._greet()  # as if the answer had come after the loop had looked
            listener.accept(timeout=0).close()

    def test_a_slow_one(self, listener: Rendezvous) -> None:
        """Who sends a byte now and then is hung up on when its time is up, though nobody else comes."""
        with stranger(listener) as slow:
            serve(listener)
            start = time.monotonic()
            for byte in BANNER[:3]:
                slow.send(bytes([byte]))
                serve(listener)
            serve_until_hung_up(listener, slow)
            assert PATIENCE - 0.2 < time.monotonic() - start < PATIENCE + 1
        check_good_peer(listener)

    def test_a_flood(self, listener: Rendezvous, caplog: pytest.LogCaptureFixture) -> None:
        """Ten thousand connects of another process: the good peer gets in within a second, and the log stays short."""
        flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(listener.details["path"])])
        with flood:
            try:
                with pytest.raises(TimeoutError):
                    listener.accept(timeout=0.3)  # it is under way
                check_good_peer(listener)
            finally:
                flood.kill()
        assert len(caplog.records) <= 102

    def test_the_last_descriptor(self, listener: Rendezvous) -> None:
        """With one descriptor left each stranger goes for the next one, and the listener works on."""
        with contextlib.ExitStack() as strangers:
            connections = [strangers.enter_context(stranger(listener)) for _ in range(3)]
            with descriptors_left(1):
                serve(listener)
            hung_up = []
            for connection in connections:
                assert len(connection.recv(CHALLENGE_BYTES)) == CHALLENGE_BYTES
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    hung_up.append(connection.recv(1))
            assert hung_up == [b"", b""]
        check_good_peer(listener)

    def test_no_descriptors_left(self, listener: Rendezvous) -> None:
        """With nobody who could go instead, the run is told rather than left to spin; afterwards all is well."""
        with stranger(listener):
            with descriptors_left(0), pytest.raises(OSError, match="Too many open files") as caught:
                listener.accept(timeout=0)
            assert caught.value.errno == errno.EMFILE
        check_good_peer(listener)


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Have this process open so many more descriptors, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(64)]  # fills whatever gaps there are
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, limits[1]))
    try:
        for descriptor in free[len(free) - count :]:
            os.close(descriptor)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in free[: len(free) - count]:
            os.close(descriptor)


FLOOD = """
import socket, sys
held = []
for number in range(10_000):
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(sys.argv[1])
    except OSError:
        break
    held = [*held[-50:], connection]
"""


class TestUnpickling:
    """No byte of a stranger reaches a decoder."""

    def test_nothing_is_decoded_before_the_key_is_proved(self, tmp_path: Path) -> None:
        """With an audit hook over the whole process: no lookup of pickle, no exec, whatever strangers send."""
        done = subprocess.run(
            [sys.executable, "-c", AUDITED, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "quiet\n"), done.stderr


AUDITED = """
import logging, pickle, socket, sys
from pathlib import Path
from tasklink.rendezvous.executor_side import Rendezvous
logging.disable()

class Exploit:
    def __reduce__(self):
        return exec, ("raise SystemExit(3)",)

listener = Rendezvous(Path(sys.argv[1]), table="communicators.pigeon", timeout=10.0)
exploit = pickle.dumps(Exploit())
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event in ("pickle.find_class", "exec", "compile") else None)
for garbage in (exploit, b"tasklink-meet 1\\n" + exploit * 4, b"TL" + exploit):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(listener.details["path"])
        stranger.sendall(garbage)
        for _ in range(5):
            try:
                listener.accept(timeout=0)
            except TimeoutError:
                pass
listener.close()
print("quiet" if not seen else seen)
"""


def connect_code(listener: Rendezvous) -> int:
    """Connect; the number of the error, or 0."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(listener.details["path"]))


def knock_and_hear(listener: Rendezvous) -> int:
    """Connect; 0 when the listener hangs up without a word."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(listener.details["path"]))
        try:
            return len(connection.recv(1000))
        except ConnectionResetError:
            return 0


def as_user(uid: int, work: object) -> int:
    """Call something in a fork that is another user's; what it gives."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        os._exit(work())  # type: ignore[operator]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_threads_are_not_needed() -> None:
    """The listener starts none."""
    before = threading.active_count()
    with opened(None):
        assert threading.active_count() == before
