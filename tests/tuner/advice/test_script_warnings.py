"""What a script's reports say against the job, compared over runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import Configuration
from tests.tuner.advice.test_no_answer import command_world, seen
from tests.tuner.search.world import World, configuration
from tuner.advice import script_warnings as script_warnings_module
from tuner.advice.script_warnings import axes_without_effect, script_warnings
from tuner.advice.warnings import cautions
from tuner.domain.measurement import Measurement
from tuner.search.policy import Stop, StopKind

VALUES = (0.123457, 0.234568, 0.345679)
OTHERS = (0.223457, 0.334568, 0.445679)


def of(what: Configuration, *values: float) -> Measurement:
    return replace(seen(*values, batch=what.batch_size), configuration=what)


def warned(world: World) -> str:
    return "\n".join(script_warnings(world.state()))


def test_the_same_values_for_two_rates_say_that_the_rate_has_no_effect(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    world.keep(of(configuration(1, 64, 0.02), *VALUES))
    world.keep(of(configuration(1, 64, 0.05), *VALUES))
    assert (
        "learning_rate seems to have no effect: the runs with learning rate 0.02 and with learning rate 0.05"
        in (warned(world))
    )
    assert axes_without_effect(world.state()) == {"learning_rate"}


def test_two_axes_that_differ_at_once_are_both_named(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    world.keep(of(configuration(1, 64, 0.02), *VALUES))
    world.keep(of(configuration(1, 32, 0.05), *VALUES))
    assert "batch_size or learning_rate seems to have no effect" in warned(world)


def test_two_rates_that_are_equally_good_by_chance_are_no_warning(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    world.keep(of(configuration(1, 64, 0.02), *VALUES))
    world.keep(of(configuration(1, 64, 0.125), *VALUES))
    world.keep(of(configuration(1, 64, 0.05), *OTHERS))
    assert warned(world) == ""
    assert axes_without_effect(world.state()) == frozenset()


def test_few_digits_or_a_value_that_stands_still_prove_nothing(tmp_path: Path) -> None:
    for number, values in enumerate([(0.1, 0.2, 0.25), (0.693147, 0.693147, 0.693147), (0.123457,)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        world = command_world(folder)
        world.keep(of(configuration(1, 64, 0.02), *values))
        world.keep(of(configuration(1, 64, 0.05), *values))
        assert "no effect" not in warned(world)


def test_runs_that_have_not_started_to_learn_prove_nothing(tmp_path: Path) -> None:
    # As with an agent that acts at random for its first steps.
    early = (0.021234, 0.018765, 0.022345, 0.019876)
    world = command_world(tmp_path)
    world.keep(of(configuration(1, 64, 0.02), *early))
    world.keep(of(configuration(1, 64, 0.05), *early, 0.6, 0.7))
    assert "no effect" not in warned(world)
    assert axes_without_effect(world.state()) == frozenset()


def test_a_target_that_the_first_score_meets_is_doubted(tmp_path: Path) -> None:
    world = command_world(tmp_path, target=0.1)
    world.keep(of(configuration(1, 64, 0.02), *VALUES))
    assert "the target may be too easy, or its unit may be wrong" in warned(world)


def test_a_target_that_is_lost_again_is_remarked(tmp_path: Path) -> None:
    world = command_world(tmp_path, target=0.3, consecutive_scores=2)
    world.keep(of(configuration(1, 64, 0.02), 0.1, 0.31, 0.2, 0.25))
    assert (
        "met the target and then missed it again (0.2 after 1,920 samples). Set consecutive_scores = 3 in"
        in warned(world)
    )
    (run,) = world.state().runs.values()
    assert not run.arrived


def test_every_remark_of_the_study_is_a_warning_once(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    for batch in (64, 32):
        world.keep(replace(of(configuration(1, batch, 0.02), 0.1 * batch), remarks=("percent was read",)))
    stop = Stop(kind=StopKind.NO_GAIN, reason="done")
    assert cautions(world.state(), stop, configuration(1, 64, 0.02)).count("percent was read") == 1


def test_an_answer_outside_of_a_space_that_was_narrowed_is_named(tmp_path: Path) -> None:
    state = command_world(tmp_path).state()
    stop = Stop(kind=StopKind.NO_GAIN, reason="done")

    def named(learning_rate: float) -> list[str]:
        words = cautions(state, stop, configuration(1, 64, learning_rate))
        return [line for line in words if "is now outside" in line]

    highest = max(float(value) for value in state.space.axes["learning_rate"].levels())
    assert named(highest) == []
    (line,) = named(10.0 * highest)
    assert "learning_rate=" in line
    assert "allowed is" in line


def test_only_the_newest_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = command_world(tmp_path)
    for rate in (0.02, 0.05):
        world.keep(of(configuration(1, 64, rate), *VALUES))
    for k in (1, 2, 3):
        world.keep(of(configuration(1, 64 + k, 0.1 + 0.1 * k), *(value + 0.01 * k for value in VALUES)))
    assert axes_without_effect(world.state()) == {"learning_rate"}
    monkeypatch.setattr(script_warnings_module, "_MOST_COMPARED", 3)
    assert axes_without_effect(world.state()) == frozenset()
