from __future__ import annotations

import math

import numpy as np
import pytest

from search_spaces import Configuration
from tests.tuner.analytic.made_measurements import configuration, diverged, rate_prior, run
from tuner.analytic.rate_edge import SHIFTS, RunEvidence
from tuner.analytic.samples_model import SamplesModel, fit_samples, staleness

GOOD = [run(configuration(1, 64, rate), 30_000.0) for rate in (0.02, 0.05)]


def gossip(nodes: int, rate: float) -> Configuration:
    return Configuration(nodes=nodes, batch_size=64, learning_rate=rate, strategy="gossip_pull", tau=1)


def fitted(*runs: RunEvidence) -> SamplesModel:
    return fit_samples([*GOOD, *runs], rate_prior(), strategies=["all_reduce", "gossip_pull"])


def edge(model: SamplesModel) -> float:
    return float(model.edge.grid @ model.edge.weights)


def shift(model: SamplesModel) -> float:
    """Expected e-folds by which the edge falls with each e-fold of ranks that do not wait."""
    return float(model.edge.joint.sum(axis=0) @ SHIFTS)


def test_ranks_that_do_not_wait_have_about_the_same_edge_until_runs_say_otherwise() -> None:
    assert 0.0 < shift(fitted()) < 0.3
    assert fitted().edge.joint.sum(axis=0).argmax() == 0


def test_a_stale_run_that_diverged_leaves_all_reduce_s_rates_nearly_as_they_were() -> None:
    before = edge(fitted())
    as_all_reduce = edge(fitted(diverged(configuration(1, 64, 0.1))))
    as_gossip = edge(fitted(diverged(gossip(32, 0.1))))
    assert as_all_reduce < as_gossip < before
    assert before - as_gossip < 0.7 * (before - as_all_reduce)


def test_many_stale_runs_that_diverged_below_rates_that_went_well_show_the_shift() -> None:
    model = fitted(
        run(configuration(1, 64, 0.3), 20_000.0),
        *(diverged(gossip(32, rate)) for rate in (0.1, 0.15, 0.2)),
    )
    assert shift(model) > 2 * shift(fitted())
    # What went well with all-reduce stays within reach.
    assert edge(model) > math.log(0.3) + 0.5


def test_a_stale_run_that_went_well_speaks_against_a_shift() -> None:
    assert shift(fitted(run(gossip(32, 0.3), 20_000.0))) < shift(fitted())


def test_staleness_counts_ranks_that_do_not_wait() -> None:
    asked = [configuration(8), gossip(8, 0.1), gossip(1, 0.1), gossip(8, 0.1).replaced(strategy="local_sgd")]
    assert list(staleness(asked, fitted().devices_per_node)) == pytest.approx([0.0, math.log(8), 0.0, 0.0])


def test_draws_of_the_shift_follow_their_probabilities() -> None:
    model = fitted(diverged(gossip(32, 0.1)))
    uniforms = (np.arange(4000) * 0.6180339887) % 1.0
    edges = model.edge.draws((np.arange(4000) + 0.5) / 4000)
    found = model.edge.shift_draws(edges, uniforms)
    assert found.mean() == pytest.approx(shift(model), abs=0.03)
    assert found.min() >= 0.0


def test_without_stale_runs_the_edge_is_what_runs_that_wait_say() -> None:
    runs = [*GOOD, diverged(configuration(1, 64, 0.5))]
    alone = fit_samples(runs, rate_prior())
    concurrently = fit_samples(runs, rate_prior(), strategies=["gossip_pull"])
    np.testing.assert_allclose(alone.edge.weights, concurrently.edge.weights, rtol=1e-9)
