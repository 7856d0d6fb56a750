"""Picks without a single probe: the analytic model's, and the largest cluster at a linear learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.replay_beliefs import believed_beforehand
from benchmarks.replay_problem import Problem
from benchmarks.replay_search import ReplayedSearch
from benchmarks.replay_trace import Moment, Trace
from search_spaces import Configuration, traits_of

#: Named as samplers are.
STATIC, LARGEST = "static", "largest"


def static_pick(problem: Problem, prior: str) -> Configuration | None:
    """What the model recommends before anything was measured; None where it has nothing to say then."""
    return believed_beforehand(ReplayedSearch(problem).state(), prior)


def largest_pick(configurations: Sequence[Configuration], cores: dict[str, int], scope: str) -> Configuration:
    """As one would scale by hand: all the nodes there are, the batch and the rate grown with them.

    What is grown is the middle batch and the middle rate of the fewest nodes (Goyal et al. 2017: as many
    times the rate as samples a step). Of several machines the one with most cores, and with a barrier
    where there is one.

    Args:
        configurations: What there is.
        cores: Of one machine by its name.
        scope: Whether `batch_size` is one rank's (`rank`) or of all together (`global`).
    """
    fewest = min(c.nodes for c in configurations)
    small = [c for c in configurations if c.nodes == fewest]
    batch = _middle([c.batch_size for c in small])
    rate = _middle([c.learning_rate for c in small if c.batch_size == batch])
    most = max(c.nodes for c in configurations)
    grown = batch if scope == "rank" else batch * most / fewest

    def distance(c: Configuration) -> tuple[float, ...]:
        samples = c.batch_size / batch * (most / fewest if scope == "rank" else 1.0)
        return (
            -cores.get(str(c.get("machine")), 0),
            not traits_of(c.strategy).barrier,
            abs(math.log(c.batch_size / grown)),
            abs(math.log(c.learning_rate / (rate * samples))),
        )

    return min((c for c in configurations if c.nodes == most), key=distance)


def largest_of(problem: Problem) -> Configuration:
    """`largest_pick` among what was recorded."""
    recording = problem.recording
    cores = {name: machine.cores for name, machine in recording.machines.items()}
    return largest_pick(list(problem.costs), cores, recording.batch_size_scope)


def pick_trace(problem: Problem, pick: Configuration | None) -> Trace:
    """A search that knows its answer from the start, and trains it once where a training is asked for."""
    arrived_at = None
    if pick is not None and math.isfinite(problem.costs[pick]):
        startup = problem.recording.startup_seconds * problem.price(pick)
        arrived_at = problem.costs[pick] + startup
    return Trace(moments=(Moment(spent=0.0, recommended=pick),), arrived_at=arrived_at)


def _middle(values: Sequence[float]) -> float:
    distinct = sorted(set(values))
    return distinct[(len(distinct) - 1) // 2]
