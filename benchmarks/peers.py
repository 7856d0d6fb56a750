"""Peers of the bank: other search methods on the same recorded prober, charged alike.

Each trains with rungs of equal cost, recommends the cheapest configuration that was seen to arrive, and stops
a run that costs more than that one. `tpe-sha-center` needs nothing but Optuna. The others need the extra
`peers` and Syne Tune 0.13, the last version with DyHPO and MOBSTER. It asks for NumPy 1, and runs with 2:

    pip install -e '.[peers]' && pip install --no-deps syne-tune==0.13.0
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from benchmarks.replay_problem import Problem
from benchmarks.replay_trace import Trace
from search_spaces import Configuration

_SYNE_TUNE = ("syne_tune", "autograd", "dill", "pandas", "sortedcontainers")
#: Names of peers: the module that runs them, and the packages that it needs.
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tpe-sha-center": ("benchmarks.peers_optuna", ()),
    **dict.fromkeys(("dyhpo", "mobster", "asha"), ("benchmarks.peers_syne_tune", _SYNE_TUNE)),
    "hyperband": ("benchmarks.peers_smac", ("smac", "ConfigSpace")),
}


class Peer(Protocol):
    """One search."""

    def run(self, limit: float) -> Trace:
        """Searches until everything was tried, the limit is spent, or a training arrived where one is asked.

        Args:
            limit: In units of the best configuration's own cost.
        """


def missing(name: str) -> str | None:
    """Why a peer cannot run here, in words; None if it can."""
    _, packages = PEERS[name]
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if not absent:
        return None
    return f"{name} is skipped: {', '.join(absent)} cannot be imported; see benchmarks/peers.py"


def peer(problem: Problem, name: str, seed: int) -> Peer:
    """A search with a peer.

    Args:
        problem: What is searched.
        name: One of `PEERS`, whose packages are installed.
        seed: Of the search.
    """
    module, _ = PEERS[name]
    make: Callable[[Problem, str, int], Peer] = importlib.import_module(module).peer
    return make(problem, name, seed)


def center(configurations: Sequence[Configuration]) -> Configuration:
    """The configuration nearest to the middle of the space.

    Each numeric axis counts by the rank of its value among the distinct ones, from 0 to 1; the distance is
    the sum of the differences to 1/2. Other axes do not count. Of equally near ones the first is taken.
    """
    axes = {axis for c in configurations for axis, value in c.items() if _is_number(value)}
    ranks = {axis: sorted({c[axis] for c in configurations if axis in c}) for axis in axes}

    def distance(c: Configuration) -> float:
        return sum(
            abs(values.index(c[axis]) / (len(values) - 1) - 0.5)
            for axis, values in sorted(ranks.items())
            if axis in c and len(values) > 1
        )

    return min(configurations, key=distance)


def first_unit(problem: Problem) -> float:
    """First rung of equal cost, in the goal's unit, for a method that learns from scores.

    It is the first score or one start-up of the median configuration, whichever costs more.
    """
    recording = problem.recording
    scored = [
        recording.run(c).curve[0, 0] * problem.price(c) for c in problem.costs if len(recording.run(c).curve)
    ]
    startup = recording.startup_seconds * float(np.median([problem.price(c) for c in problem.costs]))
    return max(float(np.median(scored)), startup)


def rung_costs(problem: Problem, unit: float, growth: float) -> list[float]:
    """Costs of the rungs: the unit times powers of a factor, up to the costliest recorded run."""
    longest = max(problem.recording.run(c).seconds * problem.price(c) for c in problem.costs)
    num = 1 + max(1, math.ceil(math.log(max(longest / unit, 1.0)) / math.log(growth)))
    return [unit * growth**k for k in range(num)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
