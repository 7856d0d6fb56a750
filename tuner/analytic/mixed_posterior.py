"""Fits one cost model under several priors of its parameters, and weights the results.

A cost model (law; see `tuner.analytic.regression`) is a formula with fitted parameters. It has up to three
priors of its parameters:

- the neutral prior, which always has a part of the weight, so misleading past studies do little harm;
- a prior from past studies (earlier tunings by Paceline) in the database;
- a prior from runs that the user imported for this job.

The weight of a prior grows with how well it predicts the measurements. A prior from past studies treats the
value of a parameter in each study as one observation of the parameter. The variance of this observation is
the posterior variance in that study plus an assumed variance between jobs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import IntArray, Kernel, Law, Parameter, Posterior, Slopes, fit

#: Probability of the prior from past studies before the first observation. The first value applies if one of
#: the studies has the same workload, data and hardware as the job, the second value if none has. The second
#: value was chosen by searches of 71 synthetic scripts, in cost relative to searches without past studies
#: (standard error 2%). With 0.5, the cost was 5% higher after five studies of dissimilar jobs, and 4% lower
#: after five studies of similar jobs. With 0.1, it was 1% lower and 2% lower.
_BEFORE_ALIKE, _BEFORE_OTHERS = 0.5, 0.1
#: Probability of the prior from imported runs before the first observation. The value matters little: from
#: 0.3 to 0.85, and with `_BETWEEN_IMPORTED` from 0.15 to 0.5, the cost of searches of 120 synthetic scripts
#: differs by 2 to 3%, both with imported runs of similar scripts and with those of other scripts.
_BEFORE_IMPORTED = 0.5
#: Names of the priors.
NEUTRAL, PAST_STUDIES, IMPORTED_RUNS = "neutral", "past studies", "imported runs"


@dataclass(frozen=True, kw_only=True)
class MixedPosterior:
    """A weighted mixture of fits of the same cost model under different priors of its parameters.

    The weight of a fit is proportional to the evidence of its prior (marginal likelihood) times the prior's
    own probability. Predictions have the mean and covariance of the mixture, and are treated as normal.

    Args:
        parts: The fit under each prior; the first one has the neutral prior, which uses no past runs.
        names: Name of the prior of each part.
        before: Probability of each prior before the first observation; the probabilities add up to 1.
    """

    parts: tuple[Posterior, ...]
    names: tuple[str, ...]
    before: tuple[float, ...] = (1.0,)

    @property
    def weights(self) -> Array:
        """Posterior probability of each prior, `(num_parts,)`."""
        logs = np.array([part.log_evidence for part in self.parts]) + np.log(self.before)
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum(), dtype=float)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of the cost model, with their neutral priors."""
        return self.parts[0].parameters

    @property
    def theta(self) -> Array:
        """Posterior means of the parameters, `(num_parameters,)`."""
        return np.asarray(self.weights @ np.stack([part.theta for part in self.parts]), dtype=float)

    @property
    def theta_sd(self) -> Array:
        """Posterior standard deviations of the parameters, `(num_parameters,)`."""
        squares = np.stack([part.theta_sd**2 + (part.theta - self.theta) ** 2 for part in self.parts])
        return np.asarray(np.sqrt(self.weights @ squares), dtype=float)

    @property
    def rms(self) -> float:
        """Root mean square of the differences between observations and the model's predictions."""
        return float(self.weights @ np.array([part.rms for part in self.parts]))

    def predict(
        self, inputs: Array, *, observed: IntArray | None = None, own_variance: float = 0.0
    ) -> tuple[Array, Array]:
        """Predicts with all fits and combines them; returns mean `(num,)` and covariance `(num, num)`.

        The arguments are those of `Posterior.predict`.
        """
        found = [p.predict(inputs, observed=observed, own_variance=own_variance) for p in self.parts]
        mean = sum(weight * own for weight, (own, _) in zip(self.weights, found, strict=True))
        covariance = sum(
            weight * (spread + np.outer(own - mean, own - mean))
            for weight, (own, spread) in zip(self.weights, found, strict=True)
        )
        return np.asarray(mean), np.asarray(covariance)

    def moved(self, unknowns: Sequence[str], change: float) -> MixedPosterior:
        """Returns a copy in which a constant is added to some parameters of the cost model.

        The fitted residual (the smooth deviation from the model) stays the same.

        Args:
            unknowns: Names of the parameters to which the constant is added.
            change: The constant, on the scale on which the model uses the parameters (often a logarithm).
            logarithm).
        """
        added = change * np.array([parameter.name in unknowns for parameter in self.parameters])
        return replace(self, parts=tuple(replace(part, theta=part.theta + added) for part in self.parts))

    def parameter_values(self) -> dict[str, tuple[float, float]]:
        """Returns the posterior mean and standard deviation of each parameter; the keys are the names."""
        values = zip(self.parameters, self.theta, self.theta_sd, strict=True)
        return {parameter.name: (float(value), float(sd)) for parameter, value, sd in values}

    def findings(self) -> dict[str, object]:
        """Returns facts about the fit that are stored with a study.

        They are: whether the fit converged, its root mean square error, the parameters that the observations
        do not determine, and, if there are several priors, the weights of the priors.
        """
        found = {
            "converged": all(part.converged for part in self.parts),
            "rms": self.rms,
            "at_prior": self.at_prior(),
        }
        return {**found, "priors": self.weights_by_name()} if len(self.parts) > 1 else found

    def weights_by_name(self) -> dict[str, float]:
        """Returns the posterior probability of each prior; the keys are the names of the priors."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def sentences(self) -> list[str]:
        """Returns sentences for the user: weights of the priors, and parameters that are still unknown."""
        weights = [
            f"In the predictions, the prior from {_FOUND[name]} has a weight of {weight:.0%}, and "
            f"{_REMAINDER[len(self.parts) > 2]} the remaining weight. "
            f"Before the first run, its weight was {before:.0%}. The weight changed because the priors "
            "predicted the runs of this job differently well."
            for name, weight, before in zip(self.names[1:], self.weights[1:], self.before[1:], strict=True)
        ]
        return weights + unknown_sentences([name.removeprefix("log ") for name in self.at_prior()])

    def at_prior(self) -> list[str]:
        """Returns the names of the parameters that the observations hardly determine, under any prior."""
        found = [set(part.at_prior()) for part in self.parts]
        return [p.name for p in self.parameters if all(p.name in names for names in found)]


#: Words for messages: where a prior comes from; and who has the remaining weight, with two priors and with
#: more.
_FOUND = {
    PAST_STUDIES: "past studies in this database",
    IMPORTED_RUNS: "the imported runs",
}
_REMAINDER = ("a neutral prior has", "the other priors have")


def weights_sentence(weights: Mapping[str, float]) -> str:
    """Writes a sentence for the user that lists the weights of several priors.

    Args:
        weights: Maps the name of each prior to its weight.
    """
    stated = ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items())
    return f"Weights of the priors, which depend on how well each predicted the measurements: {stated}."


def unknown_sentences(names: Sequence[str]) -> list[str]:
    """Writes a sentence for the user that lists the parameters that the measurements do not determine.

    Without such parameters, the result is empty.

    Args:
        names: Names of these parameters.
    """
    found = ", ".join(shown_name(name) for name in names)
    return (
        [f"The measurements do not determine these parameters yet, so they keep their priors: {found}."]
        if names
        else []
    )


def shown_name(name: str) -> str:
    """Returns the name of a parameter for messages: "apart", as stored in databases, means asynchronous."""
    return name.replace("apart", "asynchronous")


def fit_mixed(
    law: Law,
    parameters: Sequence[Parameter],
    past: PastLaw,
    residual: Kernel,
    inputs: Array,
    observations: Array,
    noise_sd: Array,
    *,
    slopes: Slopes | None = None,
    start: Array | None = None,
    tolerance: float = 1e-7,
) -> MixedPosterior:
    """Fits a cost model under the neutral prior, and under priors from past studies and imported runs.

    Args:
        law: The cost model: a function that predicts the observations from parameters and inputs.
        parameters: The parameters with their neutral priors, `(num_parameters,)`.
        past: Values of the parameters in past studies and imported runs, from which the other priors follow;
            empty for the neutral prior only.
        residual: Covariance function of the residual, the smooth deviation of the observations from the
            model.
        inputs: Inputs of the observations, `(num_points, num_features)`; may be empty.
        observations: Observed values, `(num_points,)`.
        noise_sd: Standard deviation of the noise of each observation, above 0, `(num_points,)`.
        slopes: Function that returns the Jacobian of the law; see `fit`.
        start: Initial theta of the neutral fit, `(num_parameters,)`; None for the prior mean.
        tolerance: Tolerance of the search for theta; see `fit`.
    """

    def fitted(priors: Sequence[Parameter], first: Array | None) -> Posterior:
        observed = (inputs, observations, noise_sd)
        return fit(law, priors, residual, *observed, slopes=slopes, start=first, tolerance=tolerance)

    neutral = fitted(parameters, start)
    parts, names, before = [neutral], [NEUTRAL], [1.0]
    is_alike = any(value.is_alike and not value.is_imported for found in past.values() for value in found)
    for name, weight in (
        (PAST_STUDIES, _BEFORE_ALIKE if is_alike else _BEFORE_OTHERS),
        (IMPORTED_RUNS, _BEFORE_IMPORTED),
    ):
        own = {
            unknown: [value for value in found if value.is_imported == (name == IMPORTED_RUNS)]
            for unknown, found in past.items()
        }
        learnt = informed(parameters, own)
        if learnt is not None:
            parts.append(fitted(learnt, None if start is None else neutral.theta))
            names.append(name)
            before = [*(share * (1.0 - weight) for share in before), weight]
    return MixedPosterior(parts=tuple(parts), names=tuple(names), before=tuple(before))


#: Standard deviation of the difference between a parameter's value in a past study and in this job, as a
#: multiple of the neutral prior's standard deviation. The first value is for studies of the same workload,
#: data and hardware, the second for other studies. Both are assumptions.
_BETWEEN_ALIKE, _BETWEEN_JOBS = 0.1, 0.5
#: The same standard deviation between imported runs and this job.
_BETWEEN_IMPORTED = 0.5


@dataclass(frozen=True, kw_only=True)
class PastValue:
    """The value that a parameter of a cost model had in one past study.

    Args:
        mean: Posterior mean in that study, on the scale on which the model uses the parameter.
        sd: Posterior standard deviation in that study, above 0.
        is_alike: Whether the study had the same workload, data and hardware as this job.
        is_imported: Whether the value comes from runs that the user imported for this job.
    """

    mean: float
    sd: float
    is_alike: bool = False
    is_imported: bool = False

    @property
    def between(self) -> float:
        """Assumed difference between the value in that study and in this job, as a standard deviation.

        The unit is the standard deviation of the parameter's neutral prior.
        """
        if self.is_imported:
            return _BETWEEN_IMPORTED
        return _BETWEEN_ALIKE if self.is_alike else _BETWEEN_JOBS


PastLaw = Mapping[str, Sequence[PastValue]]
"""Maps the name of each parameter to its values in past studies and imported runs."""


def informed(parameters: Sequence[Parameter], past: PastLaw) -> tuple[Parameter, ...] | None:
    """Replaces the neutral priors of parameters by priors from past studies.

    Args:
        parameters: The parameters with their neutral priors.
        past: Values of the parameters in past studies.

    Returns:
        The parameters with the new priors; None if no study has a value of any of them.
    """
    if not any(past.get(parameter.name) for parameter in parameters):
        return None
    return tuple(_informed(parameter, past.get(parameter.name, ())) for parameter in parameters)


def _informed(parameter: Parameter, stated: Sequence[PastValue]) -> Parameter:
    """Combines the neutral prior of a parameter with its values in past studies to a new prior.

    The prior mean is the mean of the neutral prior and of the values, weighted by their precisions (inverse
    variances). The prior's standard deviation is at least the assumed standard deviation between jobs.
    """
    if not stated:
        return parameter
    between = [parameter.sd * t.between for t in stated]
    precisions = [(t.sd**2 + b**2) ** -1 for t, b in zip(stated, between, strict=True)]
    own = parameter.sd**-2
    total = sum(precisions) + own
    mean = sum(p * t.mean for p, t in zip(precisions, stated, strict=True)) + own * parameter.mean
    return replace(parameter, mean=mean / total, sd=min(parameter.sd, math.hypot(min(between), total**-0.5)))
