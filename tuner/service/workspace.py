"""The workspace of a submitted job: the files that its job file names, collected for the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.errors import JobError
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
