"""REST API of feedback: the real time to target of recommendations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, StringConstraints

from tuner.domain.job_queue import Role
from tuner.server.context import Context, Reader, Submitter
from tuner.server.problems import ALWAYS, RefusedError, documented
from tuner.server.schemas import Body, JobId
from tuner.service.outcomes import NewOutcome, StoredOutcome, add_outcome, compared_outcomes

router = APIRouter(prefix="/api/v1", tags=["results"], responses=documented(404, *ALWAYS))

Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:@/ +-]+$")]


class OutcomeBody(Body):
    """A training after a recommendation. A second one with the same key changes nothing."""

    study_id: Annotated[int, Field(ge=1, le=2**31 - 1)]
    seconds: Annotated[
        float, Field(gt=0, le=3.2e9, description="training seconds to the target, or to the end")
    ]
    reached: Annotated[bool, Field(description="whether the training reached the target")] = True
    values: dict[Name, int | float | Name] = Field(
        default={},
        max_length=20,
        description="values that differ from the recommended ones, such as batch_size",
    )
    source: Annotated[Name, Field(description="where the outcome comes from")] = "REST API"
    key: Annotated[Name | None, Field(description="key that is different for each training")] = None


class OutcomeView(BaseModel):
    """A training after a recommendation, with the prediction for its configuration."""

    configuration: dict[str, int | float | str]
    reached: bool
    seconds: float
    source: str
    created_at: float
    predicted_seconds: float | None = Field(description="median of the prediction; null without one")
    predicted_lower: float | None = Field(description="lower end of the 90% interval")
    predicted_upper: float | None = Field(description="upper end of the 90% interval; null if infinite")
    words: str = Field(description="prediction and outcome in words")

    @staticmethod
    def of(stored: StoredOutcome) -> OutcomeView:
        """Returns the view of an outcome."""
        outcome, predicted = stored.outcome, stored.predicted
        ends = (None,) * 3 if predicted is None else (predicted.median, predicted.lower, predicted.upper)
        median, lower, upper = (end if end is not None and end < float("inf") else None for end in ends)
        return OutcomeView(
            configuration=dict(outcome.configuration),
            reached=outcome.reached,
            seconds=outcome.seconds,
            source=outcome.source,
            created_at=outcome.created_at,
            predicted_seconds=median,
            predicted_lower=lower,
            predicted_upper=upper,
            words=stored.words,
        )


@router.post(
    "/outcomes",
    status_code=201,
    responses={
        200: {"model": OutcomeView, "description": "the training was reported before"},
        **documented(400),
    },
)
def report_outcome(body: OutcomeBody, context: Context, caller: Submitter, response: Response) -> OutcomeView:
    """Stores the real time to target of a recommendation. Later studies use the error of its forecast."""
    study = context.store.outcomes.study(body.study_id)
    if caller.token.role is not Role.ADMIN:
        owners = context.store.outcomes.owners(body.study_id)
        if caller.token.token_id not in owners:
            raise RefusedError(403, "Not allowed", f"study {body.study_id} belongs to no job of your token")
    new = NewOutcome(
        seconds=body.seconds, reached=body.reached, values=body.values, source=body.source, key=body.key
    )
    stored = add_outcome(context.store, study, new)
    if not stored.is_new:
        response.status_code = 200
    return OutcomeView.of(stored)


@router.get("/jobs/{job_id}/outcomes")
def list_outcomes(job_id: JobId, context: Context, caller: Reader) -> list[OutcomeView]:
    """Lists the trainings that followed the recommendations of a job, oldest first."""
    job = context.store.queue.job(job_id)
    if job.study_id is None:
        return []
    study = context.store.outcomes.study(job.study_id)
    return [OutcomeView.of(stored) for stored in compared_outcomes(context.store, study)]
