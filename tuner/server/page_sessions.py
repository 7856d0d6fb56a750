"""Logins of the web pages: sessions in the memory of the server, their cookies and their CSRF tokens."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from tuner.domain.job_queue import Role, TokenRecord
from tuner.server.context import Caller, Context
from tuner.server.problems import RefusedError

#: Cookie of a session, and cookie of the login form, which belongs to no session yet.
SESSION_COOKIE, LOGIN_COOKIE = "paceline_session", "paceline_login"
#: Seconds after which a session ends.
_SESSION_SECONDS = 12 * 3600.0
#: Maximum number of sessions of one server, and of one token. The oldest session ends if there are more.
_MAX_SESSIONS, _MAX_SESSIONS_OF_TOKEN = 10_000, 50


@dataclass(frozen=True, kw_only=True)
class Session:
    """A login.

    Args:
        text: Text of the access token. The server needs it to see whether the token is still valid.
        token_id: Number of the token.
        csrf: Text that each form of the session must contain, so that other sites cannot send forms.
        expires_at: Time when the session ends, seconds since the Unix epoch.
    """

    text: str
    token_id: int
    csrf: str
    expires_at: float


class Sessions:
    """The sessions of one server. They end with the process of the server.

    Args:
        clock: Returns the time in seconds since the Unix epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: Oldest first.
        self._sessions: dict[str, Session] = {}

    def open(self, text: str, token_id: int) -> str:
        """Opens a session for an access token. Returns the value of its cookie."""
        key, now = secrets.token_urlsafe(32), self._clock()
        session = Session(
            text=text, token_id=token_id, csrf=secrets.token_urlsafe(32), expires_at=now + _SESSION_SECONDS
        )
        with self._lock:
            self._sessions = {k: s for k, s in self._sessions.items() if s.expires_at > now}
            same = [k for k, s in self._sessions.items() if s.token_id == token_id]
            surplus = same[: max(len(same) + 1 - _MAX_SESSIONS_OF_TOKEN, 0)]
            if len(self._sessions) - len(surplus) >= _MAX_SESSIONS:
                surplus.append(next(k for k in self._sessions if k not in surplus))
            for old in surplus:
                del self._sessions[old]
            self._sessions[key] = session
        return key

    def find(self, key: str) -> Session | None:
        """Returns the session with a given cookie; None if there is none, or it has ended."""
        with self._lock:
            session = self._sessions.get(key)
        return session if session is not None and session.expires_at > self._clock() else None

    def close(self, key: str) -> None:
        """Ends a session, if there is one with this cookie."""
        with self._lock:
            self._sessions.pop(key, None)


@dataclass(frozen=True, kw_only=True)
class Visitor(Caller):
    """Who visits a page.

    Args:
        csrf: Text that each form of the session must contain.
    """

    csrf: str

    @property
    def may_submit(self) -> bool:
        """Whether the visitor may submit jobs."""
        return self.token.role.includes(Role.SUBMIT)

    @property
    def is_admin(self) -> bool:
        """Whether the visitor has all rights."""
        return self.token.role.includes(Role.ADMIN)


class LoginNeededError(Exception):
    """The request belongs to no session, so the visitor has to log in."""


def sessions_of(request: Request) -> Sessions:
    """Dependency: the sessions of the server."""
    sessions: Sessions = request.app.state.sessions
    return sessions


def session_of(request: Request) -> Session | None:
    """Returns the session of a request; None if it has none."""
    return sessions_of(request).find(request.cookies.get(SESSION_COOKIE, ""))


def address_of(request: Request) -> str:
    """Returns the network address of the client of a request."""
    return "" if request.client is None else request.client.host


def visitor_of(request: Request, context: Context) -> Visitor:
    """Dependency: the visitor of a page, whose request is counted once.

    Raises:
        LoginNeededError: The request has no session, or its token is not valid any more.
        RefusedError: The token has sent too many requests.
    """
    known: Visitor | None = getattr(request.state, "visitor", None)
    if known is not None:
        return known
    session = session_of(request)
    token = None if session is None else context.store.tokens.find(session.text)
    if session is None or token is None:
        raise LoginNeededError
    context.rates.count(token.token_id)
    visitor = Visitor(token=token, address=address_of(request), csrf=session.csrf)
    request.state.visitor = visitor
    return visitor


def _need(role: Role) -> Callable[[Visitor], Visitor]:
    def checked(visitor: Annotated[Visitor, Depends(visitor_of)]) -> Visitor:
        if not visitor.token.role.includes(role):
            raise RefusedError(
                403, "Not allowed", f"this needs a token with the role {role}; yours is {visitor.token.role}"
            )
        return visitor

    return checked


Viewer = Annotated[Visitor, Depends(_need(Role.READ))]
JobSubmitter = Annotated[Visitor, Depends(_need(Role.SUBMIT))]
Administrator = Annotated[Visitor, Depends(_need(Role.ADMIN))]


def start_session(request: Request, response: Response, text: str, token: TokenRecord) -> None:
    """Opens a session for a token, and gives its cookie to the browser."""
    set_cookie(request, response, SESSION_COOKIE, sessions_of(request).open(text, token.token_id))


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Sets a cookie that scripts cannot read, and that no other site can make the browser send."""
    response.set_cookie(
        name, value, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )


def check_origin(request: Request) -> None:
    """Refuses a request that another site made the browser send.

    Raises:
        RefusedError: The browser says that another site made the request, or does not say who made it.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "")
    same_host = origin.partition("://")[2] == request.headers.get("host", "")
    if site not in ("same-origin", "none") if site is not None else not same_host:
        raise RefusedError(
            403,
            "Not allowed",
            "another site, or a program that is no browser, made this request; use the pages of this server, "
            "or the REST API below /api/v1",
        )


def check_csrf(request: Request, given: str) -> None:
    """Refuses a form that was not made for the session of the request.

    Raises:
        LoginNeededError: The request has no session.
        RefusedError: The form belongs to another session.
    """
    if request.url.path == "/login":
        expected = request.cookies.get(LOGIN_COOKIE, "")
    else:
        session = session_of(request)
        if session is None:
            raise LoginNeededError
        expected = session.csrf
    if not expected or not hmac.compare_digest(expected.encode(), given.encode()):
        raise RefusedError(
            403,
            "Form too old",
            "this form belongs to an earlier login; go back, reload the page and send it again",
        )
