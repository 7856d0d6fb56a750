"""Turns a request into a job of the queue: checks the job file, and computes its plan and price."""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from search_spaces import ProductSpace
from tuner.domain.errors import JobError, TunerError
from tuner.domain.job_queue import JobState, NewJob, QuotaError
from tuner.domain.toml_file import read_toml
from tuner.job import Job, load_job
from tuner.job.loading import with_new_keys
from tuner.server.allowed import check_allowed, check_decided
from tuner.server.context import Caller, ServerContext, check_priority
from tuner.server.schemas import SubmitBody
from tuner.server.uploads import code_refusal, name_refusal, refuse_names
from tuner.service.opening import OpenedJob
from tuner.service.price import beyond_budget, plan_data


def new_job(body: SubmitBody, context: ServerContext, caller: Caller, idempotency_key: str | None) -> NewJob:
    """Returns the job to add to the queue for a request.

    Raises:
        JobError: The job file is not valid, or names something that the settings of the server do not allow.
        NotFoundError: A file of the workspace was not uploaded.
    """
    with tempfile.TemporaryDirectory(prefix="paceline-submit-") as folder:
        path = Path(folder) / f"{body.name or 'job'}.toml"
        try:
            path.write_bytes(body.job_file.encode())
            data = job_file_content(path)
            words = check_allowed(data, context.settings.allow)
            write_workspace(path, body.files, context, words)
            job = load_job(path)
            check_decided(data)
            _check_size(job, context.settings.limits.configurations)
            refuse_names(body.files, f"{job.name}.toml")
            _check_price(job, context.settings.limits.least_dollars_per_node_hour)
        except UnicodeEncodeError as error:
            raise JobError(f"job_file: {error.reason}; send text that UTF-8 can represent") from error
        except TunerError as error:
            # The folder is one of the server, which the client does not know.
            raise type(error)(str(error).replace(f"{folder}/", "")) from error
        # The digest of the code is not computed here, since that may import packages of the workspace.
        opened = OpenedJob(job=job, path=path, fingerprint="")
        options = body.options
        plan = plan_data(opened, parallel=options.parallel, verify=options.verify, confirm=options.confirm)
        limit = plan["most"]
        quota = caller.token.quota
        has_quota = quota.node_hours is not None or (quota.dollars is not None and opened.cluster.has_prices)
        if has_quota and (options.verify or options.confirm):
            beyond = beyond_budget(verify=options.verify, confirm=options.confirm)
            raise QuotaError(f"{beyond}. A token with a quota cannot use this: leave verify and confirm out")
    check_priority(context, caller, body.priority)
    approval = context.settings.approval.model_dump()
    needs_approval = any(
        allowed is not None and ((most := limit[name]) is None or most > allowed)
        for name, allowed in approval.items()
    )
    return NewJob(
        name=job.name,
        job_file=body.job_file,
        options=body.options.model_dump(),
        files=body.files,
        labels=body.labels,
        priority=body.priority,
        state=JobState.AWAITING_APPROVAL if needs_approval else JobState.QUEUED,
        plan=plan,
        limit=limit,
        token_id=caller.token.token_id,
        idempotency_key=idempotency_key,
        request_digest=hashlib.sha256(body.model_dump_json().encode()).hexdigest(),
    )


def _check_price(job: Job, least: float) -> None:
    """Checks that a job states at least the price of a node that the server asks for."""
    stated = job.cluster.dollars_per_node_hour
    if job.probe.recording is None and stated < least:
        raise JobError(
            f"cluster.dollars_per_node_hour = {stated:g}: on this server a node costs at least {least:g} "
            f"dollars per hour; write {least:g} or more"
        )


def _check_size(job: Job, most: int) -> None:
    """Checks that the plan of a job can be computed in a short time.

    Raises:
        JobError: The space has too many configurations.
    """
    space = job.search_space()
    size = space.num_combinations() if isinstance(space, ProductSpace) else len(space.candidates())
    if size > most:
        raise JobError(
            f"the values in [space] and cluster.nodes have {size:,} combinations, but this server takes at "
            f"most {most:,}. List fewer values, or lower space.learning_rate.levels_per_decade"
        )


def job_file_content(path: Path) -> Mapping[str, Any]:
    """Returns the content of a job file, with the new names of renamed keys.

    Raises:
        JobError: The file is not valid TOML.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return with_new_keys(read_toml(path), path)


def write_workspace(
    job_path: Path, files: Mapping[str, str], context: ServerContext, command_words: Collection[str]
) -> None:
    """Writes the files of a workspace to the folder of the job file.

    Args:
        job_path: Path of the job file.
        files: Maps each path of the workspace to the SHA-256 of its content.
        context: The settings and the database with the uploaded files.
        command_words: Words of the job's commands that name programs and scripts.

    Raises:
        JobError: A path leads out of the folder, the files are too large, or a file is code and the server
            does not allow it.
        NotFoundError: A file was not uploaded.
    """
    allow, limits = context.settings.allow, context.settings.limits
    refusals = [f"files: {name!r} {words}" for name in files if (words := name_refusal(name))]
    if refusals:
        raise JobError("; ".join(refusals[:5]))
    refuse_names(files, job_path.name)
    packages = {re.split("[.:]", pattern)[0]: pattern for pattern in allow.workloads}
    total = 0
    for name, digest in files.items():
        content = context.store.queue.file(digest)
        total += len(content)
        if len(content) > limits.file_bytes or total > limits.workspace_bytes:
            raise JobError(
                f"files: {name!r} is too large; a file may have {limits.file_bytes:,} bytes, and all files "
                f"of a job {limits.workspace_bytes:,} bytes. Put large data where the workers can read them"
            )
        words = (
            ""
            if allow.workspace_code
            else code_refusal(name, content[:8], words=command_words, packages=packages)
        )
        if words:
            raise JobError(
                f"files: {name!r} {words}, so it counts as code. This server takes only data files; install "
                "code on the workers, or ask an administrator to set [allow] workspace_code in its settings"
            )
        path = job_path.parent.joinpath(*PurePosixPath(name).parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
