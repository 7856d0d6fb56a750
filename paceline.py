"""The public Python API: all names that scripts, workloads and notebooks may import from Paceline.

- Names are loaded on first use, so `import paceline` imports neither torch nor Optuna.
- All other modules are internal and may change in any version.
- A script that must run without Paceline installed imports `paceline_client` instead.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from paceline_client import (
        begin,
        checkpoint_path,
        gradient_noise,
        hugging_face_callback,
        lightning_callback,
        report,
        should_stop,
        values,
    )

    from tuner.domain.errors import (
        DataNotFoundError,
        InfeasibleError,
        JobError,
        ProbeError,
        StorageError,
        TunerError,
    )
    from tuner.domain.recommendation import Recommendation
    from tuner.domain.workload import (
        METRICS,
        AdamWSettings,
        ConstantSchedule,
        CosineSchedule,
        Metric,
        OptimizerSettings,
        ScheduleSettings,
        SGDSettings,
        StepSchedule,
        Workload,
    )
    from tuner.search.events import SearchEvent
    from tuner.service.opening import OpenedJob
    from tuner.service.run import RunResult

__all__ = [
    "METRICS",
    "AdamWSettings",
    "ConstantSchedule",
    "CosineSchedule",
    "DataNotFoundError",
    "InfeasibleError",
    "JobError",
    "Metric",
    "OpenedJob",
    "OptimizerSettings",
    "ProbeError",
    "Recommendation",
    "RunResult",
    "SGDSettings",
    "ScheduleSettings",
    "SearchEvent",
    "StepSchedule",
    "StorageError",
    "TunerError",
    "Workload",
    "begin",
    "checkpoint_path",
    "gradient_noise",
    "hugging_face_callback",
    "lightning_callback",
    "open_job",
    "report",
    "run_job",
    "should_stop",
    "values",
]

#: Maps each module to the public names that it defines.
_SOURCES = {
    "paceline_client": (
        *("begin", "checkpoint_path", "gradient_noise", "hugging_face_callback", "lightning_callback"),
        *("report", "should_stop", "values"),
    ),
    "tuner.domain.errors": (
        *("DataNotFoundError", "InfeasibleError", "JobError", "ProbeError", "StorageError", "TunerError"),
    ),
    "tuner.domain.recommendation": ("Recommendation",),
    "tuner.domain.workload": (
        *("METRICS", "AdamWSettings", "ConstantSchedule", "CosineSchedule", "Metric", "OptimizerSettings"),
        *("SGDSettings", "ScheduleSettings", "StepSchedule", "Workload"),
    ),
    "tuner.search.events": ("SearchEvent",),
    "tuner.service.opening": ("OpenedJob",),
    "tuner.service.run": ("RunResult",),
}
_MODULE_OF = {name: module for module, names in _SOURCES.items() for name in names}


def open_job(job: str | Path, *, budget: str | None = None, max_dollars: float | None = None) -> OpenedJob:
    """Reads and checks a job file, without running anything.

    Args:
        job: Path of the job file.
        budget: Maximum time of the search, such as `"10m"`; overrides `budget.time` of the file.
        max_dollars: Maximum dollars of the search; overrides `budget.dollars` of the file.

    Returns:
        The job (`.job`), the path of its file (`.path`) and its cluster (`.cluster`).

    Raises:
        JobError: The file is not a valid job; the message states the key and the allowed values.
        InfeasibleError: The search space of the job has no feasible configuration.
    """
    from tuner.service.opening import open_job as open_file

    return open_file(Path(job), time_budget=budget, max_dollars=max_dollars)


def run_job(
    job: str | Path,
    *,
    storage: str | Path | None = None,
    output: str | Path | None = None,
    budget: str | None = None,
    max_dollars: float | None = None,
    sampler: Literal["model", "tpe", "gp", "random"] = "model",
    parallel: int = 1,
    fresh: bool = False,
    verify: bool = False,
    confirm: int = 0,
    explore: bool = False,
    listener: Callable[[SearchEvent], None] | None = None,
) -> RunResult:
    """Tunes a job, as `paceline run` does: searches, recommends and writes the report.

    If it is called again with the same job and storage, it resumes the study. It returns when the search has
    ended.

    Args:
        job: Path of the job file.
        storage: Path of a SQLite file or a SQLAlchemy URL; by default `paceline.db` beside the job file.
        output: Folder for reports and probes; by default `paceline-out/NAME` in the current folder.
        budget: Maximum time of the search, such as `"10m"`; overrides `budget.time` of the file.
        max_dollars: Maximum dollars of the search; overrides `budget.dollars` of the file.
        sampler: Method that chooses the probes: Paceline's `model`, or Optuna's `tpe`, `gp` or `random`.
        parallel: Maximum number of concurrent probes; fewer run if too few nodes are free.
        fresh: Whether to start a new study instead of resuming one.
        verify: Whether to train the recommended configuration to the target if no probe of it reached the
            target.
        confirm: Number of new random seeds. With each seed, the recommendation and the baseline (the user's
            present settings) are trained to the target and compared. 0 trains none.
        explore: Whether probes use the rest of the budget after the answer, to make predictions of other
            configurations more certain.
        listener: Called with each event of the search; `kind` and `text` of the event describe the progress.

    Returns:
        The recommendation (`.recommendation`), the reason why the search stopped (`.stop`), and the paths of
        the written files by file name (`.files`).

    Raises:
        JobError: The job file or its workload is wrong, or there is no baseline to confirm against.
        InfeasibleError: No configuration is feasible, or none reaches the target within the budget.
        ProbeError: Too many probes failed.
        StorageError: The study database or the output folder cannot be read or written.
    """
    from storage import open_storage
    from tuner.search.events import ignore
    from tuner.service.opening import default_output, default_storage_url
    from tuner.service.run import RunOptions
    from tuner.service.run import run_job as run_opened

    opened = open_job(job, budget=budget, max_dollars=max_dollars)
    options = RunOptions(
        output=Path(output) if output is not None else default_output(opened.job),
        sampler=sampler,
        fresh=fresh,
        verify=verify,
        parallel=parallel,
        confirm=confirm,
        explore=explore,
    )
    url = default_storage_url(opened.path) if storage is None else str(storage)
    with open_storage(url if "://" in url else f"sqlite:///{url}") as store:
        return run_opened(opened, store, options, listener or ignore)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'paceline' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
