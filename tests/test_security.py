"""Who is kept out, and how: a test for each way into other systems of this kind that has become known.

Attackers are real: processes of another user, sockets that say what nobody should, pickles that would leave a mark.
What `core/docs/security.md` says is checked here too: its limits are those of the code, what it names as a proof is
there, and what it says is refused is refused, with an error that says what to do.
"""

import base64
import contextlib
import importlib
import itertools
import json
import logging
import os
import re
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import zmq

import tasklink_zmq.communicator
from tasklink import Executor, Status, TaskSpec, codec, framing, plan, vocabulary
from tasklink.communicator import Address
from tasklink.config import UNTRUSTED, parse_duration, parse_size
from tasklink.errors import (
    AuthenticationError,
    BrokenError,
    ConfigError,
    DecodeError,
    ForkedError,
    LimitExceededError,
    PluginError,
    PluginUnavailableError,
    ProtocolError,
)
from tasklink.message import Message
from tasklink.registry import Registry
from tasklink.rendezvous import handshake

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "core" / "docs" / "security.md"
NOBODY = 65534
# Within a second the Task is in; five times that where other tests have the processors.
AT_ONCE = 5.0

# Where somebody else could knock: a communicator, and the settings with which it has a name.
DOORS = {
    "unix": ("unix", {"named": True}),
    "shm": ("shm", {"named": True}),
    "zmq-ipc": ("zmq", {}),
    "zmq-tcp": ("zmq", {"transport": "tcp"}),
}
# All of them; the rendezvous of `unix` is also that of the others, so every day it stands for them where it takes long.
EACH_DOOR = [door if door in {"unix", "zmq-tcp"} else pytest.param(door, marks=pytest.mark.soak) for door in DOORS]
# Those that are sockets in a private directory.
NAMED = [door for door in DOORS if door != "zmq-tcp"]

# All ways to talk with a Task.
WAYS = {
    "unix-pair": ("unix", {}),
    "pipe": ("pipe", {}),
    "pipe-in-band": ("pipe", {"in_band": True}),
    "shm-inherited": ("shm", {}),
    **DOORS,
}

another_user = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user, with setpriv"
)


def listen(door, **settings):
    """Open the Executor's side of a door."""
    name, given = DOORS[door]
    registry = Registry()
    return registry.get(name).listen(registry.settings(name, {**given, **settings}))


def connect(listener, address=None):
    """Go there as the Task does; or with another address."""
    name = type(listener).__module__.partition(".")[0].removeprefix("tasklink_")
    return Registry().get(name).connect(address or listener.address)


def place_of(listener):
    """The family and the address of the socket that the Task knocks at."""
    details = listener.address.details
    if "path" in details:
        return socket.AF_UNIX, details["path"]
    host, _, port = details["endpoint"].removeprefix("tcp://").rpartition(":")
    return socket.AF_INET6 if "[" in host else socket.AF_INET, (host.strip("[]"), int(port))


def knock(listener):
    """Connect as a stranger does."""
    family, address = place_of(listener)
    stranger = socket.socket(family, socket.SOCK_STREAM)
    stranger.settimeout(10)
    stranger.connect(address)
    return stranger


def hung_up(stranger):
    """Read until the other side hangs up; what it has said."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while more := stranger.recv(1 << 16):
            heard += more
    return heard


@contextlib.contextmanager
def guarded(door, **settings):
    """A Listener that waits for its Task; at the end, whatever happened, that is let in at once, and heard."""
    with listen(door, **settings) as listener, ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept, 20)
        address = listener.address
        yield listener
        start = time.monotonic()
        theirs = connect(listener, address)
        ours = accepting.result(10)
        assert time.monotonic() - start < AT_ONCE
        for writer, reader in ((theirs, ours), (ours, theirs)):
            writer.write(Message("well met"), 5)
            assert reader.read(5).contents == "well met"
        closing = pool.submit(theirs.close)
        ours.close()
        closing.result(10)


def forms(key):
    """What a key may look like where it should not be."""
    parts = [key[start : start + 40] for start in (0, 40, 80)] if len(key) == 120 else [key]
    for part in parts:
        yield part
        yield part.hex().encode()
        yield base64.b64encode(part).rstrip(b"=")[:-1]  # the last letter depends on what follows
        yield repr(part)[2:-1].encode()
        yield json.dumps(list(part))[1:-1].encode()


class Exploit:
    """Leaves a mark wherever it is decoded."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


class TestNames:
    """What has a name, others can find."""

    @pytest.mark.parametrize("way", WAYS)
    def test_no_abstract_socket_and_no_open_port(self, way):
        """CVE-2022-42919 (multiprocessing): anybody could connect to its abstract sockets, whoever's they were.

        CVE-2021-42343 (dask) and CVE-2025-32444 (vLLM): what was meant for this machine listened at all its addresses.
        Here the Task looks at every socket of its own process and of the Executor, as the kernel lists them.
        """
        name, settings = WAYS[way]
        with Executor(name, settings={name: settings}) as executor:
            names, listening = executor.run("spying_tasks:sockets").value
        assert not [name for name in names if name.startswith("@")]
        if way == "zmq-tcp":
            assert listening
        else:
            assert listening == []
        # 127.0.0.1, ::ffff:127.0.0.1 and ::1, as /proc/net/tcp writes them.
        loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
        assert set(listening) <= loopback

    @pytest.mark.parametrize(
        ("door", "umask"), [("unix", 0o000), ("unix", 0o002), ("unix", 0o022), ("shm", 0o000), ("zmq-ipc", 0o000)]
    )
    @another_user
    def test_another_user(self, door, umask, open_folder):
        """A socket that others may write to, for the umask of its maker let them: here another user's connect fails."""
        before = os.umask(umask)
        try:
            with guarded(door, directory=str(open_folder)) as listener:
                (directory,) = listener.directories
                path = Path(listener.address.details["path"])
                modes = [stat.S_IMODE(where.lstat().st_mode) for where in (directory, path)]
                assert (modes, path.parent) == ([0o700, 0o600], directory)
                assert as_nobody(KNOCK, str(directory), str(path)) == "EACCES EACCES"
        finally:
            os.umask(before)

    @pytest.mark.parametrize("trap", ["directory", "link", "file"])
    def test_what_was_put_there_before(self, trap, tmp_path, monkeypatch):
        """A name in /tmp that an attacker has guessed, and made before us: nothing of ours is put there.

        Names are drawn, so nobody guesses them; here the first one is given away.
        """
        names = iter(["guessed", "guessed", "drawn"])
        monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: names)
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        with listen("unix", directory=str(tmp_path)) as listener:
            made = Path(str(listener.directories[0]).replace("/tasklink-", "/.tasklink-"))
        guessed = made.with_name(made.name.replace("drawn", "guessed"))
        assert guessed.name.startswith(".tasklink-")
        {"directory": guessed.mkdir, "link": lambda: guessed.symlink_to(theirs), "file": guessed.touch}[trap]()
        names = iter(["guessed", "drawn"])
        with listen("unix", directory=str(tmp_path)) as listener:
            assert listener.directories[0].name.endswith("drawn")
            assert list(theirs.iterdir()) == []
        assert guessed.is_symlink() == (trap == "link")
        assert sorted(path.name for path in tmp_path.iterdir()) == [guessed.name, "theirs"]

    def test_a_runtime_directory_that_leads_elsewhere(self, tmp_path, monkeypatch, temporary_folder):
        """XDG_RUNTIME_DIR of a shell that somebody else has set up: what others can enter is not used."""
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))
        with listen("unix") as listener:
            assert listener.directories[0].parent == temporary_folder
        assert list(shared.iterdir()) == []


class TestKeys:
    """A key is known to two processes."""

    @pytest.mark.parametrize("way", ["pipe-in-band", *EACH_DOOR])
    def test_it_is_nowhere(self, way, monkeypatch, caplog, temporary_folder):
        """LUTE and others hand keys over in the environment: there it is seen by all that a Task starts, and logged.

        The Task starts two programs and then reads the arguments and the environment of every process of the run, the
        Executor's and its guardian's too, and every file that there is; logs, results and texts too.
        """
        caplog.set_level(logging.DEBUG)
        keys, shown = [], []
        real = plan.Invitation

        def inviting(**given):
            invitation = real(**given)
            keys.extend(address.key for _, _, address in invitation.channels)
            shown.append(repr(invitation))
            return invitation

        monkeypatch.setattr(plan, "Invitation", inviting)
        name, settings = WAYS[way]
        with Executor(name, settings={name: settings}) as executor:
            result = executor.run("spying_tasks:surroundings")
            shown += [repr(executor), repr(vars(executor)), repr(result), caplog.text]
        said, links = result.value
        assert b"tasklink.worker" in said  # it has looked at something
        assert b"TMPDIR=" in said
        (key,) = keys
        assert len(key) in {16, 32, 120}
        for form in forms(key):
            assert form not in said
            assert form not in "".join(shown).encode()
        assert not [link for link in links if "handover" in link or link.startswith("socket")]

    def test_a_new_one_for_each_run(self):
        """One that is drawn once, or for each user, opens what runs tomorrow: here each channel has its own."""
        keys = set()
        for door in DOORS:
            for _ in range(5):
                with listen(door) as listener:
                    keys.add(listener.address.key)
        assert len(keys) == 5 * len(DOORS)

    @pytest.mark.parametrize("door", NAMED)
    def test_it_works_once(self, door):
        """A key that was found later, in the memory or the core of a Task, opens nothing any more."""
        with guarded(door) as listener:
            address = listener.address
        assert address.key
        with pytest.raises(BrokenError, match="nobody listens"):
            connect(listener, address)


class TestProof:
    """The same user is not the same Task: every door wants the key, however near its visitor is."""

    @pytest.mark.parametrize("door", DOORS)
    def test_a_wrong_key(self, door, caplog):
        """Who has another key is told so, is logged with pid and user where the kernel tells, and the Task comes in."""
        with guarded(door, connect_timeout="5 s") as listener, listen(door) as other:
            server = listener.address.key[:40] if door == "zmq-tcp" else b""
            wrong = Address(listener.address.details, key=server + other.address.key[len(server) :])
            with pytest.raises(AuthenticationError):
                connect(listener, wrong)
        if door != "zmq-tcp":
            assert f"process {os.getpid()} of user {os.geteuid()}: it could not prove" in caplog.text
        for form in itertools.chain(forms(listener.address.key or b"?" * 16), forms(wrong.key)):
            assert form not in caplog.text.encode()

    @pytest.mark.parametrize("attack", ["replay", "reflection", "old session", "own nonce", "silence", "half"])
    @pytest.mark.parametrize("door", NAMED)
    def test_a_borrowed_proof(self, door, attack):
        """Replay, reflection, a proof of another session: what was proved once, or by the other side, proves nothing.

        An answer counts only for the nonce that was drawn for this connection, and says who made it, and for what run.
        """
        with guarded(door) as listener, knock(listener) as stranger:
            key, session = listener.address.key, bytes.fromhex(listener.address.details["session"])
            challenge = stranger.recv(handshake.CHALLENGE_BYTES)
            answer = handshake.TaskSide(key, session).answer
            if attack == "replay":  # of what was right for another connection, which was never used
                with knock(listener) as another:
                    stranger.send(answer(another.recv(handshake.CHALLENGE_BYTES)))
            elif attack == "reflection":
                nonce = challenge[len(handshake.BANNER) :]
                stranger.send(handshake.BANNER + nonce + nonce)
            elif attack == "old session":
                stranger.send(handshake.TaskSide(key, bytes(16)).answer(challenge))
            elif attack == "own nonce":  # a proof of the Executor's, sent as if it were a Task's
                us = handshake.ExecutorSide(key, session)
                stranger.send(handshake.BANNER + us.challenge[-32:] + us._prove(b"by the executor", us._nonce))
            elif attack == "half":
                stranger.send(answer(challenge)[:-1])
                stranger.shutdown(socket.SHUT_WR)
            if attack == "silence":
                stranger.shutdown(socket.SHUT_WR)
            assert hung_up(stranger) == b""

    def test_a_recorded_connection_over_tcp(self):
        """All that a good Task has sent, sent once more: CURVE draws new keys for each connection, and nobody is in."""
        with guarded("zmq-tcp") as listener:
            recorded = record(listener)
            with knock(listener) as stranger:
                stranger.sendall(recorded)
                answer = hung_up(stranger)
        assert b"\x05READY" not in answer
        assert b"MESSAGE" not in answer

    @pytest.mark.parametrize("door", NAMED)
    @pytest.mark.parametrize("version", [b"tasklink-meet 0\n", b"tasklink-meet 2\n", b"tasklink-meet \n1"])
    def test_a_downgrade_of_the_handshake(self, door, version):
        """A peer that proposes another version is not met half-way: there is nothing to negotiate."""
        assert len(version) == len(handshake.BANNER)
        with guarded(door) as listener, knock(listener) as stranger:
            us = handshake.TaskSide(listener.address.key, bytes.fromhex(listener.address.details["session"]))
            answer = us.answer(stranger.recv(handshake.CHALLENGE_BYTES))
            stranger.send(version + answer[len(version) :])
            assert hung_up(stranger) == b""

    @pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "CURVE"])
    def test_a_downgrade_of_the_encryption(self, mechanism):
        """A client of ZeroMQ without CURVE, or with another key pair than the Task's, is heard by nobody.

        ZeroMQ lets any client in that knows the public key of the server, unless a ZAP handler has a list.
        """
        with guarded("zmq-tcp") as listener, strangers_context() as context:
            stranger = context.socket(zmq.REQ)
            monitor = stranger.get_monitor_socket(MADE | UNMADE)
            if mechanism == "PLAIN":
                stranger.plain_username, stranger.plain_password = b"admin", b"admin"
            if mechanism == "CURVE":
                stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
                stranger.curve_serverkey = listener.address.key[:40]
            stranger.ipv6 = True
            stranger.connect(listener.address.details["endpoint"])
            stranger.send(b"")
            assert monitor.poll(20_000)
            (event,) = struct.unpack_from("=H", monitor.recv_multipart()[0])
            assert event & UNMADE
            assert not stranger.poll(0)

    @pytest.mark.parametrize("version", [0, 2, 255])
    def test_a_downgrade_of_the_wire(self, version):
        """A frame of another version is refused, with both versions named, before anything else in it is looked at."""
        frame = bytearray(b"".join(framing.encode([b"x"], codec.RAW)))
        frame[2] = version
        with pytest.raises(ProtocolError, match=rf"version {version}\b.*\b{framing.VERSION}\b"):
            framing.FrameDecoder().feed(frame)


class TestNothingIsDecodedBefore:
    """What comes before the proof is compared, and never decoded."""

    @pytest.mark.parametrize("door", EACH_DOOR)
    def test_pickles_and_commands_at_the_door(self, door, tmp_path):
        """CVE-2024-50050 (Llama Stack) and CVE-2026-3059: `recv_pyobj` on a socket that anybody could reach.

        CVE-2023-48022 (Ray): whoever could reach the port could have it run things. Pickles come raw, in frames of ours
        that say START and CANCEL, and from sockets of ZeroMQ; an audit hook sees no lookup of a class, no import, and
        no program that is compiled or executed.
        """
        mark = tmp_path / "mark"
        host = [sys.executable, "-c", AUDITED, door, str(mark)]
        run = subprocess.run(host, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
        assert (run.returncode, run.stdout) == (0, "quiet\n"), run.stderr
        assert not mark.exists()

    def test_no_control_without_the_key(self):
        """CVE-2023-48022 again: over tcp the ports of a Task stay open; nobody else is heard there."""
        with listen("zmq-tcp") as listener, ThreadPoolExecutor(1) as pool:
            accepting = pool.submit(listener.accept, 20)
            theirs = connect(listener)
            ours = accepting.result(10)
            ports = {
                connection.laddr.port
                for connection in psutil.Process().net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
            assert len(ports) == 3
            with strangers_context() as context:
                for port, kind in itertools.product(ports, (zmq.DEALER, zmq.PAIR)):
                    with context.socket(kind) as stranger:
                        stranger.connect(f"tcp://127.0.0.1:{port}")
                        frame = framing.encode([b"stop"], codec.RAW, vocabulary.CANCEL, 1)
                        with contextlib.suppress(zmq.Again):
                            stranger.send_multipart([b"", *map(bytes, frame)], zmq.NOBLOCK)
                        with pytest.raises(TimeoutError):
                            ours.read(0.05)
            with pytest.raises(TimeoutError):
                theirs.read(0.1)
            theirs.write(Message("still here"))
            assert ours.read(5).contents == "still here"
            closing = pool.submit(theirs.close)
            ours.close()
            closing.result(10)


class TestCrowds:
    """Those who cannot come in keep nobody else out."""

    @pytest.mark.parametrize("door", EACH_DOOR)
    def test_a_flood(self, door, record_property):
        """CVE-2020-15166 (libzmq): one raw client that says half a sentence, and no other was served any more.

        A process connects up to 10 000 times, says a few bytes of what is right, and holds the last hundred
        connections; the Task comes in at once (`guarded`), and what is held for the others is bounded.
        """
        process = psutil.Process()
        with contextlib.ExitStack() as stack, guarded(door) as listener:
            descriptors, memory = process.num_fds(), process.memory_info().rss
            family, address = place_of(listener)
            command = [sys.executable, "-c", FLOOD, str(int(family)), json.dumps(address)]
            flood = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(flood.kill)
            assert flood.stdout.readline() == b"500\n"  # it is under way
            held = process.num_fds() - descriptors
            grown = process.memory_info().rss - memory
            record_property("seen", f"{held} descriptors held")
            record_property("seen", f"{max(0, grown) / 2**20:.1f} MiB more memory in a flood")
        assert held < 150
        assert grown < 32 << 20

    def test_a_claim(self, record_property):
        """A stranger says how much it will send, and libzmq makes room before it asks who that is: here, for 4 KiB.

        Three strangers claim a gibibyte each, and send as much of it as is taken.
        """
        process = psutil.Process()
        memory, most = process.memory_info().rss, 0
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
        with guarded("zmq-tcp") as listener:
            for _ in range(3):
                with knock(listener) as stranger, contextlib.suppress(OSError):
                    stranger.sendall(greeting + b"\x06" + (1 << 30).to_bytes(8, "big"))
                    for _ in range(64):
                        stranger.sendall(bytes(1 << 20))
                        most = max(most, process.memory_info().rss)
                    pytest.fail("nobody has hung up")
        record_property("seen", f"{max(0, most - memory) / 2**20:.1f} MiB more memory after a claim")
        assert most - memory < 32 << 20


class TestReaders:
    """Who only reads has no power over what others have."""

    def test_a_reader_that_ends_removes_nothing(self):
        """gh-82300 (multiprocessing): a process that only read shared memory removed it for all when it ended.

        Here it has no name that could be removed: arrays of a Task that has ended stay, while others come and go.
        """
        before = set(os.listdir("/dev/shm"))
        with Executor("shm") as executor:
            first = executor.run("sample_tasks:big_array", megabytes=1).value
            for _ in range(3):
                assert executor.run("numpy:sum", a=first).value == first.sum() == sum(range(1 << 17))
            assert set(os.listdir("/dev/shm")) == before


class TestWithoutTrust:
    """With `trust = "none"` a Task is read, and nothing of it is run or believed."""

    @pytest.mark.parametrize(
        ("way", "name"), [("unix", "pickled_result"), ("zmq", "pickled_report"), ("pipe", "pickled_failure")]
    )
    def test_pickles(self, way, name, tmp_path):
        """What is said to be a pickle, or is one in the place of something else, is kept as bytes with an error."""
        mark = tmp_path / "mark"
        host = [sys.executable, "-c", WITHOUT_TRUST, way, name, str(mark)]
        run = subprocess.run(host, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
        assert run.returncode == 0, run.stderr
        status, looked_up, *errors = json.loads(run.stdout)
        assert (status == Status.COMPLETED) == (name == "pickled_report")
        assert looked_up == []
        assert all("data only" in error for error in errors)
        assert len(errors) == {"pickled_report": 2}.get(name, 0)
        assert not mark.exists()

    @pytest.mark.parametrize("way", ["unix-pair", "pipe-in-band", "zmq-ipc"])
    def test_a_message_that_is_too_large(self, way):
        """The limit passes; one byte more ends the channel, and the run with it, with an error that names both."""
        name, settings = WAYS[way]
        spec = TaskSpec(run="hostile_tasks:so_many_bytes", trust="none", limits={"message": 2_000_000})
        with Executor(name, settings={name: settings}) as executor:
            assert len(executor.run(spec, size=2_000_000).value) == 2_000_000
            result = executor.run(spec, size=2_000_001)
        assert result.status in {Status.CRASHED, Status.NO_RESULT}
        assert "a message has 2000001 bytes; the limit is 2000000, `limits.message` of the Task" in str(result.error)
        assert isinstance(result.broken[name], LimitExceededError)

    def test_a_gibibyte_is_refused_by_its_head(self, record_property):
        """The limit holds before there is memory for the message: the Task claims a gibibyte, and begins to send it."""
        process = psutil.Process()
        memory = process.memory_info().rss
        with Executor("unix") as executor:
            result = executor.run(TaskSpec(run="hostile_tasks:so_many_bytes", trust="none"), size=1 << 30)
        grown = process.memory_info().rss - memory
        record_property("seen", f"{max(0, grown) / 2**20:.1f} MiB more memory after a claim")
        assert f"a message has {1 << 30} bytes; the limit is {UNTRUSTED.message}" in str(result.error)
        assert grown < 32 << 20

    def test_text_that_would_exhaust_its_reader(self):
        """JSON nested a million deep, or a number of a million digits: messages that cannot be read, and no more."""
        with Executor("unix") as executor:
            result = executor.run(TaskSpec(run="hostile_tasks:exhausting_json", trust="none"))
        assert (result.status, result.value) == (Status.COMPLETED, "done")
        for message in result.messages:
            with pytest.raises(DecodeError):
                _ = message.contents

    def test_what_is_nested_deep(self):
        """What lies as deep as is allowed can be read; a level more cannot, be it a report or the result."""
        with Executor("unix") as executor:
            result = executor.run(TaskSpec(run="hostile_tasks:nested", trust="none"), depth=UNTRUSTED.depth)
            allowed = executor.run(
                TaskSpec(run="hostile_tasks:nested", trust="none", limits={"depth": 100}), depth=UNTRUSTED.depth
            )
        first, second = result.messages
        assert str(first.contents) == "[" * UNTRUSTED.depth + "]" * UNTRUSTED.depth
        with pytest.raises(DecodeError, match=r"nested 65 deep; the limit is 64, `limits\.depth` of the Task"):
            _ = second.contents
        assert result.status is Status.FAILED
        assert "`limits.depth` of the Task" in str(result.error)
        assert (allowed.status, allowed.value) == (Status.COMPLETED, allowed.messages[1].contents)

    @pytest.mark.parametrize(("way", "size"), [("unix-pair", 0), ("unix-pair", 1 << 20), ("zmq-ipc", 1 << 20)])
    def test_a_flood_that_nobody_reads(self, way, size, record_property):
        """It reports without end: what is kept of it is bounded, small messages too, and then it is ended."""
        process = psutil.Process()
        memory = process.memory_info().rss
        name, settings = WAYS[way]
        with Executor(name, settings={name: settings}, grace="100 ms") as executor:
            result = executor.run(TaskSpec(run="hostile_tasks:flood", trust="none", timeout=50), size=size)
        grown = process.memory_info().rss - memory
        record_property("seen", f"{max(0, grown) / 2**20:.0f} MiB more memory in a flood that nobody reads")
        assert result.status is Status.CRASHED
        assert isinstance(result.error.__cause__, LimitExceededError)
        assert f"the limit is {UNTRUSTED.kept}, `limits.kept` of the Task" in str(result.error)
        assert 0 <= sum(message.nbytes + 512 for message in result.messages) - UNTRUSTED.kept < size + 512
        assert grown < UNTRUSTED.kept + (48 << 20)

    def test_a_flood_that_is_not_kept(self):
        """For the result nothing is; but somebody asked for the messages, and takes none."""
        spec = TaskSpec(run="hostile_tasks:flood", trust="none", keep_messages=False, limits={"kept": "1 MiB"})
        with Executor("unix", grace="100 ms") as executor:
            future = executor.submit(spec, size=1000)
            messages = future.messages()
            result = future.result(30)
        assert (result.status, result.messages) == (Status.CRASHED, ())
        assert isinstance(result.error.__cause__, LimitExceededError)
        assert sum(1 for _ in messages) == -(-(1 << 20) // 1512)  # what was there before it was too much

    def test_output_without_end(self, tmp_path):
        """A program that prints for ever is ended when it has printed what it may, and its file holds no more."""
        spec = TaskSpec(command=["yes"], trust="none", stdout=tmp_path / "out", limits={"output": "3 MB"}, timeout=50)
        with Executor("unix", grace="100 ms") as executor:
            result = executor.run(spec)
        assert result.status is Status.CRASHED
        assert isinstance(result.error.__cause__, LimitExceededError)
        assert "more than 3000000 bytes were printed; the limit is `limits.output` of the Task" in str(result.error)
        assert 2_000_000 < (tmp_path / "out").stat().st_size <= 3_000_000

    @pytest.mark.parametrize("most", [3_000_000, 2_999_999])
    def test_output_at_the_end(self, most):
        """The limit passes; beyond it nothing is a success, not even of a Task that has ended meanwhile."""
        with Executor("unix") as executor:
            result = executor.run(
                TaskSpec(run="hostile_tasks:flood_and_go", trust="none", limits={"output": most}, timeout=50)
            )
        assert result.status is (Status.COMPLETED if most == 3_000_000 else Status.CRASHED), result.error

    @another_user
    def test_as_another_user(self, open_folder):
        """A Task that is to have nothing of this user runs as another one, behind `setpriv`."""
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
        if as_nobody("import os; print(os.__file__)") != os.__file__:
            pytest.skip(f"user {NOBODY} cannot read the library of this Python, {os.__file__}")
        with Executor("unix") as executor:
            spec = TaskSpec(run="os:getuid", trust="none", prefix=prefix, cwd=open_folder)
            result = executor.run(spec)
        assert (result.status, result.value) == (Status.COMPLETED, NOBODY)


# What is refused: the row of the page, what is tried, and the error, whose text says what to do.
REFUSED = {
    "memory that a Task without trust shares": (
        lambda _: Executor("shm").check(TaskSpec(run="os:getpid", trust="none")), ConfigError, "leave it out",
    ),
    "pickles from a Task without trust": (
        lambda _: TaskSpec(run="os:getpid", trust="none", codec="pickle"), ValueError, 'take codec = "pickle" out',
    ),
    "a port at all addresses of this machine": (
        lambda _: listen("zmq-tcp", host="0.0.0.0"), ConfigError, "the numeric address of one interface",
    ),
    "a port at a name": (
        lambda _: listen("zmq-tcp", host="localhost"), ConfigError, "the numeric address of one interface",
    ),
    "a libzmq with known holes": (lambda _: old_libzmq(), PluginUnavailableError, "pip install --upgrade pyzmq"),
    "a path that a socket cannot have": (
        lambda folder: listen("unix", directory=str(long(folder))), ConfigError, "name a shorter place: `dir",
    ),
    "a directory that cannot be made": (
        lambda folder: listen("unix", directory=str(folder / "absent")), ConfigError, "name another place: `dir",
    ),
    "a file system that does not keep modes": (
        lambda folder: careless(folder / ""), ConfigError, r"does not keep private what is private; name another place",
    ),
    "a plugin that was not named, where loading is strict": (
        lambda _: Executor("unix", strict=True).check(TaskSpec(run="os:getpid", communicators=["pipe"])),
        PluginError, "To allow it, name it",
    ),
    "a channel in a fork": (lambda _: forked(), ForkedError, "send from the parent, or start the child as a Task"),
}  # fmt: skip


def old_libzmq():
    """Ask for zmq where libzmq is one that a raw client stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasklink_zmq.communicator, "LEAST_LIBZMQ", (99, 0, 0))
        listen("zmq-tcp")


def long(folder):
    """A folder whose path is long."""
    place = folder / ("x" * 120)
    place.mkdir()
    return place


def careless(folder):
    """Make a directory where chmod and mkdir do not do what they are told."""
    with pytest.MonkeyPatch.context() as patch:
        real = tempfile.mkdtemp

        def open_to_all(*args, **options):
            made = real(*args, **options)
            os.chmod(made, 0o777)
            return made

        patch.setattr(tempfile, "mkdtemp", open_to_all)
        listen("unix", directory=str(folder))


def forked():
    """Write in a child to a channel of its parent; raises what the child was told."""
    with listen("unix") as listener, ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept, 10)
        theirs = connect(listener)
        with accepting.result(10), theirs:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    theirs.write(Message(1))
                except ForkedError as error:
                    os.write(writer, str(error).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            os.close(writer)
            with open(reader, "rb") as file:
                text = file.read().decode()
            raise ForkedError(text)


class TestThePage:
    """core/docs/security.md says what is so."""

    @pytest.mark.parametrize("what", REFUSED)
    def test_what_is_refused(self, what, tmp_path):
        """It is in the table; it raises the error that the table names; and the text of that says what to do."""
        attempt, error, words = REFUSED[what]
        assert f"| {what} | `{error.__name__}` |" in PAGE.read_text()
        with pytest.raises(error, match=words):
            attempt(tmp_path)

    def test_nothing_else_is_in_that_table(self):
        """Each row of the page is tried here."""
        rows = re.findall(r"^\| (.*?) \| `\w*Error` \|", PAGE.read_text(), re.MULTILINE)
        assert set(rows) == set(REFUSED)

    def test_limits(self):
        """Each value is that of the code."""
        rows = re.findall(r"^\| [^|]* \| ([^|]*) \| `([\w.]+):([\w.]+)` \|$", PAGE.read_text(), re.MULTILINE)
        assert len(rows) >= 10
        for value, module, path in rows:
            found = importlib.import_module(module)
            for name in path.split("."):
                found = default_of(found, name)
            parse = parse_duration if re.search(r"\d (ms|s|min)$", value) else parse_size
            assert (parse(value) if " " in value else int(value)) == found, path

    def test_proofs(self):
        """Each test that is named is there."""
        named = re.findall(r"`((?:core/|plugins/\w+/)?tests/test_\w+\.py)(?:::([\w:]+))?`", PAGE.read_text())
        assert len(named) >= 15
        for path, name in named:
            text = (ROOT / path).read_text()
            for part in name.split("::") if name else []:
                assert re.search(rf"(def|class) {part}\b", text), f"{path}::{name}"

    def test_links(self):
        """Every link within the repository has a target; README and the page of guarantees lead here."""
        links = [link for link in re.findall(r"\]\(([^)#]+)", PAGE.read_text()) if "://" not in link]
        assert links
        assert not [link for link in links if not (PAGE.parent / link).exists()]
        assert "(core/docs/security.md)" in (ROOT / "README.md").read_text()
        for page in ("configuration.md", "runs.md", "wire.md"):
            assert "(security.md)" in (PAGE.parent / page).read_text()


def default_of(owner, name):
    """An attribute of a module; or the default of an attrs class."""
    fields = {field.name: field.default for field in getattr(owner, "__attrs_attrs__", ()) if isinstance(owner, type)}
    return fields[name] if name in fields else getattr(owner, name)


@pytest.fixture
def open_folder():
    """A folder that every user can enter, as /tmp is: so it is what we make in it that keeps them out."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(code, *arguments):
    """Run a little Python as another user; what it prints."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*become, sys.executable, "-I", "-S", "-c", code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=20, check=False)
    if "Permission denied" in run.stderr and not run.stdout:
        pytest.skip(f"user {NOBODY} cannot run this Python: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# What ZeroMQ tells of a connection: it is good to talk over; or it is not.
MADE = zmq.EVENT_HANDSHAKE_SUCCEEDED
UNMADE = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


@contextlib.contextmanager
def strangers_context():
    """A context of ZeroMQ whose sockets are closed at the end, whatever they have not sent."""
    context = zmq.Context()
    context.setsockopt(zmq.LINGER, 0)  # of those, too, that are collected before
    try:
        yield context
    finally:
        context.destroy(linger=0)


def record(listener):
    """All that a good Task sends at the door of a Listener, by a wire that is listened to; the Task is not let in."""
    family, address = place_of(listener)
    recorded = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        details = {**listener.address.details, "timeout": 1.0}
        details["endpoint"] = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        task = pool.submit(connect, listener, Address(details, key=listener.address.key))
        connection, _ = server.accept()
        with connection, socket.socket(family) as onward:
            onward.connect(address)
            deadline = time.monotonic() + 10
            while b"\x08INITIATE" not in recorded:
                assert time.monotonic() < deadline
                for ready in select.select([connection, onward], [], [], 1)[0]:
                    data = ready.recv(1 << 16)
                    recorded += data if ready is connection else b""
                    # The answer to the last word is kept from both: for the Executor the Task is still outside.
                    if b"\x08INITIATE" not in recorded:
                        (onward if ready is connection else connection).sendall(data)
        server.close()
        assert task.exception(10) is not None
    return bytes(recorded)


# List a directory, and connect to a Unix socket; print the names of the errors.
KNOCK = """
import errno, os, socket, sys
directory, path = sys.argv[1:]
try:
    found = os.listdir(directory)
except OSError as error:
    found = errno.errorcode[error.errno]
print(found, errno.errorcode.get(socket.socket(socket.AF_UNIX).connect_ex(path), "let in"))
"""

# Connect again and again, and say the beginning of what is right.
FLOOD = r"""
import json, socket, sys
family, address = int(sys.argv[1]), json.loads(sys.argv[2])
address = tuple(address) if isinstance(address, list) else address
beginning = b"tasklink-meet 1" if family == socket.AF_UNIX else b"\xff" + bytes(8) + b"\x7f\x03"
held = []
for number in range(10_000):
    connection = socket.socket(family)
    connection.settimeout(5)
    try:
        connection.connect(address)
        connection.send(beginning)
    except OSError:
        pass
    held = [*held[-100:], connection]
    if number == 500:
        print(number, flush=True)
"""

# Knock at a door with pickles and commands; print what the audit hook has seen until the Task came.
AUDITED = """
import pickle, sys, threading, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, "tests")
import logging
logging.disable()
import zmq
import tests.test_security as security
from tasklink import codec, framing, vocabulary
door, mark = sys.argv[1:]
exploit = pickle.dumps(security.Exploit(mark))
frames = [
    b"".join(framing.encode([exploit], kind, signal, 1))
    for kind in (codec.PICKLE, codec.CLOUDPICKLE)
    for signal in (None, vocabulary.START, vocabulary.CANCEL)
]
with security.guarded(door) as listener:
    with security.knock(listener) as stranger:
        stranger.sendall(b"warm up, with all that is imported at the first time")
        security.hung_up(stranger)
    seen = []
    watched = {"pickle.find_class", "exec", "compile", "import", "subprocess.Popen", "os.system"}
    attacker = threading.get_ident()

    def note(event, what):
        if event in watched and threading.get_ident() != attacker:
            seen.append((event, what))

    sys.addaudithook(note)
    said = (exploit, *frames, security.handshake.BANNER + exploit * 4)
    strangers = [(security.knock(listener), garbage) for garbage in said]
    for stranger, garbage in strangers:
        stranger.sendall(garbage)
    for stranger, _ in strangers:
        security.hung_up(stranger)
        stranger.close()
    family, address = security.place_of(listener)
    where = f"ipc://{address}" if isinstance(address, str) else f"tcp://[{address[0]}]:{address[1]}"
    with security.strangers_context() as context:
        for kind in (zmq.PUSH, zmq.DEALER, zmq.REQ):
            stranger = context.socket(kind)
            stranger.ipv6 = True
            monitor = stranger.get_monitor_socket(security.UNMADE)
            stranger.connect(where)
            try:
                stranger.send_pyobj(security.Exploit(mark), zmq.NOBLOCK)
            except zmq.Again:
                pass  # it is not connected yet
            assert monitor.poll(20_000)
    came, watched = list(seen), set()
print("quiet" if not came else came)
"""

# Run a Task that is not trusted; print how it ended, what pickles have looked up, and the errors of its messages.
WITHOUT_TRUST = """
import json, sys
sys.path.insert(0, "tests/tasks")
from tasklink import Executor, TaskSpec
from tasklink.errors import DecodeError
way, name, mark = sys.argv[1:]
looked_up = []
sys.addaudithook(lambda event, what: looked_up.append(str(what)) if event == "pickle.find_class" else None)
with Executor(way) as executor:
    spec = TaskSpec(run=f"hostile_tasks:{name}", trust="none", timeout=20, parameters={"marker": mark})
    result = executor.run(spec)
errors = []
for message in result.messages:
    try:
        errors.append(repr(message.contents))
    except DecodeError as error:
        errors.append(str(error))
print(json.dumps([result.status, looked_up, *errors]))
"""
