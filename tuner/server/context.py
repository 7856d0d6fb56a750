"""What all requests share: the database and the settings; and who sent the present request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Protocol

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tuner.domain.job_queue import JobRecord, Quota, Role, TokenRecord
from tuner.domain.remote_slices import TrainerStore
from tuner.domain.service_store import ServiceStore
from tuner.domain.study_reads import StudyReads
from tuner.server.limits import RateLimits, Streams, Uploads
from tuner.server.problems import RefusedError
from tuner.server.settings import ServerSettings
from tuner.service.opening import StudyStore


class Store(ServiceStore, StudyStore, TrainerStore, Protocol):
    """A database with the queue, the tokens and the studies, such as `storage.Storage`."""

    @property
    def reads(self) -> StudyReads:
        """The studies, read page by page."""

    def answer_within(self, seconds: float) -> None:
        """Makes operations fail after about this time while the database cannot be used."""


@dataclass(frozen=True, kw_only=True)
class ServerContext:
    """What all requests share.

    Args:
        store: The database.
        settings: Settings of the server.
        rates: Counts the requests of each token and address.
        streams: Counts the open streams of events of each token.
        uploads: Counts the uploads under way of each token.
    """

    store: Store
    settings: ServerSettings
    rates: RateLimits
    streams: Streams = field(default_factory=Streams)
    uploads: Uploads = field(default_factory=Uploads)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who sent a request.

    Args:
        token: The access token of the request.
        address: Network address of the client.
    """

    token: TokenRecord
    address: str

    def may_change(self, job: JobRecord) -> bool:
        """Whether the caller may change a job: its own jobs, or all jobs as an administrator."""
        return self.token.role is Role.ADMIN or job.token_id == self.token.token_id


_bearer = HTTPBearer(auto_error=False, description="access token; `paceline token create` makes one")


async def context_of(request: Request) -> ServerContext:
    """Dependency: what all requests share."""
    context: ServerContext = request.app.state.context
    return context


Context = Annotated[ServerContext, Depends(context_of)]


def _caller(
    request: Request,
    context: Context,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    address = "" if request.client is None else request.client.host
    token = None if credentials is None else context.store.tokens.find(credentials.credentials)
    if token is None:
        context.rates.count_refused(address)
        raise RefusedError(
            401,
            "Not authenticated",
            "the request has no valid access token; send the header `Authorization: Bearer TOKEN`",
            {"WWW-Authenticate": "Bearer"},
        )
    context.rates.count(token.token_id)
    return Caller(token=token, address=address)


def need(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """Returns a dependency that gives the caller if its token has a role, and else refuses the request."""

    async def checked(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        if not caller.token.role.includes(role):
            raise RefusedError(
                403, "Not allowed", f"this needs a token with the role {role}; yours is {caller.token.role}"
            )
        return caller

    return checked


Reader = Annotated[Caller, Depends(need(Role.READ))]
Submitter = Annotated[Caller, Depends(need(Role.SUBMIT))]
Admin = Annotated[Caller, Depends(need(Role.ADMIN))]


def quota_of(context: ServerContext, caller: Caller) -> Quota:
    """Returns the quota of the caller's token, with the limit of the server on the size of its files."""
    quota = caller.token.quota
    if quota.stored_bytes is not None:
        return quota
    return replace(quota, stored_bytes=context.settings.limits.stored_bytes)


def check_priority(context: ServerContext, caller: Caller, priority: int) -> None:
    """Checks that the caller may give a job this priority.

    Raises:
        RefusedError: The priority is above the limit of the server, and the caller is no administrator.
    """
    most = context.settings.limits.most_priority
    if priority > most and caller.token.role is not Role.ADMIN:
        raise RefusedError(
            403,
            "Not allowed",
            f"priority = {priority}: a token with the role {caller.token.role} may set at most {most}; ask "
            "an administrator to raise the priority of the job",
        )


def own_job(context: ServerContext, caller: Caller, job_id: int) -> JobRecord:
    """Returns a job that the caller may change.

    Raises:
        NotFoundError: There is no such job.
        RefusedError: The job belongs to another token.
    """
    job = context.store.queue.job(job_id)
    if not caller.may_change(job):
        raise RefusedError(403, "Not allowed", f"job {job_id} belongs to another token")
    return job
