"""What emulated slices took tells what others will take, by steps of replicas and by samples."""

from __future__ import annotations

import pytest

from search_spaces import Configuration
from tuner.domain.cluster import Cluster
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.search.probe_cost import emulated_seconds_per_sample

CLUSTER = Cluster(node_counts=(1, 8, 128))
PER_STEP, PER_SAMPLE = 4e-4, 2e-5


def on(nodes: int, batch_size: int, strategy: str = "local_sgd") -> Configuration:
    axes = {"nodes": nodes, "batch_size": batch_size, "learning_rate": 0.1, "strategy": strategy}
    return Configuration(axes)


def took(configuration: Configuration, samples: int) -> float:
    replicas = 1 if configuration.strategy == "all_reduce" else configuration.nodes
    return samples * (PER_STEP * replicas / configuration.batch_size + PER_SAMPLE)


def probe(configuration: Configuration, *ends: int, purpose: Purpose = Purpose.STATISTICS) -> ProbeRecord:
    slices, before = [], 0
    for end in ends:
        seconds = took(configuration, end - before)
        slices.append(
            Measurement(
                configuration=configuration,
                purpose=purpose,
                outcome=Outcome.PAUSED,
                samples=end,
                startup_seconds=2.0,
                charged_seconds=2.0 + seconds,
                emulated=True,
            )
        )
        before = end
    return ProbeRecord(
        probe_id=1,
        study_id=1,
        configuration=configuration,
        purpose=purpose,
        trial_number=None,
        slices=tuple(slices),
        outcome=Outcome.PAUSED,
        reason="",
        lease=None,
        created_at=0.0,
    )


def cost(asked: Configuration, *probes: ProbeRecord) -> float:
    return float(emulated_seconds_per_sample([asked], probes, CLUSTER)[0])


def test_before_anything_ran_a_sample_costs_more_on_more_ranks_but_where_one_stands_for_all() -> None:
    few, many = (cost(on(nodes, 256)) for nodes in (8, 128))
    assert 0 < few < many
    one, all_of_them = (cost(on(nodes, 256, "all_reduce")) for nodes in (8, 128))
    assert one == all_of_them < few


def test_slices_show_what_configurations_cost_that_never_ran() -> None:
    probes = [probe(on(8, 64), 4_000, 9_000), probe(on(128, 1024), 20_000), probe(on(128, 128), 3_000)]
    probes.append(probe(on(8, 256, "all_reduce"), 50_000))
    for asked in (on(8, 512), on(128, 256), on(128, 512), on(8, 256, "all_reduce")):
        assert cost(asked, *probes) == pytest.approx(took(asked, 1), rel=0.25)


def test_timings_and_empty_slices_show_nothing() -> None:
    asked = on(8, 64)
    assert cost(asked, probe(asked, 640, purpose=Purpose.TIMING)) == pytest.approx(cost(asked))
