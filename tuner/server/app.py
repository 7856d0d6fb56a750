"""The application of `paceline serve`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI

from tuner.domain.errors import TunerError
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

#: Uploaded files that no job uses are removed after this time; the server looks for them once per hour.
_UNUSED_SECONDS, _CLEAN_EVERY_SECONDS = 24 * 3600.0, 3600.0


def create_app(store: Store, settings: ServerSettings) -> FastAPI:
    """Returns the application of the server.

    Args:
        store: The database; the caller closes it.
        settings: Settings of the server.
    """
    app = new_app("Paceline", version("paceline"), _removing_unused_files)
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


@asynccontextmanager
async def _removing_unused_files(app: FastAPI) -> AsyncIterator[None]:
    """Removes old uploads that no job uses while the server runs."""
    context: ServerContext = app.state.context
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_remove_unused_files, context.store)
        yield
        tasks.cancel_scope.cancel()


async def _remove_unused_files(store: Store) -> None:
    while True:
        # If the database fails now, the next try may succeed.
        with suppress(TunerError):
            clean = partial(store.queue.clean_files, unused_before=time.time() - _UNUSED_SECONDS)
            await run_sync(clean, abandon_on_cancel=True)
        await anyio.sleep(_CLEAN_EVERY_SECONDS)
