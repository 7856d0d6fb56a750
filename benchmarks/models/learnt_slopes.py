"""Slopes that a whole recording shows, as a prior for replays of another recording."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tuner.analytic.curve_template import passage_of
from tuner.analytic.features import SAMPLES, SECONDS, Features, Quantity, features_of, prior_of
from tuner.analytic.slopes import Observations, SlopeModel, fit_slopes
from tuner.analytic.started_runs import StartedRun, observed_by
from tuner.recordings.recording import Recording, samples_at
from tuner.search.slope_priors import SlopeBeliefs, Slopes, pooled
from tuner.search.start_value import progress_of, start_value


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
        samples=_shown(features, SAMPLES, observed_by(_finished(recording))),
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
    stated = {n: (float(m), float(s)) for n, m, s in zip(names, model.slopes, model.slopes_sd, strict=True)}
    return {name: pooled(slope, [stated[name]] if name in stated else []) for name, slope in known.items()}


def _finished(recording: Recording) -> list[StartedRun]:
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
        passage = passage_of(samples, progress)
        found.append(StartedRun(row=row, passage=passage, samples_to_target=arrived, ended=arrived is None))
    return found
