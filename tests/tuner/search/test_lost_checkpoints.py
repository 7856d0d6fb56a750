from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.search.scripted import GOOD, Scripted, go_on, small_world, start
from tuner.domain.errors import StorageError
from tuner.search.lost_checkpoints import restarted, started_folder


def test_a_run_without_its_checkpoint_starts_again_and_counts_what_it_repeats(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD))).run()
    (before,) = world.probes()[0].slices
    shutil.rmtree(Path(before.checkpoint or "").parent.parent)
    world.search(Scripted(go_on(1, before.training_seconds + 3.0)), restart_lost=True).run()
    _, again = world.probes()[0].slices
    assert again.samples > before.samples
    assert again.repeated_seconds == again.restart_seconds == pytest.approx(before.training_seconds, rel=0.05)
    assert world.probes()[0].measurement.training_seconds == again.training_seconds  # type: ignore[union-attr]
    assert world.prober.resumed_at_steps[-1] == 0


def test_a_slice_that_repeats_less_than_was_lost_adds_only_its_charge(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD))).run()
    (before,) = world.probes()[0].slices
    again = restarted(replace(before, samples=before.samples // 2, training_seconds=1.0), before)
    assert (again.curve, again.samples, again.repeated_seconds) == ((), before.samples, 1.0)
    assert again.training_seconds == before.training_seconds


def test_a_checkpoint_that_was_copied_from_another_host_is_found(tmp_path: Path) -> None:
    world = small_world(tmp_path / "a")
    world.search(Scripted(start(GOOD))).run()
    (probe,) = world.probes()
    there = Path(probe.slices[0].checkpoint or "").parent.parent
    shutil.copytree(there, here := tmp_path / "b" / "0001")
    assert started_folder(probe, here, restart_lost=False) == there
    shutil.rmtree(there)
    assert started_folder(probe, here, restart_lost=False) == here
    shutil.rmtree(here)
    assert started_folder(probe, here, restart_lost=True) == here
    with pytest.raises(StorageError, match="is missing; restore it"):
        started_folder(probe, here, restart_lost=False)
