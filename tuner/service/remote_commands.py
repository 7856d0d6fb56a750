"""Commands that use a service: `paceline submit`, `jobs`, `watch`, `cancel`, `approve`, `pause`, `resume`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.domain.errors import JobError, TunerError, did_you_mean
from tuner.domain.format import format_dollars, format_seconds
from tuner.domain.job_queue import JobState
from tuner.domain.safe_text import printable
from tuner.service.next_steps import suggest
from tuner.service.options import PROVISIONAL, Explore, Format, FormatOption, JobPath, Sampler
from tuner.service.output import print_rows, say, show

if TYPE_CHECKING:
    from tuner.service.remote import RemoteService

ServerUrl = Annotated[str, typer.Option("--server", envvar="PACELINE_SERVER", help="URL of the service.")]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="PACELINE_TOKEN",
        help="Access token. The variable is safer: other users can see options of commands.",
        show_default=False,
    ),
]
JobNumber = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="Number of the job.")]
_DEFAULT_SERVER = "http://127.0.0.1:8080"


def submit(
    job: JobPath,
    server: ServerUrl = _DEFAULT_SERVER,
    token: Token = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            help="Further file or folder next to the job file that the job needs; can be repeated.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            help="Label that the worker must have, such as gpu; can be repeated.",
            show_default=False,
        ),
    ] = None,
    priority: Annotated[int, typer.Option(help="Jobs with a higher number run first.")] = 0,
    sampler: Annotated[Sampler, typer.Option(help="Sampler that chooses the probes.")] = Sampler.MODEL,
    parallel: Annotated[int, typer.Option(min=1, help="Maximum number of concurrent probes.")] = 1,
    verify: Annotated[bool, typer.Option("--verify", help="Train the recommendation to the target.")] = False,
    confirm: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Compare the recommendation and the present settings with N new seeds each.",
            show_default=False,
        ),
    ] = None,
    explore: Explore = False,
    key: Annotated[
        str | None,
        typer.Option(
            help="Key of this submission: the same command with the same key submits no second job.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before submitting.")] = False,
    wait: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Submit a job to a service: shows its plan and price, and queues it."""
    from tuner.service.workspace import collect

    service = _service(server, token)
    collected = collect(job, extra=files or [])
    body: dict[str, Any] = {
        "job_file": collected.job_file,
        "name": collected.name,
        "files": {path: service.upload(place.read_bytes()) for path, place in collected.files.items()},
        "options": {
            "sampler": sampler.value,
            "parallel": parallel,
            "verify": verify,
            "confirm": confirm or 0,
            "explore": explore,
        },
        "labels": labels or [],
        "priority": priority,
    }
    if not yes and sys.stdin.isatty():
        for line in service.post("/jobs/plan", body)["plan"]["lines"]:
            say(line)
        if not typer.confirm("Submit this job?", default=True, err=True):
            say("nothing was submitted")
            suggest("submit {job}", job=job)
            return
    made = service.submit(body, key)
    if wait:
        say(f"job {made['job_id']} is {_state(made)}")
        suggest("jobs")
        _watch(service, made["job_id"], output_format, strict=False)
        return
    if output_format is Format.TABLE:
        for line in made["plan"]["lines"]:
            say(line)
        show(f"job {made['job_id']} is {_state(made)}")
        if made["state"] == "awaiting_approval":
            say(f"an administrator approves it on the page, or with: paceline approve {made['job_id']}")
        suggest("watch {number}", number=made["job_id"])
        return
    _print_jobs([made], output_format)


def jobs(
    server: ServerUrl = _DEFAULT_SERVER,
    token: Token = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only jobs in these states, such as running or queued,running; can be repeated.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Only jobs whose name contains this text.", show_default=False)
    ] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only jobs of this token.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs.")] = 50,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """List the jobs of a service, newest first."""
    service = _service(server, token)
    found: list[dict[str, Any]] = []
    before = None
    while len(found) < limit:
        page = service.get(
            "/jobs",
            state=_states(state or []) or None,
            name=name,
            mine="true" if mine else None,
            before=before,
            limit=min(limit - len(found), 200),
        )
        found += page["jobs"]
        before = page["next_before"]
        if before is None:
            break
    if not found:
        say("there are no such jobs; `paceline submit job.toml` adds one")
    else:
        suggest("watch {number}", number=found[0]["job_id"])
    _print_jobs(found, output_format)


def watch(
    number: JobNumber,
    server: ServerUrl = _DEFAULT_SERVER,
    token: Token = None,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with code {PROVISIONAL} if the evidence is weak.")
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Follow a job until it ends, and print its recommendation. Exits as `paceline run` would have."""
    _watch(_service(server, token), number, output_format, strict=strict)


def cancel(number: JobNumber, server: ServerUrl = _DEFAULT_SERVER, token: Token = None) -> None:
    """Cancel a job. What it has measured stays in the database."""
    _change(server, token, number, "cancel")


def approve(number: JobNumber, server: ServerUrl = _DEFAULT_SERVER, token: Token = None) -> None:
    """Approve a job whose price is above the limit of the service."""
    _change(server, token, number, "approve")


def pause(number: JobNumber, server: ServerUrl = _DEFAULT_SERVER, token: Token = None) -> None:
    """Pause a job; `paceline resume` continues it."""
    _change(server, token, number, "pause")


def resume(number: JobNumber, server: ServerUrl = _DEFAULT_SERVER, token: Token = None) -> None:
    """Continue a paused job."""
    _change(server, token, number, "resume")


def _service(server: str, token: str | None) -> RemoteService:
    from tuner.service.remote import RemoteService

    if not token:
        raise JobError(
            "there is no access token; set PACELINE_TOKEN, or give --token. "
            "`paceline token create NAME` on the server makes one"
        )
    return RemoteService(server, token)


def _change(server: str, token: str | None, number: int, action: str) -> None:
    job = _service(server, token).post(f"/jobs/{number}/{action}")
    asked = f"; its worker was asked to {job['request']} it" if job["request"] else ""
    show(f"job {number} is {_state(job)}{asked}")


def _watch(service: RemoteService, number: int, output_format: Format, *, strict: bool) -> None:
    started = None
    for event in service.events(number):
        started = started or event["created_at"]
        say(f"[{event['created_at'] - started:6.1f} s] {event['kind']}: {event['text']}")
    job = service.get(f"/jobs/{number}")
    if job["state"] != "succeeded":
        words = f"job {number} {_state(job)}"
        raise _JobEndedError(f"{words}: {job['reason']}" if job["reason"] else words, job["exit_code"] or 1)
    recommendation = service.get(f"/jobs/{number}/recommendation")
    if output_format is Format.JSON:
        show(json.dumps(recommendation, indent=2))
    elif output_format is Format.CSV:
        choice = recommendation["choice"]
        seconds = {f"seconds_{name}": value for name, value in (choice["seconds"] or {}).items()}
        print_rows([{**choice["configuration"], **seconds}], output_format)
    else:
        from tuner.domain.recommendation import Recommendation
        from tuner.report import recommendation_text

        show(recommendation_text(Recommendation.from_dict(recommendation)))
    if strict and recommendation["provisional"]:
        raise typer.Exit(PROVISIONAL)


class _JobEndedError(TunerError):
    """A job that was watched ended without a recommendation; exits with the code of the job."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _print_jobs(found: list[dict[str, Any]], output_format: Format) -> None:
    if output_format is Format.JSON:
        show(json.dumps(found, indent=2))
        return
    rows = [
        {
            "job": job["job_id"],
            "name": job["name"],
            "state": _state(job),
            "priority": job["priority"],
            "submitted": time.strftime("%Y-%m-%d %H:%M", time.localtime(job["created_at"])),
            "spent": format_seconds(job["usage"]["seconds"]),
            "dollars": format_dollars(job["usage"]["dollars"]),
            "worker": job["worker"] or None,
            "about": printable(job["reason"] or str(job["progress"].get("text", ""))) or None,
        }
        for job in found
    ]
    print_rows(rows, output_format)


def _states(given: list[str]) -> list[str]:
    """Returns the states of an option, which may be separated by commas, as the service spells them."""
    found = [word.strip().replace(" ", "_").lower() for text in given for word in text.split(",")]
    for word in found:
        if word not in set(JobState):
            hint = did_you_mean(word, list(JobState))
            raise JobError(f"--state {word}: allowed is {', '.join(JobState)}{hint}")
    return found


def _state(job: dict[str, Any]) -> str:
    return str(job["state"]).replace("_", " ")
