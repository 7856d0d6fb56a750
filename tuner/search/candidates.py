"""Candidate configurations without duplicates, subsampled when there are too many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_spaces import Configuration, SearchSpace, traits_of
from tuner.domain.cluster import Cluster

_MOST_LEVELS = 800


def weighed_levels(space: SearchSpace, cluster: Cluster, rng: np.random.Generator) -> list[Configuration]:
    """Feasible levels of a space, each training once; a random subset if there are too many."""
    levels = distinct(space.candidates(), cluster)
    return levels if len(levels) <= _MOST_LEVELS else _thinned(levels, rng)


def distinct(levels: Sequence[Configuration], cluster: Cluster) -> list[Configuration]:
    """The levels without those that are another one's training by another name.

    One rank has no other to exchange with: every strategy but one with an outer step is plain SGD there,
    whatever its knobs. One of them remains: all-reduce if the space has it, since its curves then price
    more nodes too, else the first.
    """
    unique: dict[Configuration, Configuration] = {}
    for level in levels:
        key = level
        traits = traits_of(level.strategy)
        if cluster.num_ranks(level.nodes) == 1 and not traits.has_outer_step:
            key = level.without("strategy", *traits.knobs)
            known = unique.get(key)
            if known is not None and traits.statistics_depend_on_nodes:
                continue
        unique[key] = level
    return list(unique.values())


def _thinned(levels: Sequence[Configuration], rng: np.random.Generator) -> list[Configuration]:
    """A random subset, with equal shares for each strategy on each number of nodes where possible."""
    groups: dict[tuple[str, int], list[int]] = {}
    for i, level in enumerate(levels):
        groups.setdefault((level.strategy, level.nodes), []).append(i)
    if len({strategy for strategy, _ in groups}) == 1:
        chosen = rng.choice(len(levels), size=_MOST_LEVELS, replace=False)
        return [levels[i] for i in np.sort(chosen)]
    found: list[int] = []
    smallest_first = sorted(groups.values(), key=len)
    for place, members in enumerate(smallest_first):
        share = (_MOST_LEVELS - len(found)) // (len(smallest_first) - place)
        size = min(share, len(members))
        found.extend(members[i] for i in rng.choice(len(members), size=size, replace=False))
    return [levels[i] for i in sorted(found)]
