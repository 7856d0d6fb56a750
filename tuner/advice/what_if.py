"""Predicts what would change the recommendation: nodes, links, prices, goal, limits and target.

Each prediction is made by the fitted models under the changed condition. A condition that the measurements
say nothing about is left out, or stated as not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from search_spaces import Configuration
from tuner.advice.conditions import MOST_REFITTED, Base, Condition, Refit, first_change, up_to
from tuner.advice.link_speed import link_rows
from tuner.advice.other_targets import target_rows
from tuner.analytic.step_time_model import SecondsModel
from tuner.domain.analysis import WhatIf
from tuner.domain.cluster import Cluster
from tuner.domain.format import format_chance, format_dollars, format_node_hours, format_seconds
from tuner.search.beliefs import Beliefs
from tuner.search.state import SearchState

#: Factors by which a price is multiplied or divided, smallest first. The first one that changes the answer is
#: shown.
_FACTORS = (2.0, 4.0, 10.0)
#: Limits of a training are multiplied by these factors.
_LIMIT_FACTORS = ((0.5, "half"), (2.0, "twice"))
#: Shares of the largest number of nodes, with their words.
_NODE_SHARES = ((2, "half"), (4, "a quarter"))


def what_if(
    state: SearchState, beliefs: Beliefs, choice: Configuration, refit: Refit | None
) -> tuple[WhatIf, ...]:
    """Predicts the best configuration under other conditions, one entry per condition.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        choice: The recommended configuration.
        refit: Function that fits the models again, for another target or more nodes; None to leave these
            conditions out.
    """
    if choice not in beliefs.configurations:
        return ()
    base = Base(state=state, beliefs=beliefs, choice=choice)
    return (
        *_node_rows(base, refit),
        *link_rows(base),
        *_price_rows(base),
        *_goal_rows(base),
        *_limit_rows(base),
        *(target_rows(base, refit) if refit is not None else ()),
    )


def _node_rows(base: Base, refit: Refit | None) -> Iterator[WhatIf]:
    """Yields what is best with fewer nodes, and with twice as many."""
    nodes = np.array([c.nodes for c in base.beliefs.configurations])
    most, before = int(nodes.max()), 0
    for divisor, words in _NODE_SHARES:
        free = most // divisor
        if free in (0, before):
            continue
        before = free
        change = f"only {free} of the {_nodes(most)} {'is' if free == 1 else 'are'} free ({words})"
        beliefs, state = base.beliefs, base.state
        if min(base.state.cluster.node_counts) > free and refit is not None:
            state, beliefs = _on_more_counts(base, free, refit)
        allowed = np.array([c.nodes <= free for c in beliefs.configurations])
        condition = Condition(topic="nodes", change=change, state=state, beliefs=beliefs, allowed=allowed)
        best = condition.best(base) if allowed.any() else None
        if best is None:
            yield WhatIf(topic="nodes", change=change, note=f"not measured: no training on {_nodes(free)}")
        else:
            yield condition.row(base, best, _note(base, condition, best, "needs more nodes"))
    # A job on one node may not be able to use more.
    if refit is None or most == 1 or not isinstance(base.beliefs.predictor.seconds, SecondsModel):
        return
    state, beliefs = _on_more_counts(base, 2 * most, refit)
    if all(c.nodes <= most for c in beliefs.configurations):
        return
    change = f"{_nodes(2 * most)} are free (twice as many)"
    # Only what needs the additional nodes may replace the recommendation: without them, nothing else changes.
    allowed = np.array([c.nodes > most or c == base.choice for c in beliefs.configurations])
    condition = Condition(topic="nodes", change=change, state=state, beliefs=beliefs, allowed=allowed)
    best = condition.best(base)
    if best is not None:
        note = _note(base, condition, best)
        yield condition.row(base, best, f"{note}; {2 * most} nodes are beyond those of the job")


def _on_more_counts(base: Base, num_nodes: int, refit: Refit) -> tuple[SearchState, Beliefs]:
    """Forecasts the candidates, and the same candidates on another number of nodes.

    Only the candidates with the nearest number of nodes are used for the other number.
    """
    state, counts = base.state, {c.nodes for c in base.beliefs.configurations}
    if not isinstance(base.beliefs.predictor.seconds, SecondsModel):
        return state, base.beliefs
    stated = tuple(sorted({*state.cluster.node_counts, num_nodes}))
    section = state.job.cluster.model_copy(update={"nodes": stated})
    job = state.job.model_copy(update={"cluster": section})
    cluster = replace(state.cluster, node_counts=stated)
    state = replace(state, job=job, cluster=cluster)
    nearest = min(counts, key=lambda count: abs(math.log(count / num_nodes)))
    configurations = base.shortlist(MOST_REFITTED // 2)
    moved = [c.replaced(nodes=num_nodes) for c in base.shortlist(MOST_REFITTED // 2, nearest)]
    possible = [c for c in moved if not any(f.reason_against(c) for f in state.space.conditions)]
    return state, refit(state, list(dict.fromkeys([*configurations, *possible])))


def _price_rows(base: Base) -> Iterator[WhatIf]:
    """Yields what is best if nodes cost more or less."""
    cluster, goal = base.state.cluster, base.state.job.goal
    if not cluster.has_prices:
        return
    machine = base.choice.get("machine")
    several = machine is not None and len(cluster.machines) > 1
    name = f"a {machine} node" if several else "a node"
    matters = goal.max_dollars is not None or (several and goal.minimize == "dollars")

    def condition(factor: float, words: str) -> Condition:
        priced = _priced(cluster, factor, str(machine) if several else None)
        return Condition(
            topic="price",
            change=words,
            state=replace(base.state, cluster=priced),
            beliefs=base.beliefs,
        )

    if not matters:
        why = (
            "the goal is time alone"
            if goal.minimize == "seconds"
            else "all configurations cost twice as much"
        )
        same = condition(2.0, f"an hour of {name} costs twice as much")
        yield same.row(base, base.index, f"same: {why}")
        return
    for sign, words in ((1.0, "more"), (-1.0, "less")):

        def made(factor: float, sign: float = sign, words: str = words) -> Condition:
            return condition(factor**sign, f"an hour of {name} costs {factor:g} times {words}")

        found, best, factor = first_change(base, made, _FACTORS)
        row = found.row(base, best, _note(base, found, best))
        yield up_to(row, factor) if row.is_same else row


def _priced(cluster: Cluster, factor: float, machine: str | None) -> Cluster:
    """Returns the cluster with other prices, of one type of machine or of all nodes."""
    machines = {
        name: replace(m, dollars_per_hour=m.dollars_per_hour * factor) if machine in (None, name) else m
        for name, m in cluster.machines.items()
    }
    return replace(cluster, dollars_per_node_hour=cluster.dollars_per_node_hour * factor, machines=machines)


def _goal_rows(base: Base) -> Iterator[WhatIf]:
    """Yields what is best for the other goal: dollars (or node hours without prices) instead of seconds."""
    state, goal = base.state, base.state.job.goal
    priced = state.cluster.has_prices
    if not priced and max(c.nodes for c in base.beliefs.configurations) == 1:
        return
    other = "dollars" if goal.minimize == "seconds" else "seconds"
    words = "the goal is the shortest time instead of the lowest cost"
    if other == "dollars":
        cost = "lowest cost" if priced else "fewest node hours"
        words = f"the goal is the {cost} instead of the shortest time"
    job = state.job.model_copy(update={"goal": goal.model_copy(update={"minimize": other})})
    cluster = state.cluster
    if not priced:
        one = {name: replace(m, dollars_per_hour=1.0) for name, m in cluster.machines.items()}
        cluster = replace(cluster, dollars_per_node_hour=1.0, machines=one)
    condition = Condition(
        topic="goal",
        change=words,
        state=replace(state, job=job, cluster=cluster),
        beliefs=base.beliefs,
    )
    best = condition.best(base)
    if best is not None:
        shown = replace(state, job=job)
        note = _note(base, condition, best, shown_in=shown)
        yield condition.row(base, best, note, shown_in=shown)


def _limit_rows(base: Base) -> Iterator[WhatIf]:
    """Yields what is best with other limits of the time and the dollars of one training."""
    state, goal = base.state, base.state.job.goal
    priced, own = state.cluster.has_prices, base.median_seconds
    dollars = own * state.cluster.dollars_per_second(base.choice)
    kinds: list[tuple[str, str, float | None, float, Callable[[float], str]]] = [
        ("deadline", "deadline", goal.deadline, own, format_seconds),
        ("dollars", "max_dollars", goal.max_dollars, dollars, format_dollars),
    ]
    for topic, key, stated, predicted, shown in kinds:
        if (topic == "dollars" and not priced) or not 0.0 < predicted < math.inf:
            continue
        factors = _LIMIT_FACTORS if stated is not None else _LIMIT_FACTORS[:1]
        of = "the limit of the job" if stated is not None else "the predicted value"
        for factor, words in factors:
            limit = factor * (predicted if stated is None else stated)
            job = state.job.model_copy(update={"goal": goal.model_copy(update={key: limit})})
            name = "a training may take" if topic == "deadline" else "a training may cost"
            condition = Condition(
                topic=topic,
                change=f"{name} at most {shown(limit)} ({words} {of})",
                state=replace(state, job=job),
                beliefs=base.beliefs,
            )
            best = condition.best(base)
            if best is None:
                continue
            reached = 1.0 - float(condition.beliefs.forecast.never[:, best].mean())
            chance = min(float(condition.keeps()[best]), reached)
            note = _note(base, condition, best, "would exceed it")
            if chance < 0.5:
                note = "no configuration is likely to keep this limit"
            yield condition.row(base, best, f"{note}; chance of keeping it {format_chance(chance)}")


def _note(
    base: Base, condition: Condition, best: int, reason: str = "", *, shown_in: SearchState | None = None
) -> str:
    """Says that the answer stays the same, or how the recommended configuration compares.

    Args:
        base: The recommendation.
        condition: The condition.
        best: Index of the best candidate under the condition.
        reason: Why the recommended configuration is not possible under the condition, if it is not.
        shown_in: State with the prices to show; by default, that of the condition.
    """
    configurations = condition.beliefs.configurations
    if configurations[best] == base.choice:
        return "same"
    own = configurations.index(base.choice) if base.choice in configurations else None
    if own is None or (condition.allowed is not None and not condition.allowed[own]):
        return f"the recommended configuration {reason}"
    if reason and condition.keeps()[own] < 0.5:
        return f"the recommended configuration {reason}"
    found = condition.row(base, own, shown_in=shown_in)
    assert found.seconds is not None
    words = format_seconds(found.seconds.median)
    if condition.state.job.goal.minimize == "dollars":
        words = f"{words} and {_cost(found)}"
    return f"the recommended configuration would take {words}"


def _cost(row: WhatIf) -> str:
    """Returns the dollars of a training in words, or its node hours if nodes have no price."""
    if row.dollars is not None:
        return format_dollars(row.dollars.median)
    assert row.node_hours is not None
    return format_node_hours(row.node_hours.median)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
