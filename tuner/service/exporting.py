"""The use case `export`: the newest recommendation of a job's study as something that runs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.domain.errors import JobError, StorageError
from tuner.domain.recommendation import Recommendation
from tuner.job import ClusterSection
from tuner.ledger import Ledger
from tuner.report.launch_files import TARGETS, launch_text
from tuner.report.launch_plan import LaunchPlan, launch_plan
from tuner.report.writer import write_text
from tuner.service.opening import OpenedJob, StudyStore
from tuner.service.views import require_study

#: A script that calls `paceline train` where it is started, and values alone, suit whatever starts nodes.
_STARTS_BY_ITSELF = ("torchrun", "env")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is wanted of an export.

    Args:
        target: One of `TARGETS`.
        output: The file; None where only its text is wanted.
        force: Whether an existing file is overwritten.
        accelerator: Type of a device, such as A100; None for CPU cores.
        image: Container image it runs in, if the scheduler backend runs containers.
        made_by: The command line that asks for it.
    """

    target: str
    output: Path | None = None
    force: bool = False
    accelerator: str | None = None
    image: str | None = None
    made_by: str = ""


def export_job(opened: OpenedJob, store: StudyStore, options: ExportOptions) -> str:
    """The text of the target's file, written where a file is wanted.

    Raises:
        JobError: There is no recommendation yet, the target cannot run it, or the file already exists.
        StorageError: The file cannot be written.
    """
    text = launch_text(_plan(opened, newest_recommendation(store.ledger, opened), options), options.target)
    if options.output is not None:
        _write(options.output, text, options)
    return text


def newest_recommendation(ledger: Ledger, opened: OpenedJob) -> Recommendation:
    """What the last search of a job's study advised.

    Raises:
        JobError: Nothing was recommended yet.
    """
    study = require_study(ledger, opened)
    given = ledger.recommendations(study.study_id)
    if not given:
        raise JobError(
            f"{opened.path}: study {study.name} has no recommendation yet; `paceline run {opened.path}` "
            "resumes the search until there is one"
        )
    try:
        return Recommendation.from_dict(given[-1].recommendation)
    except ValueError as error:
        raise JobError(
            f"{opened.path}: what was recommended last was written by another version of Paceline; "
            f"`paceline run {opened.path}` resumes the search and recommends again"
        ) from error


def _plan(opened: OpenedJob, recommendation: Recommendation, options: ExportOptions) -> LaunchPlan:
    job, target = opened.job, options.target
    by_itself = not job.runs_command and job.cluster.launcher != "local"
    if recommendation.command and by_itself and target not in _STARTS_BY_ITSELF:
        raise JobError(
            f"{opened.path}: `paceline train` starts its nodes itself, by cluster.launcher = "
            f"{job.cluster.launcher!r}, so {target} has nothing to start on them: "
            "`--target torchrun` writes the script that calls it"
        )
    plan = launch_plan(recommendation, job, opened.path)
    return replace(
        plan,
        accelerator=options.accelerator,
        image=options.image,
        settings=_settings(job.cluster, target),
        file_name=options.output.name if options.output else plan.file_name,
        facts=(*plan.facts, *((f"Made by: {options.made_by}",) if options.made_by else ())),
    )


def _settings(cluster: ClusterSection, target: str) -> Mapping[str, object]:
    """The job file's settings of the target scheduler backend."""
    section = cluster.launcher_section if target == cluster.launcher else None
    return {} if section is None else section.model_dump(exclude_none=True)


def _write(path: Path, text: str, options: ExportOptions) -> None:
    if path.is_dir():
        raise StorageError(f"{path} cannot be written: it is a folder; choose another --output")
    if path.exists() and not options.force:
        raise JobError(f"{path} already exists; give another --output, or --force to overwrite it")
    try:
        write_text(path, text, executable=TARGETS[options.target].executable)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}; choose another --output"
        ) from error
