"""Cost of emulated runs on this machine: seconds for each step of a replica and for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.analytic.laws import Array
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Purpose
from tuner.ledger import ProbeRecord

#: What a step of one replica, and a sample in it, are taken to cost before anything was emulated, seconds; so
#: many measured slices outweigh it.
_BEFOREHAND = np.array([1e-3, 5e-5])
_PRIOR_WEIGHT = 0.3
#: Neither is ever taken for less than this share of it.
_LEAST_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class EmulationCost:
    """Seconds of this machine, separately for runs in which one replica stands for all ranks.

    Args:
        common: Of a step and of a sample where all ranks hold the same parameters, `(2,)`.
        separate: Of a step of one rank and of a sample where each has its own, `(2,)`.
    """

    common: Array
    separate: Array

    def seconds_per_sample(self, configuration: Configuration, cluster: Cluster) -> float:
        """Of a run with this configuration."""
        per_step, per_sample = self.common if _is_common(configuration) else self.separate
        return float(per_sample + per_step * _steps(configuration, cluster, 1))


def fit_emulation_cost(probes: Sequence[ProbeRecord], cluster: Cluster) -> EmulationCost:
    """Least squares of relative errors over all slices that trained; what was assumed keeps it bounded."""
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
    return EmulationCost(common=_solved(rows[True], separate), separate=separate)


def _is_common(configuration: Configuration) -> bool:
    return not traits_of(configuration.strategy).statistics_depend_on_nodes


def _steps(configuration: Configuration, cluster: Cluster, samples: float) -> float:
    """Steps of replicas in which so many samples are seen."""
    replicas = 1 if _is_common(configuration) else cluster.num_ranks(configuration.nodes)
    return samples / configuration.batch_size * replicas


def _solved(rows: Sequence[tuple[float, float]], prior: Array) -> Array:
    assumed = np.diag(_PRIOR_WEIGHT / prior)
    left = np.concatenate([np.array(rows, dtype=float).reshape(-1, 2), assumed])
    right = np.concatenate([np.ones(len(rows)), np.full(2, _PRIOR_WEIGHT)])
    found, *_ = np.linalg.lstsq(left * prior, right, rcond=None)
    return np.asarray(np.maximum(found, _LEAST_SHARE) * prior, dtype=float)
