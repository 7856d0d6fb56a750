"""Bodies of requests and answers of the REST API; they define its OpenAPI schema."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tuner.domain.job_queue import JobRecord, JobState, NewJob

Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
#: All labels of a job must fit in one column of the database.
Label = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9_.-]{0,29}$")]
#: One line of text without control characters, which databases and terminals do not accept.
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=100)]
#: Largest identifier that the database can store.
MOST = 2**31 - 1
Number = Annotated[int, Field(ge=1, le=MOST)]
JobId = Annotated[Number, Path(description="number of the job", examples=[7])]
#: Number of the last record of the page before; 0 for the first page.
After = Annotated[int, Query(ge=0, le=MOST, description="only records with a larger number")]


Priority = Annotated[
    int,
    Field(
        strict=True,
        ge=-1000,
        le=1000,
        description="higher runs first; above `[limits] most_priority` only for the role admin",
    ),
]
Flag = Annotated[bool, Field(strict=True)]


class Body(BaseModel):
    """Base class of the bodies of requests; unknown members are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunBody(Body):
    """Options of the run, as those of `paceline run`."""

    sampler: Literal["model", "tpe", "gp", "random"] = "model"
    verify: Flag = False
    parallel: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    confirm: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    past_studies: Flag = True
    explore: Flag = False


class SubmitBody(Body):
    """A job to submit. The files of its workspace must have been uploaded before."""

    job_file: Annotated[str, Field(max_length=256 * 1024, description="text of the job file (TOML)")]
    name: Annotated[
        str | None,
        Field(
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="name of the job if the job file has none",
        ),
    ] = None
    files: Annotated[
        dict[str, Digest],
        Field(
            max_length=1000, description="maps paths relative to the job file to the SHA-256 of the content"
        ),
    ] = {}
    options: RunBody = RunBody()
    labels: Annotated[
        tuple[Label, ...], Field(max_length=8, description="labels that a worker must have")
    ] = ()
    priority: Priority = 0


class UsageView(BaseModel):
    """Resources."""

    seconds: float | None = Field(description="wall-clock seconds of probes")
    node_hours: float | None
    dollars: float | None


_RESOURCES = ("limit", "usage", "progress")


class JobView(BaseModel):
    """A submitted job."""

    job_id: int
    name: str
    state: JobState
    request: str = Field(description="what the worker has been asked to do: pause or cancel")
    reason: str
    exit_code: int | None
    labels: tuple[str, ...]
    priority: int
    created_at: float = Field(description="seconds since the Unix epoch, as all times")
    started_at: float | None
    finished_at: float | None
    approved_by: str
    attempt: int
    failures: int
    worker: str
    study_id: int | None
    limit: UsageView = Field(description="the most that the budget allows; null without a limit")
    usage: UsageView
    progress: dict[str, Any]
    plan: dict[str, Any]

    @staticmethod
    def of(job: JobRecord) -> JobView:
        """Returns the view of a job."""
        return JobView(
            **{name: plain(getattr(job, name)) for name in JobView.model_fields if name not in _RESOURCES},
            limit=UsageView(**job.limit),
            usage=UsageView(**vars(job.usage)),
            progress=plain(job.current_progress),
        )


class PlanView(BaseModel):
    """The plan of a job and the most that it may cost."""

    state: JobState = Field(description="state that the job would have after it is submitted")
    limit: UsageView = Field(description="the most that the budget allows; null without a limit")
    plan: dict[str, Any]

    @staticmethod
    def of(job: NewJob) -> PlanView:
        """Returns the plan of a job that was not submitted yet."""
        return PlanView(state=job.state, limit=UsageView(**job.limit), plan=plain(job.plan))


class PriorityBody(Body):
    """The new priority of a job."""

    priority: Priority


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next_before: int | None = Field(description="value of `before` for the next page; null on the last page")


def plain(value: Any) -> Any:
    """Returns plain data with null in place of infinite numbers and NaN, which JSON cannot express."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
