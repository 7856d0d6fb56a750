"""Opens the job and the study database that a command works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.domain.errors import JobError

if TYPE_CHECKING:
    from storage import Storage
    from tuner.service.opening import OpenedJob


def opened_job(path: Path, *, budget: str | None = None, max_dollars: float | None = None) -> OpenedJob:
    """The job; flags and environment override the file."""
    from tuner.service.opening import open_job

    return open_job(path, time_budget=budget, max_dollars=max_dollars)


@contextmanager
def study_store(url: str | None, job: Path, *, to_read: bool = False) -> Iterator[Storage]:
    """The study database; a command that only reads does not create one."""
    from storage import open_storage
    from tuner.service.opening import default_storage_url

    url = url or default_storage_url(job)
    file = Path(url.removeprefix("sqlite:///"))
    if to_read and url.startswith("sqlite:///") and file.parent.is_dir() and not file.exists():
        raise JobError(
            f"{job}: there is no study of this job here yet, and no database {file}; `paceline run {job}` "
            "starts one, or name its database with --storage"
        )
    with open_storage(url) as store:
        yield store
