"""Errors as problem details (RFC 9457), with the same words as on the terminal."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tuner.domain.errors import InfeasibleError, JobError, LeaseLostError, StorageError, TunerError
from tuner.domain.job_queue import ConflictError, NotFoundError, QueueError, QuotaError
from tuner.server.openapi import allowed_methods

_logger = logging.getLogger(__name__)

#: Maps kinds of errors to HTTP status and title; the first kind that fits counts.
_STATUS: tuple[tuple[type[TunerError], int, str], ...] = (
    (NotFoundError, 404, "Not found"),
    (ConflictError, 409, "Conflict"),
    (QuotaError, 403, "Quota exceeded"),
    (LeaseLostError, 409, "Lease lost"),
    (QueueError, 422, "Request refused"),
    (JobError, 422, "Job refused"),
    (InfeasibleError, 422, "Job not feasible"),
    (StorageError, 503, "Database not available"),
    (TunerError, 500, "Internal error"),
)


#: Seconds after which a client should try again while the database is not available.
_RETRY_SECONDS = 5
FAULT = "the server has a fault; its log has the details"


class Problem(BaseModel):
    """What went wrong (problem details, RFC 9457)."""

    type: str = Field(description="always `about:blank`")
    title: str = Field(description="kind of the problem")
    status: int = Field(description="status of HTTP")
    detail: str = Field(description="what happened, what is allowed, and what to do")
    exit_code: int | None = Field(default=None, description="exit code of the same error on the command line")


_DESCRIPTIONS = {
    400: "The body is not JSON that can be read.",
    401: "The request has no valid access token.",
    403: "The role or the quota of the token does not allow this, or the job belongs to another token.",
    404: "There is no such object.",
    409: "The request does not fit the present state.",
    408: "The file did not arrive in time.",
    413: "The request is too large.",
    422: "The request, the job file or a file is not valid, or not allowed on this server.",
    429: "Too many requests; the header Retry-After says when to try again.",
    500: "The server has a fault.",
    503: "The database is not available; the header Retry-After says when to try again.",
}
#: Statuses of all requests that need a token.
ALWAYS = (401, 403, 413, 422, 429, 500, 503)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI description of answers with problem details."""
    return {status: {"model": Problem, "description": _DESCRIPTIONS[status]} for status in statuses}


class RefusedError(Exception):
    """A request that is refused with a status of HTTP.

    Args:
        status: HTTP status.
        title: Kind of the problem, in a few words.
        detail: What happened, what is allowed, and what to do.
        headers: Additional headers of the answer.
    """

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}


def problem(
    status: int, title: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> JSONResponse:
    """Returns an answer with problem details; `members` are additional members of the object."""
    members = {name: value for name, value in members.items() if value is not None}
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, **members},
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Makes an application answer all errors with problem details."""
    app.add_exception_handler(TunerError, _tuner_error)  # type: ignore[arg-type]
    app.add_exception_handler(RefusedError, _refused)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _unexpected)


def described(error: TunerError) -> tuple[int, str, str]:
    """Returns the HTTP status of an error, a title, and what a client may read about it."""
    status, title = next((status, title) for kind, status, title in _STATUS if isinstance(error, kind))
    if status < 500:
        return status, title, str(error)
    # The message may name files and hosts of the server.
    _logger.error("%s: %s", title, error)
    if status == 503:
        words = f"the server cannot use its database at present; try again in {_RETRY_SECONDS} s"
        return status, title, words
    return status, title, FAULT


def _tuner_error(_request: Request, error: TunerError) -> JSONResponse:
    status, title, detail = described(error)
    headers = {"Retry-After": str(_RETRY_SECONDS)} if status == 503 else None
    return problem(status, title, detail, headers=headers, exit_code=error.exit_code)


def _refused(_request: Request, error: RefusedError) -> JSONResponse:
    return problem(error.status, error.title, error.detail, headers=error.headers)


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    headers, detail = dict(error.headers or {}), str(error.detail)
    if error.status_code == 405 and (methods := allowed_methods(request.app, request.url.path)):
        # The header of the router names the methods of one route, but several routes can have this path.
        headers["Allow"] = ", ".join(methods)
        detail = f"{request.method} is not possible here; allowed is {headers['Allow']}"
    return problem(error.status_code, "Request refused", detail, headers=headers)


def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    places = [
        f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}" for found in error.errors()[:10]
    ]
    return problem(422, "Request not valid", "; ".join(places))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "Internal error", FAULT)
