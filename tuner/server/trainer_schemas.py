"""Bodies of requests and answers for remote trainers, which ask for slices and report their progress."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from tuner.domain.job_queue import JobState
from tuner.domain.remote_slices import Answer, RemoteSlice
from tuner.server.schemas import Body

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[\w.:@/ +-]+$")]
CheckpointName = Annotated[
    str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]
#: A number that may be infinite or NaN, which is what a training that diverges reports.
Number = Annotated[float, Field(allow_inf_nan=True)]
#: Largest number of lines in one report.
_MOST_LINES = 1000
Line = Annotated[dict[Name, bool | int | Number | Text | None], Field(max_length=100)]
#: Identifier of a slice that the database can store.
SliceId = Annotated[int, Field(ge=1, le=2**31 - 1)]


class AskBody(Body):
    """A question for work."""

    trainer: Annotated[
        Name,
        Field(
            description="name of the trainer, different for each process; the same name gets the same slice "
            "again until the slice has ended"
        ),
    ]


class UntilView(BaseModel):
    """Limits at which a slice ends, counted from the begin of the training; null without a limit.

    The answer to a report says when to stop, so that a trainer may ignore the limits.
    """

    samples: int | None = None
    steps: int | None = None
    seconds: float | None = Field(default=None, description="training seconds")
    scores: int | None = Field(default=None, description="number of new scores, counted from this slice")


class SliceView(BaseModel):
    """A slice: an uninterrupted part of the training of one configuration."""

    slice_id: int
    job_id: int
    run: str = Field(description="name of the training, the same for all its slices")
    values: dict[str, Any] = Field(description="values to train with, such as batch_size and learning_rate")
    purpose: str = Field(description="training, or timing: then a few steps suffice, without an evaluation")
    metric: str = Field(description="field of a line that contains the score")
    checkpoint: str | None = Field(description="checkpoint to resume from; null to start the training anew")
    until: UntilView
    lease_seconds: float = Field(description="time without a report after which the slice is lost")
    next_number: int = Field(description="number of the next line to report")

    @staticmethod
    def of(found: RemoteSlice) -> SliceView:
        """Returns the view of a slice."""
        stated = found.instructions
        return SliceView(
            slice_id=found.slice_id,
            job_id=found.job_id,
            run=found.probe,
            values=stated["values"],
            purpose=stated["purpose"],
            metric=stated["metric"],
            checkpoint=found.checkpoint or stated["checkpoint"],
            until=UntilView(**stated["until"]),
            lease_seconds=found.lease_seconds,
            next_number=found.last_number + 1,
        )


class AskView(BaseModel):
    """The answer to a question for work."""

    state: Literal["slice", "wait", "ended"]
    slice: SliceView | None = Field(default=None, description="the slice to run, if `state` is `slice`")
    retry_seconds: float | None = Field(
        default=None, description="time after which to ask again, if `state` is `wait`"
    )
    job_state: JobState
    reason: str = Field(default="", description="why the job is in its state")
    recommendation: dict[str, Any] | None = Field(
        default=None, description="content of recommendation.json, if `state` is `ended`; null without one"
    )


class ReportBody(Body):
    """Progress of a slice. A repeated report changes nothing."""

    number: Annotated[
        int, Field(ge=1, le=2**31 - 1 - _MOST_LINES, description="number of the first line")
    ] = 1
    lines: Annotated[
        tuple[Line, ...],
        Field(
            max_length=_MOST_LINES,
            description="lines as in the file $PACELINE_METRICS, such as {'samples': 640, 'value': 0.91}; an "
            "empty list only renews the lease",
        ),
    ] = ()
    checkpoint: Annotated[
        CheckpointName | None,
        Field(description="name of a checkpoint that was saved, from which another trainer can resume"),
    ] = None


class AnswerView(BaseModel):
    """What the trainer has to do next."""

    answer: Answer = Field(
        description="continue; stop: save a checkpoint and finish the slice; lost: end, and ask for another "
        "slice"
    )


class FinishBody(Body):
    """The end of a slice."""

    end: Annotated[
        Literal["paused", "completed", "failed"],
        Field(
            description="paused: the training can continue later; completed: the training came to its own "
            "end, such as its last epoch; failed: an error, given as the reason"
        ),
    ]
    checkpoint: Annotated[
        CheckpointName | None, Field(description="name of the checkpoint that was saved; null if none was")
    ] = None
    reason: Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[^\x00]*$")] = ""
