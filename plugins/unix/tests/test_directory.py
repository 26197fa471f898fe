"""The private directory: where it is made, whose it is, and what is refused."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from tasklink.errors import ConfigError
from tasklink_unix.directory import PATH_BYTES, check_length, check_private, make_private_directory, remove


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
    made = make_private_directory(tmp_path)
    assert (mode(made), made.lstat().st_uid, made.parent) == (0o700, os.geteuid(), tmp_path)


def test_no_two_have_the_same_name(tmp_path: Path) -> None:
    """Names are drawn, and what is there is never taken over."""
    made = {make_private_directory(tmp_path) for _ in range(50)}
    assert len(made) == 50


def test_set_group_id_of_the_parent_is_no_fault(tmp_path: Path) -> None:
    """A directory for a group hands its set-group-ID bit on; that opens nothing."""
    tmp_path.chmod(0o2775)
    assert mode(make_private_directory(tmp_path)) & 0o777 == 0o700


class TestParent:
    """Where it is made when nothing is set."""

    def test_the_runtime_directory_of_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """$XDG_RUNTIME_DIR is used when it is this user's own."""
        tmp_path.chmod(0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        assert make_private_directory(None).parent == tmp_path

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
        assert make_private_directory(None).parent == temporary

    def test_it_is_given_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Task may be started in another folder: the path is made absolute."""
        monkeypatch.chdir(tmp_path)
        Path("here").mkdir()
        assert make_private_directory(Path("here")).parent == tmp_path / "here"


class TestRefusal:
    """What cannot be used is refused with what to do about it, and nothing is left behind."""

    def test_there_is_no_such_place(self, tmp_path: Path) -> None:
        """The error names the place, the reason, and the setting."""
        with pytest.raises(ConfigError, match=r"nowhere'.*No such file or directory.*`directory` in \[communicators"):
            make_private_directory(tmp_path / "nowhere")

    @pytest.mark.parametrize(("wrong", "kind"), [(0o755, stat.S_IFDIR), (0o700, stat.S_IFSOCK)])
    def test_the_file_system_did_something_else(self, wrong: int, kind: int, tmp_path: Path) -> None:
        """A mode or type that is not what was asked for is refused: the file system ignores modes."""
        made = tmp_path / "made"
        made.mkdir()
        made.chmod(wrong)
        with pytest.raises(ConfigError, match="does not keep private"):
            check_private(made, kind, 0o700)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make something of another user's")
    def test_it_is_another_users(self, tmp_path: Path) -> None:
        """A file system that maps users, as some network mounts do, is refused."""
        made = make_private_directory(tmp_path)
        os.chown(made, 4242, -1)
        with pytest.raises(ConfigError, match="user 4242"):
            check_private(made, stat.S_IFDIR, 0o700)

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        """A symbolic link in its place is refused, wherever it leads."""
        private = tmp_path / "private"
        private.mkdir(0o700)
        link = tmp_path / "link"
        link.symlink_to(private)
        with pytest.raises(ConfigError):
            check_private(link, stat.S_IFDIR, 0o700)

    def test_the_path_is_too_long(self) -> None:
        """The error names the length, the limit of this system, and the setting; one byte less is fine."""
        limit = 104 if sys.platform == "darwin" else 108
        assert limit == PATH_BYTES
        check_length(Path("/" + "x" * (limit - 2)))
        with pytest.raises(ConfigError, match=rf"has {limit} bytes.*at most {limit - 1}.*{limit}.*`directory`"):
            check_length(Path("/" + "x" * (limit - 1)))

    def test_length_is_counted_in_bytes(self) -> None:
        """A name of few characters may have many bytes."""
        with pytest.raises(ConfigError, match="has 121 bytes"):
            check_length(Path("/" + "ä" * 60))


def test_removing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    """The files of the given names go, and the directory if nothing else is in it; nothing of this raises."""
    made = make_private_directory(tmp_path)
    (made / "socket").touch()
    (made / "other").touch()
    remove(made, "socket")
    assert [path.name for path in made.iterdir()] == ["other"]
    (made / "other").unlink()
    remove(made, "socket")
    remove(made, "socket")
    assert not made.exists()
