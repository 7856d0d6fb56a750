"""The use case `export`: writes a launch file for the newest recommendation of a study."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from search_spaces import Configuration
from tuner.domain.errors import JobError
from tuner.domain.ledger import Ledger
from tuner.domain.output_file import EXECUTABLE, PRIVATE, READABLE, check_free, write_output
from tuner.domain.recommendation import Recommendation
from tuner.job import ClusterSection, Job
from tuner.report.launch_files import TARGETS, launch_text, secret_text
from tuner.report.launch_plan import LaunchPlan, launch_plan
from tuner.service.opening import OpenedJob, StudyStore
from tuner.service.views import require_study

#: Targets whose launch files can be used with every `cluster.launcher`, because they do not start nodes.
_STARTS_BY_ITSELF = ("torchrun", "env")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export.

    Args:
        target: Name of the tool that the file is for, one of `TARGETS`, such as `slurm`.
        output: Path of the file to write; None to write no file.
        force: Whether to overwrite an existing file.
        accelerator: Type of the devices to request, such as A100; None for CPU cores.
        image: Container image, for schedulers that run containers.
        made_by: Command line of the export, for a comment in the file.
        report_to: Address of a server to which the training reports its real time to target; None for none.
    """

    target: str
    output: Path | None = None
    force: bool = False
    accelerator: str | None = None
    image: str | None = None
    made_by: str = ""
    report_to: str | None = None


def export_job(opened: OpenedJob, store: StudyStore, options: ExportOptions) -> str:
    """Returns the text of the launch file, and writes it if `output` is set.

    Values of environment variables that are not published are written to a separate file in the same folder.

    Raises:
        JobError: The study has no recommendation yet, the target cannot run the recommendation, or the file
            exists.
        StorageError: The file cannot be written.
    """
    plan = export_plan(opened, newest_recommendation(store.ledger, opened), options)
    if options.report_to is not None:
        study = require_study(store.ledger, opened)
        choice = newest_recommendation(store.ledger, opened).choice.configuration
        plan = reporting_plan(plan, opened.job, study.study_id, choice, options.report_to)
    text = launch_text(plan, options.target)
    if options.output is not None:
        paths = [path for path in (options.output, plan.secret_file) if path is not None]
        for path in paths:
            check_free(path, force=options.force)
        if plan.secret_file is not None:
            write_output(plan.secret_file, secret_text(plan, options.target), mode=PRIVATE)
        mode = EXECUTABLE if TARGETS[options.target].executable else READABLE
        write_output(options.output, text, mode=mode)
    return text


def reporting_plan(
    plan: LaunchPlan, job: Job, study_id: int, configuration: Configuration, server: str
) -> LaunchPlan:
    """Returns a copy of a plan whose training reports its real time to target to a server.

    The training reports with `paceline_client`, or is `paceline train`, which reports by itself. The plan has
    the address with the study and its goal, but no token, which comes from `PACELINE_TOKEN`.

    Args:
        plan: The launch plan.
        job: The job of the study.
        study_id: The study of the recommendation, in the database of the server.
        configuration: The recommended configuration.
        server: Address of the server.

    Raises:
        JobError: The address is not valid.
    """
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise JobError(
            f"--report-to {server!r} is not the address of a server, such as https://paceline.example.org, "
            "without a password"
        )
    goal = job.goal
    query = urlencode(
        {
            "study": study_id,
            "target": goal.target,
            "direction": "maximize" if goal.maximize else "minimize",
            "scores": goal.consecutive_scores,
            "values": json.dumps(dict(configuration)),
        }
    )
    place = f"{server.rstrip('/')}/api/v1/outcomes?{query}"
    fact = f"It reports its real time to target to {server}: set PACELINE_TOKEN to the token of the job first"
    return replace(
        plan,
        environment={**plan.environment, "PACELINE_REPORT_TO": place},
        facts=(*plan.facts, fact),
    )


def newest_recommendation(ledger: Ledger, opened: OpenedJob) -> Recommendation:
    """Returns the newest recommendation of a job's study.

    Raises:
        JobError: There is no recommendation yet, or this version cannot read it.
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
            f"{opened.path}: the newest recommendation was stored by another version of Paceline; "
            f"`paceline run {opened.path}` resumes the search and makes a new one"
        ) from error


def export_plan(opened: OpenedJob, recommendation: Recommendation, options: ExportOptions) -> LaunchPlan:
    """Returns the launch plan of a recommendation for the target of an export.

    Raises:
        JobError: The target cannot run the recommendation.
    """
    job, target = opened.job, options.target
    by_itself = not job.runs_command and not job.cluster.nodes_share_host
    if recommendation.command and by_itself and target not in _STARTS_BY_ITSELF:
        raise JobError(
            f"{opened.path}: cluster.launcher = {job.cluster.launcher!r} lets `paceline train` start the "
            f"nodes itself, so a launch file for {target} is not possible; use `--target torchrun`, which "
            "writes a script that calls `paceline train`"
        )
    plan = launch_plan(recommendation, job, opened.path)
    if options.output is not None:
        plan = plan.written_to(options.output, target)
    return replace(
        plan,
        accelerator=options.accelerator,
        image=options.image,
        settings=_settings(job.cluster, target),
        facts=(*plan.facts, *((f"Made by: {options.made_by}",) if options.made_by else ())),
    )


def _settings(cluster: ClusterSection, target: str) -> Mapping[str, object]:
    """Returns the settings in the job file for the scheduler of the target; empty if there are none."""
    section = cluster.launcher_section if target == cluster.launcher else None
    return {} if section is None else section.model_dump(exclude_none=True)


def export_line(job: Path, target: str, **others: object) -> str:
    """Returns the command that repeats the export, without the database URL, which may contain a password.

    Args:
        job: Path of the job file.
        target: Kind of launch file.
        others: Values of further options by their names; None for options that were not given.
    """
    flags = [f"--{name}={value}" for name, value in others.items() if value is not None]
    return shlex.join(["paceline", "export", str(job), "--target", target, *flags])
