"""What the search cost, by purpose and by part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.advice.test_sensitivity import MACHINE
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import BASELINE, EPOCH_SAMPLES, World, make_job
from tuner.advice.recommend import tuning_cost
from tuner.search.state import read_state


def test_parts_of_an_emulated_search_add_up_to_the_time_of_this_machine(tmp_path: Path) -> None:
    """The training clock is virtual: 20 s of training may be emulated in 2 s."""
    job = make_job(cluster={"machine": MACHINE}, probe={"kind": "emulated"})
    world = World(tmp_path, job=job, law=Law())
    world.ran(BASELINE, 20.0)
    seen = world.probes()[0].slices[-1]
    assert seen.training_seconds > 10.0
    short = replace(
        seen, charged_seconds=2.0, scoring_seconds=0.5, startup_seconds=0.25, repeated_seconds=0.0
    )
    probe = replace(world.probes()[0], slices=(short,))
    cost = tuning_cost(read_state(job, world.cluster, [probe], EPOCH_SAMPLES))
    assert cost.seconds == pytest.approx(2.0)
    assert cost.seconds_by_part == pytest.approx(
        {"training": 1.25, "scoring": 0.5, "startup": 0.25, "other": 0.0}
    )
