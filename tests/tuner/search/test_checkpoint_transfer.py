from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.search.world import World, configuration
from tuner.domain.errors import StorageError
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.checkpoint_transfer import moved_clock, resume_on_other_nodes, transferred
from tuner.search.runs import continues_another


def started(seconds: float = 100.0) -> Measurement:
    points = tuple(
        CurvePoint(
            training_seconds=share * seconds, step=int(100 * share), samples=int(6400 * share), value=0.5
        )
        for share in (0.5, 1.0)
    )
    return Measurement(
        configuration=configuration(1),
        purpose=Purpose.STATISTICS,
        outcome=Outcome.PAUSED,
        curve=points,
        step=100,
        samples=6400,
        training_seconds=seconds,
        charged_seconds=110.0,
        charged_dollars=3.0,
        startup_seconds=1.0,
        checkpoint="somewhere.pt",
    )


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    made = tuple(tmp_path / name for name in ("one", "two", "four"))
    for folder in made:
        (folder / "checkpoints").mkdir(parents=True)
    (made[0] / "checkpoints" / "checkpoint-100.pt").write_bytes(b"weights")
    return made[0], made[1], made[2]


def test_a_resumed_run_keeps_its_samples_prices_its_seconds_and_charges_nothing(
    folders: tuple[Path, Path, Path],
) -> None:
    found = resume_on_other_nodes(started(), folders[0], folders[1], configuration(2), 0.6)
    assert found.configuration == configuration(2)
    assert (found.samples, found.step) == (6400, 100)
    assert found.training_seconds == pytest.approx(60.0)
    assert [p.samples for p in found.curve] == [3200, 6400]
    assert [p.training_seconds for p in found.curve] == pytest.approx([30.0, 60.0])
    assert (found.charged_seconds, found.charged_dollars, found.startup_seconds) == (0.0, 0.0, 0.0)
    assert (found.ranks, found.checkpoint, found.outcome) == ((), None, Outcome.PAUSED)
    assert (folders[1] / "checkpoints" / "checkpoint-100.pt").read_bytes() == b"weights"


def test_only_a_run_whose_first_slice_was_copied_continues_another(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    copied = resume_on_other_nodes(started(), folders[0], folders[1], configuration(2), 0.6)
    # Interrupted at its start: no charge and no samples.
    idle = replace(started(), curve=(), step=0, samples=0, training_seconds=0.0, charged_seconds=0.0)
    world = World(tmp_path / "world")
    for first in (copied, idle, started()):
        world.keep(first, started())
    assert [continues_another(probe) for probe in world.probes()] == [True, False, False]


def test_the_prober_s_clock_is_moved_to_the_resumed_run_s(folders: tuple[Path, Path, Path]) -> None:
    resume_on_other_nodes(started(), folders[0], folders[1], configuration(2), 0.6)
    offset = transferred(folders[1])
    assert offset == pytest.approx(-40.0)
    # The prober counts on from the checkpoint's 100 s.
    went_on = replace(started(), training_seconds=112.0)
    moved = moved_clock(went_on, offset)
    assert moved.training_seconds == pytest.approx(72.0)
    assert moved.curve[-1].training_seconds == pytest.approx(60.0)


def test_a_run_resumed_twice_elsewhere_has_one_clock(folders: tuple[Path, Path, Path]) -> None:
    on_two = resume_on_other_nodes(started(), folders[0], folders[1], configuration(2), 0.5)
    later = moved_clock(replace(started(), training_seconds=110.0), transferred(folders[1]))
    ten_more = replace(on_two, training_seconds=later.training_seconds)
    assert ten_more.training_seconds == pytest.approx(60.0)
    on_four = resume_on_other_nodes(ten_more, folders[1], folders[2], configuration(4), 0.8)
    assert on_four.training_seconds == pytest.approx(48.0)
    # The checkpoint still says 110 s: five seconds more are 53 s on four nodes.
    went_on = replace(started(), training_seconds=115.0)
    assert moved_clock(went_on, transferred(folders[2])).training_seconds == pytest.approx(53.0)


def test_where_nothing_was_transferred_the_clock_is_the_prober_s(tmp_path: Path) -> None:
    assert transferred(tmp_path) == 0.0
    assert moved_clock(started(), 0.0) == started()


def test_a_checkpoint_that_cannot_be_copied_says_so(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(StorageError, match=r"the checkpoint cannot be copied to .*new"):
        resume_on_other_nodes(started(), tmp_path / "nowhere", tmp_path / "new", configuration(2), 0.6)


def test_a_run_resumed_by_the_law_goes_on_where_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir(), new.mkdir()
    here, there = configuration(1, 64, 0.05), configuration(2, 64, 0.05)
    before = world.prober.slice(here, Purpose.TRAINING, 5.0, old)
    resume_on_other_nodes(before, old, new, there, 0.7)
    offset = transferred(new)
    after = world.prober.slice(there, Purpose.TRAINING, 5.0 - offset, new)
    assert after.samples > before.samples
    assert moved_clock(after, offset).training_seconds == pytest.approx(5.0, abs=0.1)
