import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from parallax.errors import DiskFullError
from parallax.runtime.files import (
    STAGING_MARK,
    _process_mark,
    explain_disk_full,
    file_sha256,
    publish_file,
    remove_directory,
    remove_leftovers,
    staged_directory,
    write_text_atomic,
)

NO_SUCH_PROCESS = 999_999_999


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and renamed, in order, as `sync NAME` and `rename NAME`."""
    seen: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def noted_fsync(descriptor: int) -> None:
        seen.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def noted(move: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def moved(source: Path, target: Path) -> None:
            seen.append(f"rename {Path(target).name}")
            move(source, target)

        return moved

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted(rename))
    monkeypatch.setattr(os, "replace", noted(replace))
    return seen


def _mine() -> str:
    """How the staging names of this process end."""
    return f"{_process_mark(os.getpid())}-{os.getpid()}"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _stage(target: Path, text: str, *, replace: bool = False) -> None:
    with staged_directory(target, replace=replace) as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "file").write_text(text)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
    ],
    ids=repr,
)
def test_every_way_to_say_that_a_disk_is_full_is_understood(error: Exception) -> None:
    message = r"^runs/x: the disk or quota is full; .* intact"
    with pytest.raises(DiskFullError, match=message) as caught, explain_disk_full(Path("runs/x")):
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_pass_as_they_are() -> None:
    error = OSError(errno.EACCES, "Permission denied")
    with pytest.raises(OSError, match="Permission denied") as caught, explain_disk_full(Path("runs/x")):
        raise error
    assert caught.value is error


def test_a_text_is_replaced_as_a_whole_and_synced_before_it_is_seen(tmp_path: Path, calls: list[str]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old and longer")
    write_text_atomic(path, "nëw")
    assert path.read_bytes() == "nëw".encode()
    assert _names(tmp_path) == ["file.txt"]
    assert calls == [
        f"sync {STAGING_MARK}file.txt-{_mine()}",
        "rename file.txt",
        f"sync {tmp_path.name}",
    ]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_text_that_could_not_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with monkeypatch.context() as full:
        full.setattr(os, call, _raise_full)
        with pytest.raises(DiskFullError):
            write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file.txt"]


def test_a_folder_appears_only_when_every_byte_of_it_is_on_the_disk(tmp_path: Path, calls: list[str]) -> None:
    target = tmp_path / "made" / "folder"
    with staged_directory(target) as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "file").write_text("x")
        assert not target.exists()
    assert (target / "inner" / "file").read_text() == "x"
    assert _names(target.parent) == ["folder"]
    assert calls == [
        "sync file",
        "sync inner",
        f"sync {STAGING_MARK}folder-{_mine()}",
        "rename folder",
        "sync made",
    ]


@pytest.mark.parametrize("error", [ValueError("own"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("replace", [False, True])
def test_a_block_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, error: BaseException, replace: bool
) -> None:
    target = tmp_path / "folder"
    if replace:
        _stage(target, "old")
    before = _names(tmp_path)
    with pytest.raises(type(error)):
        _fail_while_staging(target, error, replace=replace)
    assert _names(tmp_path) == before
    assert not replace or (target / "inner" / "file").read_text() == "old"


def test_an_existing_folder_is_replaced_only_when_that_was_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    _stage(target, "old")
    with pytest.raises(FileExistsError, match="folder exists"):
        _stage(target, "new")
    assert (target / "inner" / "file").read_text() == "old"
    _stage(target, "new", replace=True)
    assert (target / "inner" / "file").read_text() == "new"
    assert _names(tmp_path) == ["folder"]


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    _stage(target, "old")
    rename = os.rename

    def refuse_new(source: Path, goal: Path) -> None:
        if Path(source).name == f"{STAGING_MARK}folder-{_mine()}":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        rename(source, goal)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse_new)
        with pytest.raises(PermissionError):
            _stage(target, "new", replace=True)
    assert (target / "inner" / "file").read_text() == "old"
    assert _names(tmp_path) == ["folder"]


def test_a_folder_is_renamed_before_it_is_emptied(tmp_path: Path, calls: list[str]) -> None:
    _stage(tmp_path / "folder", "x")
    calls.clear()
    remove_directory(tmp_path / "folder")
    assert calls == [f"rename {STAGING_MARK}folder-deleted-{_mine()}"]
    assert _names(tmp_path) == []


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    dead_folder = tmp_path / f"{STAGING_MARK}step-1-{NO_SUCH_PROCESS}"
    dead_folder.mkdir()
    (dead_folder / "file").write_text("x")
    (tmp_path / f"{STAGING_MARK}best.json-{NO_SUCH_PROCESS}").write_text("x")
    (tmp_path / f"{STAGING_MARK}without a process").write_text("x")
    mine = tmp_path / f"{STAGING_MARK}step-2-{os.getpid()}"
    mine.mkdir()
    (tmp_path / "kept").write_text("x")
    removed = remove_leftovers(tmp_path)
    assert len(removed) == 3
    assert dead_folder.name in removed
    assert _names(tmp_path) == [mine.name, "kept"]


def test_a_leftover_older_than_this_process_goes_though_its_id_is_alive_again(tmp_path: Path) -> None:
    left = tmp_path / f"{STAGING_MARK}step-1-{os.getpid()}"
    left.mkdir()
    os.utime(left, (0, 0))
    assert remove_leftovers(tmp_path) == [left.name]
    assert _names(tmp_path) == []


def test_a_missing_folder_has_no_leftovers(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path / "nowhere") == []


def test_a_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def _fail_while_staging(target: Path, error: BaseException, *, replace: bool) -> None:
    with staged_directory(target, replace=replace) as staging:
        (staging / "file").write_text("x")
        raise error


def _raise_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("links", [True, False])
def test_a_published_file_takes_a_free_name_and_no_other(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "staging").write_text("new")
    (tmp_path / "taken").write_text("old")
    with pytest.raises(FileExistsError):
        publish_file(tmp_path / "staging", tmp_path / "taken")
    publish_file(tmp_path / "staging", tmp_path / "free")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"taken": "old", "free": "new"}
