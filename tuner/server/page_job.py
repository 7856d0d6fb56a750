"""The pages of one job: live view, plan, report, files and log; and the forms that change the job."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Path as InPath
from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from tuner.domain.job_queue import FileKind, JobRecord, NotFoundError
from tuner.report.launch_files import TARGETS
from tuner.server.context import Context, ServerContext, check_priority, own_job
from tuner.server.exports import export_text
from tuner.server.page_analysis import DrawnAnalyses
from tuner.server.page_chart import MAX_POINTS, charts, diverged_probes, series_of
from tuner.server.page_forms import Posted
from tuner.server.page_private import may_read_file
from tuner.server.page_progress import Progress, progress_of, recommended
from tuner.server.page_rendering import page, page_router, redirect
from tuner.server.page_sessions import Administrator, JobSubmitter, Viewer, Visitor
from tuner.server.problems import RefusedError
from tuner.server.schemas import JobId, Line

router = page_router()

#: A report is shown in a frame of its page. It may use its own styles, but can neither run scripts nor send
#: requests, and its origin is not that of the server, so that it has no access to cookies.
_SANDBOX = (
    "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'"
)
#: Folders that a launch file may name.
_FOLDER = re.compile(r"/[A-Za-z0-9._/@+-]*")
_EVENTS_SHOWN, _MAX_PROBES = 200, 200
#: Bytes of the end of the log that a page shows.
_LOG_BYTES = 200_000


def _shown(
    request: Request, context: ServerContext, visitor: Visitor, job: JobRecord, name: str, **values: object
) -> Response:
    """Returns a page of a job with what all pages of a job show."""
    queue = context.store.queue
    common = {
        "job": job,
        "may_change": visitor.may_submit and visitor.may_change(job),
        "reports": queue.job_files(job.job_id, FileKind.REPORT),
    }
    return page(request, name, {**common, **values})


@router.get("/jobs/{job_id}")
def show_job(job_id: JobId, request: Request, context: Context, visitor: Viewer) -> Response:
    """Shows a job live."""
    job = context.store.queue.job(job_id)
    after = max(job.num_events - _EVENTS_SHOWN, 0)
    events = context.store.queue.events(job_id, after=after, limit=_EVENTS_SHOWN)
    progress = progress_of(job)
    values = {
        **_study(context, job, progress),
        "progress": progress,
        "events": events[::-1],
        "num_older": after,
        "is_live": not job.state.has_ended,
        "analysis": _analysis(request, context, job),
    }
    return _shown(request, context, visitor, job, "job.html.j2", **values)


def _analysis(request: Request, context: ServerContext, job: JobRecord) -> Markup:
    """Returns the sections of the report for a job that has ended; empty without a recommendation."""
    if job.study_id is None or not job.state.has_ended:
        return Markup("")
    drawn: DrawnAnalyses = request.app.state.analyses
    return drawn.of_study(context.store.reads, job.study_id)


def _study(context: ServerContext, job: JobRecord, progress: Progress) -> dict[str, object]:
    """Returns what the live view shows of the study of a job: probes, curves and the best configuration."""
    reads, study = context.store.reads, job.study_id
    if study is None:
        return {"probes": [], "series": [], "charts": [], "best": None}
    probes = reads.probes(study, limit=_MAX_PROBES)
    scored = [probe.probe_id for probe in probes if probe.last_value is not None]
    best = recommended(reads.recommendation(study)) if job.state.has_ended else progress.best
    found = reads.curves(study, scored, most_points=MAX_POINTS)
    series = series_of(probes, found, progress.slices, best)
    goal = reads.goal(study)
    shown = charts(
        series, best, float(goal["target"]), str(goal.get("metric", "accuracy")), diverged_probes(probes)
    )
    return {"probes": probes[::-1], "series": series, "charts": shown, "best": best}


@router.get("/jobs/{job_id}/plan")
def show_plan(job_id: JobId, request: Request, context: Context, visitor: Viewer) -> Response:
    """Shows the plan, the price and the job file."""
    job = context.store.queue.job(job_id)
    values = {
        "workspace": context.store.queue.job_files(job_id, FileKind.WORKSPACE),
        "shows_file": may_read_file(visitor, job),
    }
    return _shown(request, context, visitor, job, "job_plan.html.j2", **values)


@router.get("/jobs/{job_id}/report")
def show_report(job_id: JobId, request: Request, context: Context, visitor: Viewer) -> Response:
    """Shows the report in a frame."""
    job = context.store.queue.job(job_id)
    found = None if job.study_id is None else context.store.reads.recommendation(job.study_id)
    values = {"has_recommendation": found is not None, "targets": list(TARGETS)}
    return _shown(request, context, visitor, job, "job_report.html.j2", **values)


@router.get("/jobs/{job_id}/export")
def export(
    job_id: JobId,
    context: Context,
    visitor: Viewer,
    target: str = "",
    folder: Annotated[str, Query(max_length=500)] = "",
    accelerator: Line = "",
    image: Line = "",
    report_to: Line = "",
) -> Response:
    """Sends a launch file for the recommendation."""
    job = context.store.queue.job(job_id)
    found = None if job.study_id is None else context.store.reads.recommendation(job.study_id)
    if found is None:
        raise NotFoundError(f"job {job_id} has no recommendation (yet); its search makes one at its end")
    if target not in TARGETS:
        raise RefusedError(422, "Form not valid", f"target = {target!r}: choose one of {', '.join(TARGETS)}")
    if not _FOLDER.fullmatch(folder):
        raise RefusedError(
            422,
            "Form not valid",
            f"folder = {folder!r}: give an absolute path of letters, digits and the characters . _ / @ + -",
        )
    text = export_text(
        context.store,
        job,
        found,
        target=target,
        accelerator=accelerator or None,
        image=image or None,
        folder=folder,
        report_to=report_to or None,
    )
    return _attached(text.encode(), f"launch-{target}.txt")


@router.get("/jobs/{job_id}/log")
def show_log(job_id: JobId, request: Request, context: Context, visitor: Viewer) -> Response:
    """Shows the end of the log."""
    queue = context.store.queue
    job = queue.job(job_id)
    logs = [
        (path, queue.file(digest)[-_LOG_BYTES:].decode(errors="replace"))
        for path, digest in queue.job_files(job_id, FileKind.LOG).items()
    ]
    return _shown(request, context, visitor, job, "job_log.html.j2", logs=logs)


@router.get("/jobs/{job_id}/files/{kind}/{path:path}")
def send_file(
    job_id: JobId,
    kind: FileKind,
    path: Annotated[str, InPath(max_length=1024)],
    context: Context,
    visitor: Viewer,
) -> Response:
    """Sends a file of a job. Only the report is shown by the browser; it stores other files."""
    digest = context.store.queue.job_files(job_id, kind).get(path)
    if digest is None:
        raise NotFoundError(f"job {job_id} has no file {path}")
    is_page = kind is FileKind.REPORT and path.endswith(".html")
    content = context.store.queue.file(digest)
    if not is_page:
        return _attached(content, path.rpartition("/")[2])
    headers = {"Content-Security-Policy": _SANDBOX, "X-Frame-Options": "SAMEORIGIN"}
    return HTMLResponse(content, headers=headers)


def _attached(content: bytes, name: str) -> Response:
    """Returns a file that the browser stores and does not show."""
    name = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    headers = {
        "Content-Security-Policy": _SANDBOX,
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return Response(content, headers=headers, media_type="application/octet-stream")


def _changed(context: ServerContext, visitor: Visitor, action: str, job: JobRecord) -> Response:
    """Writes an action to the audit log, and shows the job."""
    context.store.tokens.audit(
        visitor.token.name, f"job.{action}", f"job {job.job_id}", address=visitor.address
    )
    return redirect(f"/jobs/{job.job_id}")


@router.post("/jobs/{job_id}/approve")
def approve(job_id: JobId, context: Context, visitor: Administrator) -> Response:
    """Approves a job."""
    job = context.store.queue.approve(job_id, by=visitor.token.name)
    return _changed(context, visitor, "approve", job)


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: JobId, context: Context, visitor: JobSubmitter) -> Response:
    """Cancels a job."""
    own_job(context, visitor, job_id)
    job = context.store.queue.cancel(job_id, f"by {visitor.token.name}")
    return _changed(context, visitor, "cancel", job)


@router.post("/jobs/{job_id}/pause")
def pause(job_id: JobId, context: Context, visitor: JobSubmitter) -> Response:
    """Pauses a job."""
    own_job(context, visitor, job_id)
    return _changed(context, visitor, "pause", context.store.queue.pause(job_id))


@router.post("/jobs/{job_id}/resume")
def resume(job_id: JobId, context: Context, visitor: JobSubmitter) -> Response:
    """Resumes a job."""
    own_job(context, visitor, job_id)
    return _changed(context, visitor, "resume", context.store.queue.resume(job_id))


@router.post("/jobs/{job_id}/priority")
def set_priority(job_id: JobId, context: Context, visitor: JobSubmitter, form: Posted) -> Response:
    """Changes the priority of a job."""
    own_job(context, visitor, job_id)
    priority = whole_number(form, "priority", -1000, 1000)
    check_priority(context, visitor, priority)
    return _changed(context, visitor, "priority", context.store.queue.set_priority(job_id, priority))


def whole_number(form: Posted, name: str, lowest: int, highest: int) -> int:
    """Returns a whole number of a form.

    Raises:
        RefusedError: The text is no whole number, or is not within the limits.
    """
    text = form.text(name).strip()
    try:
        number = int(text) if len(text) < 10 else None
    except ValueError:
        number = None
    if number is None or not lowest <= number <= highest:
        raise RefusedError(
            422, "Form not valid", f"{name} = {text!r}: give a whole number from {lowest} to {highest}"
        )
    return number
