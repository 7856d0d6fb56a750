"""Exceptions that end a command with a message instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunerError(Exception):
    """The base class of all errors a user may see; `exit_code` is the exit code of the command line."""

    exit_code = 1


class JobError(TunerError):
    """The job file, or what it names, is wrong: the message says file, key, what is allowed, what to do."""

    exit_code = 2


class DataNotFoundError(JobError):
    """A data set was not found; the message says where to get it."""


class InfeasibleError(TunerError):
    """No configuration is feasible, or the target is unreachable within the budget."""

    exit_code = 3


class ProbeError(TunerError):
    """Too many probes failed for an honest recommendation."""

    exit_code = 5


class StorageError(TunerError):
    """The study database or the output folder cannot be read or written."""

    exit_code = 6


class LeaseLostError(StorageError):
    """A probe's lease ran out or another worker took it: what this worker reports comes too late."""


def did_you_mean(given: str, known: Iterable[str], form: str = "'{}'") -> str:
    """The end of a sentence about an unknown name: `; did you mean 'x'?`, or `.` if no known name is near.

    Args:
        given: The unknown name.
        known: The names that exist.
        form: How a known name is shown.
    """
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean {form.format(near[0])}?" if near else "."
