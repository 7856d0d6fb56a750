"""Renders the web pages, and answers errors with pages."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from tuner.domain.errors import TunerError
from tuner.domain.format import (
    ABSENT,
    axis_title,
    format_axis,
    format_chance,
    format_count,
    format_dollars,
    format_moment,
    format_number,
    format_seconds,
    format_share,
    format_value,
    sentence,
)
from tuner.domain.job_queue import JobState
from tuner.server.context import ServerContext
from tuner.server.limits import FORM
from tuner.server.page_forms import Form, read_form
from tuner.server.page_progress import configuration_words
from tuner.server.page_sessions import LoginNeededError, Visitor, check_csrf, check_origin, visitor_of
from tuner.server.problems import FAULT, RefusedError, described

_logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent
#: Packages and their folders with files that browsers load: those of the pages, and the styles of reports.
STATIC = (("tuner.server", "static"), ("tuner.report", "static"))
#: A page loads nothing but the files of this server, runs no script and uses no style that is part of its
#: HTML, and cannot be shown in a frame of another site.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
#: Largest form to log in. Only visitors who have logged in may send larger forms.
_LOGIN_BYTES = 16 * 1024
#: Seconds of each unit of time, for the age of things.
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def state_words(state: JobState) -> str:
    """Returns the name of a state of a job in words."""
    return str(state).replace("_", " ")


def age_words(moment: float, now: float | None = None) -> str:
    """Describes how long ago a moment was, such as `5 min ago`."""
    seconds = (time.time() if now is None else now) - moment
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def until_words(moment: float, now: float) -> str:
    """Describes when a predicted moment comes, such as `in 2m 10s`."""
    return f"in {left_words(moment, now)}" if moment > now else "any moment"


def left_words(moment: float, now: float) -> str:
    """Describes the time from now to a predicted moment, such as `2m 10s`."""
    return "no upper bound" if math.isinf(moment) else format_seconds(float(round(max(moment - now, 0.0))))


def amount_words(amount: float, unit: str) -> str:
    """Describes an amount of `duration` (seconds), `dollars` or `hours` (node hours)."""
    if unit == "hours":
        return format_number(amount)
    return format_seconds(amount) if unit == "duration" else format_dollars(amount)


def _number_words(value: object) -> str:
    """Formats a number with four digits, or a count; anything else as a dash."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ABSENT
    return format_count(value) if isinstance(value, int) else format_value(value)


def _seconds_words(value: object) -> str:
    return format_seconds(value) if isinstance(value, int | float) else ABSENT


@cache
def _version_of_static() -> str:
    """Returns a text that changes with the static files, so that browsers load changed files."""
    found = [path for package, folder in STATIC for path in (resources.files(package) / folder).iterdir()]
    content = b"".join(path.read_bytes() for path in sorted(found, key=lambda path: path.name))
    return hashlib.sha256(content).hexdigest()[:12]


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": age_words,
        "amount": amount_words,
        "axis": axis_title,
        "axis_value": lambda value: format_axis(value) if isinstance(value, int | float | str) else value,
        "chance": format_chance,
        "configuration": configuration_words,
        "count": format_count,
        "dollars": format_dollars,
        "duration": format_seconds,
        "iso": _iso,
        "is_finite": math.isfinite,
        "left": left_words,
        "moment": format_moment,
        "number": _number_words,
        "seconds": _seconds_words,
        "sentence": sentence,
        "share": format_share,
        "state": state_words,
        "until": until_words,
        "value": format_value,
        "path": lambda text: quote(str(text), safe="/"),
    }
    environment.globals["static"] = lambda name: f"/static/{name}?v={_version_of_static()}"
    return environment


def page(
    request: Request, name: str, values: Mapping[str, Any] | None = None, *, status: int = 200
) -> HTMLResponse:
    """Returns the page that a template makes of values.

    Args:
        request: The request; the page shows its visitor, and a link to log out.
        name: File name of the template.
        values: Values for the template.
        status: HTTP status.
    """
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    template = _environment().get_template(name)
    shown = template.render(visitor=visitor, path=request.url.path, now=time.time(), **(values or {}))
    return HTMLResponse(shown, status_code=status)


def redirect(path: str) -> RedirectResponse:
    """Returns an answer that makes the browser load another page of this server."""
    return RedirectResponse(path, status_code=303)


class PageRoute(APIRoute):
    """A route of a web page: it checks where each form comes from, and answers errors with pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                if request.method == "POST":
                    check_origin(request)
                    request.state.form = await _form(request)
                    check_csrf(request, request.state.form.text("csrf"))
                response = await handler(request)
            except LoginNeededError:
                response = _login(request)
            except RefusedError as error:
                response = _error(request, error.status, error.title, error.detail)
                response.headers.update(error.headers)
            except TunerError as error:
                response = _error(request, *described(error))
            except RequestValidationError:
                response = _error(request, 404, "Not found", "there is no page with this address")
            except HTTPException as error:
                response = _error(request, error.status_code, "Request refused", str(error.detail))
            except Exception as error:
                _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
                response = _error(request, 500, "Internal error", FAULT)
            for header, value in _HEADERS.items():
                response.headers.setdefault(header, value)
            return response

        return answered


async def _form(request: Request) -> Form:
    """Reads the form of a request.

    Raises:
        LoginNeededError: The visitor has no valid session, so that the form is not read.
        RefusedError: The form is too large, or the visitor sends too many of them.
    """
    if request.url.path == "/login":
        return await read_form(request, _LOGIN_BYTES)
    context: ServerContext = request.app.state.context
    visitor = await run_in_threadpool(visitor_of, request, context)
    limits = context.settings.limits
    if request.url.path != FORM or not visitor.may_submit:
        return await read_form(request, limits.request_bytes)
    with context.uploads.counted(visitor.token.token_id, limits.uploads):
        try:
            async with asyncio.timeout(limits.upload_seconds):
                return await read_form(request, limits.request_bytes + limits.workspace_bytes)
        except TimeoutError as error:
            words = f"the form did not arrive within {limits.upload_seconds:g} s; try again, with fewer files"
            raise RefusedError(408, "Too slow", words, {"Connection": "close"}) from error


def page_router() -> APIRouter:
    """Returns a router for pages. They are not part of the OpenAPI schema."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


def _error(request: Request, status: int, title: str, detail: str) -> Response:
    return page(request, "error.html.j2", {"status": status, "title": title, "detail": detail}, status=status)


def _login(request: Request) -> Response:
    """Returns the way to the login page, and from there back to the page of the request."""
    if request.method != "GET":
        return redirect("/login")
    query = f"?{request.url.query}" if request.url.query else ""
    return redirect(f"/login?next={quote(request.url.path + query, safe='')}")
