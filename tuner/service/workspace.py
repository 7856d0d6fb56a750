"""The workspace of a submitted job: collects the files that its job file names, and writes them elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tuner.domain.errors import JobError, StorageError
from tuner.domain.job_queue import FileKind, JobRecord
from tuner.domain.output_file import PRIVATE, write_output
from tuner.domain.service_store import JobQueue
from tuner.job import Job, load_job
from tuner.job.command_files import script_files
from tuner.job.workload_code import workload_files


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A job file and the files that it names.

    Args:
        name: Name of the job.
        job_file: Text of the job file.
        files: Maps each path, relative to the folder of the job file, to the file.
    """

    name: str
    job_file: str
    files: Mapping[str, Path]


def collect(job_path: Path, *, extra: Sequence[Path] = ()) -> Workspace:
    """Finds the files that a job needs: its recording, or the source files of its command or Workload.

    A job for remote trainers needs none.

    Args:
        job_path: Path of the job file.
        extra: Further files, and folders whose files are all added.

    Raises:
        JobError: The job file is not valid, or a file is missing or not below the folder of the job file.
    """
    job = load_job(job_path)
    folder = job_path.resolve().parent
    found = [*_named_files(job, folder), *(path for given in extra for path in _files_in(given))]
    files: dict[str, Path] = {}
    for path in sorted({path.resolve() for path in found}):
        if not path.is_relative_to(folder):
            raise JobError(
                f"{path} is not below {folder}, the folder of the job file, so it cannot be submitted with "
                "the job; move it there, or install it on the workers"
            )
        files[path.relative_to(folder).as_posix()] = path
    return Workspace(name=job.name, job_file=job_path.read_text(encoding="utf-8"), files=files)


def _named_files(job: Job, folder: Path) -> list[Path]:
    if job.probe.recording is not None:
        return [folder / job.probe.recording]
    if job.cluster.launcher == "remote":
        # The trainer has the files that it needs; Paceline starts nothing.
        return []
    if job.runs_command:
        return script_files(job.command, folder)
    # Installed packages must be installed on the workers too. They can be below the folder, in a virtual
    # environment.
    own = [path for path in workload_files(job.trained.path, folder) if path.is_relative_to(folder)]
    return [path for path in own if "site-packages" not in path.relative_to(folder).parts]


def _files_in(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if not path.is_file():
        raise JobError(f"--file {path}: there is no such file or folder")
    return [path]


#: Permissions of folders, and of scripts that begin with the path of their interpreter.
_OWN = 0o700


def materialize(queue: JobQueue, job: JobRecord, folder: Path) -> Path:
    """Writes the files of a job and its job file to a folder, which only this user can read.

    Files that are there already are written again only if their content differs, so an interrupted call can
    be repeated. Other files in the folder stay, such as those that a script wrote.

    Args:
        queue: The queue with the files.
        job: The job.
        folder: The folder; created if it does not exist.

    Returns:
        The path of the job file.

    Raises:
        JobError: A path leads out of the folder.
        StorageError: A file cannot be written, or its content in the database is damaged.
        NotFoundError: A file is missing in the database.
    """
    _make_folder(folder)
    for name, digest in queue.job_files(job.job_id, FileKind.WORKSPACE).items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or not place.parts or "\0" in name:
            raise JobError(
                f"{name!r} is not a path inside the workspace of job {job.job_id}; submit it again"
            )
        content = queue.file(digest)
        if (found := hashlib.sha256(content).hexdigest()) != digest:
            raise StorageError(
                f"{name}: the SHA-256 of its content in the database is {found}, not {digest}; submit the "
                "job again"
            )
        for parent in reversed(place.parents[:-1]):
            _make_folder(folder / parent)
        _write(folder / place, content)
    path = folder / f"{job.name}.toml"
    _write(path, job.job_file.encode())
    return path


def _make_folder(folder: Path) -> None:
    try:
        if folder.is_symlink():
            # A script of the job made it: what is written below must stay in the workspace.
            folder.unlink()
        folder.mkdir(mode=_OWN, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder {folder} of a workspace cannot be made: {error}; free space"
        ) from error


def _write(path: Path, content: bytes) -> None:
    try:
        if path.is_symlink():
            path.unlink()
        if not (path.is_file() and path.read_bytes() == content):
            write_output(path, content, mode=PRIVATE)
        if content.startswith(b"#!"):
            path.chmod(_OWN)
    except OSError as error:
        raise StorageError(
            f"the file {path} of a workspace cannot be written: {error}; free space"
        ) from error
