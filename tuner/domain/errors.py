"""Exceptions that end a command with a message for the user instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunerError(Exception):
    """Base class of all errors that users see; `exit_code` is the exit code of the command line."""

    exit_code = 1


class JobError(TunerError):
    """The job file, or a file or module that it refers to, is missing or invalid.

    The message says which file and key are wrong, what is allowed, and what to do.
    """

    exit_code = 2


class DataNotFoundError(JobError):
    """A data set was not found on this machine; the message says where to get it."""


class InfeasibleError(TunerError):
    """No configuration is feasible, or the target is unreachable within the budget."""

    exit_code = 3


class ProbeError(TunerError):
    """Too many probes (short trainings) failed, so there are not enough measurements for a recommendation."""

    exit_code = 5


class StorageError(TunerError):
    """The database of studies or the output folder cannot be read or written."""

    exit_code = 6


class DatabaseLostError(StorageError):
    """The study database was deleted, replaced, truncated or damaged while it was in use."""


class DatabaseUnavailableError(StorageError):
    """The study database failed for a reason that may pass, such as an outage, a lock or a full disk."""


class LeaseLostError(StorageError):
    """This process has lost the right to work on a probe, so its results are not stored.

    A probe is a trial training. The right, called lease, is limited in time and belongs to one process.
    """


def did_you_mean(given: str, known: Iterable[str], form: str = "'{}'") -> str:
    """Returns the end of an error message about an unknown name, such as `; did you mean 'x'?`.

    If no known name is similar to the unknown name, it is just `.`.

    Args:
        given: The unknown name.
        known: The names that exist.
        form: Format string with one pair of braces, into which the suggested name is inserted.
    """
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean {form.format(near[0])}?" if near else "."
