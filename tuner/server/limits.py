"""Limits of the server: the size of requests, and the number of requests in a minute."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuner.server.problems import RefusedError, problem
from tuner.server.settings import LimitsSection

#: Uploads of files are the only large requests of the API; the page that submits a job sends them at once.
FILES = "/api/v1/files/"
FORM = "/submit"
#: Number of tokens and addresses whose requests are counted; the ones not seen for longest are forgotten.
_MOST_COUNTED = 10_000


class RateLimit:
    """Allows a number of requests in a minute for each client (a token bucket), with bounded memory.

    Args:
        per_minute: Number of requests in a minute; a client may send them all at once.
        clock: Returns seconds, for example since the start of the system.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        #: Maps each client to the requests that it may still send, and the time when this was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str) -> float:
        """Counts a request. Returns 0 if it is allowed, else the seconds until the next one is allowed."""
        with self._lock:
            now = self._clock()
            left, then = self._left.pop(client, (float(self._per_minute), now))
            left = min(left + (now - then) * self._per_minute / 60, float(self._per_minute))
            allowed = left >= 1
            self._left[client] = (left - allowed, now)
            if len(self._left) > _MOST_COUNTED:
                self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self._per_minute


class RateLimits:
    """Limits on requests with a valid token, for each token, and on other requests, for each address.

    Args:
        limits: The settings.
        clock: Returns seconds, for example since the start of the system.
    """

    def __init__(self, limits: LimitsSection, clock: Callable[[], float] = time.monotonic) -> None:
        self._accepted = RateLimit(limits.requests_per_minute, clock)
        self._refused = RateLimit(limits.refused_per_minute, clock)

    def count(self, token_id: int) -> None:
        """Counts a request with a valid token.

        Raises:
            RefusedError: The token has sent too many requests (status 429).
        """
        _refuse(self._accepted.wait_seconds(str(token_id)), "this token has sent too many requests")

    def count_refused(self, address: str) -> None:
        """Counts a request without a valid token.

        Raises:
            RefusedError: The address has sent too many such requests (status 429).
        """
        words = f"{address or 'this address'} has sent too many requests without a valid access token"
        _refuse(self._refused.wait_seconds(_network(address)), words)


class _Concurrent:
    """Counts what is going on at the same time for each token."""

    def __init__(self) -> None:
        self._open: Counter[int] = Counter()

    @contextmanager
    def _counted(self, token_id: int) -> Iterator[None]:
        self._open[token_id] += 1
        try:
            yield
        finally:
            self._open[token_id] -= 1
            if self._open[token_id] <= 0:
                del self._open[token_id]


class Streams(_Concurrent):
    """Counts the open streams of events of each token."""

    #: Most open streams of one token.
    MOST = 32

    def check(self, token_id: int) -> None:
        """Raises `RefusedError` (status 429) if a token has too many open streams."""
        if self._open[token_id] >= self.MOST:
            detail = f"this token has {self.MOST} open streams of events; close one, then try again"
            raise RefusedError(429, "Too many requests", detail, {"Retry-After": "5"})

    async def counted(self, token_id: int, stream: AsyncIterator[str]) -> AsyncIterator[str]:
        """Yields what a stream yields, and counts the stream while it is open."""
        with self._counted(token_id):
            async for text in stream:
                yield text


class Uploads(_Concurrent):
    """Counts the uploads under way of each token, whose contents are in memory."""

    @contextmanager
    def counted(self, token_id: int, most: int) -> Iterator[None]:
        """Counts an upload.

        Raises:
            RefusedError: The token has too many uploads under way (status 429).
        """
        if self._open[token_id] >= most:
            detail = f"this token has {most} uploads under way; try again when one of them has ended"
            raise RefusedError(429, "Too many requests", detail, {"Retry-After": "1"})
        with self._counted(token_id):
            yield


def _refuse(seconds: float, words: str) -> None:
    if seconds > 0:
        wait = math.ceil(seconds)
        detail = f"{words}; try again in {wait} s"
        raise RefusedError(429, "Too many requests", detail, {"Retry-After": str(wait)})


def _network(address: str) -> str:
    """Returns the address, or the network of an IPv6 address, of which one host usually has all addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class BodyLimit:
    """ASGI middleware that refuses large requests to the API before their body is read (status 413).

    The pages limit their forms themselves (`PageRoute`).

    Args:
        app: The application.
        limits: The settings.
    """

    def __init__(self, app: ASGIApp, limits: LimitsSection) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        most = self._most_bytes(scope["path"])
        words = f"the request is larger than {most} bytes, the limit of this server"
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or len(stated) > 18 or int(stated) > most:
            # The body is not read, so the connection cannot serve another request.
            headers = {"Connection": "close"}
            await problem(413, "Request too large", words, headers=headers)(scope, receive, send)
            return
        num_bytes = 0

        async def limited() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > most:
                raise HTTPException(413, words, {"Connection": "close"})
            return message

        await self._app(scope, limited, send)

    def _most_bytes(self, path: str) -> int:
        if path.startswith(FILES):
            return self._limits.file_bytes
        if path == FORM:
            return self._limits.request_bytes + self._limits.workspace_bytes
        return self._limits.request_bytes


class SecurityHeaders:
    """ASGI middleware that adds headers which restrict what browsers do with an answer.

    An answer that has one of the headers already, such as a page with its own policy, stays as it is.

    Args:
        app: The application.
    """

    _HEADERS = (
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [header for header in self._HEADERS if header[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, with_headers)
