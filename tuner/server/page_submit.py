"""The pages that submit a job: form, plan with its price, confirmation."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import PurePosixPath

from fastapi import Request, Response
from pydantic import ValidationError

from tuner.domain.errors import JobError
from tuner.domain.job_queue import FileKind, JobState, NewJob, QueueError
from tuner.server.context import Caller, Context, ServerContext, quota_of
from tuner.server.page_forms import Form, Posted
from tuner.server.page_private import may_read_file
from tuner.server.page_rendering import page, page_router, redirect
from tuner.server.page_sessions import JobSubmitter, Visitor
from tuner.server.problems import RefusedError, described
from tuner.server.schemas import JobId, RunBody, SubmitBody
from tuner.server.submission import new_job

router = page_router()

_OPTIONS = ("sampler", "parallel", "confirm")
_SWITCHES = ("verify", "past_studies", "explore")
_FIELDS = ("job_file", "name", *_OPTIONS, "labels", "priority")
_DEFAULTS = {
    "job_file": "",
    "name": "",
    "sampler": "model",
    "parallel": "1",
    "confirm": "0",
    "verify": "",
    "past_studies": "on",
    "explore": "",
    "labels": "",
    "priority": "0",
}
_EXAMPLE = """\
[workload]
path = "tuner.workloads.digits:Digits"

[goal]
metric = "accuracy"
target = 0.95

[space]
batch_size = [32, 64, 128, 256]
learning_rate = [0.02, 0.05, 0.1, 0.2, 0.5]

[budget]
time = "5m"
"""


@router.get("/submit")
def show_form(
    request: Request,
    context: Context,
    visitor: JobSubmitter,
    example: bool = False,
    job: JobId | None = None,
) -> Response:
    """Shows the form, which may start with an example or with an earlier job."""
    if job is None:
        values = {**_DEFAULTS, "job_file": _EXAMPLE if example else "", "name": "digits" if example else ""}
        return _form(request, values, {})
    earlier = context.store.queue.job(job)
    if not may_read_file(visitor, earlier):
        raise RefusedError(
            403,
            "Not allowed",
            f"the job file of job {job} has values of environment variables, and belongs to another token",
        )
    options = {name: str(earlier.options.get(name, _DEFAULTS[name])) for name in _OPTIONS}
    values = {
        **_DEFAULTS,
        **options,
        "verify": "on" if earlier.options.get("verify") else "",
        "past_studies": "on" if earlier.options.get("past_studies", True) else "",
        "explore": "on" if earlier.options.get("explore") else "",
        "job_file": earlier.job_file,
        "name": earlier.name,
        "labels": " ".join(earlier.labels),
        "priority": str(earlier.priority),
    }
    return _form(request, values, context.store.queue.job_files(job, FileKind.WORKSPACE))


@router.post("/submit")
def show_plan(request: Request, context: Context, visitor: JobSubmitter, form: Posted) -> Response:
    """Stores uploaded files and shows the plan; or shows the form again, to change something."""
    values, files = _values(form), _stored_files(form)
    if form.text("step") == "change":
        return _form(request, values, files)
    try:
        files |= _uploaded(form, context, visitor)
        job = new_job(_body(values, files), context, visitor, None)
        _check_files(job, context)
    except (JobError, QueueError, RefusedError) as error:
        status = error.status if isinstance(error, RefusedError) else described(error)[0]
        return _form(request, values, files, problem=str(error), status=status)
    return _plan(request, context, visitor, values, job)


@router.post("/submit/confirm")
def submit(request: Request, context: Context, visitor: JobSubmitter, form: Posted) -> Response:
    """Submits the job whose plan was shown. A form that is sent twice submits one job."""
    values, files = _values(form), _stored_files(form)
    try:
        job = new_job(_body(values, files), context, visitor, form.text("key")[:255] or None)
        record, is_new = context.store.queue.submit(job, quota=quota_of(context, visitor))
    except (JobError, QueueError, RefusedError) as error:
        status = error.status if isinstance(error, RefusedError) else described(error)[0]
        return _form(request, values, files, problem=str(error), status=status)
    if is_new:
        context.store.tokens.audit(
            visitor.token.name, "job.submit", f"job {record.job_id}", address=visitor.address
        )
    return redirect(f"/jobs/{record.job_id}")


def _form(
    request: Request,
    values: Mapping[str, str],
    files: Mapping[str, str],
    *,
    problem: str = "",
    status: int = 200,
) -> Response:
    samplers = ("model", "tpe", "gp", "random")
    shown = {"values": values, "files": files, "problem": problem, "samplers": samplers}
    return page(request, "submit.html.j2", shown, status=status)


def _plan(
    request: Request, context: ServerContext, visitor: Visitor, values: Mapping[str, str], job: NewJob
) -> Response:
    num_jobs, usage = context.store.tokens.usage(visitor.token.token_id)
    shown = {
        "job": job,
        "values": values,
        "files": job.files,
        "key": secrets.token_urlsafe(16),
        "needs_approval": job.state is JobState.AWAITING_APPROVAL,
        "num_jobs": num_jobs,
        "usage": usage,
    }
    return page(request, "plan.html.j2", shown)


def _values(form: Form) -> dict[str, str]:
    """Returns the texts of the form, with an uploaded job file in place of the text."""
    values = {name: form.text(name, _DEFAULTS[name]) for name in _FIELDS}
    values |= {name: "on" if form.text(name) else "" for name in _SWITCHES}
    for field, filename, content in form.files:
        if field == "job_upload" and content:
            values["job_file"] = content.decode(errors="replace").replace("\r\n", "\n")
            values["name"] = values["name"] or PurePosixPath(filename).stem
    return values


def _stored_files(form: Form) -> dict[str, str]:
    """Returns the files that an earlier step stored: maps each path to its SHA-256."""
    removed = set(form.texts("remove"))
    pairs = (text.partition(" ") for text in form.texts("file"))
    return {path: digest for digest, _, path in pairs if path and path not in removed}


def _uploaded(form: Form, context: ServerContext, visitor: Caller) -> dict[str, str]:
    """Stores the uploaded files of the workspace.

    Raises:
        RefusedError: A file is too large.
        QuotaError: The files of the token would be larger than its quota.
    """
    limits = context.settings.limits
    folder = form.text("folder").strip().rstrip("/")
    stored = {}
    for field, filename, content in form.files:
        if field != "files" or not filename:
            continue
        if len(content) > limits.file_bytes:
            raise RefusedError(
                413,
                "Too large",
                f"{filename} has {len(content):,} bytes; a file may have {limits.file_bytes:,}",
            )
        path = f"{folder}/{filename}" if folder else filename
        stored[path] = context.store.queue.put_file(
            content, token_id=visitor.token.token_id, quota=quota_of(context, visitor)
        )
    return stored


def _check_files(job: NewJob, context: ServerContext) -> None:
    """Checks that the files of a job are stored. Raises `NotFoundError` if one is not."""
    for digest in set(job.files.values()):
        context.store.queue.file(digest)


def _body(values: Mapping[str, str], files: Mapping[str, str]) -> SubmitBody:
    """Returns the request that the form stands for.

    Raises:
        JobError: A field is not valid.
    """
    try:
        options = RunBody.model_validate(
            {
                "sampler": values["sampler"],
                "parallel": _count(values["parallel"]),
                "confirm": _count(values["confirm"]),
                **{name: bool(values[name]) for name in _SWITCHES},
            }
        )
        return SubmitBody.model_validate(
            {
                "job_file": values["job_file"],
                "name": values["name"].strip() or None,
                "files": files,
                "options": options,
                "labels": tuple(
                    re.split(r"[\s,]+", values["labels"].strip()) if values["labels"].strip() else ()
                ),
                "priority": _count(values["priority"]),
            }
        )
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:10])
        raise JobError("; ".join(problems)) from error


def _count(text: str) -> int | str:
    """Returns the whole number that a text is; the text itself if it is none, which is then refused."""
    try:
        return int(text) if len(text) < 10 else text
    except ValueError:
        return text
