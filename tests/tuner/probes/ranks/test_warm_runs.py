"""Runs kept in memory serve the next slice only while they are what the newest checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.tuner.emulation.toy import emulated
from tuner.probes.ranks.warm_runs import WarmRuns

FOLDER, CHECKPOINT = Path("probe"), Path("probe/checkpoint-00000001.pt")


def test_a_stored_run_goes_on_with_the_random_numbers_it_was_left_with() -> None:
    stored, run = WarmRuns(), emulated("gossip_pull", 4)
    run.run(samples=100)
    assert run.staleness_steps is not None
    torch.manual_seed(3)
    stored.keep(FOLDER, run, CHECKPOINT)
    expected = torch.rand(3)
    torch.manual_seed(4)
    assert stored.take(FOLDER, emulated("gossip_pull", 4).trained, CHECKPOINT) is None, "of another workload"
    stored.keep(FOLDER, run, CHECKPOINT)
    torch.manual_seed(3)
    stored.keep(FOLDER, run, CHECKPOINT)
    torch.manual_seed(4)
    assert stored.take(FOLDER, run.trained, CHECKPOINT) is run
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert run.staleness_steps is None
    assert not run.times[0].compute


def test_a_run_is_not_taken_where_another_checkpoint_is_the_newest_nor_twice() -> None:
    stored, run = WarmRuns(), emulated("local_sgd", 2)
    stored.keep(FOLDER, run, CHECKPOINT)
    assert stored.take(FOLDER, run.trained, Path("probe/checkpoint-00000002.pt")) is None
    stored.keep(FOLDER, run, CHECKPOINT)
    assert stored.take(Path("other"), run.trained, CHECKPOINT) is None
    assert stored.take(FOLDER, run.trained, CHECKPOINT) is run
    assert stored.take(FOLDER, run.trained, CHECKPOINT) is None


def test_the_oldest_give_way_and_what_is_too_large_is_not_stored() -> None:
    run = emulated("local_sgd", 2)
    num_bytes = 4 * sum(4 * p.numel() for rank in run.ranks for p in rank.model.parameters())
    stored = WarmRuns(most_bytes=2 * num_bytes)
    for name in ("a", "b", "c"):
        stored.keep(Path(name), run, CHECKPOINT)
    assert stored.take(Path("a"), run.trained, CHECKPOINT) is None
    assert stored.take(Path("c"), run.trained, CHECKPOINT) is run
    small = WarmRuns(most_bytes=num_bytes - 1)
    small.keep(FOLDER, run, CHECKPOINT)
    assert small.take(FOLDER, run.trained, CHECKPOINT) is None
