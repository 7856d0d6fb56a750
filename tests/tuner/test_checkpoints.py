import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import BinaryIO

import pytest

from tuner.checkpoints import CheckpointFolder, write_atomically
from tuner.errors import StorageError


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


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
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


def test_full_disk_is_a_storage_error_and_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(writer(b"one"))

    def full(file: BinaryIO) -> None:
        file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"No space left on device.*make room"):
        folder.save(full)
    found = folder.latest()
    assert found is not None
    assert found.path.read_bytes() == b"one"
    assert not list(tmp_path.glob("*.partial"))


def test_folder_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        CheckpointFolder(tmp_path / "file" / "run").save(writer(b"x"))


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        CheckpointFolder(tmp_path, keep=0)


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


def test_writer_killed_midway_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(writer(b"one"))
    code = """
        import os, signal, sys
        from pathlib import Path
        from tuner.checkpoints import CheckpointFolder

        def write(file):
            file.write(b"half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        CheckpointFolder(Path(sys.argv[1])).save(write)
    """
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], cwd=root, check=False, timeout=60
    )
    assert ended.returncode == -9
    found = folder.latest()
    assert found is not None
    assert found.path.read_bytes() == b"one"
    assert folder.save(writer(b"two")).number > found.number
