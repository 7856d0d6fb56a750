"""Whole searches on machines of their own, where one or two nodes say little of how more of them do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from search_spaces import Configuration
from tests.tuner.search.synthetic import Law, SyntheticProber
from tests.tuner.search.world import World, make_job
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy

NODES = (1, 2, 4, 8, 16)
#: Two nodes are almost twice as fast as one.
FAST_LINKS = Law(
    samples=3e6, seconds_per_sample=2e-3, fixed_seconds=2e-3, hop_seconds=1e-4, cores=16, noise_scale=1000.0
)


@dataclass
class NarrowSwitch(Law):
    """More nodes than `widest` share a slow switch: each node adds a thousand hops of the others."""

    widest: int = 16

    def rank_step_seconds(self, configuration: Configuration) -> list[float]:
        seconds, ranks = super().rank_step_seconds(configuration), configuration.nodes
        shared = 1e3 * self.hop_seconds * ranks if ranks > self.widest else 0.0
        return [own + shared for own in seconds]


def make_world(folder: Path, widest: int) -> World:
    job = make_job(
        cluster={"nodes": list(NODES)},
        space={
            "batch_size": [64, 256, 1024],
            "learning_rate": {"low": 1e-2, "high": 1.0, "levels_per_decade": 2},
        },
        goal={"trainings": 20},
        budget={"time": "40h"},
    )
    law = NarrowSwitch(**{**vars(FAST_LINKS), "widest": widest})
    world = World(folder, job=job, law=law)
    # Nodes are machines of their own, not processes of one host.
    world.cluster = replace(world.cluster, nodes_share_host=False, cores_per_host=None)
    world.prober = SyntheticProber(law=law, clock=world.clock, cluster=world.cluster, startup_seconds=10.0)
    return world


@pytest.mark.parametrize(
    "widest", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(16, marks=pytest.mark.slow)]
)
def test_a_number_of_nodes_is_timed_before_it_is_recommended_and_is_near_the_best(
    tmp_path: Path, widest: int
) -> None:
    world = make_world(tmp_path, widest)
    result = world.search(ModelPolicy(Believer(seed=0))).run()
    assert result.beliefs is not None
    answer = result.beliefs.recommended
    assert answer is not None
    timed = {what.nodes for what, _ in world.prober.started}
    assert answer.nodes in timed
    assert max(timed) > 2
    # Where `widest` is 2, the fast links between two nodes say nothing of those between more.
    assert (answer.nodes == 16) == (widest == 16)
    best = min(world.law.seconds_to_target(answer.replaced(nodes=n)) for n in NODES)
    assert world.law.seconds_to_target(answer) <= 1.2 * best
