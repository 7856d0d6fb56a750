"""REST API of workers, access tokens and the audit log; and who the caller is."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, Field, StringConstraints

from tuner.domain.job_queue import Quota, Role, TokenRecord
from tuner.server import schemas
from tuner.server.context import Admin, Caller, Context, Reader, ServerContext
from tuner.server.problems import ALWAYS, RefusedError, documented
from tuner.server.schemas import Number, UsageView, plain

router = APIRouter(prefix="/api/v1", responses=documented(*ALWAYS))

_Name = Annotated[schemas.Line, StringConstraints(min_length=1)]
_Amount = Annotated[float, Field(strict=True, ge=0, le=1e12)]
TokenId = Annotated[Number, Path(description="number of the token", examples=[2])]
WorkerName = Annotated[
    str,
    Path(
        max_length=255, pattern="^[!-~]+$", description="name of the worker", examples=["node1:4711:ab12cd"]
    ),
]


class QuotaView(schemas.Body):
    """Limits of all jobs of a token; null where there is no limit."""

    jobs: Annotated[int, Field(strict=True, ge=0, le=schemas.MOST)] | None = None
    node_hours: _Amount | None = None
    dollars: _Amount | None = None
    stored_bytes: Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)] | None = None


class TokenBody(schemas.Body):
    """An access token to create."""

    name: _Name
    role: Role = Role.SUBMIT
    expires_in_days: Annotated[float, Field(strict=True, gt=0, le=3650)] | None = Field(
        default=90.0, description="null for a token that does not expire"
    )
    quota: QuotaView = QuotaView()


class TokenView(BaseModel):
    """An access token, without its secret."""

    token_id: int
    name: str
    role: Role
    quota: QuotaView
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None

    @staticmethod
    def of(token: TokenRecord) -> TokenView:
        """Returns the view of a token."""
        return TokenView(**{**vars(token), "quota": QuotaView(**vars(token.quota))})


class NewToken(TokenView):
    """A new access token with its text."""

    token: str = Field(description="the text of the token; it cannot be shown again")


class MeView(BaseModel):
    """Who the caller is, and what its jobs count for."""

    token: TokenView
    jobs: int = Field(description="number of jobs that have not ended")
    usage: UsageView = Field(description="what all jobs count for; an unfinished job counts with its limit")


class WorkerView(BaseModel):
    """A worker that has announced itself."""

    name: str
    version: str
    labels: tuple[str, ...]
    slots: int
    draining: bool
    started_at: float
    seen_at: float
    stopped_at: float | None
    jobs: tuple[int, ...] = Field(description="numbers of the jobs that it runs")


class AuditView(BaseModel):
    """One entry of the audit log."""

    audit_id: int
    created_at: float
    token: str
    action: str
    target: str
    address: str
    detail: dict[str, Any]


class AuditPage(BaseModel):
    """Entries of the audit log, newest first."""

    entries: list[AuditView]
    next_before: int | None = Field(description="value of `before` for the next page; null on the last page")


@router.get("/me", tags=["tokens"])
def read_me(context: Context, caller: Reader) -> MeView:
    """Returns the token of the request, its role and quota, and what its jobs count for."""
    jobs, usage = context.store.tokens.usage(caller.token.token_id)
    return MeView(token=TokenView.of(caller.token), jobs=jobs, usage=UsageView(**vars(usage)))


@router.get("/workers", tags=["workers"])
def list_workers(
    context: Context,
    caller: Reader,
    seconds: Annotated[
        float, Query(gt=0, le=1e9, description="only workers that gave a sign of life in this time")
    ] = 3600.0,
) -> list[WorkerView]:
    """Lists the workers that gave a sign of life in the last hour, newest first."""
    return [
        WorkerView(**vars(worker)) for worker in context.store.queue.workers(seen_since=time.time() - seconds)
    ]


@router.post("/workers/{name}/drain", tags=["workers"], status_code=204, responses=documented(404))
def drain_worker(name: WorkerName, context: Context, caller: Admin) -> None:
    """Asks a worker to take no new jobs, and to end when its jobs have ended."""
    context.store.queue.drain_worker(name)
    _audit(context, caller, "worker.drain", f"worker {name}"[:255])


@router.get("/tokens", tags=["tokens"])
def list_tokens(context: Context, caller: Admin) -> list[TokenView]:
    """Lists all access tokens, oldest first, without their secrets."""
    return [TokenView.of(token) for token in context.store.tokens.tokens()]


@router.post("/tokens", tags=["tokens"], status_code=201, responses=documented(400))
def create_token(
    body: Annotated[
        TokenBody,
        Body(openapi_examples={"reader": {"value": {"name": "prometheus", "role": "read"}}}),
    ],
    context: Context,
    caller: Admin,
) -> NewToken:
    """Creates an access token. The answer has its text, which cannot be shown again."""
    days = body.expires_in_days
    token, text = context.store.tokens.create(
        body.name,
        body.role,
        expires_at=None if days is None else time.time() + 86400 * days,
        quota=Quota(**body.quota.model_dump()),
    )
    _audit(context, caller, "token.create", f"token {token.token_id}", {"role": str(token.role)})
    return NewToken(**dict(TokenView.of(token)), token=text)


@router.delete("/tokens/{token_id}", tags=["tokens"], responses=documented(404, 409))
def revoke_token(token_id: TokenId, context: Context, caller: Admin) -> TokenView:
    """Revokes an access token. Its jobs continue; cancel them if they should not."""
    if token_id == caller.token.token_id:
        raise RefusedError(
            409, "Conflict", "a token cannot revoke itself; use another one, or `paceline token revoke`"
        )
    token = context.store.tokens.revoke(token_id)
    _audit(context, caller, "token.revoke", f"token {token_id}")
    return TokenView.of(token)


@router.get("/audit", tags=["tokens"])
def list_audit_log(
    context: Context,
    caller: Admin,
    before: Annotated[Number | None, Query(description="only entries with a smaller number")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="largest number of entries")] = 100,
) -> AuditPage:
    """Lists the entries of the audit log, newest first."""
    found = context.store.tokens.audit_log(before=before, limit=limit)
    entries = [AuditView(**plain(vars(entry))) for entry in found]
    return AuditPage(entries=entries, next_before=found[-1].audit_id if len(found) == limit else None)


def _audit(
    context: ServerContext, caller: Caller, action: str, target: str, detail: dict[str, Any] | None = None
) -> None:
    context.store.tokens.audit(caller.token.name, action, target, address=caller.address, detail=detail)
