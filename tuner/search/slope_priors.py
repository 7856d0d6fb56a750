"""What a search believes of slopes before it measures: text-book signs, past studies, or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tuner.analytic.features import (
    SAMPLES,
    SAMPLES_SLOPES,
    SECONDS,
    SECONDS_SLOPES,
    Features,
    Quantity,
    Slope,
    features_of,
    prior_of,
)
from tuner.analytic.slopes import Observations, SlopeModel, fit_slopes
from tuner.analytic.started_runs import BegunRun, begun_run, told_by
from tuner.ledger import FitRecord
from tuner.recordings.recording import Recording, samples_at
from tuner.search.start_value import progress_of, start_value

#: Slopes of another job differ from this one's by so much, for each unit, at the least.
_BETWEEN_JOBS_SD = 0.25

Slopes = Mapping[str, Slope]
#: Parts of the search that can be left out: the form of `curve`s; `analytic` slopes (the intercept is fitted
#: alone); what each configuration has of its own beside the slopes (`residual`); the `prior` beside the
#: neutral one; dividing gains by what they `cost`; what runs that ended without arriving (`never`) tell of
#: others: a run that ended counts as one that lives on, and no limit is learnt from where runs end.
Part = Literal["curve", "analytic", "residual", "prior", "cost", "never"]


@dataclass(frozen=True, kw_only=True)
class SlopeBeliefs:
    """Slopes believed beforehand; a neutral prior stands beside them at all times.

    Args:
        name: What to call them.
        seconds: Of log seconds a sample.
        samples: Of log samples to target.
        sign: Factor of their means.
    """

    name: str
    seconds: Slopes = field(default_factory=lambda: SECONDS_SLOPES)
    samples: Slopes = field(default_factory=lambda: SAMPLES_SLOPES)
    sign: float = 1.0


NEUTRAL = SlopeBeliefs(name="neutral")
TEXTBOOK = SlopeBeliefs(name="textbook")
REVERSED = SlopeBeliefs(name="reversed", sign=-1.0)
#: Priors by name.
PRIORS = {prior.name: prior for prior in (NEUTRAL, TEXTBOOK, REVERSED)}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How the slope models search.

    Args:
        prior: What is believed beforehand.
        without: Parts that are left out, to see what each is worth; see `Part`.
    """

    prior: SlopeBeliefs = TEXTBOOK
    without: frozenset[Part] = frozenset()


def learnt_from_fits(fits: Sequence[FitRecord]) -> SlopeBeliefs | None:
    """Slopes that past studies found, the newest fit of each study counting once; None without any.

    Slopes are averaged by their precision; that jobs differ is added to their spread.

    Args:
        fits: Of `Ledger.past_fits`.
    """
    learnt = {}
    for quantity, known in (("seconds", SECONDS_SLOPES), ("samples", SAMPLES_SLOPES)):
        told: dict[str, list[tuple[float, float]]] = {}
        for fit in fits:
            if fit.model == quantity:
                for name, (mean, sd) in fit.parameters.items():
                    if name in known and sd > 0:
                        told.setdefault(name, []).append((float(mean), float(sd)))
        learnt[quantity] = {name: _pooled(known[name], told.get(name, ())) for name in known}
        if not told:
            return None
    return SlopeBeliefs(name="learnt", seconds=learnt["seconds"], samples=learnt["samples"])


def _pooled(known: Slope, told: Sequence[tuple[float, float]]) -> Slope:
    """The text-book slope as one more study beside those that told."""
    pairs = [(known.mean, known.sd), *((mean, math.hypot(sd, _BETWEEN_JOBS_SD)) for mean, sd in told)]
    precision = np.array([sd**-2 for _, sd in pairs])
    mean = float(precision @ np.array([mean for mean, _ in pairs]) / precision.sum())
    spread = min(known.sd, math.hypot(_BETWEEN_JOBS_SD, float(precision.sum() ** -0.5)))
    return Slope(mean=mean, sd=spread, neutral_sd=known.neutral_sd, neutral_mean=known.neutral_mean)


def learnt_from(recording: Recording) -> SlopeBeliefs:
    """Slopes that a whole recording shows, as a finished study of it would tell them."""
    configurations = recording.configurations()
    features = features_of(
        configurations, cores={name: machine.cores for name, machine in recording.machines.items()}
    )
    runs = [recording.run(configuration) for configuration in configurations]
    per_sample = np.log([run.step_seconds / samples_at(1, run.configuration) for run in runs])
    step_times = SECONDS.observed(np.arange(len(runs)), per_sample)
    return SlopeBeliefs(
        name="learnt",
        seconds=_shown(features, SECONDS, step_times),
        samples=_shown(features, SAMPLES, told_by(_finished(recording)).observations),
    )


def _shown(features: Features, quantity: Quantity, seen: Observations) -> Slopes:
    """The slopes of one quantity that observations show where nothing is believed of them."""
    names = features.names_of(quantity.slopes)
    neutral = prior_of("neutral", names, quantity.slopes, level=float(seen.values.mean()))
    model = fit_slopes(
        features.design(quantity.slopes),
        [neutral],
        seen,
        residual_sds=quantity.residual_sds,
        own_sd=quantity.own_sd,
    )
    return _from_model(quantity.slopes, names, model)


def _from_model(known: Slopes, names: Sequence[str], model: SlopeModel) -> Slopes:
    told = {n: (float(m), float(s)) for n, m, s in zip(names, model.slopes, model.slopes_sd, strict=True)}
    return {name: _pooled(slope, [told[name]] if name in told else []) for name, slope in known.items()}


def _finished(recording: Recording) -> list[BegunRun]:
    """Every run of a recording as a finished one."""
    sign = 1.0 if recording.maximize else -1.0
    curves = [recording.run(c).curve for c in recording.configurations()]
    start = start_value([sign * float(curve[0, 2]) for curve in curves if len(curve)])
    found = []
    for row, (configuration, curve) in enumerate(zip(recording.configurations(), curves, strict=True)):
        seen = curve[curve[:, 1] > 0]
        if not len(seen):
            continue
        run = recording.run(configuration)
        truth = recording.truth_seconds(run)
        samples = np.array([samples_at(step, configuration) for step in seen[:, 1]])
        progress = progress_of(sign * seen[:, 2], start, sign * recording.target)
        arrived = truth / run.step_seconds * samples_at(1, configuration) if math.isfinite(truth) else None
        found.append(begun_run(row, samples, progress, arrived, ended=arrived is None))
    return found
