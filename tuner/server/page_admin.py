"""Pages of the workers and the queue; for administrators also the access tokens and the audit log."""

from __future__ import annotations

import math
import time

from fastapi import Request, Response

from tuner.domain.job_queue import JobState, Quota, Role
from tuner.server.context import Context
from tuner.server.page_forms import Form, Posted
from tuner.server.page_rendering import page, page_router, redirect
from tuner.server.page_sessions import Administrator, Viewer
from tuner.server.problems import RefusedError
from tuner.server.schemas import JobId

router = page_router()

#: Seconds for which workers that stopped or went silent are shown.
_SHOWN_SECONDS = 86400.0
#: Seconds without a sign of life after which a worker is shown as silent.
_SILENT_SECONDS = 60.0
_MAX_WAITING, _MAX_ENTRIES = 200, 50


@router.get("/workers")
def show_workers(request: Request, context: Context, visitor: Viewer) -> Response:
    """Shows the workers, and the queue in the order in which it is worked off."""
    queue, now = context.store.queue, time.time()
    waiting = queue.jobs(states=[JobState.QUEUED], limit=_MAX_WAITING)
    workers = [
        (
            worker,
            "stopped"
            if worker.stopped_at is not None
            else "silent"
            if now - worker.seen_at > _SILENT_SECONDS
            else "draining"
            if worker.draining
            else "working"
            if worker.jobs
            else "idle",
        )
        for worker in queue.workers(seen_since=now - _SHOWN_SECONDS)
    ]
    values = {
        "workers": workers,
        "waiting": sorted(waiting, key=lambda job: (-job.priority, job.job_id)),
        "counts": queue.count_jobs(),
        "states": list(JobState),
        "most": _MAX_WAITING,
    }
    return page(request, "workers.html.j2", values)


@router.post("/workers/drain")
def drain(context: Context, visitor: Administrator, form: Posted) -> Response:
    """Asks a worker to take no new jobs."""
    name = form.text("name")
    context.store.queue.drain_worker(name)
    context.store.tokens.audit(
        visitor.token.name, "worker.drain", f"worker {name}"[:255], address=visitor.address
    )
    return redirect("/workers")


@router.get("/tokens")
def show_tokens(request: Request, context: Context, visitor: Administrator) -> Response:
    """Shows the access tokens."""
    return _tokens(request, context)


@router.post("/tokens")
def create_token(request: Request, context: Context, visitor: Administrator, form: Posted) -> Response:
    """Creates an access token, and shows its text once."""
    tokens = context.store.tokens
    try:
        name = form.text("name").strip()
        if not 0 < len(name) <= 100:
            raise ValueError("name: give 1 to 100 characters")
        role = Role(form.text("role"))
        days = _amount(form, "days")
        jobs = _amount(form, "jobs")
        quota = Quota(
            jobs=None if jobs is None else int(jobs),
            node_hours=_amount(form, "node_hours"),
            dollars=_amount(form, "dollars"),
        )
    except ValueError as error:
        raise RefusedError(422, "Form not valid", str(error)) from error
    expires_at = None if days is None else time.time() + 86400.0 * days
    token, text = tokens.create(name, role, expires_at=expires_at, quota=quota)
    tokens.audit(
        visitor.token.name,
        "token.create",
        f"token {token.token_id}",
        address=visitor.address,
        detail={"role": str(role)},
    )
    return _tokens(request, context, created={"token": token, "text": text})


@router.post("/tokens/{token_id}/revoke")
def revoke_token(token_id: JobId, context: Context, visitor: Administrator) -> Response:
    """Revokes an access token, and thereby ends its sessions."""
    context.store.tokens.revoke(token_id)
    context.store.tokens.audit(
        visitor.token.name, "token.revoke", f"token {token_id}", address=visitor.address
    )
    return redirect("/tokens")


@router.get("/audit")
def show_audit_log(
    request: Request, context: Context, visitor: Administrator, before: JobId | None = None
) -> Response:
    """Shows the audit log, newest first."""
    found = context.store.tokens.audit_log(before=before, limit=_MAX_ENTRIES + 1)
    more = f"/audit?before={found[_MAX_ENTRIES - 1].audit_id}" if len(found) > _MAX_ENTRIES else None
    values = {"entries": found[:_MAX_ENTRIES], "more": more, "is_first": before is None}
    return page(request, "audit.html.j2", values)


def _tokens(request: Request, context: Context, created: dict[str, object] | None = None) -> Response:
    tokens, now = context.store.tokens, time.time()
    rows = []
    for token in tokens.tokens()[::-1]:
        expired = token.expires_at is not None and token.expires_at <= now
        state = "revoked" if token.revoked_at is not None else "expired" if expired else "valid"
        rows.append((token, state, *tokens.usage(token.token_id)))
    return page(request, "tokens.html.j2", {"rows": rows, "created": created, "roles": list(Role)})


def _amount(form: Form, name: str) -> float | None:
    """Returns a number of a form, which is not negative; None if the field is empty.

    Raises:
        ValueError: The text is no such number.
    """
    text = form.text(name).strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1e9:
        raise ValueError(f"{name.replace('_', ' ')} = {text!r}: give a number from 0 on, or leave it empty")
    return number
