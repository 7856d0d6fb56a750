"""Access tokens and the audit log of the service in a SQL database."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, case, func, insert, select, update

from storage.retries import Retries, retried
from storage.service_tables import audit_log, jobs, tokens
from storage.transactions import reading, writing
from tuner.domain.job_queue import AuditRecord, JobState, NotFoundError, Quota, Role, TokenRecord, Usage

_PREFIX = "paceline"
#: `last_used_at` is written at most once in this number of seconds.
_USE_SECONDS = 60.0
_ENDED = [str(state) for state in JobState if state.has_ended]


class SqlTokens:
    """Stores access tokens and the audit log in a SQL database; implements the protocol `Tokens`.

    The database has only the SHA-256 of each token. A token is 256 random bits, so it cannot be guessed from
    its digest.

    Args:
        engine: Engine of a SQLite or PostgreSQL database.
        clock: Returns the time in seconds since the Unix epoch.
        retries: Repeats operations while the database is locked or cannot be reached.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.time, retries: Retries | None = None
    ):
        self._engine = engine
        self._clock = clock
        self._retries = retries or Retries(engine.url)

    def create(
        self, name: str, role: Role, *, expires_at: float | None = None, quota: Quota | None = None
    ) -> tuple[TokenRecord, str]:
        secret = secrets.token_urlsafe(32)
        values = {
            "name": name,
            "role": str(role),
            "digest": _digest(secret),
            "quota": asdict(quota or Quota()),
            "created_at": self._clock(),
            "expires_at": expires_at,
        }
        with writing(self._engine) as connection:
            row = connection.execute(insert(tokens).values(**values).returning(tokens)).one()
        return _token(row), f"{_PREFIX}_{row.token_id}_{secret}"

    @retried
    def find(self, text: str) -> TokenRecord | None:
        prefix, _, found = text.partition("_")
        number, _, secret = found.partition("_")
        if prefix != _PREFIX or not (number.isascii() and number.isdecimal() and len(number) < 10):
            return None
        now = self._clock()
        with reading(self._engine) as connection:
            row = connection.execute(select(tokens).where(tokens.c.token_id == int(number))).one_or_none()
        digest = "" if row is None else row.digest
        if not hmac.compare_digest(digest, _digest(secret)) or row is None:
            return None
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
            return None
        if row.last_used_at is None or now - row.last_used_at >= _USE_SECONDS:
            with writing(self._engine) as connection:
                used = update(tokens).where(tokens.c.token_id == row.token_id)
                connection.execute(used.values(last_used_at=now))
        return _token(row)

    @retried
    def revoke(self, token_id: int) -> TokenRecord:
        with writing(self._engine) as connection:
            revoked = update(tokens).where(tokens.c.token_id == token_id)
            revoked = revoked.values(revoked_at=func.coalesce(tokens.c.revoked_at, self._clock()))
            row = connection.execute(revoked.returning(tokens)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no token {token_id}; `paceline token list` shows all tokens")
        return _token(row)

    @retried
    def tokens(self) -> list[TokenRecord]:
        with reading(self._engine) as connection:
            return [_token(row) for row in connection.execute(select(tokens).order_by(tokens.c.token_id))]

    @retried
    def usage(self, token_id: int) -> tuple[int, Usage]:
        with reading(self._engine) as connection:
            return usage_of(connection, token_id)

    def audit(
        self,
        token: str,
        action: str,
        target: str,
        *,
        address: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        values = {"token": token, "action": action, "target": target, "address": address}
        with writing(self._engine) as connection:
            connection.execute(
                insert(audit_log).values(**values, created_at=self._clock(), detail=dict(detail or {}))
            )

    @retried
    def audit_log(self, *, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        wanted = select(audit_log).order_by(audit_log.c.audit_id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(audit_log.c.audit_id < before)
        with reading(self._engine) as connection:
            return [AuditRecord(**row._mapping) for row in connection.execute(wanted)]


def usage_of(connection: Connection, token_id: int) -> tuple[int, Usage]:
    """Returns the number of jobs of a token that have not ended, and what all its jobs count for.

    An ended job counts with what it has used. Another job counts with the most that its budget allows.
    """
    ended = jobs.c.state.in_(_ENDED)

    def counted(used: Any, most: Any) -> Any:
        larger = case((and_(most.is_not(None), most > used), most), else_=used)
        return func.coalesce(func.sum(case((ended, used), else_=larger)), 0.0)

    row = connection.execute(
        select(
            func.coalesce(func.sum(case((ended, 0), else_=1)), 0),
            counted(jobs.c.used_seconds, jobs.c.most_seconds),
            counted(jobs.c.used_node_hours, jobs.c.most_node_hours),
            counted(jobs.c.used_dollars, jobs.c.most_dollars),
        ).where(jobs.c.token_id == token_id)
    ).one()
    return int(row[0]), Usage(seconds=float(row[1]), node_hours=float(row[2]), dollars=float(row[3]))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: Row[Any]) -> TokenRecord:
    return TokenRecord(
        token_id=row.token_id,
        name=row.name,
        role=Role(row.role),
        quota=Quota(**row.quota),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
