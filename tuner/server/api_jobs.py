"""REST API of jobs: submit, plan, list, approve, cancel, pause, resume and change the priority."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response

from tuner.domain.job_queue import JobRecord, JobState
from tuner.server.context import (
    Admin,
    Caller,
    Context,
    Reader,
    ServerContext,
    Submitter,
    check_priority,
    own_job,
    quota_of,
)
from tuner.server.problems import ALWAYS, documented
from tuner.server.schemas import JobId, JobPage, JobView, Line, Number, PlanView, PriorityBody, SubmitBody
from tuner.server.submission import new_job

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], responses=documented(*ALWAYS))

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="key that you choose; a repeated request with the same key adds no second job",
    ),
]
_EXAMPLE = {
    "job_file": '[workload]\npath = "tuner.workloads.digits:Digits"\n[goal]\ntarget = 0.9\n'
    '[space]\nbatch_size = [64, 128]\nlearning_rate = [0.1, 0.2]\n[budget]\ntime = "2m"\n',
    "name": "digits",
}
SubmitRequest = Annotated[
    SubmitBody, Body(openapi_examples={"digits": {"summary": "a small job", "value": _EXAMPLE}})
]


def done(context: ServerContext, caller: Caller, action: str, job: JobRecord) -> JobView:
    """Writes an action to the audit log and returns the view of the job."""
    context.store.tokens.audit(
        caller.token.name, f"job.{action}", f"job {job.job_id}", address=caller.address
    )
    return JobView.of(job)


#: Answers to a submission, besides the usual ones.
SUBMITTED: dict[int | str, dict[str, Any]] = {
    200: {"model": JobView, "description": "The job that an earlier request with this key added."},
    **documented(400, 404, 409),
}


@router.post("", status_code=201, responses=SUBMITTED)
def submit_job(
    body: SubmitRequest,
    context: Context,
    caller: Submitter,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Submits a job. The answer has its plan and its price; it may await approval."""
    job = new_job(body, context, caller, idempotency_key)
    record, is_new = context.store.queue.submit(job, quota=quota_of(context, caller))
    if not is_new:
        response.status_code = 200
        return JobView.of(record)
    return done(context, caller, "submit", record)


@router.post("/plan", responses=documented(400, 404))
def plan_job(body: SubmitRequest, context: Context, caller: Submitter) -> PlanView:
    """Returns the plan and the price of a job, and submits nothing."""
    return PlanView.of(new_job(body, context, caller, None))


@router.get("")
def list_jobs(
    context: Context,
    caller: Reader,
    state: Annotated[tuple[JobState, ...], Query(max_length=7, description="only these states")] = (),
    name: Annotated[Line | None, Query(description="only jobs whose name contains this text")] = None,
    mine: Annotated[bool, Query(description="only jobs of this token")] = False,
    before: Annotated[Number | None, Query(description="only jobs with a smaller number")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="largest number of jobs")] = 50,
) -> JobPage:
    """Lists jobs, newest first."""
    token_id = caller.token.token_id if mine else None
    found = context.store.queue.jobs(states=state, name=name, token_id=token_id, before=before, limit=limit)
    last = found[-1].job_id if len(found) == limit else None
    return JobPage(jobs=[JobView.of(job) for job in found], next_before=last)


@router.get("/{job_id}", responses=documented(404))
def read_job(job_id: JobId, context: Context, caller: Reader) -> JobView:
    """Returns a job, with its plan and its progress."""
    return JobView.of(context.store.queue.job(job_id))


@router.post("/{job_id}/approve", responses=documented(404, 409))
def approve_job(job_id: JobId, context: Context, caller: Admin) -> JobView:
    """Approves a job whose price is above the limit."""
    return done(context, caller, "approve", context.store.queue.approve(job_id, by=caller.token.name))


@router.post("/{job_id}/cancel", responses=documented(404, 409))
def cancel_job(job_id: JobId, context: Context, caller: Submitter) -> JobView:
    """Cancels a job. A running job ends soon after; what it measured stays in its study."""
    own_job(context, caller, job_id)
    job = context.store.queue.cancel(job_id, f"by {caller.token.name}")
    return done(context, caller, "cancel", job)


@router.post("/{job_id}/pause", responses=documented(404, 409))
def pause_job(job_id: JobId, context: Context, caller: Submitter) -> JobView:
    """Pauses a job. A running job pauses after its slices have stored a checkpoint."""
    own_job(context, caller, job_id)
    return done(context, caller, "pause", context.store.queue.pause(job_id))


@router.post("/{job_id}/resume", responses=documented(404, 409))
def resume_job(job_id: JobId, context: Context, caller: Submitter) -> JobView:
    """Puts a paused job back into the queue."""
    own_job(context, caller, job_id)
    return done(context, caller, "resume", context.store.queue.resume(job_id))


@router.put("/{job_id}/priority", responses=documented(400, 404, 409))
def set_job_priority(job_id: JobId, body: PriorityBody, context: Context, caller: Submitter) -> JobView:
    """Changes the priority of a job."""
    own_job(context, caller, job_id)
    check_priority(context, caller, body.priority)
    return done(context, caller, "priority", context.store.queue.set_priority(job_id, body.priority))
