"""Everything that ends a command with a message instead of a traceback."""

from __future__ import annotations


class TunerError(Exception):
    """The root of all errors a user may meet; `exit_code` is what the command line ends with."""

    exit_code = 1


class JobError(TunerError):
    """The job file, or what it names, is wrong: the message says file, key, what is allowed, what to do."""

    exit_code = 2


class DataNotFoundError(JobError):
    """A data set is not where it was looked for; the message says where to get it."""


class InfeasibleError(TunerError):
    """No configuration may be tried, or the target is out of reach within the budget."""

    exit_code = 3


class ProbeError(TunerError):
    """Too many probes failed for a recommendation to be honest."""

    exit_code = 5


class StorageError(TunerError):
    """The study database or the output folder cannot be read or written."""

    exit_code = 6


class LeaseLostError(StorageError):
    """A probe's lease ran out or was taken by another worker: what this worker brings comes too late."""
