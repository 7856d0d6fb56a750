"""Exceptions that end a command with a message instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunerError(Exception):
    """Base class of all errors that users see; `exit_code` is the exit code of the command line."""

    exit_code = 1


class JobError(TunerError):
    """The job file, or a file or module that it refers to, is wrong.

    The message says the file, the key, the allowed values and what to do.
    """

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
    """The lease of a probe is no longer valid, so that the results of this worker are not stored."""


def did_you_mean(given: str, known: Iterable[str], form: str = "'{}'") -> str:
    """Returns the end of a message about an unknown name: `; did you mean 'x'?`, or `.` if none is similar.

    Args:
        given: The unknown name.
        known: The names that exist.
        form: Format string for the suggested name.
    """
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean {form.format(near[0])}?" if near else "."
