"""The web pages of `paceline serve`; they call the same functions as the REST API."""

from __future__ import annotations

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from tuner.server import page_account, page_admin, page_job, page_jobs, page_submit
from tuner.server.page_analysis import DrawnAnalyses
from tuner.server.page_rendering import STATIC
from tuner.server.page_sessions import Sessions


class _StaticFiles(StaticFiles):
    """Static files; their addresses change with their content, so that browsers may store them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=604800"
        return response


def add_pages(app: FastAPI) -> None:
    """Adds the web pages to the application of the server."""
    app.state.sessions = Sessions()
    app.state.analyses = DrawnAnalyses()
    for topic in (page_account, page_jobs, page_submit, page_job, page_admin):
        app.include_router(topic.router)
    app.mount("/static", _StaticFiles(packages=[*STATIC]), name="static")
