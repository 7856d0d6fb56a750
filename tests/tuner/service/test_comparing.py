"""`compare`: which of two trainings is sooner, by joint posterior samples, and what decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from storage import open_storage
from tests.tuner.service.desk import Desk
from tuner.advice.comparison import Comparison, _decides, _price_answer, _undecided
from tuner.domain.errors import JobError
from tuner.domain.estimate import Estimate
from tuner.domain.format import format_dollars, format_seconds
from tuner.service.comparing import AskedConfiguration, compare_configurations, compare_studies
from tuner.service.prediction_views import comparison_data, comparison_rows


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Two studies of one job: the second one is ten times as fast; tests only read them."""
    folder = tmp_path_factory.mktemp("compare")
    with open_storage(f"sqlite:///{folder / 'paceline.db'}") as store:
        desk = Desk(folder, store)
        desk.run()
        desk.law = replace(desk.law, seconds_per_sample=1e-4, fixed_seconds=2e-4)
        desk.run(fresh=True)
        yield desk


def asked(**values: float | int | str) -> AskedConfiguration:
    return AskedConfiguration(values=values)


def compared(desk: Desk, one: AskedConfiguration, other: AskedConfiguration) -> Comparison:
    return compare_configurations(desk.opened, desk.store, one, other)[0]


@pytest.mark.slow
def test_two_learning_rates_differ_only_in_samples(tuned: Desk) -> None:
    found = compared(tuned, asked(learning_rate=0.1), asked(learning_rate=0.004))
    assert found.probabilities[0] > 0.9
    assert found.speed_ratio is not None
    assert found.speed_ratio.lower == pytest.approx(found.speed_ratio.upper)
    assert "What decides is the number of samples to target" in found.decides
    a, b = (side.forecast.configuration for side in found.sides)
    truth = tuned.law.samples_to_target(b) / tuned.law.samples_to_target(a)
    assert found.samples_ratio is not None
    assert found.samples_ratio.lower < truth < found.samples_ratio.upper


def test_errors_that_both_have_cancel(tuned: Desk) -> None:
    """On one node and on two the learning curve is the same, so only the speed is compared."""
    found = compared(tuned, asked(nodes=1, learning_rate=0.3), asked(nodes=2, learning_rate=0.3))
    assert found.samples_ratio is not None
    # Not exactly 1, since no training arrives before its first score.
    assert found.samples_ratio.upper / found.samples_ratio.lower < 1.1
    seconds = [side.forecast.seconds for side in found.sides]
    independent = (seconds[1].upper / seconds[0].lower) / (seconds[1].lower / seconds[0].upper)
    assert found.seconds_ratio is not None
    assert found.seconds_ratio.upper / found.seconds_ratio.lower < independent**0.5


def test_the_answer_turns_with_the_sides(tuned: Desk) -> None:
    one, other = asked(learning_rate=0.1), asked(learning_rate=0.004)
    found, turned = compared(tuned, one, other), compared(tuned, other, one)
    assert found.answer.startswith("A is sooner (probability above 95%): B takes ")
    assert turned.answer.startswith("B is sooner (probability above 95%): A takes ")
    assert turned.probabilities == pytest.approx(found.probabilities[::-1], abs=0.02)


def test_what_was_not_trained_is_called_predicted(tuned: Desk) -> None:
    found = compared(tuned, asked(), asked(learning_rate=0.0123))
    assert "as predicted" in found.answer
    assert found.remarks == ("B was not trained: the models predict it.",)


def test_the_baseline_can_be_named_and_changed(tuned: Desk) -> None:
    baseline = tuned.job.baseline_configuration()
    assert baseline is not None
    found = compared(
        tuned,
        AskedConfiguration(base="baseline", values={}),
        AskedConfiguration(base="baseline", values={"nodes": 2}),
    )
    assert [side.forecast.configuration for side in found.sides] == [baseline, baseline.replaced(nodes=2)]


def test_one_configuration_is_not_compared_with_itself(tuned: Desk) -> None:
    with pytest.raises(JobError, match="A and B are the same configuration"):
        compared(tuned, asked(), asked())


def test_studies_are_compared_by_name_or_number(tuned: Desk) -> None:
    names = [study.name for study in tuned.store.ledger.studies()]
    found, following = compare_studies(tuned.store, names[0], names[1])
    assert found.probabilities[1] == 0.95
    assert "the time per sample" in found.decides
    assert following == "paceline report job.toml"
    numbers = [str(study.study_id) for study in tuned.store.ledger.studies()]
    assert compare_studies(tuned.store, *numbers)[0] == found
    with pytest.raises(JobError, match=r"no study 'jub' in this database; did you mean 'job'\? Known are"):
        compare_studies(tuned.store, "jub", names[1])
    with pytest.raises(JobError, match="are the same study"):
        compare_studies(tuned.store, names[0], numbers[0])


def test_the_cheaper_one_is_named_from_joint_prices(tuned: Desk) -> None:
    # This job has no prices, so its answer starts with the time.
    found = compared(tuned, asked(learning_rate=0.1), asked(learning_rate=0.004))
    assert found.answer.startswith("A is sooner")
    assert (found.dollars_ratio, found.better) == (None, 0)
    ratio = Estimate(lower=0.5, median=0.7, upper=0.9)
    words = "B is cheaper (probability above 95%): A costs 1.4x the price of B (90% interval 1.1x to 2x)."
    assert _price_answer(found.sides, 1, 0.95, ratio) == words
    unsure = _price_answer(found.sides, 0, 0.62, ratio)
    assert unsure.startswith("Not decided: the probability that A is cheaper is 62%: B costs 0.7x")
    starting = replace(found.sides[0], startup_seconds=3.0), found.sides[1]
    assert "the price of B, start-up included (90%" in _price_answer(starting, 1, 0.95, ratio)


def test_equal_start_ups_decide_nothing_and_are_part_of_the_time(tuned: Desk) -> None:
    found = compared(tuned, asked(learning_rate=0.1), asked(learning_rate=0.004))
    training = np.log([1.3, 1.4, 1.5])
    logs = {"training": training, "samples": training, "speed": np.zeros(3), "seconds": training / 3}
    start_ups = {"equal": (8.0, 8.0), "unequal": (8.0, 2.0)}
    said = {}
    for name, seconds in start_ups.items():
        a, b = (replace(side, startup_seconds=one) for side, one in zip(found.sides, seconds, strict=True))
        said[name] = _decides((a, b), 0, np.ones(3, dtype=np.bool_), np.zeros(3, dtype=np.bool_), logs)
    assert said["equal"] == "What decides is the number of samples to target: B has 1.4x that of A."
    assert "In start-up, B is better by" in said["unequal"]
    rows = {row["name"]: row for row in comparison_rows(replace(found, sides=(a, b)))}
    total = found.sides[0].forecast.seconds.median + 8.0
    assert rows["time with start-up"]["A"] == format_seconds(total)
    assert rows["predicted time to target"]["B / A"] == rows["samples to target"]["B / A"]
    assert "price with start-up" not in rows
    # At $2 a second, 8 s of start-up cost $16.
    priced = replace(a, forecast=replace(a.forecast, dollars=a.forecast.seconds.times(2.0)))
    rows = {row["name"]: row for row in comparison_rows(replace(found, sides=(priced, b)))}
    shown = {"name": "price with start-up", "A": format_dollars(2.0 * total), "B": None, "B / A": None}
    assert rows["price with start-up"] == shown


def test_rows_have_both_sides_and_their_ratio(tuned: Desk) -> None:
    found = compared(tuned, asked(learning_rate=0.1), asked(learning_rate=0.004))
    rows = {row["name"]: row for row in comparison_rows(found)}
    assert rows["learning rate"] == {"name": "learning rate", "A": 0.1, "B": 0.004, "B / A": None}
    assert "to" in rows["samples to target"]["B / A"]
    data = json.loads(json.dumps(comparison_data(found, "paceline train"), allow_nan=False))
    assert data["a"]["configuration"]["learning_rate"] == 0.1
    assert data["b_over_a"]["seconds"]["median"] > 1
    assert data["decides"] == found.decides


def test_the_chance_that_neither_is_sooner_is_stated_unless_it_is_small() -> None:
    assert _undecided(0.02) == ()
    (words,) = _undecided(0.13)
    assert words.startswith("With a probability of 13%, neither is sooner: ")
