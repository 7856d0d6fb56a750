"""Posteriors of one law under several priors, mixed by how well each prior predicted the observations.

Past studies give a second prior of the unknowns, and runs that the user imported for this job a third one.
Each study's value counts as one more observation of the unknown, with the uncertainty of that study and the
spread between jobs. The neutral prior stays in the mixture, so a wrong past costs little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import IntArray, Kernel, Law, Parameter, Posterior, Slopes, fit

#: Probability of the past's prior before any observation: if a study of the same workload, data and hardware
#: is in it, and if none is. With a half for others, searches of 71 made scripts spent 5% more after five
#: studies of jobs whose best settings are far from theirs, and 4% less after five of jobs with near ones
#: (standard error 2%). With a tenth, they spent 1% and 2% less.
_BEFORE_ALIKE, _BEFORE_OTHERS = 0.5, 0.1
#: The same of runs that the user imported for this job. From 0.3 to 0.85, with a spread from 0.15 to
#: 0.5, searches of 120 made scripts cost the same within 2 to 3%, with runs of similar and of other scripts.
_BEFORE_IMPORTED = 0.5
#: Names of the priors.
NEUTRAL, PAST_STUDIES, IMPORTED_RUNS = "neutral", "past studies", "imported runs"


@dataclass(frozen=True, kw_only=True)
class MixedPosterior:
    """Several posteriors, by the evidence of their priors and what each was worth before any observation.

    Mean and covariance of predictions are the mixture's own; its shape is taken for normal.

    Args:
        parts: One for each prior, the neutral one first.
        names: What to call the priors.
        before: Probability of each prior before any observation, in the same order; sums to 1.
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
        """The posterior of a law some of whose unknowns differ; what the residual learnt stays.

        Args:
            unknowns: Their names.
            change: What is added to each, in the scale the law takes.
        """
        added = change * np.array([parameter.name in unknowns for parameter in self.parameters])
        return replace(self, parts=tuple(replace(part, theta=part.theta + added) for part in self.parts))

    def parameter_values(self) -> dict[str, tuple[float, float]]:
        """Means and standard deviations of the unknowns, by name."""
        values = zip(self.parameters, self.theta, self.theta_sd, strict=True)
        return {parameter.name: (float(value), float(sd)) for parameter, value, sd in values}

    def findings(self) -> dict[str, object]:
        """Whether and how well the fits converged, and the weights of several priors."""
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
        """How several priors are weighted, and what is still unknown, in words."""
        weights = [
            f"What {_FOUND[name]} counts with {weight:.0%}, {_REMAINDER[len(self.parts) > 2]}. Before the "
            f"first run it counted with {before:.0%}; how well each prior predicted the runs of this job has "
            "changed that."
            for name, weight, before in zip(self.names[1:], self.weights[1:], self.before[1:], strict=True)
        ]
        return weights + unknown_sentences([name.removeprefix("log ") for name in self.at_prior()])

    def at_prior(self) -> list[str]:
        """Names of the unknowns that the observations left where their priors had them, in every part."""
        found = [set(part.at_prior()) for part in self.parts]
        return [p.name for p in self.parameters if all(p.name in names for names in found)]


#: What a prior is learnt from, and what has the remainder of the weight if there are two or more priors.
_FOUND = {
    PAST_STUDIES: "past studies in this database found",
    IMPORTED_RUNS: "the imported runs show",
}
_REMAINDER = ("a neutral prior with the rest", "the other priors with the rest")


def weights_sentence(weights: Mapping[str, float]) -> str:
    """The weights of priors by their names, in words."""
    stated = ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items())
    return f"Weights of the priors, by how well they predicted: {stated}."


def unknown_sentences(names: Sequence[str]) -> list[str]:
    """Which unknowns the observations left at their priors, in words; none if there are none."""
    return [f"Not determined by the data yet, so left at the prior: {', '.join(names)}."] if names else []


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
    """`fit` with the neutral prior, and one more with what each kind of past found, if it found anything.

    Args:
        law: The law.
        parameters: Its unknowns with their neutral priors, `(num_parameters,)`.
        past: What past studies found of them, and imported runs.
        residual: Kernel of what the law leaves out.
        inputs: `(num_points, num_features)`; may be empty.
        observations: `(num_points,)`.
        noise_sd: Standard deviation of each observation, above 0, `(num_points,)`.
        slopes: Derivatives of the law; see `fit`.
        start: Where the neutral search for theta starts, `(num_parameters,)`.
        tolerance: When the searches end, see `fit`.
    """

    def fitted(priors: Sequence[Parameter], first: Array | None) -> Posterior:
        observed = (inputs, observations, noise_sd)
        return fit(law, priors, residual, *observed, slopes=slopes, start=first, tolerance=tolerance)

    neutral = fitted(parameters, start)
    parts, names, before = [neutral], [NEUTRAL], [1.0]
    for name, own, weight in _pasts(past):
        learnt = informed(parameters, own)
        if learnt is None:
            continue
        parts.append(fitted(learnt, None if start is None else neutral.theta))
        names.append(name)
        before = [*(share * (1.0 - weight) for share in before), weight]
    return MixedPosterior(parts=tuple(parts), names=tuple(names), before=tuple(before))


def _pasts(past: PastLaw) -> list[tuple[str, PastLaw, float]]:
    """What past studies found and imported runs show, each with its probability before any observation."""
    values = [value for found in past.values() for value in found]
    is_alike = any(value.is_alike for value in values if not value.is_imported)
    kinds = ((PAST_STUDIES, _BEFORE_ALIKE if is_alike else _BEFORE_OTHERS), (IMPORTED_RUNS, _BEFORE_IMPORTED))
    return [
        (
            name,
            {
                unknown: [v for v in found if v.is_imported == (name == IMPORTED_RUNS)]
                for unknown, found in past.items()
            },
            weight,
        )
        for name, weight in kinds
    ]


#: How much an unknown differs from one study to the next, in the neutral prior's standard deviations: of the
#: same workload, data and hardware, and of any others. Assumed: a tenth, and half of what is unsure anyway.
_BETWEEN_ALIKE, _BETWEEN_JOBS = 0.1, 0.5
#: The same of runs that the user imported for this job.
_BETWEEN_IMPORTED = 0.5


@dataclass(frozen=True, kw_only=True)
class PastValue:
    """One study's value of an unknown.

    Args:
        mean: In the scale the law takes.
        sd: How well that study knew it, above 0.
        is_alike: Whether it was of the same workload, data and hardware.
        is_imported: Whether it is of runs that were imported for this job, not of a study.
    """

    mean: float
    sd: float
    is_alike: bool = False
    is_imported: bool = False

    @property
    def between(self) -> float:
        """How much the unknown differs from there to here, in standard deviations of its neutral prior."""
        if self.is_imported:
            return _BETWEEN_IMPORTED
        return _BETWEEN_ALIKE if self.is_alike else _BETWEEN_JOBS


PastLaw = Mapping[str, Sequence[PastValue]]
"""Name of an unknown to what past studies found of it."""


def informed(parameters: Sequence[Parameter], past: PastLaw) -> tuple[Parameter, ...] | None:
    """The unknowns with what past studies say of them; None if they say nothing of any.

    Args:
        parameters: With their neutral priors.
        past: What past studies found.
    """
    if not any(past.get(parameter.name) for parameter in parameters):
        return None
    return tuple(_informed(parameter, past.get(parameter.name, ())) for parameter in parameters)


def _informed(parameter: Parameter, stated: Sequence[PastValue]) -> Parameter:
    """Averaged by precision with the neutral prior as one more study; never surer than jobs are alike."""
    if not stated:
        return parameter
    between = [parameter.sd * t.between for t in stated]
    precisions = [(t.sd**2 + b**2) ** -1 for t, b in zip(stated, between, strict=True)]
    own = parameter.sd**-2
    total = sum(precisions) + own
    mean = sum(p * t.mean for p, t in zip(precisions, stated, strict=True)) + own * parameter.mean
    return replace(parameter, mean=mean / total, sd=min(parameter.sd, math.hypot(min(between), total**-0.5)))
