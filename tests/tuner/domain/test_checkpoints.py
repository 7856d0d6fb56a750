import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import BinaryIO
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.domain.checkpoints import CheckpointFolder, write_atomically
from tuner.domain.errors import StorageError


def writer(content: bytes):
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def test_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "absent").latest() is None


def test_newest_checkpoint_comes_back_with_its_note(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    folder.save(writer(b"one"), {"samples": 1})
    folder.save(writer(b"two"), {"samples": 2})
    found = folder.latest()
    assert found is not None
    assert found.path.read_bytes() == b"two"
    assert found.note == {"samples": 2}


def test_folder_is_made_with_all_above_it_when_the_first_is_saved(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "study" / "probe-1" / "checkpoints")
    assert not (tmp_path / "study").exists()
    folder.save(writer(b"one"))
    assert folder.latest() is not None


@pytest.mark.parametrize("note", [None, {}, {"samples": 640, "values": [0.5, None], "name": "größe"}])
def test_what_save_returns_is_what_latest_finds(tmp_path: Path, note: dict[str, object] | None) -> None:
    folder = CheckpointFolder(tmp_path)
    saved = folder.save(writer(b"one"), note)
    assert saved.path.read_bytes() == b"one"
    assert saved.note == (note or {})
    assert folder.latest() == saved


def test_another_process_goes_on_counting(tmp_path: Path) -> None:
    numbers = [CheckpointFolder(tmp_path).save(writer(b"")).number for _ in range(3)]
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize(("keep", "left"), [({}, {2, 3}), ({"keep": 1}, {3}), ({"keep": 5}, {1, 2, 3})])
def test_two_are_stored_unless_asked_otherwise(tmp_path: Path, keep: dict[str, int], left: set[int]) -> None:
    folder = CheckpointFolder(tmp_path, **keep)
    for _ in range(3):
        folder.save(writer(b"x"))
    assert {int(path.stem.removeprefix("checkpoint-")) for path in tmp_path.glob("*.pt")} == left


def test_only_the_newest_are_stored(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    for number in range(6):
        folder.save(writer(b"x" * number))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"checkpoint-{n:08d}.{kind}" for n in (4, 5, 6) for kind in ("json", "pt")]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no_content", "bad_manifest", "no_manifest"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(writer(b"good content"))
    newest = folder.save(writer(b"newer content"))
    manifest = newest.path.with_suffix(".json")
    if damage == "truncated":
        newest.path.write_bytes(b"newer")
    elif damage == "flipped":
        newest.path.write_bytes(b"newer_content")
    elif damage == "no_content":
        newest.path.unlink()
    elif damage == "bad_manifest":
        manifest.write_text(json.dumps({"bytes": 13}))
    else:
        manifest.unlink()
    found = folder.latest()
    assert found is not None
    assert found.path.read_bytes() == b"good content"


def test_saving_goes_on_after_a_damaged_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(writer(b"one")).path.write_bytes(b"")
    folder.save(writer(b"two"))
    found = folder.latest()
    assert found is not None
    assert found.path.read_bytes() == b"two"


@settings(max_examples=25)
@given(
    keep=st.integers(1, 3),
    damaged=st.lists(st.sampled_from(["whole", "content", "manifest"]), min_size=1, max_size=5),
)
def test_latest_is_the_newest_that_is_whole(keep: int, damaged: list[str]) -> None:
    # Waiting for the disk would take most of the time, and no crash of the machine is tested here.
    with tempfile.TemporaryDirectory() as name, mock.patch("os.fsync"):
        folder, saved = CheckpointFolder(Path(name), keep=keep), []
        for part in damaged:
            saved.append(folder.save(writer(b"content")))
            if part == "content":
                saved[-1].path.write_bytes(b"damaged")
            elif part == "manifest":
                saved[-1].path.with_suffix(".json").write_text("{")
        whole = [made for made, part in zip(saved, damaged, strict=True) if part == "whole"]
        stored = [made for made in whole if made in saved[-keep:]]
        assert folder.latest() == (stored[-1] if stored else None)


def test_checkpoint_without_its_content_is_pruned_like_any_other(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(writer(b"one")).path.unlink()
    folder.save(writer(b"two"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-00000002.json",
        "checkpoint-00000002.pt",
    ]


def test_content_without_manifest_is_removed_by_the_next_save(tmp_path: Path) -> None:
    # A process that was killed between the two leaves it.
    (tmp_path / "checkpoint-00000007.pt").write_bytes(b"large")
    CheckpointFolder(tmp_path).save(writer(b"one"))
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint-00000001.pt"]


def test_partial_files_go_an_hour_after_the_last_write(tmp_path: Path) -> None:
    now = time.time()
    left, fresh = (tmp_path / f"checkpoint-00000001.pt.{pid}.partial" for pid in (1, 2))
    for path, seconds in ((left, 3660), (fresh, 3540)):
        path.write_bytes(b"part")
        os.utime(path, (now - seconds, now - seconds))
    CheckpointFolder(tmp_path).save(writer(b"one"))
    assert not left.exists()
    assert fresh.exists()


def test_partial_file_that_cannot_be_read_stops_no_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-00000001.pt.1.partial").symlink_to(tmp_path / "nowhere")
    saved = CheckpointFolder(tmp_path).save(writer(b"one"))
    assert saved.path.read_bytes() == b"one"


def test_files_of_others_stay_and_are_no_checkpoints(tmp_path: Path) -> None:
    names = ["model.pt", "checkpoint-1.json", "checkpoint-00000009.json.bak", "old-checkpoint-00000009.json"]
    for name in names:
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (0, 0))
    folder = CheckpointFolder(tmp_path, keep=1)
    assert folder.latest() is None
    assert [folder.save(writer(b"x")).number for _ in range(2)] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} >= set(names)


def test_full_disk_is_a_storage_error_and_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(writer(b"one"))

    def full(file: BinaryIO) -> None:
        file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left on device") as raised:
        folder.save(full)
    assert str(raised.value) == (
        f"the checkpoint in {tmp_path} cannot be written: [Errno 28] No space left on device; "
        "free space or choose another output folder"
    )
    found = folder.latest()
    assert found is not None
    assert found.path.read_bytes() == b"one"
    assert not list(tmp_path.glob("*.partial"))


def test_folder_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        CheckpointFolder(tmp_path / "file" / "run").save(writer(b"x"))


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_none_is_refused(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ValueError, match=f"^keep must be at least 1, got {keep}$"):
        CheckpointFolder(tmp_path, keep=keep)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_atomically(path, writer(b"old"))

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_file_is_there_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")

    write_atomically(path, write)
    assert path.read_bytes() == b"half and half"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_content_is_on_the_disk_before_its_name_and_the_manifest_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, set[str]]] = []

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, {path.suffix for path in tmp_path.iterdir()} - {".partial"}))

    monkeypatch.setattr(os, "fsync", fsync)
    CheckpointFolder(tmp_path).save(writer(b"one"))
    assert seen == [
        ("file", set()),
        ("folder", {".pt"}),
        ("file", {".pt"}),
        ("folder", {".pt", ".json"}),
    ]


def test_two_processes_that_write_one_file_write_apart(tmp_path: Path) -> None:
    names: list[str] = []
    write_atomically(tmp_path / "model.pt", lambda file: names.append(Path(file.name).name))
    assert names == [f"model.pt.{os.getpid()}.partial"]


def test_first_error_is_raised_where_the_folder_has_gone_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()

    def fail(_file: BinaryIO) -> None:
        shutil.rmtree(folder)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_atomically(folder / "model.pt", fail)


def test_writer_killed_midway_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(writer(b"one"))
    code = """
        import os, signal, sys
        from pathlib import Path
        from tuner.domain.checkpoints import CheckpointFolder

        def write(file):
            file.write(b"half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        CheckpointFolder(Path(sys.argv[1])).save(write)
    """
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], cwd=root, check=False, timeout=60
    )
    assert ended.returncode == -9
    found = folder.latest()
    assert found is not None
    assert found.path.read_bytes() == b"one"
    assert folder.save(writer(b"two")).number > found.number
