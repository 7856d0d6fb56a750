"""Decides who may read a job file, since it can contain private values of environment variables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from tuner.domain.job_queue import JobRecord
from tuner.server.page_sessions import Visitor


def may_read_file(visitor: Visitor, job: JobRecord) -> bool:
    """Whether a visitor may read the job file of a job.

    A job file whose `[workload.environment]` is not published is shown only to those who may change the job.
    """
    return visitor.may_change(job) or not has_private_values(job.job_file)


def has_private_values(job_file: str) -> bool:
    """Whether a job file has values that must not be published, or cannot be read."""
    try:
        workload = tomllib.loads(job_file).get("workload")
    except (tomllib.TOMLDecodeError, RecursionError):
        return True
    if not isinstance(workload, Mapping):
        return False
    return bool(workload.get("environment")) and workload.get("publish_environment") is not True
