"""Environment variables by which libraries learn how many CPU threads they may use."""

from __future__ import annotations

#: OpenMP, which torch reads, too, and the libraries that have a variable of their own.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def thread_variables(threads: int) -> dict[str, str]:
    """The variables that limit a process to so many threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))
