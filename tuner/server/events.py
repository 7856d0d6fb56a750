"""REST API of the events of a job: as a list, or as a stream of server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from tuner.domain.errors import TunerError
from tuner.domain.job_queue import JobEvent
from tuner.domain.service_store import JobQueue
from tuner.server.context import Context, Reader
from tuner.server.problems import ALWAYS, documented
from tuner.server.schemas import MOST, After, JobId, plain

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], responses=documented(*ALWAYS))

#: Seconds between two reads of the database for a stream.
_POLL_SECONDS = 1.0
#: A stream without events sends a comment after this time, so that proxies do not close the connection.
_HEARTBEAT_SECONDS = 15.0
#: Seconds between two checks of the token of a stream, which may have been revoked or have expired.
_CHECK_SECONDS = 5.0
#: A stream ends after this time, and the client connects again.
_LONGEST_SECONDS = 600.0
_MOST_EVENTS = 500


class EventView(BaseModel):
    """One event of a job, such as a decision of the search, a warning or a change of state."""

    number: int = Field(description="number of the event among those of its job, from 1")
    kind: str
    text: str
    created_at: float = Field(description="seconds since the Unix epoch")
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events of a job, oldest first."""

    events: list[EventView]
    has_ended: bool = Field(description="whether the job has ended and this page has its last event")


@router.get(
    "/{job_id}/events",
    response_model=EventPage,
    responses={
        200: {
            "description": "A stream of server-sent events, whose data have the form of `EventView`; with "
            "`wait=false`, a page of events.",
            "content": {"text/event-stream": {}},
        },
        **documented(404),
    },
)
async def read_events(
    job_id: JobId,
    context: Context,
    caller: Reader,
    request: Request,
    wait: Annotated[
        bool, Query(description="send a stream that waits for new events and ends with the job")
    ] = True,
    after: After = 0,
    limit: Annotated[
        int, Query(ge=1, le=_MOST_EVENTS, description="largest number of events of a page")
    ] = 100,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=MOST, description="number of the last event that arrived")
    ] = None,
) -> Response:
    """Returns the events of a job. The stream ends after the last event of a job that has ended."""
    queue = context.store.queue
    after = after if last_event_id is None else last_event_id
    if wait:
        await run_sync(queue.job, job_id)
        context.streams.check(caller.token.token_id)
        secret = request.headers["authorization"].partition(" ")[2].strip()

        def is_valid() -> bool:
            return context.store.tokens.find(secret) is not None

        events_of_job = event_stream(queue, job_id, after, is_valid)
        stream = context.streams.counted(caller.token.token_id, events_of_job)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    events, has_ended = await run_sync(new_events, queue, job_id, after, limit)
    page = EventPage(events=[EventView(**asdict(event)) for event in events], has_ended=has_ended)
    return JSONResponse(plain(page.model_dump()))


def new_events(queue: JobQueue, job_id: int, after: int, limit: int) -> tuple[list[JobEvent], bool]:
    """Returns the events of a job after a number, and whether no more events can follow them.

    Raises:
        NotFoundError: There is no such job.
    """
    job = queue.job(job_id)
    found = queue.events(job_id, after=after, limit=limit)
    last = found[-1].number if found else after
    return found, job.state.has_ended and last >= job.num_events


async def event_stream(
    queue: JobQueue, job_id: int, after: int, is_valid: Callable[[], bool]
) -> AsyncIterator[str]:
    """Yields the events of a job as server-sent events, until the job has ended or the token is not valid.

    If the database fails, the stream ends, so that the client connects again.

    Args:
        queue: The queue of jobs.
        job_id: Number of the job.
        after: Number of the last event that the client has.
        is_valid: Returns whether the token of the client is still valid.
    """
    started = sent = checked = time.monotonic()
    yield f"retry: {round(3000 * _POLL_SECONDS)}\n\n"
    while time.monotonic() - started < _LONGEST_SECONDS:
        try:
            if time.monotonic() - checked >= _CHECK_SECONDS:
                checked = time.monotonic()
                if not await run_sync(is_valid):
                    return
            found, has_ended = await run_sync(new_events, queue, job_id, after, _MOST_EVENTS)
        except TunerError:
            return
        for event in found:
            yield _message(event)
            after = event.number
        if has_ended:
            return
        now = time.monotonic()
        if found:
            sent = now
        elif now - sent >= _HEARTBEAT_SECONDS:
            sent = now
            yield ": no new events\n\n"
        if len(found) < _MOST_EVENTS:
            await anyio.sleep(_POLL_SECONDS)


def _message(event: JobEvent) -> str:
    # JSON has no line ends, which would end the field.
    data = json.dumps(plain(asdict(event)), allow_nan=False)
    return f"id: {event.number}\nevent: job\ndata: {data}\n\n"
