"""The use case `check` for a job that trains a Workload, or replays: one tiny probe, and its cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tuner.domain.errors import ProbeError
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import Prober, Until
from tuner.service.check_command import tiny_configuration
from tuner.service.launchers import job_prober, passing_folder
from tuner.service.opening import OpenedJob, checked_epoch_samples
from tuner.service.plan import worst_dollars

_STEPS = 12


def check_job(
    opened: OpenedJob, *, make_prober: Callable[[OpenedJob], Prober] = job_prober
) -> tuple[Measurement, int]:
    """Scores and trains the present settings, or the smallest configuration, for a few steps.

    Returns:
        What the probe saw, and the size of the training set.

    Raises:
        JobError: The workload cannot be built.
        ProbeError: The probe failed; the message has every rank's error.
    """
    epoch_samples = checked_epoch_samples(opened)
    configuration = tiny_configuration(opened)
    # The folder must exist longer than the prober, whose last messages to ranks pass through it.
    with passing_folder(opened, "check") as folder:
        prober = make_prober(opened)
        try:
            handle = prober.start(configuration, Purpose.STATISTICS, Until(steps=_STEPS), folder)
            measurement = prober.poll(handle)
            while measurement.outcome is Outcome.RUNNING:
                time.sleep(0.05)
                measurement = prober.poll(handle)
        finally:
            prober.close()
    if measurement.outcome.is_fault or measurement.outcome is Outcome.OUT_OF_MEMORY:
        error = (measurement.error or "").strip() or "no error was reported"
        last = error.splitlines()[-1]
        raise ProbeError(f"the probe of {configuration} ended as {measurement.outcome}: {last}\n{error}")
    return measurement, epoch_samples


def cost_rows(opened: OpenedJob) -> list[tuple[str, Any]]:
    """What running the job costs at worst."""
    budget = opened.job.budget
    worst = worst_dollars(opened, opened.job.search_space().candidates())
    rows: list[tuple[str, Any]] = [
        ("seconds at worst", budget.time if budget.time is not None else "no limit in [budget]")
    ]
    return rows if worst is None else [*rows, ("dollars at worst", round(worst, 2))]
