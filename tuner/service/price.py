"""The price of a submitted job before it runs: the most that it may use, and its plan as JSON data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_spaces import Configuration
from tuner.service.opening import OpenedJob
from tuner.service.plan import plan_lines, worst_dollars

#: Seconds, node hours and dollars; None where nothing limits them.
Limit = dict[str, float | None]


def most_usage(opened: OpenedJob, *, parallel: int = 1, verify: bool = False, confirm: int = 0) -> Limit:
    """Returns the most that a job may use: `seconds`, `node_hours` and `dollars`.

    Each limit of the budget limits the others too: in an hour, the largest configuration uses a known number
    of node hours. Slices that are running when a limit is reached may exceed it.

    Args:
        opened: The job.
        parallel: Maximum number of concurrent probes.
        verify: Whether the recommendation is trained to the target after the search. The budget does not
            limit this training, and nobody knows its duration before the search.
        confirm: Number of seeds with which the recommendation is compared with the baseline; the same holds.
    """
    cluster, budget = opened.cluster, opened.job.budget
    candidates = opened.job.search_space().candidates()
    if verify or confirm > 0:
        return {"seconds": None, "node_hours": None, "dollars": None if cluster.has_prices else 0.0}
    nodes = [cluster.nodes_held(configuration) for configuration in candidates]
    prices = [cluster.dollars_per_second(configuration) for configuration in candidates]
    at_once = (
        max(nodes) if parallel == 1 else min(parallel * max(nodes), max(cluster.nodes_at_once, max(nodes)))
    )
    seconds, hours = [budget.time], [budget.node_hours]
    if budget.time is not None:
        hours.append(budget.time * at_once / 3600.0)
    if budget.node_hours is not None and min(nodes) > 0:
        seconds.append(budget.node_hours * 3600.0 / min(nodes))
    if budget.dollars is not None and min(prices) > 0:
        seconds.append(budget.dollars / min(prices))
        ratios = (count / price for count, price in zip(nodes, prices, strict=True))
        hours.append(budget.dollars * max(ratios) / 3600.0)
    return {
        "seconds": _least(seconds),
        "node_hours": _least(hours),
        "dollars": worst_dollars(opened, candidates, parallel) if cluster.has_prices else 0.0,
    }


def plan_data(
    opened: OpenedJob, *, parallel: int = 1, verify: bool = False, confirm: int = 0
) -> dict[str, Any]:
    """Returns the plan of a submitted job as JSON data; `lines` are those that `paceline run` shows.

    The arguments are those of `most_usage`.
    """
    job = opened.job
    candidates = job.search_space().candidates()
    lines = plan_lines(opened, storage="", output="", spent_seconds=0.0, parallel=parallel)
    if verify or confirm > 0:
        lines.append(beyond_budget(verify=verify, confirm=confirm))
    return {
        "lines": lines,
        "limits": job.budget.model_dump(mode="json"),
        "most": most_usage(opened, parallel=parallel, verify=verify, confirm=confirm),
        "most_expensive": _most_expensive(opened, candidates).as_dict(),
        "num_configurations": len(candidates),
        "target": {
            "metric": job.goal.metric,
            "value": job.goal.target,
            "direction": "maximize" if job.goal.maximize else "minimize",
            "minimize": job.goal.minimize,
            "trainings": job.goal.trainings,
        },
    }


def beyond_budget(*, verify: bool, confirm: int) -> str:
    """Returns a sentence on the trainings that the budget does not limit."""
    what = [
        *(["verify trains the recommendation to the target"] if verify else []),
        *([f"confirm trains it and the baseline with {confirm} more seeds"] if confirm else []),
    ]
    return (
        f"{' and '.join(what)}, in addition to the budget; the price of this is known only after the search"
    )


def _most_expensive(opened: OpenedJob, candidates: Sequence[Configuration]) -> Configuration:
    """Returns the configuration with the highest price; the largest one if nodes have no price."""
    cluster = opened.cluster
    return max(candidates, key=lambda c: (cluster.dollars_per_second(c), c.nodes))


def _least(limits: Sequence[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
