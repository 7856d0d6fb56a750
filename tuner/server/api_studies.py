"""REST API of what a job has measured: probes, curves, predictions, recommendation, report, exports, log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from tuner.domain.job_queue import FileKind, JobRecord, NotFoundError
from tuner.domain.ledger import PredictedAgainstMeasured
from tuner.report.launch_files import TARGETS
from tuner.server.context import Context, Reader, ServerContext
from tuner.server.exports import export_text
from tuner.server.measured import measured_seconds
from tuner.server.problems import ALWAYS, documented
from tuner.server.schemas import After, JobId, Line, plain

router = APIRouter(prefix="/api/v1/jobs", tags=["results"], responses=documented(*ALWAYS))

Limit = Annotated[int, Query(ge=1, le=200, description="largest number of records")]
#: Maps each format of a report to its files, the first of which that exists is served, and its media type.
_REPORTS = {
    "html": (("report.html",), "text/html; charset=utf-8"),
    "md": (("report.md",), "text/markdown; charset=utf-8"),
    "json": (("recommendation.json", "report.json"), "application/json"),
    "csv": (("trials.csv",), "text/csv; charset=utf-8"),
}
ReportFormat = Literal["html", "md", "json", "csv"]
_TEXT: dict[str, Any] = {"schema": {"type": "string"}}


class ProbeView(BaseModel):
    """One probe (trial training) in numbers."""

    probe_id: int
    configuration: dict[str, Any]
    purpose: str
    outcome: str
    reason: str
    created_at: float
    is_running: bool
    num_slices: int
    step: int
    samples: int
    training_seconds: float
    charged_seconds: float
    charged_dollars: float
    last_value: float | None = Field(description="metric at the last evaluation")


class ProbePage(BaseModel):
    """Probes of a job, oldest first."""

    probes: list[ProbeView]
    next_after: int | None = Field(description="value of `after` for the next page; null on the last page")


class CurvePointView(BaseModel):
    """One evaluation."""

    training_seconds: float
    step: int
    samples: int
    value: float | None = Field(description="the metric; null if it was infinite or NaN")


class CurveView(BaseModel):
    """The learning curve of one probe."""

    probe_id: int
    configuration: dict[str, Any]
    points: list[CurvePointView]


class CurvePage(BaseModel):
    """Curves of the probes of a job, oldest first."""

    curves: list[CurveView]
    next_after: int | None = Field(description="value of `after` for the next page; null on the last page")


class PredictionView(BaseModel):
    """A stored prediction of the time to target, with the time that was measured later."""

    prediction_id: int
    configuration: dict[str, Any]
    created_at: float
    quantiles: dict[str, float | None] = Field(
        description="level: training seconds to target; null: infinite"
    )
    dollars: dict[str, float | None] = Field(description="level: dollars to target; null: infinite")
    probability_of_reaching: float
    num_slices: int
    seconds_observed: float
    measured_seconds: float | None = Field(description="null while the target was not reached")
    share_observed: float | None = Field(
        description="share of the measured time that was known when the prediction was made"
    )


class PredictionPage(BaseModel):
    """Predictions of a job, oldest first."""

    predictions: list[PredictionView]
    next_after: int | None = Field(description="value of `after` for the next page; null on the last page")


class FileView(BaseModel):
    """A file that belongs to a job."""

    kind: FileKind
    path: str
    num_bytes: int | None


@router.get("/{job_id}/probes", responses=documented(404))
def list_probes(
    job_id: JobId, context: Context, caller: Reader, after: After = 0, limit: Limit = 100
) -> ProbePage:
    """Lists the probes of a job, oldest first."""
    study_id = _job(context, job_id).study_id
    found = [] if study_id is None else context.store.reads.probes(study_id, after=after, limit=limit)
    views = [
        ProbeView(**plain(asdict(probe) | {"configuration": probe.configuration.as_dict()}))
        for probe in found
    ]
    return ProbePage(probes=views, next_after=found[-1].probe_id if len(found) == limit else None)


@router.get("/{job_id}/curves", responses=documented(404))
def list_curves(
    job_id: JobId,
    context: Context,
    caller: Reader,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=50, description="largest number of probes")] = 20,
    points: Annotated[
        int, Query(ge=2, le=1000, description="largest number of points; longer curves are thinned")
    ] = 200,
) -> CurvePage:
    """Lists the learning curves of the probes of a job, oldest first."""
    study_id = _job(context, job_id).study_id
    if study_id is None:
        return CurvePage(curves=[], next_after=None)
    found = context.store.reads.probes(study_id, after=after, limit=limit)
    numbers = [probe.probe_id for probe in found]
    curves = context.store.reads.curves(study_id, numbers, most_points=points)
    views = [
        CurveView(
            probe_id=probe.probe_id,
            configuration=plain(probe.configuration.as_dict()),
            points=[CurvePointView(**plain(asdict(point))) for point in curves.get(probe.probe_id, [])],
        )
        for probe in found
    ]
    return CurvePage(curves=views, next_after=numbers[-1] if len(found) == limit else None)


@router.get("/{job_id}/predictions", responses=documented(404))
def list_predictions(
    job_id: JobId, context: Context, caller: Reader, after: After = 0, limit: Limit = 100
) -> PredictionPage:
    """Lists the stored predictions of the time to target, with the time that was measured later."""
    study_id = _job(context, job_id).study_id
    if study_id is None:
        return PredictionPage(predictions=[], next_after=None)
    found = context.store.reads.predictions(study_id, after=after, limit=limit)
    measured = measured_seconds(context.store.reads, study_id) if found else {}
    views = []
    for number, record in found:
        compared = PredictedAgainstMeasured.of(record, measured.get(record.configuration))
        values = asdict(record) | {
            "prediction_id": number,
            "configuration": record.configuration.as_dict(),
            "measured_seconds": None if compared is None else compared.measured_seconds,
            "share_observed": None if compared is None else compared.share_observed,
        }
        views.append(PredictionView(**plain(values)))
    return PredictionPage(predictions=views, next_after=found[-1][0] if len(found) == limit else None)


@router.get("/{job_id}/recommendation", responses=documented(404))
def read_recommendation(job_id: JobId, context: Context, caller: Reader) -> dict[str, Any]:
    """Returns the newest recommendation; its form is that of `recommendation.json` (`paceline schema`)."""
    found: dict[str, Any] = plain(_recommendation(context, _job(context, job_id)))
    return found


@router.get(
    "/{job_id}/export",
    response_class=Response,
    responses={
        200: {"description": "The launch file.", "content": {"text/plain": _TEXT}},
        **documented(404, 409),
    },
)
def export_job(
    job_id: JobId,
    context: Context,
    caller: Reader,
    target: Annotated[Literal[tuple(TARGETS)], Query(description="tool that the file is for")],  # type: ignore[valid-type]
    accelerator: Annotated[Line | None, Query(description="type of the devices, such as A100")] = None,
    image: Annotated[Line | None, Query(description="container image")] = None,
    folder: Annotated[
        str,
        Query(
            pattern=r"^/[A-Za-z0-9._/@+-]*$",
            max_length=500,
            description="folder of the job file on the machine that trains",
            examples=["/home/me/digits"],
        ),
    ] = "/path/to/the/job",
    report_to: Annotated[
        Line | None,
        Query(
            description="address of this server, to which the training reports its real time to target; it "
            "needs PACELINE_TOKEN",
            examples=["https://paceline.example.org"],
        ),
    ] = None,
) -> Response:
    """Returns a launch file for the recommendation. Values of private environment variables are left out."""
    job = _job(context, job_id)
    recommendation = _recommendation(context, job)
    text = export_text(
        context.store,
        job,
        recommendation,
        target=target,
        accelerator=accelerator,
        image=image,
        folder=folder,
        report_to=report_to,
    )
    return Response(text, media_type="text/plain")


@router.get(
    "/{job_id}/report",
    response_class=Response,
    responses={
        200: {
            "description": "The report.",
            "content": {kind.partition(";")[0]: _TEXT for _, kind in _REPORTS.values()},
        },
        **documented(404),
    },
)
def read_report(
    job_id: JobId,
    context: Context,
    caller: Reader,
    report_format: Annotated[ReportFormat, Query(alias="format")] = "html",
) -> Response:
    """Returns the report of a job, which is written when its search ends."""
    names, media_type = _REPORTS[report_format]
    _job(context, job_id)
    files = context.store.queue.job_files(job_id, FileKind.REPORT)
    name = next((name for name in names if name in files), None)
    if name is None:
        raise NotFoundError(
            f"job {job_id} has no report of the format {report_format} (yet); it is written when the search "
            "ends"
        )
    headers = {"Content-Disposition": f'attachment; filename="job-{job_id}-{name}"'}
    return Response(context.store.queue.file(files[name]), media_type=media_type, headers=headers)


@router.get(
    "/{job_id}/log",
    response_class=Response,
    responses={
        200: {"description": "The log.", "content": {"text/plain": _TEXT}},
        **documented(404),
    },
)
def read_log(job_id: JobId, context: Context, caller: Reader) -> Response:
    """Returns the end of the log of a job, which is stored when an attempt ends."""
    _job(context, job_id)
    files = context.store.queue.job_files(job_id, FileKind.LOG)
    if not files:
        raise NotFoundError(f"job {job_id} has no log yet; it is stored when an attempt ends")
    # `attempt-10.log` comes after `attempt-9.log`.
    names = sorted(files, key=lambda name: (len(name), name))
    parts = [context.store.queue.file(files[name]) for name in names]
    return Response(b"\n".join(parts), media_type="text/plain; charset=utf-8")


@router.get("/{job_id}/files", responses=documented(404))
def list_files(job_id: JobId, context: Context, caller: Reader) -> list[FileView]:
    """Lists the files of a job: its workspace, its report and its log."""
    _job(context, job_id)
    return [
        FileView(kind=kind, path=path, num_bytes=context.store.reads.file_size(digest))
        for kind in FileKind
        for path, digest in context.store.queue.job_files(job_id, kind).items()
    ]


def _job(context: ServerContext, job_id: int) -> JobRecord:
    return context.store.queue.job(job_id)


def _recommendation(context: ServerContext, job: JobRecord) -> Mapping[str, Any]:
    study_id = job.study_id
    found = None if study_id is None else context.store.reads.recommendation(study_id)
    if found is None:
        raise NotFoundError(f"job {job.job_id} has no recommendation (yet); its search makes one at its end")
    return found
