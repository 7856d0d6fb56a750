"""Checks that at least one configuration of a job can run, and warns of settings that may be mistakes."""

from __future__ import annotations

import itertools
from pathlib import Path

from search_spaces import Configuration, ListedSpace, ProductSpace, SearchSpace
from tuner.domain.errors import InfeasibleError, JobError
from tuner.domain.workload import METRICS
from tuner.job.model import Job

_MOST_REASONS = 3
#: Maximum number of combinations of values in a space. The search compares all of them at each decision.
_MOST_COMBINATIONS = 100_000
#: Maximum number of ranks that the local launcher starts, each of which is a process.
_MOST_PROCESSES = 1_024


def check_feasible(job: Job, path: Path) -> None:
    """Checks that at least one configuration of the space can run, and that the baseline can run.

    Args:
        job: The content of the job file.
        path: Path of the job file, for error messages.

    Raises:
        InfeasibleError: No configuration of the space can run.
        JobError: The space has too many configurations, or the baseline cannot run.
    """
    space = job.search_space()
    _check_sizes(job, space, path)
    if not any(space.is_feasible(configuration) for configuration in _combinations(space)):
        reasons = dict.fromkeys(
            reason
            for configuration in _combinations(space)
            for reason in space.reasons_against(configuration)
        )
        shown = "; ".join(list(reasons)[:_MOST_REASONS])
        more = f"; and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
        raise InfeasibleError(
            f"{path}: no configuration can run: {shown}{more}. "
            "Raise space.batch_size, or lower cluster.nodes or cluster.devices_per_node"
        )
    baseline = job.baseline_configuration()
    if baseline is not None:
        against = [condition.reason_against(baseline) for condition in space.conditions]
        found = [reason for reason in against if reason is not None]
        if found:
            raise JobError(
                f"{path}: the baseline cannot run: {'; '.join(found)}. State your present settings in "
                "[baseline], or remove the table"
            )


def _check_sizes(job: Job, space: SearchSpace, path: Path) -> None:
    if isinstance(space, ProductSpace) and (size := space.num_combinations()) > _MOST_COMBINATIONS:
        raise JobError(
            f"{path}: the values in [space] and cluster.nodes have {size:,} combinations, but at most "
            f"{_MOST_COMBINATIONS:,} are allowed. List fewer values, or lower "
            "space.learning_rate.levels_per_decade"
        )
    if job.recording() is not None or not job.cluster.nodes_share_host:
        return
    cluster = job.resolved_cluster()
    real = cluster.at_hand if cluster.virtual is not None else cluster
    ranks = 0 if real is None else real.num_ranks(real.node_counts[-1])
    if ranks > _MOST_PROCESSES:
        raise JobError(
            f"{path}: cluster.nodes times cluster.devices_per_node is up to {ranks:,}, but "
            f"cluster.launcher = 'local' starts at most {_MOST_PROCESSES:,} processes on this host. "
            "Lower one of them, or set probe.kind = 'emulated'"
        )


def job_warnings(job: Job) -> list[str]:
    """Returns warnings about valid settings of a job that are probably mistakes, each with a remedy."""
    return [*_baseline_warnings(job), *_cluster_warnings(job), *_goal_warnings(job)]


def _combinations(space: SearchSpace) -> list[Configuration]:
    """Returns one configuration for each combination of nodes, batch size and strategy.

    The learning rate and the parameters of the strategy have arbitrary values, because a configuration can
    run with all values of them or with none.
    """
    if isinstance(space, ListedSpace):
        return list(space.configurations)
    axes = {name: choice.levels() for name, choice in space.axes.items()}
    axes["learning_rate"] = axes["learning_rate"][:1]
    found = []
    for values in itertools.product(*axes.values()):
        base = dict(zip(axes, values, strict=True))
        knobs = space.knob_choices(str(base["strategy"]))
        found.append(Configuration({**base, **{name: knob.levels()[0] for name, knob in knobs.items()}}))
    return found


def _baseline_warnings(job: Job) -> list[str]:
    baseline = job.baseline_configuration()
    if baseline is None:
        named = "nodes, batch_size and learning_rate" if job.recording() is None else "a recorded one"
        return [
            "[baseline] is absent: nothing is compared with your present settings. "
            f"State {named} there to see what tuning gains"
        ]
    space = job.search_space()
    probed = space.is_runnable(baseline)
    what = "it is probed, but no similar configurations are" if probed else "it is not probed"
    return [
        f"baseline.{axis} = {baseline[axis]!r} lies outside the space, where {axis} is "
        f"{choice.describe()}: {what}"
        for axis, choice in space.axes.items()
        if not choice.contains(baseline[axis])
    ]


def _cluster_warnings(job: Job) -> list[str]:
    whole = job.resolved_cluster()
    cluster = whole.at_hand or whole
    crowded = [nodes for nodes in cluster.node_counts if cluster.oversubscription(nodes) > 1]
    if not crowded:
        return []
    threads = cluster.num_ranks(crowded[-1]) * cluster.threads_per_rank
    return [
        f"cluster.nodes = {crowded[-1]} runs {threads} threads on {cluster.cores_per_host} cores: ranks that "
        "share cores are slower than on separate nodes, so the measured step times are too long"
    ]


def _goal_warnings(job: Job) -> list[str]:
    warnings = []
    budget = job.budget
    if budget.model_dump(exclude_none=True) == {}:
        warnings.append("[budget] is empty: the search ends only when it reaches the target. Set budget.time")
    metric = METRICS.get(job.goal.metric)
    best = None if metric is None else metric.upper if job.goal.maximize else metric.lower
    if best is not None and job.goal.target == best:
        warnings.append(
            f"goal.target = {job.goal.target:g} is the best value {job.goal.metric} can have, which "
            f"training may never show. {'Lower' if job.goal.maximize else 'Raise'} it to a value you can use"
        )
    return warnings
