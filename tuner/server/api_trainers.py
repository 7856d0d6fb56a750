"""REST API for remote trainers: open a study, ask for slices, report progress, and finish slices."""

from __future__ import annotations

import asyncio
import time
import tomllib
from contextlib import suppress

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from tuner.domain.job_queue import ConflictError, JobRecord, JobState
from tuner.domain.remote_slices import Answer, RemoteSlice, SliceEnd
from tuner.server import api_jobs
from tuner.server.api_jobs import IdempotencyKey
from tuner.server.context import Caller, Context, ServerContext, Submitter, own_job
from tuner.server.problems import ALWAYS, documented
from tuner.server.schemas import JobId, JobView, SubmitBody
from tuner.server.trainer_schemas import (
    AnswerView,
    AskBody,
    AskView,
    FinishBody,
    ReportBody,
    SliceId,
    SliceView,
)

router = APIRouter(prefix="/api/v1", tags=["trainers"], responses=documented(400, 404, 409, *ALWAYS))

#: Seconds after which a trainer should ask again.
_RETRY_SECONDS = 1.0
#: A worker without a sign of life for so many seconds does not count as running.
_SILENT_SECONDS = 60.0
#: After a score, the answer waits at most this many seconds for the decision of the search, and checks for it
#: at these intervals.
_DECISION_SECONDS, _CHECK_SECONDS = 2.0, 0.1


@router.post("/studies", status_code=201, responses=api_jobs.SUBMITTED)
def open_study(
    body: SubmitBody,
    context: Context,
    caller: Submitter,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Opens a study for remote trainers: submits a job with `cluster.launcher = "remote"`."""
    with suppress(tomllib.TOMLDecodeError):
        _require_remote(body.job_file, "the job")
    return api_jobs.submit_job(body, context, caller, response, idempotency_key)


@router.post("/jobs/{job_id}/ask")
def ask(job_id: JobId, body: AskBody, context: Context, caller: Submitter, response: Response) -> AskView:
    """Returns the next slice of a job, or the time after which to ask again, or the end of the search."""
    job = own_job(context, caller, job_id)
    if job.state.has_ended:
        return AskView(
            state="ended",
            job_state=job.state,
            reason=job.reason,
            recommendation=_recommendation(context, job),
        )
    found = context.store.remote_slices.take(job_id, body.trainer)
    if found is not None:
        return AskView(state="slice", slice=SliceView.of(found), job_state=job.state)
    _require_remote(job.job_file, f"job {job_id}")
    response.headers["Retry-After"] = f"{_RETRY_SECONDS:.0f}"
    reason = job.reason or _why_queued(context, job)
    return AskView(state="wait", retry_seconds=_RETRY_SECONDS, job_state=job.state, reason=reason)


def _why_queued(context: ServerContext, job: JobRecord) -> str:
    """Returns why no worker runs a queued job; an empty text for a job that is not queued."""
    if job.state is not JobState.QUEUED:
        return ""
    since = time.time() - _SILENT_SECONDS
    fitting = [
        worker
        for worker in context.store.queue.workers(seen_since=since)
        if worker.stopped_at is None and not worker.draining and set(job.labels) <= set(worker.labels)
    ]
    if not fitting:
        labels = f" with the labels {', '.join(job.labels)}" if job.labels else ""
        return f"no worker{labels} is there to decide what to train; start one with: paceline worker"
    slots = sum(worker.slots for worker in fitting)
    if sum(len(worker.jobs) for worker in fitting) >= slots:
        return (
            f"the slots of all workers ({slots}) are in use by other jobs; the search starts once one is free"
        )
    return "a worker is about to start the search"


@router.post("/slices/{slice_id}/reports")
async def report(slice_id: SliceId, body: ReportBody, context: Context, caller: Submitter) -> AnswerView:
    """Stores lines, renews the lease, and says whether to continue.

    After a line with a score, the answer waits up to two seconds until the search has decided.
    """
    found, answer = await run_in_threadpool(_stored, slice_id, body, context, caller)
    metric, last = found.instructions["metric"], body.number + len(body.lines) - 1
    until = time.monotonic() + _DECISION_SECONDS
    has_score = any(line.get(metric) is not None for line in body.lines)
    while has_score and answer is Answer.CONTINUE and found.num_read < last and time.monotonic() < until:
        await asyncio.sleep(_CHECK_SECONDS)
        found = await run_in_threadpool(context.store.remote_slices.slice, slice_id)
        answer = found.request if found.end is None else Answer.LOST
    return AnswerView(answer=answer)


def _stored(
    slice_id: int, body: ReportBody, context: ServerContext, caller: Caller
) -> tuple[RemoteSlice, Answer]:
    found, is_over = _own_slice(slice_id, context, caller)
    if is_over:
        return found, Answer.LOST
    slices = context.store.remote_slices
    return found, slices.report(slice_id, body.number, body.lines, checkpoint=body.checkpoint)


@router.post("/slices/{slice_id}/finish")
def finish(slice_id: SliceId, body: FinishBody, context: Context, caller: Submitter) -> AnswerView:
    """Ends a slice. The answer is `lost` if another trainer runs the training already."""
    _, is_over = _own_slice(slice_id, context, caller)
    if is_over:
        return AnswerView(answer=Answer.LOST)
    end = SliceEnd(body.end)
    answer = context.store.remote_slices.finish(slice_id, end, checkpoint=body.checkpoint, reason=body.reason)
    return AnswerView(answer=answer)


def _own_slice(slice_id: int, context: ServerContext, caller: Caller) -> tuple[RemoteSlice, bool]:
    """Returns a slice of a job that the caller may change, and whether the job has ended."""
    found = context.store.remote_slices.slice(slice_id)
    return found, own_job(context, caller, found.job_id).state.has_ended


def _recommendation(context: ServerContext, job: JobRecord) -> dict[str, object] | None:
    if job.study_id is None:
        return None
    found = context.store.ledger.recommendations(job.study_id)
    return dict(found[-1].recommendation) if found else None


def _require_remote(job_file: str, which: str) -> None:
    """Checks that the launcher of a job is `remote`.

    Raises:
        ConflictError: It is another launcher.
    """
    cluster = tomllib.loads(job_file).get("cluster")
    if not isinstance(cluster, dict) or cluster.get("launcher") != "remote":
        raise ConflictError(
            f"{which} starts its trainings itself: trainers can ask for slices only if the job file has "
            "launcher = 'remote' in [cluster]"
        )
