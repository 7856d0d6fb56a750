"""The OpenAPI description of the REST API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path
from starlette.types import Lifespan

PATH = "/api/v1/openapi.json"

_DESCRIPTION = """\
Submit tuning jobs, watch them, and read what they measured.

Every request needs the header `Authorization: Bearer TOKEN`, except for `/healthz` and this description.
Errors are problem details (RFC 9457) with the same words as on the command line. All times are seconds since
the Unix epoch.
"""
_TAGS = (
    ("jobs", "Submit, plan, list, approve, cancel, pause and resume jobs; their events."),
    ("results", "What a job has measured, its recommendation and its report."),
    ("trainers", "Ask and tell, for trainers that Paceline cannot start."),
    ("files", "Files of workspaces."),
    ("workers", "Processes that run jobs."),
    ("tokens", "Access tokens and the audit log."),
    ("operations", "Health and metrics."),
)


def new_app(title: str, version: str, lifespan: Lifespan[FastAPI]) -> FastAPI:
    """Returns an application without routes, whose OpenAPI description has problem details as errors."""
    app = FastAPI(
        title=title,
        version=version,
        lifespan=lifespan,
        description=_DESCRIPTION,
        openapi_tags=[{"name": name, "description": words} for name, words in _TAGS],
        openapi_url=PATH,
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the header Host, which the client chooses.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    plain_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _name_media_types(plain_openapi())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """Returns the methods that the described API has for the path of a request; empty for other paths."""
    paths = app.openapi()["paths"]
    # `/jobs/plan` also has the form of `/jobs/{job_id}`.
    templates = [path] if path in paths else paths
    found = (paths[template] for template in templates if compile_path(template)[0].match(path))
    return sorted({method.upper() for operations in found for method in operations})


def _name_media_types(schema: dict[str, Any]) -> None:
    """Changes the media type of all errors to that of problem details."""
    for path in schema["paths"].values():
        for operation in path.values():
            for status, answer in operation.get("responses", {}).items():
                content = answer.get("content", {})
                if int(status) >= 400 and content:
                    answer["content"] = {"application/problem+json": next(iter(content.values()))}
