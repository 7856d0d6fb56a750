"""Bodies of requests and answers of the REST API; they define its OpenAPI schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tuner.domain.job_queue import JobRecord, JobState

Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Label = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9_.-]{0,31}$")]
#: Largest identifier that the database can store.
JobId = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Body(BaseModel):
    """Base class of the bodies of requests; unknown members are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunBody(Body):
    """Options of the run, as those of `paceline run`."""

    sampler: Literal["model", "tpe", "gp", "random"] = "model"
    verify: bool = False
    parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    confirm: Annotated[int, Field(ge=0, le=100)] = 0
    past_studies: bool = True


class SubmitBody(Body):
    """A job to submit. The files of its workspace must have been uploaded before."""

    job_file: Annotated[str, Field(max_length=256 * 1024, description="text of the job file (TOML)")]
    name: Annotated[
        str | None, Field(max_length=100, description="name of the job if the job file has none")
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
    priority: Annotated[int, Field(ge=-1000, le=1000, description="higher runs first")] = 0


class UsageView(BaseModel):
    """Resources."""

    seconds: float | None = Field(description="wall-clock seconds of probes")
    node_hours: float | None
    dollars: float | None


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
            **{name: getattr(job, name) for name in JobView.model_fields if name not in ("limit", "usage")},
            limit=UsageView(**job.limit),
            usage=UsageView(**vars(job.usage)),
        )


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next_before: int | None = Field(description="value of `before` for the next page; null on the last page")
