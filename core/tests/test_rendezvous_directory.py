"""The private directory: where it is made, whose it is, and what is refused."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasklink.errors import ConfigError
from tasklink.rendezvous.directory import PATH_BYTES, PrivateDirectory, check_private, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator


TABLE = "communicators.pigeon"


@pytest.fixture(autouse=True)
def made() -> Iterator[list[PrivateDirectory]]:
    """The directories that a test has made; closed at its end."""
    _made.clear()
    before = sorted(os.listdir("/dev/fd"))
    yield _made
    for directory in _made:
        directory.close()
    assert sorted(os.listdir("/dev/fd")) == before


_made: list[PrivateDirectory] = []


def make(parent: Path | None) -> PrivateDirectory:
    """Make one."""
    _made.append(PrivateDirectory(parent, table=TABLE))
    return _made[-1]


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> object:
    """A umask, taken back afterwards."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """The permissions of what stands there, a link not followed."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_only_its_owner_can_enter(umask: object, tmp_path: Path) -> None:
    """The directory has mode 0700 and is ours, whatever the umask is."""
    made = make(tmp_path).path
    assert (mode(made), made.lstat().st_uid, made.parent) == (0o700, os.geteuid(), tmp_path)


def test_no_two_have_the_same_name(tmp_path: Path) -> None:
    """Names are drawn, and what is there is never taken over."""
    made = {make(tmp_path).path for _ in range(50)}
    assert len(made) == 50


def test_set_group_id_of_the_parent_is_no_fault(tmp_path: Path) -> None:
    """A directory for a group hands its set-group-ID bit on; that opens nothing."""
    tmp_path.chmod(0o2775)
    assert mode(make(tmp_path).path) & 0o777 == 0o700


class TestParent:
    """Where it is made when nothing is set."""

    def test_the_runtime_directory_of_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """$XDG_RUNTIME_DIR is used when it is this user's own."""
        tmp_path.chmod(0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        assert make(None).path.parent == tmp_path

    @pytest.mark.parametrize("fault", ["open to others", "missing", "not a directory", "empty"])
    def test_a_runtime_directory_that_is_none(
        self, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A variable that came from elsewhere is passed over, in favour of the directory for temporary files."""
        runtime = tmp_path / "runtime"
        if fault == "open to others":
            runtime.mkdir()
            runtime.chmod(0o755)
        elif fault == "not a directory":
            runtime.touch(0o700)
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", "" if fault == "empty" else str(runtime))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        assert make(None).path.parent == temporary

    def test_it_is_given_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Task may be started in another folder: the path is made absolute."""
        monkeypatch.chdir(tmp_path)
        Path("here").mkdir()
        assert make(Path("here")).path.parent == tmp_path / "here"


class TestRefusal:
    """What cannot be used is refused with what to do about it, and nothing is left behind."""

    def test_there_is_no_such_place(self, tmp_path: Path) -> None:
        """The error names the place, the reason, and the setting."""
        with pytest.raises(
            ConfigError, match=r"nowhere'.*No such file or directory.*`directory` in \[communicators.pigeon\]"
        ):
            make(tmp_path / "nowhere")

    @pytest.mark.parametrize(("wrong", "kind"), [(0o755, stat.S_IFDIR), (0o700, stat.S_IFSOCK)])
    def test_the_file_system_did_something_else(self, wrong: int, kind: int, tmp_path: Path) -> None:
        """A mode or type that is not what was asked for is refused: the file system ignores modes."""
        made = tmp_path / "made"
        made.mkdir()
        made.chmod(wrong)
        with pytest.raises(ConfigError, match=r"does not keep private.*\[communicators\.pigeon\]"):
            check_private(made, kind, 0o700, table=TABLE)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make something of another user's")
    def test_it_is_another_users(self, tmp_path: Path) -> None:
        """A file system that maps users, as some network mounts do, is refused."""
        made = make(tmp_path).path
        os.chown(made, 4242, -1)
        with pytest.raises(ConfigError, match="user 4242"):
            check_private(made, stat.S_IFDIR, 0o700, table=TABLE)

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        """A symbolic link in its place is refused, wherever it leads."""
        private = tmp_path / "private"
        private.mkdir(0o700)
        link = tmp_path / "link"
        link.symlink_to(private)
        with pytest.raises(ConfigError):
            check_private(link, stat.S_IFDIR, 0o700, table=TABLE)

    def test_the_path_is_too_long(self, tmp_path: Path) -> None:
        """The error names the length, the limit of this system, and the setting; one byte less is fine."""
        limit = 104 if sys.platform == "darwin" else 108
        assert limit == PATH_BYTES
        made = make(tmp_path)
        made.check_length(Path("/" + "x" * (limit - 2)))
        with pytest.raises(ConfigError, match=rf"has {limit} bytes.*at most {limit - 1}.*{limit}.*`directory`"):
            made.check_length(Path("/" + "x" * (limit - 1)))

    def test_length_is_counted_in_bytes(self, tmp_path: Path) -> None:
        """A name of few characters may have many bytes."""
        with pytest.raises(ConfigError, match="has 121 bytes"):
            make(tmp_path).check_length(Path("/" + "ä" * 60))


class TestClosing:
    """The orderly end."""

    def test_it_goes_with_all_that_is_in_it(self, tmp_path: Path) -> None:
        """Files and folders in it go too, and to close twice does nothing."""
        directory = make(tmp_path)
        (directory.path / "folder").mkdir()
        (directory.path / "folder" / "file").touch()
        directory.close()
        directory.close()
        assert list(tmp_path.iterdir()) == []

    def test_it_was_removed_by_somebody_else(self, tmp_path: Path) -> None:
        """That is no error: it is what was wanted."""
        directory = make(tmp_path)
        directory.path.rmdir()
        directory.close()

    def test_a_fork_leaves_it_to_its_parent(self, tmp_path: Path) -> None:
        """A child that closes its copy removes nothing, and does not give the lock back."""
        directory = make(tmp_path)
        pid = os.fork()
        if pid == 0:
            directory.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert sweep(tmp_path) == 0
        assert directory.path.exists()


# Makes directories where it is told, prints the path of each, and waits to be killed.
OWNER = """
import sys
from pathlib import Path
from tasklink.rendezvous.directory import PrivateDirectory
made = [PrivateDirectory(Path(sys.argv[1]), table="communicators.pigeon") for _ in range(int(sys.argv[2]))]
for directory in made:
    (directory.path / "socket").touch()
    print(directory.path)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(parent: Path, count: int = 1) -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    """A process that has made directories, and these; killed at the end, so that it can remove none of them."""
    command = [sys.executable, "-c", OWNER, str(parent), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, [Path(line.strip()) for line in iter(process.stdout.readline, "\n")]
        finally:
            process.kill()


class TestSweep:
    """What owners that were killed have left is removed by whoever makes a directory beside it."""

    def test_what_a_killed_owner_has_left(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The next one removes it, with what is in it, and logs how many there were."""
        with owner(tmp_path, 3) as (_, left):
            pass
        assert [path.parent for path in left if (path / "socket").exists()] == [tmp_path] * 3
        with caplog.at_level(logging.INFO):
            directory = make(tmp_path)
        assert list(tmp_path.iterdir()) == [directory.path]
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("tasklink.rendezvous", logging.INFO)
        assert record.getMessage() == f"removed 3 directories in {tmp_path} that dead processes had left"

    def test_the_living_keep_theirs(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Those of other processes, of this one and of other threads stay, and nothing is logged."""
        own = make(tmp_path)
        with owner(tmp_path, 2) as (_, others), caplog.at_level(0):
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(sweep, tmp_path).result() == 0
            assert sweep(tmp_path) == 0
            assert sorted(tmp_path.iterdir()) == sorted([own.path, *others])
            assert caplog.records == []

    def test_what_is_not_a_private_directory(self, tmp_path: Path) -> None:
        """Files, links and directories of other names, of other machines, or just being made, are not touched."""
        with owner(tmp_path) as (_, (left,)):
            pass
        (tmp_path / f".{left.name}1").mkdir()  # as one is called before it is locked
        (tmp_path / f"tasklink-00000000-{left.name[-8:]}").mkdir()  # the name of another machine
        (tmp_path / "tasklink-results").mkdir()
        (tmp_path / f"{left.name}2").touch()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / f"{left.name}3").symlink_to(tmp_path / "elsewhere")
        before = set(tmp_path.iterdir())
        assert sweep(tmp_path) == 1
        assert set(tmp_path.iterdir()) == before - {left}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make something of another user's")
    def test_what_is_another_users(self, tmp_path: Path) -> None:
        """Root, who could, does not remove what other users have left."""
        with owner(tmp_path) as (_, (left,)):
            pass
        os.chown(left, 4242, -1)
        assert sweep(tmp_path) == 0
        assert left.exists()

    def test_a_place_that_cannot_be_listed(self, tmp_path: Path) -> None:
        """To sweep what is not there is no error."""
        assert sweep(tmp_path / "nowhere") == 0

    def test_several_at_once(self, tmp_path: Path) -> None:
        """Processes that sweep at the same time have no errors, and remove each directory once between them."""
        with ExitStack() as living:
            lives = [living.enter_context(owner(tmp_path, 5))[1] for _ in range(2)]
            for _ in range(3):
                with owner(tmp_path, 20) as (dying, _):
                    dying.kill()
                    dying.wait()
                    assert sum(swept_by(3, tmp_path)) == 20
            assert set(tmp_path.iterdir()) == {path for paths in lives for path in paths}

    def test_none_is_taken_while_it_is_made(self, tmp_path: Path) -> None:
        """While others sweep as fast as they can, whoever makes a directory has it until it is closed."""
        done = threading.Event()

        def keep_sweeping() -> int:
            removed = 0
            while not done.is_set():
                removed += sweep(tmp_path)
            return removed

        with ThreadPoolExecutor(2) as pool:
            sweepers = [pool.submit(keep_sweeping) for _ in range(2)]
            try:
                for _ in range(300):
                    with PrivateDirectory(tmp_path, table=TABLE) as directory:
                        (directory.path / "socket").touch()
            finally:
                done.set()
            assert [sweeper.result() for sweeper in sweepers] == [0, 0]


# Says that it is there, waits for the end of its input, sweeps, and says how many it has removed.
SWEEPER = """
import sys
from pathlib import Path
from tasklink.rendezvous.directory import sweep
print("ready", flush=True)
sys.stdin.read()
print(sweep(Path(sys.argv[1])))
"""


def swept_by(count: int, parent: Path) -> list[int]:
    """Have so many processes sweep at the same moment; how many directories each has removed."""
    command = [sys.executable, "-W", "error", "-c", SWEEPER, str(parent)]
    reader, writer = os.pipe()
    with ExitStack() as started:
        sweepers = [
            started.enter_context(subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, text=True))
            for _ in range(count)
        ]
        os.close(reader)
        outputs = [sweeper.stdout for sweeper in sweepers if sweeper.stdout is not None]
        ready = [output.readline() for output in outputs]
        os.close(writer)
        removed = [int(output.read()) for output in outputs]
    assert ready == ["ready\n"] * count
    assert [sweeper.returncode for sweeper in sweepers] == [0] * count
    return removed
