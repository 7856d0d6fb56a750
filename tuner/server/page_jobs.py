"""The page that lists the submitted jobs."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response

from tuner.domain.job_queue import JobState
from tuner.server.context import Context
from tuner.server.page_progress import progress_of
from tuner.server.page_rendering import page, page_router
from tuner.server.page_sessions import Viewer
from tuner.server.schemas import JobId

router = page_router()

_PAGE_LENGTH = 25


@router.get("/")
def list_jobs(
    request: Request,
    context: Context,
    visitor: Viewer,
    state: str = "",
    name: Annotated[str, Query(max_length=100)] = "",
    mine: bool = False,
    before: JobId | None = None,
) -> Response:
    """Shows the jobs, newest first."""
    queue = context.store.queue
    known = [str(known) for known in JobState]
    found = queue.jobs(
        states=[JobState(state)] if state in known else [],
        name=name or None,
        token_id=visitor.token.token_id if mine else None,
        before=before,
        limit=_PAGE_LENGTH + 1,
    )
    shown = found[:_PAGE_LENGTH]
    filters = {"state": state if state in known else "", "name": name, "mine": "true" if mine else ""}
    query = {key: text for key, text in filters.items() if text}
    more = {**query, "before": shown[-1].job_id} if len(found) > _PAGE_LENGTH else None
    counts = queue.count_jobs()
    values = {
        "jobs": [(job, progress_of(job)) for job in shown],
        "counts": counts,
        "states": list(JobState),
        "filters": filters,
        "is_filtered": bool(query),
        "first": f"/?{urlencode(query)}" if before is not None else None,
        "more": f"/?{urlencode(more)}" if more else None,
        "is_live": any(not job.state.has_ended for job in shown),
    }
    return page(request, "jobs.html.j2", values)
