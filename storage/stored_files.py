"""Files of the service in the database: stored by content, counted for each token, and removed if unused."""

from __future__ import annotations

import hashlib

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from storage.service_tables import files, job_files, jobs, tokens, uploads
from tuner.domain.job_queue import CleanedFiles, JobState, Quota, QuotaError

_ENDED = [str(state) for state in JobState if state.has_ended]
#: Number of files that one statement removes.
_AT_ONCE = 500


def store_file(connection: Connection, content: bytes, now: float) -> str:
    """Stores a file, unless it is stored already. Returns its SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256(content).hexdigest()
    values = {"digest": digest, "size": len(content), "content": content, "created_at": now}
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    added = dialect.insert(files).values(**values)
    # A newer time protects a file that is about to be used from `clean_files`.
    renewed = added.on_conflict_do_update(index_elements=[files.c.digest], set_={"created_at": now})
    connection.execute(renewed)
    return digest


def store_upload(connection: Connection, content: bytes, now: float, token_id: int, quota: Quota) -> str:
    """Stores a file that a token uploads.

    Raises:
        QuotaError: The files of the token would be larger than its quota.
    """
    # Serialize the uploads of a token, for its quota.
    connection.execute(select(tokens.c.token_id).where(tokens.c.token_id == token_id).with_for_update())
    digest = store_file(connection, content, now)
    key = {"token_id": token_id, "digest": digest}
    same = and_(*(uploads.c[name] == value for name, value in key.items()))
    if connection.execute(update(uploads).where(same).values(created_at=now)).rowcount == 0:
        connection.execute(insert(uploads).values(**key, created_at=now))
    check_stored_bytes(connection, token_id, quota)
    return digest


def check_stored_bytes(connection: Connection, token_id: int, quota: Quota) -> None:
    """Raises `QuotaError` if the files of a token are larger than its quota."""
    if quota.stored_bytes is None:
        return
    found = stored_bytes(connection, token_id)
    if found > quota.stored_bytes:
        raise QuotaError(
            f"the files of this token would have {found:,} bytes; its quota is {quota.stored_bytes:,}. Put "
            "large data where the workers can read them, or ask an administrator to remove files of ended "
            "jobs (`paceline db clean`) or to raise the quota"
        )


def stored_bytes(connection: Connection, token_id: int) -> int:
    """Returns the size of all files that a token uploaded or its jobs have; equal files count once."""
    of_jobs = select(job_files.c.digest).join(jobs, jobs.c.job_id == job_files.c.job_id)
    digests = union(
        select(uploads.c.digest).where(uploads.c.token_id == token_id),
        of_jobs.where(jobs.c.token_id == token_id),
    )
    total = select(func.coalesce(func.sum(files.c.size), 0)).where(files.c.digest.in_(digests))
    return int(connection.execute(total).scalar_one())


def remove_job_files(connection: Connection, ended_before: float) -> None:
    """Removes the files of jobs that ended before a time from the jobs; `remove_unused` removes the contents.

    The jobs and their studies stay.
    """
    old = select(jobs.c.job_id).where(jobs.c.state.in_(_ENDED), jobs.c.finished_at < ended_before)
    connection.execute(delete(job_files).where(job_files.c.job_id.in_(old)))


def remove_unused(connection: Connection, *, unused_before: float) -> CleanedFiles:
    """Removes a number of contents that no job uses and that nobody has uploaded since a time.

    Call this until it returns no files: each call changes few rows, so that others need not wait for long.
    """
    rows = connection.execute(_unused(unused_before).limit(_AT_ONCE)).all()
    removed, num_bytes = 0, 0
    for row in rows:
        digest, size = row.digest, row.size
        connection.execute(delete(uploads).where(uploads.c.digest == digest))
        # Another process may have used the file in the meantime, so the condition is checked again.
        if connection.execute(
            delete(files).where(files.c.digest == digest, _is_unused(unused_before))
        ).rowcount:
            removed, num_bytes = removed + 1, num_bytes + size
    return CleanedFiles(num_files=removed, num_bytes=num_bytes)


def _unused(unused_before: float) -> Select[tuple[str, int]]:
    return select(files.c.digest, files.c.size).where(_is_unused(unused_before)).order_by(files.c.digest)


def _is_unused(unused_before: float) -> ColumnElement[bool]:
    used = exists().where(job_files.c.digest == files.c.digest)
    recent = exists().where(uploads.c.digest == files.c.digest, uploads.c.created_at >= unused_before)
    return and_(files.c.created_at < unused_before, ~or_(used, recent))
