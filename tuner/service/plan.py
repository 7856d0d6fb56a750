"""Describes the plan of `paceline run` and its highest possible cost, before the first probe."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces import Configuration
from tuner.domain.format import format_dollars, format_seconds
from tuner.job import job_warnings
from tuner.search.loop import OVERRUN_SHARE
from tuner.service.opening import OpenedJob


def plan_lines(
    opened: OpenedJob,
    *,
    storage: str,
    output: str,
    spent_seconds: float,
    spent_dollars: float = 0.0,
    parallel: int = 1,
) -> list[str]:
    """Returns lines that describe the plan of a search.

    Args:
        opened: The job.
        storage: URL of the study database, with the password hidden; empty if the user does not know it.
        output: Path of the output folder.
        spent_seconds: Wall-clock seconds of probes that were already charged to the study.
        spent_dollars: Dollars of these probes.
        parallel: Maximum number of concurrent probes.
    """
    job, cluster = opened.job, opened.cluster
    budget = job.budget
    candidates = job.search_space().candidates()
    limits = []
    if budget.time is not None:
        limits.append(format_seconds(budget.time))
    if budget.dollars is not None:
        limits.append(format_dollars(budget.dollars))
    if budget.node_hours is not None:
        limits.append(f"{budget.node_hours:g} node hours")
    if budget.probes is not None:
        limits.append(f"{budget.probes} probes")
    goal = job.goal
    sign = ">=" if goal.maximize else "<="
    lines = [
        f"job {job.name}: {goal.metric} {sign} {goal.target:g}, minimize {goal.minimize}, "
        f"{goal.trainings} training run{'s' if goal.trainings > 1 else ''}",
        f"space: {len(candidates)} configurations on {', '.join(map(str, cluster.node_counts))} "
        f"node{'' if cluster.node_counts == (1,) else 's'}",
        "budget: " + (", ".join(limits) if limits else "none; the search ends when the target is reached"),
    ]
    recording = job.recording()
    if recording is not None:
        lines.append(
            f"replay: recording {recording.name}; nothing is trained, and seconds and dollars are those of "
            "the recorded runs"
        )
    if job.runs_command and not job.can_resume:
        lines.append(
            "workload.resume is not set, so a run that continues starts from the beginning and pays for that "
            "part again"
        )
    if parallel > 1:
        lines.append(_parallel_words(opened, parallel))
    if cluster.has_prices:
        lines.append(f"price: {_hourly_words(opened, candidates)}{_emulated_words(opened, candidates)}")
    worst = worst_dollars(opened, candidates, parallel)
    if worst is not None and not all(cluster.emulates(c) for c in candidates):
        saving = saving_seconds(opened)
        line = f"at most: {format_dollars(worst)}, for {_most_expensive_words(opened, parallel)} all the time"
        if saving:
            line += f", and up to {format_seconds(saving)} to save checkpoints at the end"
        lines.append(line)
    if spent_seconds > 0:
        paid = f" and {format_dollars(spent_dollars)}" if spent_dollars > 0 else ""
        lines.append(f"resuming a study that has spent {format_seconds(spent_seconds)}{paid}")
    if storage:
        lines.append(f"study: {storage}; report: {output}")
    return lines + [f"note: {warning}" for warning in job_warnings(job)]


def _hourly_words(opened: OpenedJob, candidates: Sequence[Configuration]) -> str:
    """Returns the price range of the configurations, for an hour of one probe."""
    prices = {round(3600.0 * opened.cluster.dollars_per_second(c), 9) for c in candidates}
    low, high = format_dollars(min(prices)), format_dollars(max(prices))
    return f"{low} an hour" if low == high else f"{low} to {high} an hour, depending on the configuration"


def _emulated_words(opened: OpenedJob, candidates: Sequence[Configuration]) -> str:
    """Returns what emulated probes cost, as the end of a sentence; empty if none is emulated."""
    emulated = [opened.cluster.emulates(c) for c in candidates]
    if all(emulated):
        return "; the search itself costs nothing, because every probe is emulated on this machine"
    return "; emulated probes cost nothing" if any(emulated) else ""


def crowding_words(opened: OpenedJob, parallel: int) -> str | None:
    """Returns a warning if concurrent probes would share cores of this machine, else None."""
    cluster = opened.cluster
    there = cluster.at_hand or cluster
    if parallel == 1 or not there.nodes_share_host or there.cores_per_host is None:
        return None
    most_nodes = min(cluster.nodes_at_once, parallel * there.node_counts[-1])
    threads = there.num_ranks(most_nodes) * there.threads_per_rank
    if opened.job.recording() is not None or threads <= there.cores_per_host:
        return None
    return (
        f"--parallel {parallel} may run {threads} threads on the {there.cores_per_host} cores of this "
        "machine, so that concurrent probes slow each other down. Their measurements are marked as "
        "oversubscribed. For reliable times omit --parallel, or set cluster.nodes and cluster.capacity to "
        "what the cores can run"
    )


def _parallel_words(opened: OpenedJob, parallel: int) -> str:
    cluster = opened.cluster
    if cluster.virtual is not None and cluster.at_hand is None:
        return f"concurrent: up to {parallel} probes, each emulated by a process of this machine"
    nodes = cluster.nodes_at_once
    return f"concurrent: up to {parallel} probes on {nodes} node{'' if nodes == 1 else 's'} in total"


def _most_expensive_words(opened: OpenedJob, parallel: int) -> str:
    if parallel > 1:
        return "all nodes at their highest price"
    return "the most expensive configuration" if opened.cluster.machines else "the largest number of nodes"


def saving_seconds(opened: OpenedJob) -> float:
    """Returns the seconds for which slices may still run, to save checkpoints, when the budget is used up."""
    job = opened.job
    if job.recording() is not None:
        return 0.0
    return (job.command.grace if job.runs_command else 0.0) + OVERRUN_SHARE * (job.budget.time or 0.0)


def worst_dollars(opened: OpenedJob, candidates: Sequence[Configuration], parallel: int = 1) -> float | None:
    """Returns the highest possible cost in dollars, without the time for saving at the end.

    Emulated probes occupy no nodes and cost nothing. The result is None if the cluster has no prices, or if
    the budget limits neither time nor cost.
    """
    cluster, budget = opened.cluster, opened.job.budget
    if not cluster.has_prices:
        return None
    candidates = [c for c in candidates if not cluster.emulates(c)]
    if not candidates:
        return 0.0
    limits = [] if budget.dollars is None else [budget.dollars]
    if budget.node_hours is not None:
        a_node_hour = max(
            3600.0 * cluster.dollars_per_second(c) / max(c.nodes + cluster.extra_nodes, 1) for c in candidates
        )
        limits.append(budget.node_hours * a_node_hour)
    if budget.time is None:
        return min(limits, default=None)
    if parallel == 1:
        a_second = max(cluster.dollars_per_second(c) for c in candidates)
    else:
        # Bounded by the price of the most expensive probe and by the price of all nodes.
        most_expensive = max(cluster.dollars_per_second(c) for c in candidates)
        by_node = max(
            cluster.dollars_per_second(c) / max(c.nodes + cluster.extra_nodes, 1) for c in candidates
        )
        a_second = min(parallel * most_expensive, max(by_node * cluster.nodes_at_once, most_expensive))
    return min([*limits, a_second * budget.time])
