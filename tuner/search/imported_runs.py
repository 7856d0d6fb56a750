"""Computes prior distributions of model parameters from past training runs that the user imported.

The parameters are those of the models of step time and of samples to target. Imported runs are used only for
these priors, and never count as results of the job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.curve_template import informed_shapes, passage_of
from tuner.analytic.mixed_posterior import MixedPosterior, PastLaw, PastValue
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.samples_model import fit_samples
from tuner.analytic.step_law import UNSTATED_BYTES
from tuner.analytic.step_time_model import fit_seconds
from tuner.domain.cluster import Cluster
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, RankTiming, Spread
from tuner.job import Job
from tuner.search.beliefs import rate_prior
from tuner.search.law_priors import NO_PAST, PastLaws
from tuner.search.runs import RunCache
from tuner.search.state import SearchState, read_state

#: Maximum number of imported runs to which the models are fitted. The runs that came closest to the target
#: are used.
MOST_FITTED = 120
#: Relative standard deviation of the seconds per sample of an imported run. It is large because the training
#: seconds of an imported run include evaluation.
_CLOCK_SPREAD = 0.1


@dataclass(frozen=True, kw_only=True)
class ImportedRuns:
    """Past training runs that the user imported for a job.

    Args:
        probes: One probe record for each run, with the learning curve of the run.
        is_same_hardware: For each element of `probes`, whether the user has declared that this run used the
            same hardware as the job.
    """

    probes: tuple[ProbeRecord, ...] = ()
    is_same_hardware: tuple[bool, ...] = ()


def laws_of_imports(job: Job, cluster: Cluster, imported: ImportedRuns, epoch_samples: int) -> PastLaws:
    """Computes priors of the parameters of the prediction models, from imported runs and the job's target.

    - The models of step time and of samples to target are fitted to the imported runs alone.
    - Parameters that the imported runs do not determine are left out.
    - The parameter for the difficulty of the target is included, because the imported runs have the metric
      and target of the job. (It is left out for past studies, which may have had other targets.)
    - Runs that did not reach the target count as unfinished.

    Args:
        job: The job.
        cluster: The cluster on which the job trains.
        imported: The imported runs.
        epoch_samples: Number of samples of the training set.
    """
    if not imported.probes:
        return NO_PAST
    empty = read_state(job, cluster, (), epoch_samples)
    evidence = _evidence(empty, imported.probes)
    passages = [passage_of(run.samples, run.progress) for run in evidence]
    return PastLaws(
        seconds=_seconds_law(cluster, imported),
        samples=_samples_law(empty, evidence),
        shapes=informed_shapes(passages),
        rise_samples=_rise_samples(empty, imported.probes),
    )


def _seconds_law(cluster: Cluster, imported: ImportedRuns) -> PastLaw:
    """Computes priors of the parameters of the step-time model from imported runs on the same hardware."""
    pairs = zip(imported.probes, imported.is_same_hardware, strict=True)
    timed = [_timed(probe, cluster) for probe, is_same in pairs if is_same]
    slices = [measurement for measurement in timed if measurement is not None]
    return _findings(fit_seconds(slices, cluster, 0).posterior) if slices else {}


def _rise_samples(empty: SearchState, probes: Sequence[ProbeRecord]) -> float:
    """Computes after how many samples imported runs first improved clearly, as a median.

    Only runs that later reached the target count.

    Args:
        empty: State of the job's search before its first training.
        probes: Records of the imported runs.

    Returns:
        The number of samples; 0 if no imported run reached the target after a clear improvement.
    """
    cache = RunCache(empty.job)
    runs = [run for run in map(cache.run, probes) if run is not None and run.arrived]
    found = [run.rise_samples for run in runs if run.rise_samples is not None]
    return float(np.median(found)) if found else 0.0


def _evidence(empty: SearchState, probes: Sequence[ProbeRecord]) -> list[RunEvidence]:
    """Returns the learning curves of imported runs, in the form to which the models are fitted.

    Args:
        empty: State of the job's search before its first training.
        probes: Records of the imported runs; those without an evaluation are left out.

    Returns:
        At most `MOST_FITTED` curves; those of the runs that came closest to the target come first.
    """
    cache = RunCache(empty.job)
    scored = [p for p in probes if (run := cache.run(p)) is not None and run.measurement.trained_curve]
    evidence: list[RunEvidence] = []
    # Read one state per run, because a state keeps only the longest run of each configuration.
    whole = read_state(empty.job, empty.cluster, scored, empty.epoch_samples)
    for probe in scored:
        own = read_state(empty.job, empty.cluster, [probe], empty.epoch_samples)
        evidence += replace(own, start_value=whole.start_value).evidence()[0]
    evidence.sort(key=lambda run: (run.samples_to_target is None, -max(run.progress, default=0.0)))
    return evidence[:MOST_FITTED]


def _samples_law(empty: SearchState, evidence: Sequence[RunEvidence]) -> PastLaw:
    """Computes priors of the parameters of the model of samples to target from imported runs."""
    if not evidence:
        return {}
    model = fit_samples(
        evidence,
        rate_prior(empty),
        devices_per_node=empty.cluster.devices_per_node,
        strategies=sorted({run.configuration.strategy for run in evidence}),
    )
    return _findings(model.posterior) if model.reported else {}


def _findings(posterior: MixedPosterior) -> PastLaw:
    """Returns the mean and standard deviation of those parameters that the imported runs determine.

    Parameters whose distribution hardly differs from their prior are left out.
    """
    left = {UNSTATED_BYTES, *posterior.at_prior()}
    return {
        name: [PastValue(mean=mean, sd=sd, is_imported=True)]
        for name, (mean, sd) in posterior.parameter_values().items()
        if name not in left and sd > 0
    }


def _timed(probe: ProbeRecord, cluster: Cluster) -> Measurement | None:
    """Adds a step time to the measurement of an imported run: its training seconds divided by its steps.

    Args:
        probe: Record of the imported run.
        cluster: The cluster on which the job trains.

    Returns:
        The measurement; None if it has no training seconds, or if the batch is smaller than the number of
        ranks.
    """
    measurement = probe.measurement
    if cluster.num_ranks(probe.configuration.nodes) > probe.configuration.batch_size:
        return None
    if measurement is None or measurement.training_seconds <= 0 or measurement.samples <= 0:
        return None
    batch_size, num_ranks = probe.configuration.batch_size, cluster.num_ranks(probe.configuration.nodes)
    seconds = measurement.training_seconds / measurement.samples * batch_size
    step = Spread.of([seconds])
    nothing = Spread.of([0.0])
    timing = RankTiming(
        rank=0,
        batch_size=-(-batch_size // num_ranks),
        compute=step,
        sync=nothing,
        input=nothing,
        step=replace(step, std=_CLOCK_SPREAD * seconds),
        count=num_ranks,
    )
    return replace(measurement, ranks=(timing,))


def merged_pasts(first: PastLaws, second: PastLaws) -> PastLaws:
    """Combines the priors from past studies with those from imported runs.

    Args:
        first: Priors from past studies.
        second: Priors from imported runs. The shapes of learning curves and `rise_samples` of the result are
            taken from these priors.

    Returns:
        The priors; each parameter of a model has the values of both.
    """

    def both(one: PastLaw, other: PastLaw) -> PastLaw:
        return {name: [*one.get(name, ()), *other.get(name, ())] for name in dict.fromkeys([*one, *other])}

    return PastLaws(
        seconds=both(first.seconds, second.seconds),
        samples=both(first.samples, second.samples),
        shapes=second.shapes,
        rise_samples=second.rise_samples,
    )
