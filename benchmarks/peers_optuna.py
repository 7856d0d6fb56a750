"""Peer: Optuna's TPE with successive halving whose first trial is the center of the space."""

from __future__ import annotations

from benchmarks.peers import center
from benchmarks.replay_optuna import OptunaReplay
from benchmarks.replay_problem import Problem


def peer(problem: Problem, name: str, seed: int) -> OptunaReplay:
    """`tpe-sha-center`.

    Args:
        problem: What is searched.
        name: `tpe-sha-center`.
        seed: Of the sampler.
    """
    return OptunaReplay(problem, name.removesuffix("-center"), seed, first=center(list(problem.costs)))
