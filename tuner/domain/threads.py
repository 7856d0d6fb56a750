"""Environment variables that limit the number of CPU threads of numerical libraries."""

from __future__ import annotations

#: Names of the variables: that of OpenMP, which torch reads too, and those of other libraries.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def thread_variables(threads: int) -> dict[str, str]:
    """Returns environment variables that limit numerical libraries to `threads` CPU threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))
