"""The application of `paceline serve`."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from tuner.server import (
    api_admin,
    api_files,
    api_jobs,
    api_outcomes,
    api_studies,
    api_trainers,
    events,
    metrics,
)
from tuner.server.context import ServerContext, Store
from tuner.server.limits import BodyLimit, RateLimits, SecurityHeaders
from tuner.server.metrics import CountRequests, ServerMetrics
from tuner.server.openapi import new_app
from tuner.server.pages import add_pages
from tuner.server.problems import add_problem_handlers
from tuner.server.settings import ServerSettings


def create_app(store: Store, settings: ServerSettings) -> FastAPI:
    """Returns the application of the server.

    Args:
        store: The database; the caller closes it.
        settings: Settings of the server.
    """
    app = new_app("Paceline", version("paceline"))
    app.state.context = ServerContext(store=store, settings=settings, rates=RateLimits(settings.limits))
    app.state.metrics = ServerMetrics()
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, limits=settings.limits)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(CountRequests, metrics=app.state.metrics)
    results = (api_studies, api_outcomes)
    for module in (api_jobs, events, *results, api_files, api_trainers, api_admin, metrics):
        app.include_router(module.router)
    add_pages(app)
    return app
