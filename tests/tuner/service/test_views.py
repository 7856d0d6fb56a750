"""What `status` says where several probes are under way, or were."""

from __future__ import annotations

from pathlib import Path

from tests.tuner.search.concurrent import concurrent_prober
from tests.tuner.search.scripted import Scripted, start
from tests.tuner.search.world import World, configuration
from tuner.domain.measurement import Purpose
from tuner.service.views import status_rows

ONE, TWO = configuration(1, 64, 0.08), configuration(1, 128, 0.08)


def reported(world: World) -> dict[str, object]:
    study = world.ledger.open_study("world", "f", world.job.model_dump(mode="json"))
    return {row["name"]: row["value"] for row in status_rows(world.ledger, study, world.folder)}


def test_every_probe_under_way_is_named_where_there_are_several(tmp_path: Path) -> None:
    world = World(tmp_path)
    for what in (ONE, TWO):
        world.ledger.start_probe(1, what, Purpose.TRAINING, trial_number=None, owner="me", lease_seconds=60.0)
    rows = reported(world)
    assert rows["running probes"] == 2
    assert rows["running probe 1"] == f"training: {ONE}"
    assert rows["running probe 2"] == f"training: {TWO}"
    assert "elapsed seconds" not in rows


def test_time_that_passed_is_reported_beside_what_was_charged_where_they_differ(tmp_path: Path) -> None:
    world = World(tmp_path)
    script = Scripted(start(ONE, 4.0), start(TWO, 4.0))
    world.search(script, prober=concurrent_prober(world), parallel=2).run()
    rows = reported(world)
    state = world.state()
    assert rows["elapsed seconds"] == round(state.elapsed_seconds, 3)
    assert rows["charged seconds"] == round(state.spent.seconds, 3)
    assert state.elapsed_seconds < state.spent.seconds
