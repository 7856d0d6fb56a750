"""Atomic checkpoints in a folder: every file is whole, and the newest few are retained."""

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

#: A partial file that nobody has written to for so long is nobody's any more.
_ABANDONED_SECONDS = 3600.0

_NAME = re.compile(r"checkpoint-(\d{8})\.json")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One checkpoint that was found whole.

    Args:
        path: The file with its content.
        number: Its place in the folder's sequence; the newest has the largest.
        note: The plain data that was saved with it.
    """

    path: Path
    number: int
    note: Mapping[str, Any] = field(default_factory=dict)


class CheckpointFolder:
    """Saves and finds checkpoints of one run.

    A checkpoint is a content file and a manifest with its size and SHA-256. Both are written under
    another name, flushed to the disk and renamed, the manifest last: a process killed at any moment
    leaves the checkpoints before it, and a content that does not match its manifest is passed over.

    Args:
        folder: Where they lie; made when the first is saved.
        keep: How many of the newest to retain, at least 1; 2 allow for one that the disk damages.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder = folder
        self.keep = keep

    def save(self, write: Callable[[BinaryIO], None], note: Mapping[str, Any] | None = None) -> Checkpoint:
        """Saves what `write` writes as the newest checkpoint.

        Args:
            write: Called with a file open for writing.
            note: Plain data to store with it.

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
            write_atomically(self._manifest(number), lambda file: _write_all(file, text))
            self._prune()
        except OSError as error:
            raise StorageError(
                f"the checkpoint in {self.folder} cannot be written: {error}; "
                "free space or choose another output folder"
            ) from error
        return Checkpoint(path=content, number=number, note=dict(note or {}))

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None where there is none."""
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
            # An unreadable checkpoint is a damaged one: an older may still serve.
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
            # The manifest goes first: a content without one is no checkpoint.
            self._manifest(number).unlink(missing_ok=True)
        retained = {self._content(number) for number in numbers[: self.keep]}
        for path in self.folder.glob("checkpoint-*.pt"):
            if path not in retained:
                path.unlink(missing_ok=True)
        for path in self.folder.glob("checkpoint-*.partial"):
            # What a killed process left; a younger one may still be written by another.
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that it is there whole or not at all, whatever ends the process.

    Args:
        path: The file; one that is there is replaced.
        write: Called with a file open for writing.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    # Named for the writer: two that write the same file must not write into each other's.
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
        # The rename itself is on the disk only once the folder is.
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_all(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
