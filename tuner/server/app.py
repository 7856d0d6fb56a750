"""The application of `paceline serve`."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from tuner.server import api_jobs, api_trainers
from tuner.server.context import ServerContext, Store
from tuner.server.limits import BodyLimit, RateLimits, SecurityHeaders
from tuner.server.pages import add_pages
from tuner.server.problems import add_problem_handlers
from tuner.server.settings import ServerSettings


def create_app(store: Store, settings: ServerSettings) -> FastAPI:
    """Returns the application of the server.

    Args:
        store: The database; the caller closes it.
        settings: Settings of the server.
    """
    app = FastAPI(title="Paceline", version=version("paceline"), docs_url=None, redoc_url=None)
    app.state.context = ServerContext(store=store, settings=settings, rates=RateLimits(settings.limits))
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, limits=settings.limits)
    app.add_middleware(SecurityHeaders)
    app.include_router(api_jobs.router)
    app.include_router(api_trainers.router)
    add_pages(app)
    return app
