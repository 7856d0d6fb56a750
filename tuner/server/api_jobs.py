"""REST API of jobs: submit, list, approve, cancel, pause, resume and change the priority."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from tuner.domain.job_queue import JobRecord, JobState
from tuner.server.context import Admin, Caller, Context, Reader, ServerContext, Submitter, own_job
from tuner.server.schemas import JobId, JobPage, JobView, SubmitBody
from tuner.server.submission import new_job

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])

IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, description="a repeated request adds no second job")
]


def _done(context: ServerContext, caller: Caller, action: str, job: JobRecord) -> JobView:
    """Writes an action to the audit log and returns the view of the job."""
    context.store.tokens.audit(
        caller.token.name, f"job.{action}", f"job {job.job_id}", address=caller.address
    )
    return JobView.of(job)


@router.post("", status_code=201)
def submit(
    body: SubmitBody,
    context: Context,
    caller: Submitter,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Submits a job. The answer has its plan and its price; it may await approval."""
    job = new_job(body, context, caller, idempotency_key)
    record, is_new = context.store.queue.submit(job, quota=caller.token.quota)
    if not is_new:
        response.status_code = 200
        return JobView.of(record)
    return _done(context, caller, "submit", record)


@router.get("")
def list_jobs(
    context: Context,
    caller: Reader,
    state: Annotated[tuple[JobState, ...], Query()] = (),
    name: Annotated[str | None, Query(max_length=100)] = None,
    mine: bool = False,
    before: Annotated[JobId | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobPage:
    """Lists jobs, newest first."""
    token_id = caller.token.token_id if mine else None
    found = context.store.queue.jobs(states=state, name=name, token_id=token_id, before=before, limit=limit)
    last = found[-1].job_id if len(found) == limit else None
    return JobPage(jobs=[JobView.of(job) for job in found], next_before=last)


@router.get("/{job_id}")
def read_job(job_id: JobId, context: Context, caller: Reader) -> JobView:
    """Returns a job."""
    return JobView.of(context.store.queue.job(job_id))


@router.post("/{job_id}/approve")
def approve(job_id: JobId, context: Context, caller: Admin) -> JobView:
    """Approves a job whose price is above the limit."""
    return _done(context, caller, "approve", context.store.queue.approve(job_id, by=caller.token.name))


@router.post("/{job_id}/cancel")
def cancel(job_id: JobId, context: Context, caller: Submitter) -> JobView:
    """Cancels a job. A running job ends soon after; what it measured stays in its study."""
    own_job(context, caller, job_id)
    job = context.store.queue.cancel(job_id, f"cancelled by {caller.token.name}")
    return _done(context, caller, "cancel", job)
