"""Client of the service: sends the requests of `paceline submit`, `jobs`, `watch`, `cancel` and `approve`.

It uses the standard library alone, so that it needs no extra.
"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPResponse
from typing import Any

from tuner.domain.errors import TunerError

#: Seconds until an answer of the server has to begin.
_TIMEOUT_SECONDS = 30.0
#: Seconds for which requests are repeated while the server cannot be reached.
_RETRY_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 5.0
#: The server sends a comment at least this often while there are no events.
_EVENT_TIMEOUT_SECONDS = 60.0
#: Answers of a server or proxy that is busy or restarts.
_TEMPORARY = (429, 502, 503, 504)


class ServiceError(TunerError):
    """The service refused a request; the message has its words.

    Args:
        message: What happened and what to do.
        status: HTTP status.
        exit_code: Exit code of the command.
    """

    def __init__(self, message: str, *, status: int, exit_code: int = 2) -> None:
        super().__init__(message)
        self.status = status
        self.exit_code = exit_code


class UnreachableError(TunerError):
    """The service cannot be reached."""

    exit_code = 6


class RemoteService:
    """Sends requests to a service.

    Requests that fail because the server cannot be reached are repeated for 30 seconds.

    Args:
        url: URL of the service, such as `https://paceline.example.org`.
        token: Access token.

    Raises:
        ServiceError: The URL or the token is not valid.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServiceError(
                f"--server {url!r} is not the URL of a service; an example is http://127.0.0.1:8080", status=0
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ServiceError("the access token has characters that no token has; copy it again", status=0)
        self._url = url.rstrip("/")
        self._token = token

    def get(self, path: str, **query: Any) -> Any:
        """Returns the JSON answer of a GET request; None values of the query are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        text = urllib.parse.urlencode(given, doseq=True)
        return self._json("GET", f"{path}?{text}" if text else path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Returns the JSON answer of a POST request."""
        return self._json("POST", path, {} if body is None else body)

    def submit(self, body: Mapping[str, Any], key: str | None = None) -> Any:
        """Submits a job. Returns its JSON view.

        Args:
            body: Body of the request.
            key: Idempotency key. With the same key, a repeated command submits no second job.
        """
        return self._json("POST", "/jobs", body, {"Idempotency-Key": key or uuid.uuid4().hex})

    def upload(self, content: bytes) -> str:
        """Uploads a file unless the service has it. Returns its SHA-256 in hexadecimal digits."""
        digest = hashlib.sha256(content).hexdigest()
        try:
            self._send("HEAD", f"/files/{digest}").close()
        except ServiceError as error:
            if error.status != 404:
                raise
            headers = {"Content-Type": "application/octet-stream"}
            self._send("PUT", f"/files/{digest}", content, headers).close()
        return digest

    def read(self, path: str) -> bytes:
        """Returns the content of a GET request."""
        with self._send("GET", path) as answer:
            return answer.read()

    def events(self, job_id: int) -> Iterator[dict[str, Any]]:
        """Yields the events of a job until it ends; connects again if the connection breaks."""
        number, failing_since = 0, None
        while True:
            try:
                with self._send(
                    "GET",
                    f"/jobs/{job_id}/events",
                    headers={"Accept": "text/event-stream", "Last-Event-ID": str(number)},
                    timeout=_EVENT_TIMEOUT_SECONDS,
                ) as answer:
                    failing_since = None
                    for event in _sent_events(answer):
                        number = int(event["number"])
                        yield event
            except (OSError, HTTPException) as error:
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > _RETRY_SECONDS:
                    raise self._unreachable(error) from error
                time.sleep(1.0)
                continue
            if self.get(f"/jobs/{job_id}")["finished_at"] is not None:
                return
            time.sleep(1.0)

    def _json(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        content = None if body is None else json.dumps(body).encode()
        given = dict(headers or {}) | ({} if content is None else {"Content-Type": "application/json"})
        with self._send(method, path, content, given) as answer:
            try:
                return json.loads(answer.read())
            except ValueError as error:
                raise ServiceError(
                    f"{self._url} answered without JSON, so it is not a Paceline service; check --server",
                    status=answer.status,
                ) from error

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> HTTPResponse:
        """Sends a request; repeats it while the server cannot be reached or is busy."""
        deadline, pause = time.monotonic() + _RETRY_SECONDS, 0.25
        while True:
            request = urllib.request.Request(
                f"{self._url}/api/v1{path}",
                data=content,
                method=method,
                headers={"Authorization": f"Bearer {self._token}", **(headers or {})},
            )
            try:
                answer: HTTPResponse = _opener.open(request, timeout=timeout)
                return answer
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _TEMPORARY or time.monotonic() > deadline:
                        raise self._refusal(error) from error
                    wait = error.headers.get("Retry-After", "")
                    pause = max(pause, float(wait) if wait.isdecimal() else 0.0)
            except (OSError, HTTPException) as error:
                if time.monotonic() > deadline or _is_final(error):
                    raise self._unreachable(error) from error
            time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
            pause *= 2

    def _refusal(self, error: urllib.error.HTTPError) -> ServiceError:
        try:
            problem = json.loads(error.read())
            words, code = str(problem["detail"]), int(problem.get("exit_code", 2))
        except (ValueError, KeyError, TypeError, OSError, HTTPException):
            words, code = f"it answered {error.code} {error.reason}", 2
        if error.code == 401:
            words = (
                "the access token is unknown, expired or revoked; set PACELINE_TOKEN, or give --token. "
                "`paceline token create NAME` on the server makes one"
            )
        return ServiceError(f"{self._url}: {words}", status=error.code, exit_code=code or 1)

    def _unreachable(self, error: Exception) -> UnreachableError:
        reason = getattr(error, "reason", None) or error
        return UnreachableError(
            f"{self._url} cannot be reached: {reason}. Start the server, or check --server and the network"
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses to follow redirects, which would send the token to another server."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _is_final(error: Exception) -> bool:
    """Whether repeating a request cannot help, such as for a certificate that is not trusted."""
    import ssl

    reason = getattr(error, "reason", error)
    return isinstance(reason, ssl.SSLCertVerificationError)


def _sent_events(answer: HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yields the data of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    data: list[str] = []
    for line in answer:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("data:"):
            data.append(text[5:].removeprefix(" "))
        elif not text and data:
            yield json.loads("\n".join(data))
            data = []
