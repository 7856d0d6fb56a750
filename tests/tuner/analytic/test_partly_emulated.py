"""Real ranks where they are at hand, emulated ones beyond: one model, in which real steps count for more."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces import Configuration, with_knobs
from tests.tuner.analytic.made_measurements import configuration, rate_prior, run, timed
from tuner.analytic.all_reduce_cost import ring_all_reduce_seconds
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.samples_model import fit_samples
from tuner.analytic.step_time_model import SecondsModel, fit_seconds
from tuner.domain.cluster import Cluster, VirtualCluster
from tuner.domain.measurement import Measurement

VIRTUAL = VirtualCluster(
    fixed_seconds=2e-3, seconds_per_sample=1e-4, jitter=0.02, latency=2e-5, bytes_per_second=1e9
)
HERE = Cluster(node_counts=(1, 2), nodes_share_host=False)
ASKED = Cluster(node_counts=(1, 2, 16, 64), nodes_share_host=False, virtual=VIRTUAL, at_hand=HERE)
PARAMETER_BYTES = 400_000


def described_seconds(nodes: int, batch_size: int, slower: float = 1.0) -> float:
    """Of a step, by the description; compute alone is slower than it says."""
    compute = slower * VIRTUAL.mean_compute_seconds(batch_size / nodes)
    exchange = ring_all_reduce_seconds(
        np.array(nodes), PARAMETER_BYTES, latency=VIRTUAL.latency, bytes_per_second=VIRTUAL.bytes_per_second
    )
    return float(compute + exchange)


def step(nodes: int, batch_size: int, slower: float = 1.0) -> Measurement:
    seconds = described_seconds(nodes, batch_size, slower)
    return replace(timed(configuration(nodes, batch_size), seconds), emulated=nodes > 2)


def predicted(model: SecondsModel, nodes: int, batch_size: int) -> tuple[float, float]:
    mean, covariance = model.log_seconds_per_sample([configuration(nodes, batch_size)])
    return math.exp(mean[0]) * batch_size, math.sqrt(covariance[0, 0])


EMULATED = [step(nodes, batch) for nodes in (16, 64) for batch in (256, 1024)]
#: Twice as slow as described.
REAL = [step(nodes, batch, slower=2.0) for nodes in (1, 2) for batch in (16, 64, 256)]


def test_real_steps_correct_what_was_described_wrongly_for_nodes_that_were_only_emulated() -> None:
    before = predicted(fit_seconds(EMULATED, ASKED, PARAMETER_BYTES), 64, 1024)[0]
    after = predicted(fit_seconds([*EMULATED, *REAL], ASKED, PARAMETER_BYTES), 64, 1024)[0]
    truth = described_seconds(64, 1024, slower=2.0)
    assert abs(math.log(after / truth)) < 0.4 * abs(math.log(before / truth))


def test_emulation_does_not_make_a_description_surer() -> None:
    _, alone = predicted(fit_seconds([], ASKED, PARAMETER_BYTES), 64, 1024)
    _, emulated = predicted(fit_seconds(EMULATED, ASKED, PARAMETER_BYTES), 64, 1024)
    _, timed_here = predicted(fit_seconds(REAL, ASKED, PARAMETER_BYTES), 2, 64)
    assert emulated > 0.8 * alone
    assert timed_here < 0.3 * alone


def test_where_all_is_emulated_the_description_is_what_is_asked_about() -> None:
    cluster = replace(ASKED, at_hand=None)
    seconds, sd = predicted(fit_seconds(EMULATED, cluster, PARAMETER_BYTES), 64, 1024)
    assert seconds == pytest.approx(described_seconds(64, 1024), rel=0.1)
    assert sd < 0.1


def test_on_described_links_gossip_is_held_up_by_no_message() -> None:
    """As with the transport of real ranks; an all-reduce is."""
    slow = replace(ASKED, at_hand=None, virtual=replace(VIRTUAL, bytes_per_second=1e6))
    both = ("all_reduce", "gossip_pull")
    model = fit_seconds([], slow, PARAMETER_BYTES, strategies=both)
    asked = [Configuration({**configuration(16, 256), "strategy": name}) for name in both]
    mean, _ = model.log_seconds_per_sample([with_knobs(what) for what in asked])
    all_reduce, gossip = np.exp(mean) * 256
    assert gossip == pytest.approx(VIRTUAL.mean_compute_seconds(16), rel=0.02)
    assert all_reduce > 50 * gossip


def test_emulated_runs_have_a_bias_that_real_ones_correct() -> None:
    longer = 1.3
    rates = (0.05, 0.1, 0.2)
    real = [run(configuration(2, 64, rate), 30_000.0, arrived=True, seed=1) for rate in rates]
    emulated = [
        replace(run(configuration(16, 64, rate), longer * 30_000.0, arrived=True, seed=2), emulated=True)
        for rate in rates
    ]
    asked = [configuration(16, 64, 0.1)]

    def samples(runs: list[RunEvidence], *, emulation_differs: bool) -> float:
        model = fit_samples(runs, rate_prior(math.log(0.1)), emulation_differs=emulation_differs)
        return math.exp(model.log_samples(asked)[0][0])

    runs = [*real, *emulated]
    believed, corrected = (samples(runs, emulation_differs=differs) for differs in (False, True))
    assert 30_000.0 < corrected < 0.97 * believed
