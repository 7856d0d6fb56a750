"""Stores the output of jobs at a URL (fsspec), such as S3, so that a worker on another host can continue."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from tuner.domain.errors import StorageError
from tuner.service.artifacts import FolderArtifacts

#: Name of the folder, in the remote copy of a folder, with one folder for each attempt of the job.
_SNAPSHOTS = "snapshots"
_MANIFEST = "manifest.json"
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A file that was stored: its state on this host when it was read, and the SHA-256 of its content."""

    size: int
    modified_ns: int
    digest: str


class RemoteArtifacts(FolderArtifacts):
    """Output folders below a local folder, whose files are copied to a URL and from there.

    The files of a folder are stored under `snapshots/ATTEMPT/` with the SHA-256 of their content as name. A
    manifest, which maps each path to its SHA-256, is stored after all of them; so whatever is interrupted,
    the manifest describes complete files. Each attempt of a job has manifests of its own, and the newest
    attempt counts, so that a worker that was taken for dead changes nothing.

    Args:
        url: URL of a folder that fsspec supports.
        local: Local folder; the output folder of job 7 is `jobs/7` in it.
        attempt: Number of the attempt of the job.

    Raises:
        ImportError: The package for this kind of URL is not installed.
    """

    def __init__(self, url: str, local: Path, *, attempt: int) -> None:
        super().__init__(local)
        self._url, self._attempt = url, attempt
        self._system, root = fsspec.core.url_to_fs(url)
        self._remote = PurePosixPath(root)
        #: What was stored in this attempt, by folder and relative path.
        self._known: dict[Path, dict[str, _Stored]] = {}

    def after_slice(self, folder: Path) -> None:
        try:
            self._store(folder)
        # Each file system of fsspec raises errors of its own libraries.
        except Exception as error:
            raise StorageError(
                f"the files of {folder} cannot be stored at {self._url}: {error or type(error).__name__}; if "
                "another worker takes over, it continues from older files"
            ) from error

    def fetch(self, folder: Path) -> bool:
        try:
            return self._fetch(folder)
        except Exception as error:
            raise StorageError(
                f"the files of {folder} cannot be fetched from {self._url}: {error or type(error).__name__}"
            ) from error

    def _store(self, folder: Path) -> None:
        place = self._snapshots(folder) / f"{self._attempt:06d}"
        known = self._known.get(folder, {})
        stored: dict[str, _Stored] = {}
        self._system.makedirs(str(place), exist_ok=True)
        uploaded = {entry.digest for entry in known.values()}
        for path in _files(folder, deep=_is_probe(folder)):
            name = path.relative_to(folder).as_posix()
            found = path.stat()
            before = known.get(name)
            if before and (before.size, before.modified_ns) == (found.st_size, found.st_mtime_ns):
                stored[name] = before
                continue
            digest = _digest(path)
            if digest not in uploaded:
                self._system.put_file(str(path), str(place / digest))
                uploaded.add(digest)
            now = path.stat()
            if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
                # The next slice has started and writes this file. Its end stores the folder again.
                return
            stored[name] = _Stored(size=found.st_size, modified_ns=found.st_mtime_ns, digest=digest)
        manifest = {name: {"sha256": entry.digest, "bytes": entry.size} for name, entry in stored.items()}
        self._write(place, manifest)
        self._known[folder] = stored
        for unused in {entry.digest for entry in known.values()} - {e.digest for e in stored.values()}:
            # A newer attempt may have removed all files of this one.
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(str(place / unused))
        for attempt in self._attempts(folder):
            if attempt < self._attempt:
                self._system.rm(str(self._snapshots(folder) / f"{attempt:06d}"), recursive=True)

    def _write(self, place: PurePosixPath, manifest: dict[str, Any]) -> None:
        """Replaces a manifest in one step."""
        temporary = place / f"{_MANIFEST}.new"
        self._system.pipe_file(str(temporary), json.dumps(manifest).encode())
        self._system.mv(str(temporary), str(place / _MANIFEST))

    def _fetch(self, folder: Path) -> bool:
        for attempt in sorted(self._attempts(folder), reverse=True):
            place = self._snapshots(folder) / f"{attempt:06d}"
            if attempt > self._attempt or not self._system.exists(str(place / _MANIFEST)):
                continue
            manifest = json.loads(self._system.cat_file(str(place / _MANIFEST)))
            for name, entry in manifest.items():
                self._fetch_file(folder, name, str(entry["sha256"]), place)
            for path in _files(folder, deep=_is_probe(folder)):
                if path.relative_to(folder).as_posix() not in manifest:
                    path.unlink()
            return True
        return False

    def _fetch_file(self, folder: Path, name: str, digest: str, place: PurePosixPath) -> None:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"the manifest names {name!r}, which is outside of the folder")
        path = folder.joinpath(*inside.parts)
        if path.is_file() and not path.is_symlink() and _digest(path) == digest:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as temporary:
            fetched = Path(temporary) / "content"
            self._system.get_file(str(place / digest), str(fetched))
            if (found := _digest(fetched)) != digest:
                raise ValueError(f"{name} is damaged: its SHA-256 is {found}, not {digest}")
            fetched.replace(path)

    def _snapshots(self, folder: Path) -> PurePosixPath:
        return self._remote / folder.absolute().relative_to(self._root).as_posix() / _SNAPSHOTS

    def _attempts(self, folder: Path) -> list[int]:
        place = str(self._snapshots(folder))
        self._system.invalidate_cache(place)
        if not self._system.exists(place):
            return []
        names = (str(name).rstrip("/").rpartition("/")[2] for name in self._system.ls(place, detail=False))
        return [int(name) for name in names if name.isdecimal()]


def _is_probe(folder: Path) -> bool:
    """Whether all files below a folder belong to it. The folder of all probes has only its own files."""
    return folder.parent.name != "probes"


def _files(folder: Path, *, deep: bool) -> Iterator[Path]:
    """Yields the regular files of a folder, without symbolic links and files that are being written."""
    for path in sorted(folder.rglob("*") if deep else folder.glob("*")):
        is_partial = path.suffix == ".partial" or any(part.startswith(".fetch-") for part in path.parts)
        if path.is_file() and not path.is_symlink() and not is_partial:
            yield path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
