"""Saves checkpoints atomically in a folder, and finds the newest undamaged one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tuner.domain.errors import StorageError

#: A partial file that was not written to for this many seconds was left by a killed process, and is removed.
_ABANDONED_SECONDS = 3600.0

_NAME = re.compile(r"checkpoint-(\d{8})\.json")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One undamaged checkpoint of a training, on disk.

    Args:
        path: Path of the content file, from which training resumes.
        number: Serial number in the folder; the newest checkpoint has the largest.
        note: Data (strings, numbers, lists and dictionaries) that were saved with the checkpoint, in its
            manifest.
    """

    path: Path
    number: int
    note: Mapping[str, Any] = field(default_factory=dict)


class CheckpointFolder:
    """Saves and finds the checkpoints of one training in a folder.

    A checkpoint consists of a content file and a manifest, a small file with the size and SHA-256 of the
    content. Each file is written under a temporary name, flushed to the disk and renamed, the manifest last.
    A process that is killed while saving therefore does not damage earlier checkpoints. A content file that
    does not match its manifest is ignored.

    Args:
        folder: The folder; created when the first checkpoint is saved.
        keep: Maximum number of checkpoints in the folder, at least 1; when it is exceeded, the oldest are
            removed. With 2, an undamaged checkpoint is left if the disk damages the newest one.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder = folder
        self.keep = keep

    def save(self, write: Callable[[BinaryIO], None], note: Mapping[str, Any] | None = None) -> Checkpoint:
        """Saves a new checkpoint, and removes old ones beyond `keep`.

        Args:
            write: Function that writes the content to the binary file that it is called with.
            note: Data to save in the manifest of the checkpoint; it must be convertible to JSON.

        Raises:
            StorageError: The folder cannot be written, or the disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            number = max(self._numbers(), default=0) + 1
            content = self._content(number)
            write_atomically(content, write)
            manifest = {**_fingerprint(content), "note": dict(note or {})}
            text = json.dumps(manifest, indent=1).encode()
            write_atomically(self._manifest(number), lambda file: file.write(text))
            self._prune()
        except OSError as error:
            raise StorageError(
                f"the checkpoint in {self.folder} cannot be written: {error}; "
                "free space or choose another output folder"
            ) from error
        return Checkpoint(path=content, number=number, note=dict(note or {}))

    def latest(self) -> Checkpoint | None:
        """Returns the newest undamaged checkpoint; None if there is none."""
        for number in sorted(self._numbers(), reverse=True):
            found = self._whole(number)
            if found is not None:
                return found
        return None

    def _whole(self, number: int) -> Checkpoint | None:
        content = self._content(number)
        try:
            manifest = json.loads(self._manifest(number).read_bytes())
            if content.stat().st_size != manifest["bytes"] or _fingerprint(content) != {
                "bytes": manifest["bytes"],
                "sha256": manifest["sha256"],
            }:
                return None
            return Checkpoint(path=content, number=number, note=manifest["note"])
        except (OSError, ValueError, KeyError, TypeError):
            # An unreadable checkpoint counts as damaged; an older one may be undamaged.
            return None

    def _content(self, number: int) -> Path:
        return self.folder / f"checkpoint-{number:08d}.pt"

    def _manifest(self, number: int) -> Path:
        return self.folder / f"checkpoint-{number:08d}.json"

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return [int(match[1]) for match in matches if match]

    def _prune(self) -> None:
        numbers = sorted(self._numbers(), reverse=True)
        for number in numbers[self.keep :]:
            # The manifest is removed first: a content file without a manifest is no checkpoint.
            self._manifest(number).unlink(missing_ok=True)
        retained = {self._content(number) for number in numbers[: self.keep]}
        for path in self.folder.glob("checkpoint-*.pt"):
            if path not in retained:
                path.unlink(missing_ok=True)
        for path in self.folder.glob("checkpoint-*.partial"):
            # Old partial files were left by killed processes; another process may still write to a new one.
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file such that it is either complete or unchanged, even if the process is killed.

    Args:
        path: Path of the file; an existing file is replaced.
        write: Function that writes the content to the binary file that it is called with.

    Raises:
        OSError: The file cannot be written; no partial file is left.
    """
    # The name contains the process number, so two processes do not write to the same partial file.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The rename is on the disk only after the folder was flushed.
        os.fsync(folder)
    finally:
        os.close(folder)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
