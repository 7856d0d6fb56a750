"""Launch files of recommendations, made on the server without the files of its hosts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.domain.errors import TunerError
from tuner.domain.job_queue import ConflictError, FileKind, JobRecord
from tuner.domain.recommendation import Recommendation
from tuner.job import load_job
from tuner.report.launch_files import launch_text
from tuner.server.context import Store
from tuner.service.exporting import ExportOptions, export_plan, reporting_plan
from tuner.service.opening import OpenedJob


def export_text(
    store: Store,
    job: JobRecord,
    recommendation: Mapping[str, Any],
    *,
    target: str,
    accelerator: str | None,
    image: str | None,
    folder: str,
    report_to: str | None = None,
) -> str:
    """Returns a launch file for the recommendation of a submitted job.

    Args:
        store: The database.
        job: The job.
        recommendation: Content of its `recommendation.json`.
        target: Kind of launch file, a key of `TARGETS`.
        accelerator: Type of the devices to request; None for CPU cores.
        image: Container image, for schedulers that run containers.
        folder: Folder of the job file on the machine that trains.
        report_to: Address of this server, to which the training reports its real time; None for none.

    Raises:
        JobError: A launch file of this kind cannot run the training.
        ConflictError: Another version of Paceline stored the recommendation.
    """
    try:
        found = Recommendation.from_dict(recommendation)
    except ValueError as error:
        raise ConflictError(
            f"the recommendation of job {job.job_id} was stored by another version of Paceline; submit the "
            "job again"
        ) from error
    files = store.queue.job_files(job.job_id, FileKind.WORKSPACE)
    options = ExportOptions(
        target=target, accelerator=accelerator, image=image, made_by=f"the server, for job {job.job_id}"
    )
    with tempfile.TemporaryDirectory(prefix="paceline-export-") as temporary:
        here = Path(temporary).resolve()
        # The script is read to see which values it asks for. Nothing of the workspace is run or imported.
        for name, digest in files.items():
            path = here / name
            if path.resolve().is_relative_to(here):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(store.queue.file(digest))
        path = here / f"{job.name}.toml"
        path.write_text(job.job_file)
        try:
            opened = OpenedJob(job=load_job(path), path=path, fingerprint="")
            plan = export_plan(opened, found, options)
            if report_to is not None and job.study_id is not None:
                choice = found.choice.configuration
                plan = reporting_plan(plan, opened.job, job.study_id, choice, report_to)
            working = Path(plan.working_folder)
            inside = working.relative_to(here) if working.is_relative_to(here) else Path()
            text = launch_text(replace(plan, working_folder=str(Path(folder, inside))), target)
        except TunerError as error:
            raise type(error)(str(error).replace(f"{here}/", "")) from error
    return text.replace(str(here), str(Path(folder)))
