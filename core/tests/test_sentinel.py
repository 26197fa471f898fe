"""The sentinel: what it keeps and what it sweeps, function by function; on real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import sentinel
from tasklink.sentinel import GRACE, Wards, attend, members, open_end, record, signal_groups, sweep, wait_for_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Group = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]

pytestmark = pytest.mark.usefixtures("clean")

# New in each process: a daemon must not be found by another test, nor by another run of the same one.
ORIGIN = uuid.uuid4().hex

LEAVES_A_NOTE = """
import signal, sys
def note(*_):
    open(sys.argv[1], "w").write("asked")
    sys.exit()
signal.signal(signal.SIGTERM, note)
print('ready', flush=True)
signal.pause()
"""


class TestEnds:
    """Descriptors that tell of the end of a process."""

    def test_end(self, group: Group, end_of: Callable[[int], int]) -> None:
        """It is readable when the process has ended, not before, and still after it was reaped."""
        with group("sleep", "60") as process:
            end = end_of(process.pid)
            assert not os.get_inheritable(end)
            assert not wait_for_ends([end], 0)
            process.kill()
            assert wait_for_ends([end], None)
            process.wait()
            assert wait_for_ends([end], 0)

    def test_process_that_is_gone(self, end_of: Callable[[int], int]) -> None:
        """A process that somebody else has reaped has ended."""
        with subprocess.Popen(["true"]) as process:
            process.wait()
        assert wait_for_ends([end_of(process.pid)], 0)

    def test_several(self, group: Group, end_of: Callable[[int], int]) -> None:
        """All are waited for, and no longer than the timeout says."""
        with group("sleep", "60") as first, group("sleep", "60") as second:
            ends = [end_of(first.pid), end_of(second.pid)]
            first.kill()
            before = time.monotonic()
            assert not wait_for_ends(ends, 0.1)
            assert 0.1 <= time.monotonic() - before < 1
            second.kill()
            assert wait_for_ends(ends, 5)
        assert wait_for_ends([], None)

    def test_without_the_binding_of_pidfd_open(
        self, group: Group, end_of: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A Python that was built without os.pidfd_open asks the kernel itself."""
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        with group("sleep", "60") as process:
            end = end_of(process.pid)
            assert not os.get_inheritable(end)
            assert not wait_for_ends([end], 0)
            process.kill()
            assert wait_for_ends([end], 5)
            process.wait()
            assert wait_for_ends([end_of(process.pid)], 0)
        with pytest.raises(OSError, match="Invalid argument"):
            open_end(-1)


names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)
changes = st.one_of(
    st.tuples(st.sampled_from([b"+", b"-"]), st.just(b"group"), st.integers(2, 5).map(lambda n: b"%d" % n)),
    st.tuples(st.sampled_from([b"+", b"-"]), st.just(b"origin"), st.sampled_from([b"5ed8", b"5ed9"])),
    st.tuples(
        st.sampled_from([b"+", b"-"]), st.just(b"directory"), st.sampled_from([b"/a", b"/b c", b"/d\n+", b"/\xff"])
    ),
)


class TestWards:
    """The records, without a process."""

    @given(st.lists(changes), st.data())
    def test_records_split_anywhere(self, changes: list[tuple[bytes, bytes, bytes]], data: st.DataObject) -> None:
        """However the bytes arrive, what is kept is what the changes say."""
        stream = b"".join(record(*change) for change in changes)
        cuts = data.draw(st.lists(st.integers(0, len(stream))).map(sorted))
        wards = Wards()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            wards.feed(stream[start:end])
        expected: set[tuple[bytes, bytes]] = set()
        for sign, kind, name in changes:
            (expected.add if sign == b"+" else expected.discard)((kind, name))
        assert wards.groups == {int(name) for kind, name in expected if kind == b"group"}
        assert wards.origins == {name for kind, name in expected if kind == b"origin"}
        assert wards.directories == {name for kind, name in expected if kind == b"directory"}

    @given(st.lists(changes))
    def test_records_lead_to_the_same(self, changes: list[tuple[bytes, bytes, bytes]]) -> None:
        """What is kept can be told to another sentinel."""
        wards, other = Wards(), Wards()
        for change in changes:
            wards.feed(record(*change))
        other.feed(wards.records())
        assert (other.groups, other.origins, other.directories) == (wards.groups, wards.origins, wards.directories)

    @given(st.sampled_from([b"group", b"directory"]), names, st.data())
    def test_record_that_was_cut_off(self, kind: bytes, name: bytes, data: st.DataObject) -> None:
        """The tail of a record that its writer did not finish means nothing: `+group 12` may have been 123."""
        whole = record(b"+", kind, name)
        wards = Wards()
        wards.feed(whole[: data.draw(st.integers(0, len(whole) - 1))])
        assert (wards.groups, wards.directories, wards.records()) == (frozenset(), frozenset(), b"")

    @given(st.binary())
    def test_other_bytes(self, data: bytes) -> None:
        """Nothing that arrives raises, or means a group that is no single one."""
        wards = Wards()
        wards.feed(data + b"\0")
        assert all(group > 1 for group in wards.groups)

    @pytest.mark.parametrize("name", [b"0", b"1", b"-1", b"", b"x"])
    def test_groups_that_are_no_single_one(self, name: bytes) -> None:
        """0 is our own group to the kernel, and 1 is every process there is."""
        wards = Wards()
        wards.feed(record(b"+", b"group", name))
        assert wards.groups == frozenset()


class TestGroups:
    """Process groups, and who is in them."""

    def test_members(self, group: Group) -> None:
        """The living processes of a group and of no other; one that has ended is none, although it was not reaped."""
        with group("sh", "-c", "sleep 60 & echo $!") as process:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert members(frozenset([process.pid])) == [child]
            os.killpg(process.pid, signal.SIGKILL)

    def test_group_that_is_gone(self, group: Group) -> None:
        """It is passed over: the signal reaches the others."""
        with group("sleep", "60") as process:
            signal_groups(frozenset([1 << 22, process.pid, (1 << 22) + 1]), signal.SIGTERM)
            assert process.wait(5) == -signal.SIGTERM


def test_attend() -> None:
    """All that the Executor wrote before it ended is read, although a child that it forked holds the channel open."""
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen(["sleep", "60"]) as executor:
        end = open_end(executor.pid)
        executor.kill()
        executor.wait()
        wards = Wards()
        ours.sendall(record(b"+", b"group", b"123") + b"+group 45")
        attend(theirs.fileno(), end, wards)
        assert wards.groups == {123}
        os.close(end)


def of_group(process: subprocess.Popen[bytes]) -> Wards:
    """What is kept when one group is guarded."""
    wards = Wards()
    wards.feed(record(b"+", b"group", b"%d" % process.pid))
    return wards


@contextmanager
def bearing(origins: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, with this in its environment."""
    environment = {**os.environ, "TASKLINK_ORIGIN": origins}
    with subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def of_directories(*directories: Path) -> Wards:
    """What is kept when some directories are guarded."""
    wards = Wards()
    for directory in directories:
        wards.feed(record(b"+", b"directory", os.fsencode(directory)))
    return wards


class TestSweep:
    """The end of what is kept."""

    def test_group_is_asked_first(self, group: Group, python: tuple[str, ...], tmp_path: Path) -> None:
        """SIGTERM comes before SIGKILL, and the rest of the grace is not waited for."""
        with group(*python, LEAVES_A_NOTE, str(tmp_path / "note")) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            sweep(of_group(process))
            assert process.wait(0) == 0
        assert (tmp_path / "note").read_text() == "asked"

    def test_group_that_ignores_sigterm(self, group: Group, stubborn: tuple[str, ...]) -> None:
        """It is killed after the grace, and the sweep is over only then."""
        with group(*stubborn) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            before = time.monotonic()
            sweep(of_group(process))
            assert GRACE <= time.monotonic() - before < 1
            assert process.wait(0) == -signal.SIGKILL

    def test_stopped_group(self, group: Group) -> None:
        """A stopped group is ended by SIGTERM: it is continued."""
        with group("sleep", "60") as process:
            os.killpg(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            sweep(of_group(process))
            assert process.wait(0) == -signal.SIGTERM

    @pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc to look for it in")
    def test_what_has_left_its_group(self) -> None:
        """It is ended by its origin, wherever it went; what has another one is not."""
        wards = Wards()
        wards.feed(record(b"+", b"origin", ORIGIN.encode()))
        with bearing(f"5ed8 {ORIGIN}") as ours, bearing("5ed8") as another:
            sweep(wards)
            assert ours.wait(5) == -signal.SIGKILL
            assert another.poll() is None

    def test_group_without_its_leader(self, group: Group, end_of: Callable[[int], int]) -> None:
        """What is left of a group whose leader has ended is ended as well."""
        with group("sh", "-c", "sleep 60 & echo $!") as process:
            assert process.stdout is not None
            child = end_of(int(process.stdout.readline()))
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            sweep(of_group(process))
            assert wait_for_ends([child], 0)

    def test_directories(self, tmp_path: Path) -> None:
        """They are removed with all that is in them, whatever their names; one that is absent is passed over."""
        kept = [tmp_path / "plain", tmp_path / "new\nline", tmp_path / os.fsdecode(b"\xff")]
        for directory in kept:
            (directory / "sub").mkdir(parents=True)
            (directory / "sub" / "file").touch()
        sweep(of_directories(tmp_path / "absent", *kept))
        assert list(tmp_path.iterdir()) == []

    def test_link_in_place_of_a_directory(self, tmp_path: Path) -> None:
        """What a link points to is not ours."""
        (tmp_path / "theirs").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "theirs")
        sweep(of_directories(tmp_path / "link"))
        assert (tmp_path / "theirs").is_dir()


def test_it_imports_little() -> None:
    """It starts on the modules that an interpreter has anyway, and few more: about 9 ms of processor time."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        argv = [sys.executable, "-I", "-S", "-X", "importtime", sentinel.__file__]
        told = subprocess.run(
            [*argv, str(theirs.fileno()), str(os.getpid()), "-1"],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert {"os", "select"} <= imported
    assert not imported & {"collections", "enum", "re", "signal", "socket", "subprocess", "threading", "typing"}
