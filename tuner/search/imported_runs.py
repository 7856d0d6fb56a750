"""Priors of the laws from imported runs. Imported runs are never results of the job."""

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

#: Maximum number of imported runs that are fitted; runs that came closest to the target go first.
MOST_FITTED = 120
#: Relative standard deviation of the seconds per sample of an imported run; its clock includes evaluation.
_CLOCK_SPREAD = 0.1


@dataclass(frozen=True, kw_only=True)
class ImportedRuns:
    """Runs that were imported for a job.

    Args:
        probes: One probe for each run, with its curve.
        is_same_hardware: For each run, whether the user stated that it used the same hardware as the job.
    """

    probes: tuple[ProbeRecord, ...] = ()
    is_same_hardware: tuple[bool, ...] = ()


def laws_of_imports(job: Job, cluster: Cluster, imported: ImportedRuns, epoch_samples: int) -> PastLaws:
    """Priors of the laws' unknowns from imported runs, at the job's present target.

    The laws are fitted to the imported runs alone. Unknowns that stay at their neutral prior are left out.
    Unlike with past studies, the distance to the target counts, because the user imports the runs for this
    metric and target. Runs that never reached the target count as unfinished.

    Args:
        job: The job.
        cluster: The cluster that it trains on.
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
    """Priors of the step-time law from runs on the same hardware."""
    pairs = zip(imported.probes, imported.is_same_hardware, strict=True)
    timed = [_timed(probe, cluster) for probe, is_same in pairs if is_same]
    slices = [measurement for measurement in timed if measurement is not None]
    return _findings(fit_seconds(slices, cluster, 0).posterior) if slices else {}


def _rise_samples(empty: SearchState, probes: Sequence[ProbeRecord]) -> float:
    """Median samples after which runs that reached the target first improved clearly; 0 if there are none."""
    cache = RunCache(empty.job)
    runs = [run for run in map(cache.run, probes) if run is not None and run.arrived]
    found = [run.rise_samples for run in runs if run.rise_samples is not None]
    return float(np.median(found)) if found else 0.0


def _evidence(empty: SearchState, probes: Sequence[ProbeRecord]) -> list[RunEvidence]:
    """Evidence of the imported runs with a score for the models; runs closest to the target go first."""
    cache = RunCache(empty.job)
    scored = [p for p in probes if (run := cache.run(p)) is not None and run.measurement.trained_curve]
    evidence: list[RunEvidence] = []
    # Read one state per run: a state stores only the longest run of each configuration, but all count here.
    whole = read_state(empty.job, empty.cluster, scored, empty.epoch_samples)
    for probe in scored:
        own = read_state(empty.job, empty.cluster, [probe], empty.epoch_samples)
        evidence += replace(own, start_value=whole.start_value).evidence()[0]
    evidence.sort(key=lambda run: (run.samples_to_target is None, -max(run.progress, default=0.0)))
    return evidence[:MOST_FITTED]


def _samples_law(empty: SearchState, evidence: Sequence[RunEvidence]) -> PastLaw:
    """Priors of the samples law from the imported runs."""
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
    """Unknowns whose posterior differs from their prior."""
    left = {UNSTATED_BYTES, *posterior.at_prior()}
    return {
        name: [PastValue(mean=mean, sd=sd, is_imported=True)]
        for name, (mean, sd) in posterior.parameter_values().items()
        if name not in left and sd > 0
    }


def _timed(probe: ProbeRecord, cluster: Cluster) -> Measurement | None:
    """The run's measurement with step times from its clock; None if the clock shows nothing."""
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
    """Combines the priors from two sources; unknowns get the values of both."""

    def both(one: PastLaw, other: PastLaw) -> PastLaw:
        return {name: [*one.get(name, ()), *other.get(name, ())] for name in dict.fromkeys([*one, *other])}

    return PastLaws(
        seconds=both(first.seconds, second.seconds),
        samples=both(first.samples, second.samples),
        shapes=second.shapes,
        rise_samples=second.rise_samples,
    )
