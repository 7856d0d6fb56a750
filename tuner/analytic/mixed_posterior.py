"""Mixture of posteriors: one law fitted under several priors, weighted by their evidence.

Past studies give a second prior of the unknowns, and runs that the user imported for this job a third one.
The value of a study counts as one more observation of the unknown, with the uncertainty of that study plus
the spread between jobs. The neutral prior stays in the mixture, so that wrong information costs little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import IntArray, Kernel, Law, Parameter, Posterior, Slopes, fit

#: Prior probability of the prior from past studies: with a study of the same workload, data and hardware, and
#: without one. With 0.5 for the latter, searches of 71 synthetic scripts spent 5% more after five studies of
#: dissimilar jobs, and 4% less after five of similar jobs (standard error 2%). With 0.1, they spent 1% and 2%
#: less.
_BEFORE_ALIKE, _BEFORE_OTHERS = 0.5, 0.1
#: The same for imported runs. From 0.3 to 0.85, with a spread of 0.15 to 0.5, the cost of searches of 120
#: synthetic scripts differs by 2 to 3%, with runs of similar and of other scripts.
_BEFORE_IMPORTED = 0.5
#: Names of the priors.
NEUTRAL, PAST_STUDIES, IMPORTED_RUNS = "neutral", "past studies", "imported runs"


@dataclass(frozen=True, kw_only=True)
class MixedPosterior:
    """Several posteriors of one law, weighted by the evidence and the prior probability of their priors.

    Predictions have the mean and covariance of the mixture, and are treated as normal.

    Args:
        parts: One posterior for each prior, the neutral one first.
        names: Names of the priors.
        before: Prior probability of each prior; sums to 1.
    """

    parts: tuple[Posterior, ...]
    names: tuple[str, ...]
    before: tuple[float, ...] = (1.0,)

    @property
    def weights(self) -> Array:
        """Probability of each prior, `(num_parts,)`."""
        logs = np.array([part.log_evidence for part in self.parts]) + np.log(self.before)
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum(), dtype=float)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The unknowns with their neutral priors."""
        return self.parts[0].parameters

    @property
    def theta(self) -> Array:
        """Means of the unknowns, `(num_parameters,)`."""
        return np.asarray(self.weights @ np.stack([part.theta for part in self.parts]), dtype=float)

    @property
    def theta_sd(self) -> Array:
        """Standard deviations of the unknowns, `(num_parameters,)`."""
        squares = np.stack([part.theta_sd**2 + (part.theta - self.theta) ** 2 for part in self.parts])
        return np.asarray(np.sqrt(self.weights @ squares), dtype=float)

    @property
    def rms(self) -> float:
        """Root mean square of the observations' misfit."""
        return float(self.weights @ np.array([part.rms for part in self.parts]))

    def predict(
        self, inputs: Array, *, observed: IntArray | None = None, own_variance: float = 0.0
    ) -> tuple[Array, Array]:
        """See `Posterior.predict`."""
        found = [p.predict(inputs, observed=observed, own_variance=own_variance) for p in self.parts]
        mean = sum(weight * own for weight, (own, _) in zip(self.weights, found, strict=True))
        covariance = sum(
            weight * (spread + np.outer(own - mean, own - mean))
            for weight, (own, spread) in zip(self.weights, found, strict=True)
        )
        return np.asarray(mean), np.asarray(covariance)

    def moved(self, unknowns: Sequence[str], change: float) -> MixedPosterior:
        """The posterior with some unknowns changed; the fitted residual stays.

        Args:
            unknowns: Names of the unknowns to change.
            change: Added to each, in the scale of the law.
        """
        added = change * np.array([parameter.name in unknowns for parameter in self.parameters])
        return replace(self, parts=tuple(replace(part, theta=part.theta + added) for part in self.parts))

    def parameter_values(self) -> dict[str, tuple[float, float]]:
        """Means and standard deviations of the unknowns, by name."""
        values = zip(self.parameters, self.theta, self.theta_sd, strict=True)
        return {parameter.name: (float(value), float(sd)) for parameter, value, sd in values}

    def findings(self) -> dict[str, object]:
        """Convergence and misfit of the fits, and the weights of the priors if there are several."""
        found = {
            "converged": all(part.converged for part in self.parts),
            "rms": self.rms,
            "at_prior": self.at_prior(),
        }
        return {**found, "priors": self.weights_by_name()} if len(self.parts) > 1 else found

    def weights_by_name(self) -> dict[str, float]:
        """The weight of each prior, by its name."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def sentences(self) -> list[str]:
        """Sentences about the weights of the priors and the unknowns that are not determined yet."""
        weights = [
            f"What {_FOUND[name]} counts with {weight:.0%}, {_REMAINDER[len(self.parts) > 2]}. Before the "
            f"first run it counted with {before:.0%}; this job's runs changed the weight by how well each "
            "prior predicted them."
            for name, weight, before in zip(self.names[1:], self.weights[1:], self.before[1:], strict=True)
        ]
        return weights + unknown_sentences([name.removeprefix("log ") for name in self.at_prior()])

    def at_prior(self) -> list[str]:
        """Names of the unknowns that the observations do not determine, under any prior."""
        found = [set(part.at_prior()) for part in self.parts]
        return [p.name for p in self.parameters if all(p.name in names for names in found)]


#: Words for the source of a prior, and for the remaining weight with two and with more priors.
_FOUND = {
    PAST_STUDIES: "past studies in this database found",
    IMPORTED_RUNS: "the imported runs show",
}
_REMAINDER = ("a neutral prior with the rest", "the other priors with the rest")


def weights_sentence(weights: Mapping[str, float]) -> str:
    """A sentence with the weights of priors, by name."""
    stated = ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items())
    return f"Weights of the priors, by how well they predicted: {stated}."


def unknown_sentences(names: Sequence[str]) -> list[str]:
    """A sentence about unknowns that the observations do not determine; none if there are none."""
    found = ", ".join(shown_name(name) for name in names)
    return [f"Not determined by the data yet, so left at the prior: {found}."] if names else []


def shown_name(name: str) -> str:
    """The name of an unknown in messages; studies store some under an older name."""
    return name.replace("ranks apart", "asynchronous ranks").replace("apart", "asynchronous")


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
    """Fits a law with the neutral prior, and with the priors from past studies and imported runs, if any.

    Args:
        law: The law.
        parameters: The unknowns with their neutral priors, `(num_parameters,)`.
        past: Values of the unknowns from past studies and imported runs.
        residual: Kernel of the residual.
        inputs: `(num_points, num_features)`; may be empty.
        observations: `(num_points,)`.
        noise_sd: Standard deviation of each observation, above 0, `(num_points,)`.
        slopes: Derivatives of the law; see `fit`.
        start: Initial theta of the neutral fit, `(num_parameters,)`.
        tolerance: Tolerance of the fits; see `fit`.
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


#: Standard deviation of an unknown between studies, in units of the neutral prior's: between studies of the
#: same workload, data and hardware, and between other studies. Both are assumptions.
_BETWEEN_ALIKE, _BETWEEN_JOBS = 0.1, 0.5
#: The same for runs that the user imported.
_BETWEEN_IMPORTED = 0.5


@dataclass(frozen=True, kw_only=True)
class PastValue:
    """The value of an unknown in one past study.

    Args:
        mean: Posterior mean, in the scale of the law.
        sd: Posterior standard deviation, above 0.
        is_alike: Whether the study was of the same workload, data and hardware.
        is_imported: Whether the value is from runs that were imported for this job.
    """

    mean: float
    sd: float
    is_alike: bool = False
    is_imported: bool = False

    @property
    def between(self) -> float:
        """Standard deviation between that job and this one, in units of the neutral prior's."""
        if self.is_imported:
            return _BETWEEN_IMPORTED
        return _BETWEEN_ALIKE if self.is_alike else _BETWEEN_JOBS


PastLaw = Mapping[str, Sequence[PastValue]]
"""Values of unknowns in past studies, by name of the unknown."""


def informed(parameters: Sequence[Parameter], past: PastLaw) -> tuple[Parameter, ...] | None:
    """The unknowns with priors from past studies; None if these contain none of the unknowns.

    Args:
        parameters: The unknowns with their neutral priors.
        past: Values from past studies.
    """
    if not any(past.get(parameter.name) for parameter in parameters):
        return None
    return tuple(_informed(parameter, past.get(parameter.name, ())) for parameter in parameters)


def _informed(parameter: Parameter, stated: Sequence[PastValue]) -> Parameter:
    """The precision-weighted mean of the neutral prior and the studies, at least as wide as jobs differ."""
    if not stated:
        return parameter
    between = [parameter.sd * t.between for t in stated]
    precisions = [(t.sd**2 + b**2) ** -1 for t, b in zip(stated, between, strict=True)]
    own = parameter.sd**-2
    total = sum(precisions) + own
    mean = sum(p * t.mean for p, t in zip(precisions, stated, strict=True)) + own * parameter.mean
    return replace(parameter, mean=mean / total, sd=min(parameter.sd, math.hypot(min(between), total**-0.5)))
