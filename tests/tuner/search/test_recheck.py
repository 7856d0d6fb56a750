from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.tuner.search.test_repeating import command_job
from tests.tuner.search.world import Law, World, configuration
from tuner.advice.warnings import cautions
from tuner.domain.measurement import Measurement, Purpose, Spread
from tuner.search.policy import Continue, Start, Stop, StopKind
from tuner.search.recheck import cold_start, recheck

BASELINE = configuration(1, 64, 0.02)
OTHER = configuration(1, 128, 0.08)
SETTINGS = {"nodes": 1, "batch_size": 64, "learning_rate": 0.02}


def world_of(folder: Path, **more: Any) -> World:
    sections = {
        "space": {"batch_size": [64, 128], "learning_rate": [0.02, 0.08]},
        "cluster": {"nodes": [1]},
        "baseline": SETTINGS,
        "goal": {"target": 0.85, "trainings": 20},
        **more,
    }
    job = command_job(resume="--resume {checkpoint}", **sections)
    return World(folder, job=job, law=Law(samples=6e4, seconds_per_sample=1e-3))


def with_pace(measurement: Measurement, factor: float) -> Measurement:
    """The measurement with steps that took so many times as long."""
    (rank, *_) = measurement.ranks
    step = Spread(
        **{n: factor * v for n, v in vars(rank.step).items() if n != "count"}, count=rank.step.count
    )
    return replace(measurement, ranks=(replace(rank, step=step),))


def test_present_settings_that_ran_first_are_timed_again(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.ran(BASELINE, 5.0)
    world.ran(OTHER, 5.0)
    again = recheck(world.state(), OTHER)
    assert isinstance(again, Start)
    assert (again.configuration, again.purpose) == (BASELINE, Purpose.TIMING)
    assert recheck(world.state(), BASELINE) is None
    world.ran(BASELINE, 2.0, purpose=Purpose.TIMING)
    assert recheck(world.state(), OTHER) is None


def test_settings_that_did_not_run_first_are_not_timed_again(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.ran(OTHER, 5.0)
    world.ran(BASELINE, 5.0)
    assert recheck(world.state(), OTHER) is None


def test_where_steps_are_not_timed_alone_the_run_goes_on_to_its_next_score(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.ran(BASELINE, 5.0)
    state = world.state()
    (run,) = state.runs.values()
    seen = run.measurement.samples
    schedule = replace(state.schedule, every_samples=float(seen), every_steps=None, times_steps=False)
    again = recheck(replace(state, schedule=schedule), OTHER)
    assert isinstance(again, Continue)
    assert again.until.samples == 2 * seen


def test_a_first_slice_that_was_clearly_slower_is_said(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.ran(BASELINE, 5.0)
    world.ran(BASELINE, 2.0, purpose=Purpose.TIMING)
    state = world.state()
    assert cold_start(state) is None
    first, *others = state.probes
    slow = replace(first, slices=(with_pace(first.slices[0], 3.0),))
    state = replace(state, probes=(slow, *others))
    assert cold_start(state) is not None
    stop = Stop(kind=StopKind.NO_GAIN, reason="nothing pays back")
    (words,) = [words for words in cautions(state, stop, OTHER) if "ran first" in words]
    assert "a step of the first slice took 3.1 times as long" in words
    assert "possible causes" in words
