from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tuner.probes.commands.bench import job_of
from tests.tuner.search.world import make_cluster, make_job
from tuner.probes.terms import UNKNOWN_STARTUP_SECONDS, probe_terms

MACHINE = {"fixed_seconds": "1ms", "seconds_per_sample": "1ms", "latency": "10us", "bandwidth": "10Gbit/s"}


def test_scores_of_a_workload_come_where_paceline_decides() -> None:
    job = make_job(probe={"first_score_samples": 1000, "score_growth": 1.5})
    terms = probe_terms(job, make_cluster(job), [], 20_000)
    assert terms.is_training
    assert terms.resumes
    assert terms.pays_to_resume
    assert terms.times_alone
    assert not terms.ends_itself
    assert terms.startup_seconds == UNKNOWN_STARTUP_SECONDS
    assert terms.next_score_samples(0) == 1000
    assert terms.next_score_samples(1000) == 1500
    assert terms.next_score_samples(1500) == 2250


def test_what_is_emulated_is_not_the_training_that_was_asked_for() -> None:
    job = make_job(cluster={"nodes": [1, 2], "machine": MACHINE}, probe={"kind": "emulated"})
    assert not probe_terms(job, make_cluster(job), [], 20_000).is_training


def test_a_script_may_end_for_a_reason_of_its_own() -> None:
    job = job_of("train {batch_size}")
    assert probe_terms(job, make_cluster(job), [], 20_000).ends_itself


@pytest.mark.parametrize(
    ("measured", "reused", "anew"),
    [([], 3.0, 3.0), ([9.0], 0.5, 9.0), ([9.0, 0.1], 0.1, 4.55), ([9.0, 0.1, 0.2, 0.3], 0.2, 0.25)],
)
def test_the_first_start_says_little_of_later_ones_on_the_same_ranks(
    measured: list[float], reused: float, anew: float
) -> None:
    job = make_job()
    cluster = make_cluster(job)
    assert probe_terms(job, cluster, [], 20_000).later_startup(measured) == pytest.approx(reused)
    of_their_own = replace(cluster, nodes_share_host=False)
    assert probe_terms(job, of_their_own, [], 20_000).later_startup(measured) == pytest.approx(anew)
    script = job_of("train {batch_size}")
    terms = probe_terms(script, make_cluster(script), [], 20_000)
    assert terms.later_startup(measured) == pytest.approx(anew)
