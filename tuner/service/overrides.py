"""Compares what the user asked for with what a search used: options, limits and the search space."""

from __future__ import annotations

from collections.abc import Iterator

from search_spaces import RanksWithin
from tuner.domain.analysis import Override
from tuner.domain.format import format_configuration, format_dollars, format_seconds
from tuner.search.beliefs import MOST_LEVELS, Beliefs
from tuner.search.state import SearchState
from tuner.service.opening import OpenedJob


def option_overrides(
    opened: OpenedJob, *, sampler: str = "model", parallel: int = 1, past_studies: bool = True
) -> Iterator[Override]:
    """Yields the values that options of the command line or environment variables replaced.

    Args:
        opened: The job, with the budget of its file.
        sampler: The sampler of the search.
        parallel: Maximum number of concurrent slices.
        past_studies: Whether the forecasts use what other studies have learnt.
    """
    stated, used = opened.stated_budget, opened.job.budget
    if stated is not None and stated.time != used.time:
        yield Override(
            name="budget.time",
            stated="no limit" if stated.time is None else format_seconds(stated.time),
            used="no limit" if used.time is None else format_seconds(used.time),
            source="--budget or PACELINE_BUDGET",
        )
    if stated is not None and stated.dollars != used.dollars:
        yield Override(
            name="budget.dollars",
            stated="no limit" if stated.dollars is None else format_dollars(stated.dollars),
            used="no limit" if used.dollars is None else format_dollars(used.dollars),
            source="--max-dollars or PACELINE_MAX_DOLLARS",
        )
    if sampler != "model":
        yield Override(
            name="sampler", stated="model (default)", used=sampler, source="--sampler or PACELINE_SAMPLER"
        )
    if parallel != 1:
        yield Override(
            name="concurrent probes",
            stated="1 (default)",
            used=f"up to {parallel}",
            source="--parallel or PACELINE_PARALLEL",
        )
        cluster = opened.cluster
        num_nodes = cluster.nodes_at_once
        num_fitting = num_nodes // max(cluster.node_counts[0] + cluster.extra_nodes, 1)
        is_emulated = cluster.virtual is not None and cluster.at_hand is None
        if num_fitting < parallel and not is_emulated and opened.job.recording() is None:
            yield Override(
                name="concurrent probes",
                stated=f"up to {parallel}",
                used=f"at most {num_fitting}",
                source=f"the cluster has {num_nodes} node{'' if num_nodes == 1 else 's'}",
            )
    if not past_studies:
        yield Override(
            name="past studies", stated="used (default)", used="not used", source="--no-past-studies"
        )


def search_overrides(state: SearchState, beliefs: Beliefs) -> Iterator[Override]:
    """Yields the values of the job file that the search could not use as they are.

    Args:
        state: State at the end of the search.
        beliefs: Forecasts of the candidates.
    """
    job = state.job
    baseline = job.baseline_configuration()
    if baseline is not None and baseline not in beliefs.configurations:
        reasons = (c.reason_against(baseline) for c in state.space.conditions)
        reason = next((words for words in reasons if words), "its training failed")
        yield Override(name="baseline", stated=format_configuration(baseline), used="left out", source=reason)
    for condition in state.space.conditions:
        if isinstance(condition, RanksWithin):
            limit = condition.too_large_per_rank
            yield Override(
                name="space.batch_size",
                stated="every batch size of the job file",
                used=f"fewer than {limit} samples per rank",
                source=f"a probe with {limit} samples per rank ran out of memory",
            )
    if job.recording() is None:
        known, num = set(beliefs.configurations), 0
        for configuration in state.space.candidates():
            num += 1
            known.discard(configuration)
        forecast = len(beliefs.configurations) - len(known)
        if forecast < num and num > MOST_LEVELS:
            yield Override(
                name="space",
                stated=f"{num:,} configurations",
                used=f"a random subset of {forecast:,}",
                source="the search compares a limited number of configurations",
            )
