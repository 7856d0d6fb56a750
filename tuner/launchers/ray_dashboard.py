"""Calls the Jobs API of a Ray dashboard in background threads, since the dashboard may not answer."""

from __future__ import annotations

import importlib.metadata
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuner.domain.errors import ProbeError

_POLL_EVERY_SECONDS = 1.0
_SUBMIT_SECONDS = 60.0
_STOP_SECONDS = 10.0
#: A submission that the dashboard cannot accept yet, such as just after its own start, is repeated for this
#: long, seconds.
_RETRY_SECONDS = 30.0
#: Texts by which error messages of Ray's client are recognized: the job is unknown, the dashboard cannot
#: answer now, the job already exists.
_UNKNOWN, _BUSY, _KNOWN = "status code 404", "status code 5", "already exists"


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """State of a Ray job as the dashboard reports it.

    Args:
        status: Ray's status of the job: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED. UNKNOWN if Ray does
            not know the job.
        message: Ray's message about the status, for the user.
        exit_code: Exit code of the job's driver; None if the driver still runs or Ray does not report the
            code.
    """

    status: str
    message: str
    exit_code: int | None


@dataclass(kw_only=True)
class _Watched:
    """A Ray job whose state is requested repeatedly, with the last answer."""

    job: RayJob | None = None
    asked_at: float | None = None
    is_asking: bool = False


class RayDashboard:
    """Client of the Jobs API of a Ray dashboard.

    Ray's own client has no timeouts, so each of its calls runs in a thread. `submit` waits at most one
    minute for the answer, and `close` at most ten seconds; the other methods do not wait.

    Args:
        address: Address of the dashboard. As in Ray's own tools, the environment variable `RAY_ADDRESS`
            overrides it.
        timeout_seconds: If the dashboard has not answered for this long, `poll` raises an error.
        clock: Function that returns the seconds on a monotonic clock.

    Raises:
        ProbeError: Ray is not installed.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if ray_version() is None:
            raise ProbeError("Ray is not installed here: pip install 'paceline[ray]'")
        self.address = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or address
        self._given_address = address
        self._timeout_seconds, self._clock = timeout_seconds, clock
        self._lock = threading.Lock()
        self._client: Any = None
        self._watched: dict[str, _Watched] = {}
        self._polled_at = clock()
        self._silent_since: float | None = None
        self._silence = ""
        self._stops: list[threading.Thread] = []

    def submit(self, identity: str, entrypoint: str, environment: dict[str, str]) -> None:
        """Submits a command as a Ray job.

        Args:
            identity: Submission id of the job in Ray.
            entrypoint: Shell command that Ray runs on the head node.
            environment: Environment variables of the command, by name.

        Raises:
            ProbeError: The dashboard does not answer, or rejects the job.
        """
        failure: list[Exception] = []
        until = time.monotonic() + _RETRY_SECONDS

        def submit() -> None:
            while True:
                try:
                    self._connected().submit_job(
                        entrypoint=entrypoint,
                        submission_id=identity,
                        runtime_env={"env_vars": environment},
                        metadata={"job_name": identity},
                    )
                    return
                except Exception as error:  # of any library between this process and the cluster
                    if _KNOWN in str(error):
                        return  # an earlier attempt succeeded, but its answer was lost
                    if _BUSY not in str(error) or time.monotonic() > until:
                        failure.append(error)
                        return
                time.sleep(_POLL_EVERY_SECONDS)

        thread = threading.Thread(target=submit, daemon=True)
        thread.start()
        thread.join(_SUBMIT_SECONDS)
        if thread.is_alive():
            raise self._unreachable(f"no answer in {_SUBMIT_SECONDS:g} s")
        if failure:
            raise self._unreachable(_one_line(failure[0])) from failure[0]

    def poll(self, identity: str) -> RayJob | None:
        """Returns the last known state of a job without waiting.

        Also requests the present state in the background, at most once per second.

        Args:
            identity: Submission id of the job in Ray.

        Returns:
            The last known state; None if the dashboard has not answered yet.

        Raises:
            ProbeError: The dashboard has not answered within `timeout_seconds`.
        """
        now = self._clock()
        with self._lock:
            watched = self._watched.setdefault(identity, _Watched())
            if now - self._polled_at > self._timeout_seconds:
                self._silent_since = None  # no request was made meanwhile
            self._polled_at = now
            silent_since, silence = self._silent_since, self._silence
            if not watched.is_asking and (
                watched.asked_at is None or now - watched.asked_at > _POLL_EVERY_SECONDS
            ):
                watched.is_asking, watched.asked_at = True, now
                if self._silent_since is None:
                    self._silent_since, self._silence = now, "no answer"
                threading.Thread(target=self._ask, args=(identity, watched), daemon=True).start()
        if silent_since is not None and now - silent_since > self._timeout_seconds:
            raise self._unreachable(f"{silence}, for {now - silent_since:.0f} s")
        return watched.job

    def forget(self, identity: str) -> None:
        """Removes the stored state of a job that will not be polled again."""
        with self._lock:
            self._watched.pop(identity, None)

    def stop(self, identity: str) -> None:
        """Stops a job in the background; does nothing if the job has ended or Ray does not know it."""

        def stop() -> None:
            # If the dashboard cannot be reached, a file in the job's folder still tells the driver to end.
            try:
                self._connected().stop_job(identity)
            except Exception as error:
                with self._lock:
                    self._silence = _one_line(error)

        thread = threading.Thread(target=stop, daemon=True)
        thread.start()
        self._stops.append(thread)

    def close(self) -> None:
        """Waits up to ten seconds until the dashboard has answered all requests to stop jobs."""
        until = time.monotonic() + _STOP_SECONDS
        for thread in self._stops:
            thread.join(max(0.0, until - time.monotonic()))
        self._stops.clear()

    def _ask(self, identity: str, watched: _Watched) -> None:
        job, silence = None, None
        try:
            info = self._connected().get_job_info(identity)
            job = RayJob(
                status=str(getattr(info.status, "value", info.status)),
                message=info.message or "",
                exit_code=info.driver_exit_code,
            )
        except Exception as error:  # of any library between this process and the cluster
            if _UNKNOWN in str(error):
                job = RayJob(status="UNKNOWN", message="Ray does not know the job (any more)", exit_code=None)
            else:
                silence = _one_line(error)
        with self._lock:
            watched.is_asking = False
            if job is not None:
                watched.job = job
                self._silent_since = None
            elif silence is not None:
                self._silence = silence

    def _connected(self) -> Any:
        """Returns Ray's client; creates it at the first call, since importing Ray takes seconds."""
        if self._client is None:
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(self._given_address)
        return self._client

    def _unreachable(self, words: str) -> ProbeError:
        return ProbeError(
            f"the Ray cluster at {self.address} cannot be used: {words}. Set cluster.ray.address to the "
            "address of its dashboard, such as http://head-node:8265, and check it with "
            "`ray job list --address ...`"
        )


def ray_version() -> str | None:
    """Returns the installed version of Ray without importing it; None if Ray is not installed."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
