"""What a run is going to do and what it may cost at worst, said before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces import Configuration
from tuner.job import job_warnings
from tuner.report.format import format_dollars, format_seconds
from tuner.service.opening import OpenedJob


def plan_lines(opened: OpenedJob, *, storage: str, output: str, spent_seconds: float) -> list[str]:
    """The plan in a few lines.

    Args:
        opened: The job.
        storage: Where the study is kept, with the password hidden.
        output: Where reports go.
        spent_seconds: What the study spent before this run.
    """
    job, cluster = opened.job, opened.cluster
    budget = job.budget
    candidates = job.search_space().candidates()
    limits = []
    if budget.time is not None:
        limits.append(format_seconds(budget.time))
    if budget.dollars is not None:
        limits.append(format_dollars(budget.dollars))
    if budget.probes is not None:
        limits.append(f"{budget.probes} probes")
    goal = job.goal
    sign = ">=" if goal.maximize else "<="
    lines = [
        f"job {job.name}: {goal.metric} {sign} {goal.target:g}, {goal.minimize} made small, "
        f"for {goal.trainings} training{'s' if goal.trainings > 1 else ''}",
        f"space: {len(candidates)} configurations on {', '.join(map(str, cluster.node_counts))} "
        f"node{'' if cluster.node_counts == (1,) else 's'}",
        "budget: " + (", ".join(limits) if limits else "none stated; it ends when the target is reached"),
    ]
    recording = job.recording()
    if recording is not None:
        lines.append(
            f"replayed: recording {recording.name}; nothing is trained, seconds and dollars are those "
            "of its runs"
        )
    if job.runs_command and not job.can_resume:
        lines.append(
            "your script is not told how to resume (workload.resume): a run that goes on begins anew, and is "
            "paid for again"
        )
    worst = worst_dollars(opened, candidates)
    if worst is not None:
        lines.append(f"at worst: {format_dollars(worst)}, {_dearest_words(opened)} all the time")
    if spent_seconds > 0:
        lines.append(f"going on with a study that spent {format_seconds(spent_seconds)} before")
    lines.append(f"study: {storage}; report: {output}")
    return lines + [f"note: {warning}" for warning in job_warnings(job)]


def _dearest_words(opened: OpenedJob) -> str:
    return "the dearest configuration" if opened.cluster.machines else "the largest number of nodes"


def worst_dollars(opened: OpenedJob, candidates: Sequence[Configuration]) -> float | None:
    """What the budget allows to be spent, on the dearest configuration all the time; None without prices."""
    cluster, budget = opened.cluster, opened.job.budget
    if not cluster.has_prices:
        return None
    if budget.time is None:
        return budget.dollars
    most = max(cluster.dollars_per_second(c) for c in candidates) * budget.time
    return most if budget.dollars is None else min(most, budget.dollars)
