"""How a command failed, in its own words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tuner.job import Job
from tuner.launchers import JobStatus

_LAST_LINES = 20
_OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|OutOfMemoryError|\bMemoryError\b|\boom[-_ ]?kill|out of memory"
    r"|std::bad_alloc|cannot allocate memory",
    re.IGNORECASE,
)


def failure_words(status: JobStatus, logs: Mapping[int, str], job: Job) -> str:
    """The first copy to fail with its exit code and last words, and how the others ended.

    Args:
        status: Of the job that failed.
        logs: What each copy printed, by node or rank.
        job: What it was submitted for.
    """
    if not status.failures:
        tail = _tail(next(iter(logs.values()), ""))
        return f"the command failed{': ' + status.detail if status.detail else ''}\n{tail}".strip()
    first, *others = status.failures
    per_rank = job.command.one_per == "rank"
    what = "rank" if per_rank else "node"
    code = "" if first.exit_code is None else f" with exit code {first.exit_code}"
    lines = [f"{what} {first.rank} failed{code}: {first.reason.strip()}"]
    lines += [f"{what} {f.rank}: {f.reason.strip()}" for f in others]
    tail = _tail(logs.get(first.rank, "") or "\n".join(logs.values()))
    if tail and tail not in lines[0]:
        lines.append(f"its last words were\n{tail}")
    return "\n".join(lines)


def is_out_of_memory(words: str) -> bool:
    """Whether a failure's words, or those of the system that killed it, speak of memory."""
    return _OUT_OF_MEMORY.search(words) is not None


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
