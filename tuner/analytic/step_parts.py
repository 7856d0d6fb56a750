"""Divides predicted step times into parts, and predicts how they change if the links are faster or slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.analytic.quasi_random import NUM_DRAWS, shuffled_normals
from tuner.analytic.regression import Posterior
from tuner.analytic.step_law import StepLaw
from tuner.analytic.step_rows import steps_of
from tuner.analytic.step_time_model import SecondsModel

#: Parameters of the links between nodes. A faster link has a higher bandwidth and a lower latency.
BANDWIDTH, LATENCY = "log bandwidth (bytes/s)", "log hop latency (seconds)"
#: Change of the logarithm of a parameter that makes its effect negligible.
_NEGLIGIBLE = 60.0
_NO_COMMUNICATION = {
    BANDWIDTH: _NEGLIGIBLE,
    LATENCY: -_NEGLIGIBLE,
    "log bandwidth within node (bytes/s)": _NEGLIGIBLE,
    "log hop latency within node (seconds)": -_NEGLIGIBLE,
}


@dataclass(frozen=True, kw_only=True)
class StepShares:
    """Shares of the parts of predicted step times, which add up to 1; `num` is the number of configurations.

    Args:
        compute: Share of a rank's own compute, with its wait for input, `(num,)`.
        waiting: Share of waiting for the slowest rank, `(num,)`.
        communication: Share of communication between ranks that compute does not hide, `(num,)`.
    """

    compute: Array
    waiting: Array
    communication: Array


def step_shares(model: SecondsModel, configurations: Sequence[Configuration]) -> StepShares:
    """Divides the predicted step times of configurations into parts.

    The formula of step time is evaluated three times: for whole steps, without communication, and without
    both communication and differences between ranks. The differences are the parts.

    Args:
        model: The fitted step-time model.
        configurations: The configurations, `(num,)`.
    """
    part = model.posterior.parts[int(np.argmax(model.posterior.weights))]
    law, inputs = _law_of(part), steps_of(configurations, model.cluster).inputs()
    alone = replace(law, cluster=replace(law.cluster, delays=()))
    whole = np.exp(law(part.theta, inputs))
    quiet = np.exp(law(_moved(part, _NO_COMMUNICATION), inputs))
    own = np.exp(alone(_moved(part, {**_NO_COMMUNICATION, "log jitter": -_NEGLIGIBLE}), inputs))
    quiet = np.minimum(quiet, whole)
    own = np.minimum(own, quiet)
    return StepShares(
        compute=own / whole, waiting=(quiet - own) / whole, communication=(whole - quiet) / whole
    )


def log_change_draws(
    model: SecondsModel,
    configurations: Sequence[Configuration],
    changes: Mapping[str, float],
    rng: np.random.Generator,
) -> Array:
    """Predicts how step times change if parameters of the formula change, `(NUM_DRAWS, num)`.

    The result has posterior samples of the change of the logarithm of seconds, jointly for all
    configurations. The formula is linearized around the fitted parameters, as in the fit. The fitted residual
    stays the same.

    Args:
        model: The fitted step-time model.
        configurations: The configurations, `(num,)`.
        changes: Maps the name of each parameter that changes to the change of its value.
        rng: Random generator of the posterior samples.
    """
    places: dict[Configuration, int] = {}
    timed_as = [places.setdefault(c.without("learning_rate"), len(places)) for c in configurations]
    inputs = steps_of(list(places), model.cluster).inputs()
    posterior, found, first = model.posterior, np.zeros((NUM_DRAWS, len(places))), 0
    normals = shuffled_normals(rng, len(posterior.parameters))
    for part, end in zip(posterior.parts, np.cumsum(posterior.weights), strict=True):
        rows = slice(first, round(float(end) * NUM_DRAWS))
        first = rows.stop
        law, theta = _law_of(part), _moved(part, changes)
        change = law(theta, inputs) - law(part.theta, inputs)
        slopes = law.slopes(theta, inputs) - law.slopes(part.theta, inputs)
        prior = np.array([p.sd**2 for p in part.parameters])
        cross = part.jacobian * prior
        covariance = np.diag(prior) - cross.T @ part.precision @ cross
        values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
        deviations = normals[rows] @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        found[rows] = change + deviations @ slopes.T
    return np.asarray(found[:, timed_as], dtype=float)


def _law_of(part: Posterior) -> StepLaw:
    assert isinstance(part.law, StepLaw), "the step-time model is fitted with the formula of step time"
    return part.law


def _moved(part: Posterior, changes: Mapping[str, float]) -> Array:
    """Returns the fitted parameters with a constant added to some of them."""
    return np.asarray(part.theta + np.array([changes.get(p.name, 0.0) for p in part.parameters]), dtype=float)
