"""Pages to log in with an access token, and to log out."""

from __future__ import annotations

import re
import secrets

from fastapi import Request, Response

from tuner.server.context import Context
from tuner.server.page_forms import Posted
from tuner.server.page_rendering import page, page_router, redirect
from tuner.server.page_sessions import (
    LOGIN_COOKIE,
    SESSION_COOKIE,
    address_of,
    session_of,
    sessions_of,
    set_cookie,
    start_session,
)

router = page_router()

#: Addresses of this server to go to after the login. `//host` and `/\\host` would lead to other servers.
_LOCAL = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


def _local(path: str) -> str:
    return path if _LOCAL.fullmatch(path) else "/"


def _form(request: Request, following: str, *, refused: bool = False) -> Response:
    key = secrets.token_urlsafe(32)
    values = {"csrf": key, "next": _local(following), "refused": refused}
    response = page(request, "login.html.j2", values, status=401 if refused else 200)
    set_cookie(request, response, LOGIN_COOKIE, key)
    return response


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """Shows the form to log in."""
    return _form(request, next)


@router.post("/login")
def log_in(request: Request, context: Context, form: Posted) -> Response:
    """Logs in with an access token."""
    text, following = form.text("token").strip(), form.text("next")
    token = context.store.tokens.find(text)
    if token is None:
        context.rates.count_refused(address_of(request))
        return _form(request, following, refused=True)
    context.store.tokens.audit(
        token.name, "page.login", f"token {token.token_id}", address=address_of(request)
    )
    response = redirect(_local(following))
    response.delete_cookie(LOGIN_COOKIE, path="/")
    start_session(request, response, text, token)
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Ends the session."""
    if session_of(request) is not None:
        sessions_of(request).close(request.cookies[SESSION_COOKIE])
    response = redirect("/login")
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response
