from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces import Configuration
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import EPOCH_SAMPLES, configuration, make_cluster, make_job
from tuner.analytic.curve_template import PRIOR
from tuner.analytic.mixed_posterior import PastValue
from tuner.domain.cluster import Cluster
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.search.beliefs import believe
from tuner.search.imported_runs import ImportedRuns, laws_of_imports, merged_pasts
from tuner.search.law_priors import NO_PAST, PastLaws
from tuner.search.state import read_state

JOB = make_job()
CLUSTER = make_cluster(JOB)
#: How training goes, here and where the imported runs come from.
LAW = Law()


def probe(number: int, what: Configuration, share: float = 1.1) -> ProbeRecord:
    """A run that ends after a share of the samples that it needs."""
    places = np.linspace(0.05, share, 20) * LAW.samples_to_target(what)
    points = tuple(
        CurvePoint(
            training_seconds=float(samples) * 1e-3,
            step=0,
            samples=round(samples),
            value=LAW.value(what, samples),
        )
        for samples in places
    )
    measurement = Measurement(
        configuration=what,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=points,
        samples=points[-1].samples,
        training_seconds=points[-1].training_seconds,
    )
    return ProbeRecord(
        probe_id=number,
        study_id=1,
        configuration=what,
        purpose=Purpose.TRAINING,
        trial_number=None,
        slices=(measurement,),
        outcome=Outcome.PAUSED,
        reason="",
        lease=None,
        created_at=0.0,
    )


def imported(*, share: float = 1.1, is_same_hardware: bool = False) -> ImportedRuns:
    grid = [(24, 0.01), (24, 0.05), (96, 0.02), (96, 0.3), (300, 0.05), (300, 0.5)]
    probes = tuple(
        probe(number, configuration(batch_size=batch, learning_rate=rate), share)
        for number, (batch, rate) in enumerate(grid, start=1)
    )
    return ImportedRuns(probes=probes, is_same_hardware=(is_same_hardware,) * len(probes))


def laws(runs: ImportedRuns, job: Job = JOB, cluster: Cluster = CLUSTER) -> PastLaws:
    return laws_of_imports(job, cluster, runs, EPOCH_SAMPLES)


def test_without_imported_runs_there_is_no_past() -> None:
    assert laws(ImportedRuns()) is NO_PAST


def test_imported_runs_show_the_rate_the_distance_to_the_target_and_the_shape() -> None:
    found = laws(imported())
    (rate,), (level,) = found.samples["log best rate"], found.samples["log samples"]
    assert rate.is_imported
    assert abs(rate.mean - math.log(LAW.best_rate)) < 1.0
    assert abs(level.mean - math.log(LAW.samples)) < 0.5
    assert found.seconds == {}
    assert found.rise_samples > 0
    assert found.shapes.sum() == pytest.approx(1.0)
    # The neutral shapes keep half of the weight.
    assert (found.shapes >= 0.5 * PRIOR - 1e-12).all()
    assert not np.allclose(found.shapes, PRIOR)


def test_the_target_of_today_counts() -> None:
    nearer = make_job(goal={"target": 0.5})
    (near,), (far,) = (laws(imported(), job).samples["log samples"] for job in (nearer, JOB))
    assert near.mean < far.mean - 0.5


def test_runs_that_did_not_arrive_count_as_unfinished() -> None:
    found = laws(imported(share=0.5))
    (level,) = found.samples["log samples"]
    assert abs(level.mean - math.log(LAW.samples)) < 1.0
    assert found.rise_samples == 0.0


def test_seconds_count_only_on_the_same_hardware() -> None:
    (value,) = laws(imported(is_same_hardware=True)).seconds["log compute (seconds per sample)"]
    assert abs(value.mean - math.log(1e-3)) < 1.0
    assert laws(imported()).seconds == {}
    untimed = imported(is_same_hardware=True)
    without = [replace(m, training_seconds=0.0) for p in untimed.probes for m in p.slices]
    probes = tuple(replace(p, slices=(m,)) for p, m in zip(untimed.probes, without, strict=True))
    assert laws(replace(untimed, probes=probes)).seconds == {}


def test_a_run_with_more_ranks_than_samples_in_a_batch_shows_no_seconds() -> None:
    what = configuration(nodes=4, batch_size=2, learning_rate=0.02)
    assert laws(ImportedRuns(probes=(probe(1, what),), is_same_hardware=(True,))).seconds == {}


def test_two_seeds_of_one_configuration_both_count() -> None:
    what = configuration(batch_size=96, learning_rate=0.1)
    once = ImportedRuns(probes=(probe(1, what),), is_same_hardware=(False,))
    twice = ImportedRuns(probes=(probe(1, what), probe(2, what)), is_same_hardware=(False, False))
    (one,), (two,) = (laws(runs).samples["log samples"] for runs in (once, twice))
    assert two.sd < one.sd


def test_a_search_is_surer_of_what_it_did_not_run() -> None:
    own = probe(1, configuration(batch_size=64, learning_rate=0.01), share=0.4)
    state = read_state(JOB, CLUSTER, [own], EPOCH_SAMPLES)
    candidates = [configuration(batch_size=64, learning_rate=rate) for rate in (0.001, 0.01, 0.1, 0.5)]
    past = laws(imported())
    with_past = believe(state, candidates, np.random.default_rng(0), past)
    without = believe(state, candidates, np.random.default_rng(0))
    law, plain = with_past.predictor.samples, without.predictor.samples
    assert law.posterior.names == ("neutral", "imported runs")
    assert 0.3 < law.posterior.weights[1] < 1.0
    assert plain.posterior.names == ("neutral",)
    assert any("the prior from the imported runs has a weight of" in words for words in law.summary())
    spread = [b.forecast.quantile(0.95) / b.forecast.quantile(0.05) for b in (with_past, without)]
    assert spread[0][2] < spread[1][2]


def test_pasts_of_studies_and_of_imports_stand_side_by_side() -> None:
    study = PastLaws(samples={"log best rate": [PastValue(mean=0.0, sd=1.0)]})
    merged = merged_pasts(study, laws(imported()))
    assert [value.is_imported for value in merged.samples["log best rate"]] == [False, True]
    assert merged.rise_samples > 0
    assert merged_pasts(study, NO_PAST) == study
