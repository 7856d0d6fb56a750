"""Metrics of the server for Prometheus, and a health check."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuner.domain.job_queue import JobState
from tuner.server.context import Context, Reader, Store
from tuner.server.problems import ALWAYS, documented

router = APIRouter(tags=["operations"])

#: A worker counts as alive for this time after its last sign of life.
_ALIVE_SECONDS = 60.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Health(BaseModel):
    """The answer of a healthy server."""

    status: str


class ServerMetrics:
    """Counts and times requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "paceline_http_requests",
            "Requests by method, route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "paceline_http_request_seconds",
            "Seconds until the first byte of the answer, by route.",
            ("route",),
            registry=self.registry,
        )

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts a request that was answered.

        Args:
            scope: ASGI scope of the request.
            status: Status of the answer.
            seconds: Seconds until the first byte of the answer.
        """
        # The names of labels must not come from the client, who could fill the memory with them.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class CountRequests:
    """ASGI middleware that counts and times requests.

    Args:
        app: The application.
        metrics: Gets the counts.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, is_counted = time.perf_counter(), False

        async def counted(message: Message) -> None:
            nonlocal is_counted
            if message["type"] == "http.response.start":
                is_counted = True
                self._metrics.count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            if not is_counted:
                self._metrics.count(scope, 500, time.perf_counter() - started)
            raise


class _QueueCollector(Collector):
    """Reads numbers of jobs and workers from the database when Prometheus asks for them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields the metrics of the queue."""
        now = time.time()
        jobs = GaugeMetricFamily("paceline_jobs", "Jobs by state.", labels=("state",))
        counts = self._store.queue.count_jobs()
        for state in JobState:
            jobs.add_metric((str(state),), counts.get(state, 0))
        yield jobs
        oldest = self._store.reads.queued_since()
        age = 0.0 if oldest is None else max(now - oldest, 0.0)
        yield GaugeMetricFamily("paceline_queue_age_seconds", "Age of the oldest queued job.", value=age)
        alive = [
            worker
            for worker in self._store.queue.workers(seen_since=now - _ALIVE_SECONDS)
            if worker.stopped_at is None
        ]
        yield GaugeMetricFamily("paceline_workers", "Workers that are alive.", value=len(alive))
        slots = sum(worker.slots for worker in alive if not worker.draining)
        yield GaugeMetricFamily("paceline_slots", "Slots of workers that take jobs.", value=slots)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(*ALWAYS),
    },
)
def read_metrics(request: Request, context: Context, caller: Reader) -> Response:
    """Returns the metrics of the server in the format of Prometheus. Needs a token with the role read."""
    metrics: ServerMetrics = request.app.state.metrics
    queue = CollectorRegistry()
    queue.register(_QueueCollector(context.store))
    text = generate_latest(metrics.registry) + generate_latest(queue)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/healthz", responses=documented(413, 503))
def check_health(context: Context) -> Health:
    """Says whether the server answers and can read its database. Needs no token."""
    context.store.reads.file_size("")
    return Health(status="ok")
