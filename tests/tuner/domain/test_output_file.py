from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from tuner.domain.errors import JobError, StorageError
from tuner.domain.output_file import PRIVATE, check_free, write_output


@pytest.mark.parametrize("kind", ["a folder", "a symbolic link", "a FIFO", "a socket", "a device"])
def test_only_a_regular_file_is_replaced(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path, target = Path("out.txt"), tmp_path / "elsewhere"
    target.write_text("untouched")
    if kind == "a folder":
        path.mkdir()
    elif kind == "a symbolic link":
        path.symlink_to(target)
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path = Path("/dev/null")
    before = path.lstat().st_mode
    for write in (lambda: write_output(path, "x"), lambda: check_free(path, force=True)):
        with pytest.raises(StorageError, match=rf"{path} cannot be written: it is {kind}, .* choose another"):
            write()
    assert path.lstat().st_mode == before
    assert target.read_text() == "untouched"
    assert {entry.name for entry in tmp_path.iterdir()} <= {"out.txt", "elsewhere"}


def test_a_file_is_replaced_with_the_permissions_that_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    write_output(path, "old")
    write_output(path, "new \udcff", mode=PRIVATE)
    assert path.read_text() == "new \\udcff"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["y" * 300, "nul\0", "a" * 5000])
def test_an_impossible_path_is_a_storage_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be written: .*choose another path"):
        write_output(tmp_path / name, "x")


def test_a_file_that_exists_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    check_free(path, force=None)
    path.touch()
    check_free(path, force=True)
    with pytest.raises(JobError, match=r"job.toml already exists; give another path, or --force"):
        check_free(path, force=False)
    with pytest.raises(JobError, match=r"already exists; give another path$"):
        check_free(path, force=None)
    with pytest.raises(StorageError, match="there is no folder"):
        check_free(tmp_path / "new" / "x", force=None)
    check_free(tmp_path / "new" / "x", force=False, makes_folder=True)


def test_a_new_file_follows_the_umask_and_a_replaced_one_keeps_its_mode(tmp_path: Path) -> None:
    path, private = tmp_path / "job.toml", tmp_path / "secret.env"
    before = os.umask(0o077)
    try:
        write_output(path, "a")
        write_output(private, "a", mode=PRIVATE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    private.chmod(0o644)
    write_output(path, "b")
    write_output(private, "b", mode=PRIVATE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
