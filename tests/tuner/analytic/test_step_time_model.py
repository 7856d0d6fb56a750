from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Configuration
from tests.levels import examples
from tests.tuner.analytic.made_measurements import configuration, timed
from tuner.analytic.all_reduce_cost import Link, Placements, Sharing, topology_ring_seconds
from tuner.analytic.laws import expected_maximum
from tuner.analytic.step_time_model import SecondsModel, fit_seconds
from tuner.domain.cluster import Cluster, VirtualCluster
from tuner.domain.measurement import Measurement, Outcome, Purpose

#: Every rank on a machine of its own.
ASYNCHRONOUS = Cluster(node_counts=(1, 2, 4, 8), nodes_share_host=False)
SHARED = Cluster(node_counts=(1, 2, 4), cores_per_host=2)
PARAMETER_BYTES = 4_000_000


def true_step_seconds(
    what: Configuration, *, fixed: float = 0.004, per_sample: float = 4e-4, cores: int | None = None
) -> float:
    """A ring over a 500 MB/s link, added to compute stretched by 5% jitter."""
    ranks = what.nodes
    share = 1.0 if cores is None else max(1.0, ranks / cores)
    compute = (fixed + per_sample * math.ceil(what.batch_size / ranks)) * share
    compute *= 1 + 0.05 * float(expected_maximum(np.array([ranks]))[0])
    exchange = 2 * (ranks - 1) * 5e-4 + 2 * (ranks - 1) / ranks * PARAMETER_BYTES / 5e8
    return compute + exchange


def probes(
    nodes: tuple[int, ...],
    batches: tuple[int, ...],
    *,
    cores: int | None = None,
    seed: int = 0,
    noise: float = 0.03,
) -> list[Measurement]:
    rng = np.random.default_rng(seed)
    return [
        timed(c, true_step_seconds(c, cores=cores) * float(np.exp(noise * rng.standard_normal())))
        for n in nodes
        for c in (configuration(n, b) for b in batches)
    ]


def predicted(model: SecondsModel, what: Configuration) -> tuple[float, float]:
    """Predicted seconds a step and the standard deviation of their logarithm."""
    mean, covariance = model.log_seconds_per_sample([what])
    return math.exp(mean[0]) * what.batch_size, math.sqrt(covariance[0, 0])


@pytest.mark.parametrize("seed", range(4))
def test_one_and_two_nodes_predict_four_within_the_interval(seed: int) -> None:
    model = fit_seconds(probes((1, 2), (16, 64, 256), seed=seed), ASYNCHRONOUS, PARAMETER_BYTES)
    for batch in (32, 128, 512):
        step, sd = predicted(model, configuration(4, batch))
        error = math.log(step / true_step_seconds(configuration(4, batch)))
        assert abs(error) < 1.96 * math.hypot(sd, model.between_moments_sd)
        assert sd < 0.6


def test_a_batch_between_those_timed_is_known_closely() -> None:
    model = fit_seconds(probes((1,), (16, 64, 256, 1024)), ASYNCHRONOUS, PARAMETER_BYTES)
    step, sd = predicted(model, configuration(1, 128))
    assert step == pytest.approx(true_step_seconds(configuration(1, 128)), rel=0.1)
    assert sd < 0.12


def test_what_was_not_timed_is_less_sure_than_what_was() -> None:
    model = fit_seconds(probes((1,), (16, 64, 256)), ASYNCHRONOUS, PARAMETER_BYTES)
    timed_sd = predicted(model, configuration(1, 64))[1]
    other_batch_sd = predicted(model, configuration(1, 1024))[1]
    other_nodes_sd = predicted(model, configuration(8, 64))[1]
    assert timed_sd < other_batch_sd < other_nodes_sd


def test_a_second_probe_at_the_same_steps_makes_them_surer() -> None:
    once = fit_seconds(probes((1,), (64,)), ASYNCHRONOUS, PARAMETER_BYTES)
    thrice = fit_seconds(probes((1,), (64,)) * 3, ASYNCHRONOUS, PARAMETER_BYTES)
    assert predicted(thrice, configuration(1, 64))[1] < predicted(once, configuration(1, 64))[1]
    assert (once.num_observations, thrice.num_observations) == (1, 3)


def test_ranks_that_share_cores_are_slower_and_one_probe_shows_it() -> None:
    measured = probes((1, 2, 4), (16, 64, 256), cores=2)
    model = fit_seconds(measured, SHARED, PARAMETER_BYTES)
    step, _ = predicted(model, configuration(4, 128))
    assert step == pytest.approx(true_step_seconds(configuration(4, 128), cores=2), rel=0.2)


def test_before_any_crowded_probe_sharing_cores_is_expected_to_cost_in_proportion() -> None:
    measured = probes((1,), (16, 64, 256))
    shared = fit_seconds(measured, SHARED, PARAMETER_BYTES)
    asynchronous = fit_seconds(measured, ASYNCHRONOUS, PARAMETER_BYTES)
    ratio = predicted(shared, configuration(4, 256))[0] / predicted(asynchronous, configuration(4, 256))[0]
    assert 1.7 < ratio < 2.7


def test_without_a_probe_seconds_are_a_wide_guess_that_says_so() -> None:
    model = fit_seconds([], SHARED, 0)
    assert model.num_observations == 0
    assert predicted(model, configuration())[1] > 1.0
    assert model.summary() == ["No step was timed yet, so predicted seconds are guesses from the priors."]


def test_slices_without_step_times_are_passed_over() -> None:
    empty = Measurement(
        configuration=configuration(), purpose=Purpose.STATISTICS, outcome=Outcome.OUT_OF_MEMORY
    )
    model = fit_seconds([empty, *probes((1,), (64,))], ASYNCHRONOUS, PARAMETER_BYTES)
    assert model.num_observations == 1


def test_the_summary_names_what_one_node_cannot_show() -> None:
    words = " ".join(fit_seconds(probes((1,), (16, 64, 256)), ASYNCHRONOUS, PARAMETER_BYTES).summary())
    assert "µs per sample" in words
    assert "do not determine these parameters yet" in words
    for unknown in ("bandwidth (bytes/s)", "hop latency (seconds)", "jitter"):
        assert unknown in words


def test_how_moments_differ_is_learnt_from_repeated_probes() -> None:
    calm = fit_seconds([timed(configuration(), 0.03)] * 12, ASYNCHRONOUS, PARAMETER_BYTES)
    restless = [timed(configuration(), 0.03 * f) for f in (0.7, 1.4, 0.8, 1.3, 0.6, 1.5) * 2]
    wild = fit_seconds(restless, ASYNCHRONOUS, PARAMETER_BYTES)
    assert calm.between_moments_sd < 0.05
    assert wild.between_moments_sd == pytest.approx(np.std(np.log([0.7, 1.4, 0.8, 1.3, 0.6, 1.5])), rel=0.2)


@examples(25)
@given(
    fixed=st.floats(1e-4, 0.1),
    per_sample=st.floats(1e-6, 1e-2),
    cores=st.sampled_from([2, 8]),
)
def test_a_larger_batch_never_costs_much_more_a_sample(fixed: float, per_sample: float, cores: int) -> None:
    """The law never has throughput fall; the residual may bend it by its own spread, no more."""
    cluster = Cluster(node_counts=(1, 2, 4), cores_per_host=cores)
    measured = [timed(configuration(1, b), fixed + per_sample * b) for b in (16, 64, 256)]
    model = fit_seconds(measured, cluster, PARAMETER_BYTES)
    asked = [configuration(n, b) for n in (1, 2, 4) for b in (16, 32, 64, 128, 256)]
    mean, covariance = model.log_seconds_per_sample(asked)
    assert np.all(np.isfinite(mean))
    assert np.linalg.eigvalsh(covariance).min() > -1e-8
    assert np.all(np.diff(mean.reshape(3, 5), axis=1) < 0.05)


def test_a_described_cluster_is_believed_before_anything_was_timed() -> None:
    virtual = VirtualCluster(
        fixed_seconds=0.02,
        seconds_per_sample=1e-3,
        jitter=0.1,
        latency=1e-3,
        bytes_per_second=1e8,
        overlap=1.0,
    )
    cluster = Cluster(node_counts=(1, 16), nodes_share_host=False, virtual=virtual)
    model = fit_seconds([], cluster, 10**7, strategies=["all_reduce"])
    alone, many = (
        Configuration(nodes=nodes, batch_size=160, learning_rate=0.1, strategy="all_reduce")
        for nodes in (1, 16)
    )
    means, covariance = model.log_seconds_per_sample([alone, many])
    slowest = 0.03 * (1 + 0.1 * float(expected_maximum(np.array(16))))
    ring = 2 * 15 * 1e-3 + 2 * 15 / 16 * 0.1
    np.testing.assert_allclose(np.exp(means) * 160, [0.18, slowest + ring], rtol=0.01)
    assert np.sqrt(np.diag(covariance)).max() < 0.2


#: Four devices on each of some machines.
TOPOLOGY = Cluster(node_counts=(1, 2, 4, 8), devices_per_node=4, nodes_share_host=False)
WITHIN = Link(latency_seconds=2e-5, bytes_per_second=8e9)
BETWEEN = Link(latency_seconds=4e-4, bytes_per_second=4e8)


def topology_probes(
    nodes: tuple[int, ...], batches: tuple[int, ...], *, noise: float = 0.02
) -> list[Measurement]:
    """Timings of steps whose ring runs within nodes and between them."""
    rng = np.random.default_rng(1)
    found = []
    for what in (configuration(n, b) for n in nodes for b in batches):
        topology = Placements(
            num_nodes=np.array([what.nodes]),
            num_ranks=np.array([4.0 * what.nodes]),
            most_on_a_node=np.array([4.0]),
        )
        exchange = topology_ring_seconds(
            topology, PARAMETER_BYTES, within=WITHIN, between=BETWEEN, sharing=Sharing()
        )
        step = 0.004 + 4e-4 * math.ceil(what.batch_size / (4 * what.nodes)) + float(exchange[0])
        found.append(timed(what, step * math.exp(noise * rng.standard_normal())))
    return found


def test_links_within_and_between_nodes_are_distinguished() -> None:
    model = fit_seconds(topology_probes((1, 2, 3), (64, 256, 1024)), TOPOLOGY, PARAMETER_BYTES)
    alike = replace(TOPOLOGY, nodes_share_host=True)
    one_kind = fit_seconds(topology_probes((1, 2, 3), (64, 256, 1024)), alike, PARAMETER_BYTES)
    for measured in topology_probes((8,), (256, 1024), noise=0.0):
        assert measured.step_seconds is not None
        truth = math.log(measured.step_seconds.mean)
        step, sd = predicted(model, measured.configuration)
        # Three nodes do not tell latency from bandwidth: the mean may be half too long, within its interval.
        assert abs(math.log(step) - truth) < 1.645 * sd
        assert sd < 0.5
        other, _ = predicted(one_kind, measured.configuration)
        assert abs(math.log(step) - truth) < abs(math.log(other) - truth)
    found = model.parameters()
    within, between = (
        found[name][0] for name in ("log hop latency within node (seconds)", "log hop latency (seconds)")
    )
    assert within < between


@pytest.mark.parametrize(
    "cluster",
    [
        ASYNCHRONOUS,
        SHARED,
        Cluster(node_counts=(1, 2), devices_per_node=4),
        Cluster(
            node_counts=(1, 2),
            devices_per_node=4,
            nodes_share_host=False,
            virtual=VirtualCluster(fixed_seconds=1e-3, seconds_per_sample=1e-4, bytes_per_second=1e9),
        ),
    ],
)
def test_one_kind_of_link_has_no_unknowns_of_places(cluster: Cluster) -> None:
    model = fit_seconds([], cluster, PARAMETER_BYTES)
    assert not any("within a node" in name for name in model.parameters())


def test_strategies_and_places_have_their_unknowns_side_by_side() -> None:
    model = fit_seconds([], TOPOLOGY, PARAMETER_BYTES, strategies=["all_reduce", "gossip_pull"])
    names = set(model.parameters())
    assert {"persistent share of jitter", "log bandwidth within node (bytes/s)"} <= names
    what = Configuration(nodes=4, batch_size=256, learning_rate=0.1, strategy="gossip_pull", tau=1)
    mean, covariance = model.log_seconds_per_sample([what])
    assert np.isfinite(mean).all()
    assert np.isfinite(covariance).all()


def test_a_described_server_is_reached_by_messages_and_not_by_the_collective_s_links() -> None:
    virtual = VirtualCluster(
        fixed_seconds=0.02,
        seconds_per_sample=1e-3,
        latency=1e-5,
        bytes_per_second=1e12,
        message_latency=2e-3,
        message_bytes_per_second=1e8,
    )
    cluster = Cluster(node_counts=(1, 2), nodes_share_host=False, virtual=virtual)
    model = fit_seconds([], cluster, 10**6, strategies=["elastic_averaging"])
    asked = Configuration(
        nodes=2, batch_size=20, learning_rate=0.1, strategy="elastic_averaging", tau=1, beta=0.8
    )
    means, _ = model.log_seconds_per_sample([asked])
    # A step, both latencies, a vector in and one out, and hardly a queue.
    assert np.exp(means[0]) * 20 == pytest.approx(0.03 + 4e-3 + 0.02, rel=0.08)


def test_waits_tell_compute_from_the_exchange() -> None:
    """Timed on one number of nodes and at one batch, which alone cannot tell them apart."""
    compute, step = 0.02, 0.08
    measured = timed(configuration(2, 256), step)
    waiting = tuple(replace(rank, sync=replace(rank.step, mean=step - compute)) for rank in measured.ranks)
    blind = fit_seconds([measured], TOPOLOGY, PARAMETER_BYTES)
    seeing = fit_seconds([replace(measured, ranks=waiting)], TOPOLOGY, PARAMETER_BYTES)
    (guessed, _), (found, sd) = (predicted(model, configuration(1, 128)) for model in (blind, seeing))
    assert abs(math.log(found / compute)) < 0.3 * abs(math.log(guessed / compute))
    assert abs(math.log(found / compute)) < 1.645 * sd


def test_two_machines_leave_eight_less_sure_than_four_do() -> None:
    batches = (64, 256)
    asked = [configuration(8, b) for b in batches]
    two, four = (
        fit_seconds(probes(nodes, batches), ASYNCHRONOUS, PARAMETER_BYTES) for nodes in ((1, 2), (1, 2, 4))
    )
    for what in asked:
        assert predicted(two, what)[1] > 1.2 * predicted(four, what)[1]
