"""Client for trainers that Paceline cannot start: asks a server of Paceline for work over HTTP.

`paceline_client.connect` returns a `Server`. This module needs only Python 3.8 and its standard library.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["Server", "ServerError", "Slice", "Study"]

_LOG = logging.getLogger("paceline")
#: A request is repeated for this number of seconds while the server cannot be reached, with pauses between
#: these two numbers of seconds.
_RETRY_SECONDS, _FIRST_PAUSE, _LONGEST_PAUSE = 600.0, 0.5, 10.0
#: Lines without a score are sent together, at most once in this number of seconds.
_SEND_SECONDS = 1.0


class ServerError(Exception):
    """The server refused a request, or could not be reached."""


class Server:
    """A server of Paceline; `connect` makes it."""

    def __init__(self, url: str, token: str, context: Any = None) -> None:
        import urllib.request

        if not url.startswith(("http://", "https://")):
            raise ServerError(f"{url!r} is not an address of a server; write http://... or https://...")
        if not token:
            raise ServerError("there is no access token; pass it to connect(), or set PACELINE_TOKEN")
        self._url, self._token = url.rstrip("/"), token
        # A redirect could lead the token to another server.
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _no_redirects()
        )

    def open(self, job_file: str | os.PathLike[str], *, parallel: int = 1, name: str | None = None) -> Study:
        """Opens a study: submits a job for remote trainers.

        Args:
            job_file: Path of the job file, with `launcher = "remote"` in `[cluster]`.
            parallel: Number of trainers that can work at the same time.
            name: Name of the job; by default, the one in the job file, or the file name without `.toml`.
        """
        stem = os.path.splitext(os.path.basename(job_file))[0]  # noqa: PTH119, PTH122
        with open(job_file, encoding="utf-8") as file:  # noqa: PTH123
            body = {"job_file": file.read(), "name": name or stem, "options": {"parallel": parallel}}
        # A repeated request with the same key adds no second job.
        job = self.post("/api/v1/studies", body, {"Idempotency-Key": _unique_name()})
        return Study(self, int(job["job_id"]))

    def study(self, job_id: int) -> Study:
        """Returns the study of a job that was opened before, so that several trainers work for it."""
        return Study(self, job_id)

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        """Sends a request, again and again for ten minutes while the server cannot be reached.

        Raises:
            ServerError: The server refused the request, or could not be reached.
        """
        deadline, pause = time.monotonic() + _RETRY_SECONDS, _FIRST_PAUSE
        while True:
            try:
                return self._post(path, body, headers or {}, timeout=60.0)
            except _TemporaryError as error:
                if time.monotonic() + pause > deadline:
                    raise ServerError(f"{self._url}{path}: {error}") from error
            time.sleep(pause)
            pause = min(2.0 * pause, _LONGEST_PAUSE)

    def _post(self, path: str, body: dict[str, Any], headers: dict[str, str], timeout: float) -> Any:
        import http.client
        import urllib.error
        import urllib.request

        headers = {
            **headers,
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "User-Agent": "paceline-client",
        }
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method="POST")
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(100_000).decode("utf-8", "replace")
            detail = text[:500]
            with contextlib.suppress(ValueError, TypeError, KeyError):
                detail = json.loads(text)["detail"]
            if error.code == 429 or error.code >= 500:
                raise _TemporaryError(f"{error.code}: {detail}") from error
            raise ServerError(f"{self._url}{path}: {error.code}: {detail}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _TemporaryError(f"the server cannot be reached: {error}") from error


class _TemporaryError(Exception):
    """A request failed for a reason that may pass."""


def _no_redirects() -> Any:
    import urllib.request

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    return NoRedirects()


class Study:
    """A study that remote trainers work for; `Server.open` or `Server.study` makes it.

    Attributes:
        job_id: Number of the job.
        state: State of the job in the last answer, such as `running` or `succeeded`.
        reason: Why the job is in its state; may be empty.
        recommendation: Content of `recommendation.json`, once the search has ended; None without one.
    """

    def __init__(self, server: Server, job_id: int) -> None:
        self._server, self.job_id = server, job_id
        self.state, self.reason = "", ""
        self.recommendation: dict[str, Any] | None = None

    def slices(self, trainer: str | None = None) -> Iterator[Slice]:
        """Yields slices to train until the search has ended; waits while there is none.

        A slice that the caller has not finished is finished as paused.

        Args:
            trainer: Name of this trainer, different for each process; by default, a name with a random part.
        """
        name, said = trainer or _unique_name(), ""
        while True:
            answer = self._server.post(f"/api/v1/jobs/{self.job_id}/ask", {"trainer": name})
            self.state, self.reason = answer["job_state"], answer["reason"]
            if answer["state"] == "ended":
                self.recommendation = answer["recommendation"]
                return
            if answer["state"] == "wait":
                if self.reason and self.reason != said:
                    _LOG.warning("job %d is %s: %s", self.job_id, self.state, self.reason)
                said = self.reason
                time.sleep(answer["retry_seconds"])
                continue
            found = Slice(self._server, answer["slice"], name)
            try:
                yield found
            finally:
                found.finish()


class Slice:
    """A slice: an uninterrupted part of the training of one configuration.

    While the slice runs, a thread renews its lease.

    Attributes:
        values: Values to train with, such as `values["batch_size"]`.
        checkpoint: Name of the checkpoint to resume from; None to start the training anew.
        run: Name of the training, the same for all its slices.
        purpose: `training`, or `timing`: then a few steps suffice.
        until: Limits of the slice: `samples`, `steps`, `seconds` and `scores`, None without a limit. A
            trainer may ignore them, because `report` returns False when the slice is over.
        is_lost: Whether the search does not want the slice any more.
    """

    def __init__(self, server: Server, found: dict[str, Any], trainer: str) -> None:
        self.values: dict[str, Any] = found["values"]
        self.checkpoint: str | None = found["checkpoint"]
        self.run: str = found["run"]
        self.purpose: str = found["purpose"]
        self.until: dict[str, Any] = found["until"]
        self.is_lost = False
        self._metric: str = found["metric"]
        self._server, self._path = server, f"/api/v1/slices/{found['slice_id']}"
        self._process = f"{trainer}/{found['slice_id']}/{found['next_number']}"
        self._number: int = found["next_number"]
        self._lines: list[dict[str, Any]] = []
        self._answer = "continue"
        self._sent_at, self._waited = time.monotonic(), 0.0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._pause = min(max(found["lease_seconds"] / 3.0, 0.2), 60.0)
        threading.Thread(target=self._keep_lease, daemon=True).start()

    def begin(self, *, step: int = 0, samples: int = 0) -> None:
        """Starts the training clock; the time before this call counts as start-up, not as training.

        Args:
            step: Number of optimizer steps before this call, if the run was resumed from a checkpoint.
            samples: Number of samples processed before this call, if the run was resumed from a checkpoint.
        """
        self._add({"event": "begin", "step": int(step), "samples": int(samples)})

    def report(
        self,
        *,
        samples: int | None = None,
        step: int | None = None,
        epoch: float | None = None,
        value: float | None = None,
        seconds: float | None = None,
        **fields: Any,
    ) -> bool:
        """Reports the progress of training, and the score after an evaluation.

        State at least one of `samples`, `step` and `epoch`. The time that this function waits for the server
        does not count as training.

        Args:
            samples: Number of samples processed since the run began, including those before a resume.
            step: Number of optimizer steps since the run began.
            epoch: Number of epochs since the run began.
            value: The score; None if it was not evaluated.
            seconds: Training seconds by the trainer's own clock; by default, the time of this call counts.
            fields: Other fields, if `[workload.metrics]` names others.

        Returns:
            Whether to continue. If not, save a checkpoint and call `finish`.
        """
        line = {"samples": samples, "step": step, "epoch": epoch, self._metric: value, "seconds": seconds}
        line = {name: number for name, number in {**line, **fields}.items() if number is not None}
        self._add(line)
        started = time.monotonic()
        if self._metric in line or started - self._sent_at >= _SEND_SECONDS:
            self._send()
            self._waited += time.monotonic() - started
        return self._answer == "continue"

    def saved(self, checkpoint: str) -> None:
        """Reports a checkpoint, from which another trainer resumes if this one dies."""
        self._send(checkpoint)

    def finish(self, checkpoint: str | None = None, *, completed: bool = False) -> None:
        """Ends the slice.

        Args:
            checkpoint: Name of the checkpoint that was saved, such as a path or URL; None if none was.
            completed: Whether the training came to its own end, such as its last epoch.
        """
        self._end({"end": "completed" if completed else "paused", "checkpoint": checkpoint})

    def fail(self, reason: str) -> None:
        """Ends the slice with an error; its configuration is not tried again."""
        self._end({"end": "failed", "reason": reason.replace("\0", "")[-20_000:]})

    def _add(self, line: dict[str, Any]) -> None:
        # Without the lock, which the other thread holds while it waits for the server.
        self._lines.append({**line, "time": time.monotonic() - self._waited, "process": self._process})

    def _send(self, checkpoint: str | None = None) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            while True:
                # The server takes at most 1000 lines at once.
                lines = self._lines[:1000]
                body = {"number": self._number, "lines": lines, "checkpoint": checkpoint}
                answer = self._server.post(f"{self._path}/reports", body)["answer"]
                self._number += len(lines)
                del self._lines[: len(lines)]
                self._sent_at, self._answer = time.monotonic(), answer
                if answer == "lost":
                    self.is_lost = True
                    self._ended.set()
                if not self._lines or self._ended.is_set():
                    return

    def _end(self, body: dict[str, Any]) -> None:
        if self._lines:
            self._send()
        with self._lock:
            if not self._ended.is_set():
                self.is_lost = self._server.post(f"{self._path}/finish", body)["answer"] == "lost"
                self._ended.set()

    def _keep_lease(self) -> None:
        while not self._ended.wait(self._pause):
            if time.monotonic() - self._sent_at >= self._pause:
                # The next report of the trainer shows the error, if it lasts.
                with contextlib.suppress(ServerError):
                    self._send()


def _unique_name() -> str:
    return f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
