"""Costs of training each candidate for one more slice, on real ranks or on emulated ranks.

A slice is an uninterrupted part of a training. Emulated ranks belong to a cluster that exists only as a
description: their gradients are computed on this machine, and their training seconds by the step-time model.
So an emulated slice costs the time that this machine needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.analytic.laws import Array
from tuner.domain.cluster import Cluster
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Purpose
from tuner.search.prospects import Prospects
from tuner.search.state import SearchState

#: Prior of the seconds that emulation takes on this machine: per step of one replica (the model of one
#: emulated rank), and per sample.
_BEFOREHAND = np.array([1e-3, 5e-5])
#: Weight of this prior in the least-squares fit; the weight of a measured slice is 1.
_PRIOR_WEIGHT = 0.3
#: Each fitted value is at least this share of its prior.
_LEAST_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class ProbeCost:
    """Costs of training each candidate for one more slice, in the goal's unit (seconds or dollars).

    Args:
        price: Cost of one charged second of each candidate, `(num,)`.
        per_second: Cost of one training second of each candidate, with evaluation and checkpoints, `(num,)`.
        per_slice: Cost of each candidate's next slice that does not depend on its length, such as start-up,
            `(num,)`.
        startup: Seconds from the start of a slice to its first step.
    """

    price: Array
    per_second: Array
    per_slice: Array
    startup: float


def probe_cost(state: SearchState, prospects: Prospects, price: Array) -> ProbeCost:
    """Computes what it costs to train each candidate for one more slice.

    Real ranks use their nodes while they train and evaluate. Emulated ranks use only this machine, one second
    of which is priced like one second of the cheapest candidate.

    Args:
        state: State of the search.
        prospects: Forecasts of the time to target of every candidate configuration.
        price: Cost of one second on each candidate's nodes, in the goal's unit, `(num,)`.
    """
    startup = state.slice_seconds if state.terms.pays_to_resume else state.startup_seconds
    charged = np.full(len(price), state.overhead)
    emulated = np.array([state.cluster.emulates(c) for c in prospects.configurations], dtype=bool)
    if emulated.any():
        per_sample = emulated_seconds_per_sample(prospects.configurations, state.probes, state.cluster)
        charged = np.where(emulated, per_sample / prospects.seconds_per_sample, charged)
        price = np.where(emulated, price.min(), price)
    per_slice = np.full(len(price), startup)
    if state.terms.reuses_ranks:
        seen = max((state.cluster.num_ranks(m.configuration.nodes) for m in state.slices), default=0)
        ranks = np.array([state.cluster.num_ranks(c.nodes) for c in prospects.configurations])
        per_slice = np.where(~emulated & (ranks > seen), state.more_ranks_seconds, per_slice)
    is_free = prospects.status.started & (not state.terms.pays_to_resume)
    return ProbeCost(
        price=price,
        per_second=charged * price,
        per_slice=np.where(is_free, 0.0, per_slice) * price,
        startup=startup,
    )


def emulated_seconds_per_sample(
    configurations: Sequence[Configuration], probes: Sequence[ProbeRecord], cluster: Cluster
) -> Array:
    """Predicts how long this machine takes per sample to emulate each configuration, in seconds, `(num,)`.

    The seconds of a slice are modeled as a sum of two terms, proportional to the number of replica steps and
    to the number of samples. (A replica is the model of one emulated rank.) Both factors are fitted to the
    emulated slices by least squares of the relative errors, with a prior. Strategies in which all ranks have
    the same model parameters have factors of their own, because one replica emulates all ranks.

    Args:
        configurations: The configurations.
        probes: All trainings of the search, with their measured slices.
        cluster: The emulated cluster.
    """
    rows: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for probe in probes:
        before = 0
        for measurement in probe.slices:
            held = measurement.charged_seconds - measurement.startup_seconds
            samples = measurement.samples - before
            before = measurement.samples
            if measurement.emulated and samples > 0 and held > 0 and probe.purpose is not Purpose.TIMING:
                steps = _steps(probe.configuration, cluster, samples)
                rows[_is_common(probe.configuration)].append((steps / held, samples / held))
    separate = _solved(rows[False], _BEFOREHAND)
    costs = {False: separate, True: _solved(rows[True], separate)}
    return np.array([costs[_is_common(c)] @ (_steps(c, cluster, 1), 1.0) for c in configurations])


def _is_common(configuration: Configuration) -> bool:
    return not traits_of(configuration.strategy).statistics_depend_on_nodes


def _steps(configuration: Configuration, cluster: Cluster, samples: float) -> float:
    """Returns how many optimizer steps all emulated replicas together make to process some samples."""
    replicas = 1 if _is_common(configuration) else cluster.num_ranks(configuration.nodes)
    return samples / configuration.batch_size * replicas


def _solved(rows: Sequence[tuple[float, float]], prior: Array) -> Array:
    assumed = np.diag(_PRIOR_WEIGHT / prior)
    left = np.concatenate([np.array(rows, dtype=float).reshape(-1, 2), assumed])
    right = np.concatenate([np.ones(len(rows)), np.full(2, _PRIOR_WEIGHT)])
    found, *_ = np.linalg.lstsq(left * prior, right, rcond=None)
    return np.asarray(np.maximum(found, _LEAST_SHARE) * prior, dtype=float)
