from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tuner.domain.measurement import Outcome
from tuner.job import GoalSection
from tuner.past_runs.convert import MOST_SCORES, PastRun, past_runs
from tuner.past_runs.found import FoundRun
from tuner.past_runs.mapping import Mapping

GOAL = GoalSection(metric="accuracy", target=0.9)
ROWS = tuple({"step": float(s), "acc": v, "time": 50.0 + s} for s, v in ((10, 0.5), (20, 0.7), (30, 0.92)))
PARAMETERS = {"bs": "64", "lr": "0.1"}


def found(rows: Any = ROWS, name: str = "a", **parameters: str) -> FoundRun:
    return FoundRun(
        name=name,
        source=Path("runs"),
        format="csv",
        rows=tuple(rows),
        parameters={**PARAMETERS, **parameters},
    )


def mapping(**keys: Any) -> Mapping:
    stated = {"metric": "acc", "batch_size": "bs", "learning_rate": "lr"}
    position = {} if {"samples", "epoch"} & set(keys) else {"step": "step"}
    return Mapping.model_validate({**stated, **position, **keys})


def one(run: FoundRun, known: int | None = None, goal: GoalSection = GOAL, **keys: Any) -> PastRun:
    runs, left_out = past_runs([run], mapping(**keys), goal, known)
    assert left_out == []
    return runs[0]


def reason(run: FoundRun, known: int | None = None, goal: GoalSection = GOAL, **keys: Any) -> str:
    runs, left_out = past_runs([run], mapping(**keys), goal, known)
    assert runs == []
    assert left_out[0].what == run.label
    return left_out[0].reason


def samples(run: PastRun) -> list[int]:
    return [point.samples for point in run.measurement.curve]


def test_steps_count_with_the_batch_size() -> None:
    run = one(found())
    assert samples(run) == [640, 1280, 1920]
    assert [point.value for point in run.measurement.curve] == [0.5, 0.7, 0.92]
    assert run.measurement.configuration.as_dict() == {
        "nodes": 1,
        "batch_size": 64,
        "learning_rate": 0.1,
        "strategy": "all_reduce",
    }
    # It may be imported again once it is longer.
    assert run.measurement.outcome is Outcome.PAUSED


def test_a_batch_may_be_a_product_and_a_strategy_may_have_knobs() -> None:
    run = one(
        found(per="16", kind="local_sgd", h="8"),
        batch_size=("per", 4),
        strategy="kind",
        tau="h",
        nodes=2,
    )
    assert run.measurement.configuration["tau"] == 8
    assert (run.measurement.configuration.batch_size, run.measurement.configuration.nodes) == (64, 2)


@pytest.mark.parametrize(
    ("epochs", "first_epoch", "expected"),
    [
        ([1, 2], None, [100, 200]),
        ([0, 1], None, [100, 200]),
        ([0.0, 0.5], None, [0, 50]),
        ([1, 2], 0, [200, 300]),
        ([0, 1], 1, [0, 100]),
    ],
)
def test_whole_epochs_from_zero_end_one_later(
    epochs: list[float], first_epoch: int | None, expected: list[int]
) -> None:
    rows = [{"ep": float(epoch), "acc": 0.5} for epoch in epochs]
    assert samples(one(found(rows), 100, epoch="ep", first_epoch=first_epoch)) == expected


def test_the_mapping_s_epoch_counts_before_the_job_s() -> None:
    rows = [{"ep": 1.0, "acc": 0.5}]
    assert samples(one(found(rows), 100, epoch="ep", epoch_samples=7)) == [7]


def test_seconds_count_from_the_start_at_the_pace_of_the_run() -> None:
    clock = [point.training_seconds for point in one(found(), seconds="time").measurement.curve]
    assert clock == pytest.approx([10.0, 20.0, 30.0])
    assert [p.training_seconds for p in one(found()).measurement.curve] == [0.0, 0.0, 0.0]


def rows_of(*scores: tuple[float, float]) -> list[dict[str, float]]:
    return [{"step": step, "acc": value} for step, value in scores]


def test_of_scores_at_one_place_the_last_one_counts() -> None:
    run = one(found(rows_of((10, 0.2), (20, 0.1), (20, 0.3))))
    assert [(point.samples, point.value) for point in run.measurement.curve] == [(640, 0.2), (1280, 0.3)]
    # After a resume, and the user should know.
    run = one(found(rows_of((10, 0.2), (20, 0.1), (30, 0.2), (20, 0.3), (30, 0.4))))
    assert [point.value for point in run.measurement.curve] == [0.2, 0.3, 0.4]
    assert "its step decreases once, as after a resume" in run.note


def test_several_runs_in_one_file_are_not_taken_for_one() -> None:
    two = rows_of((10, 0.2), (20, 0.3), (10, 0.25), (20, 0.35), (30, 0.4))
    assert "its step ('step') begins again after score 2" in reason(found(two))
    assert "a column 'run'" in reason(found(two))
    # The newest score may come first, and an export may hold a score twice.
    for rows in (ROWS[::-1], (*ROWS, *ROWS), ({**ROWS[0], "acc": 0.4}, *ROWS)[::-1]):
        assert (samples(one(found(rows))), one(found(rows)).note) == ([640, 1280, 1920], "")


def test_a_long_curve_is_thinned_and_says_so() -> None:
    rows = [{"step": float(s), "acc": min(s / 3000, 0.95)} for s in range(1, 3001)]
    run = one(found(rows))
    assert len(run.measurement.curve) <= MOST_SCORES + 1
    assert run.measurement.samples == 3000 * 64
    assert "every 8th of 3000 scores" in run.note


@pytest.mark.parametrize(
    ("run", "keys", "words"),
    [
        (found(bs="x"), {}, "'bs' (batch_size) is 'x', which is not a finite number"),
        (found(bs="1e400"), {}, "not a finite number"),
        (found(bs="2.5"), {}, "its batch_size (bs) is 2.5, which is not a whole number"),
        (found(bs="0"), {}, "not a whole number from 1"),
        (found(lr="-0.1"), {}, "its learning_rate is -0.1; it must be above 0"),
        (found(), {"batch_size": "absent"}, "it has no parameter 'absent' (batch_size)"),
        (found(kind="magic"), {"strategy": "kind"}, "its strategy is 'magic'; known ones are"),
        (found(kind="local_sgd"), {"strategy": "kind", "tau": "bs", "batch_size": 2**41}, "a whole number"),
        (found(), {"metric": "f1"}, "it has no column 'f1' (metric)"),
        (found(), {"samples": "seen"}, "none of its scores has a 'seen' (samples)"),
        (found([{"step": 0.0, "acc": 0.5}] * 3), {}, "all of its scores have step 0"),
        (found([{"step": math.inf, "acc": 0.5}]), {}, "not always a number of at least 0"),
        (found([{"step": -1.0, "acc": 0.5}]), {}, "not always a number of at least 0"),
        (found([{"step": 1e19, "acc": 0.5}]), {}, "not always a number of at least 0"),
        (found([{"step": 1e18, "acc": 0.5}]), {"batch_size": 64}, "which is not possible"),
        (found([{"step": 1.0, "acc": math.nan}]), {}, "its metric is nan after 64 samples"),
        (found([{"step": 1.0, "acc": math.inf}]), {}, "its metric is inf"),
        (found([{"step": 1.0, "acc": 93.1}]), {}, "state scale = 0.01"),
        (found([{"step": 1.0, "acc": -3.0}]), {}, "accuracy lies between 0 and 1"),
        (found(), {"name_pattern": r"bs(?P<bs>\d+)"}, "name_pattern does not match 'runs a'"),
    ],
)
def test_a_run_of_no_use_is_left_out_with_its_reason(run: FoundRun, keys: dict[str, Any], words: str) -> None:
    assert words in reason(run, **keys)


def test_percent_and_fractions_are_distinguished_for_metrics_of_any_name() -> None:
    goal = GoalSection(metric="f1", direction="maximize", target=80.0)
    assert "scale = 100" in reason(found(), goal=goal)
    assert one(found(), goal=goal, scale=100.0).measurement.curve[-1].value == pytest.approx(92.0)


def test_a_run_in_percent_does_not_reach_a_fraction_at_its_first_score() -> None:
    goal = GoalSection(metric="f1", direction="maximize", target=0.8)
    percent = found([{"step": float(s), "acc": v} for s, v in ((1, 0.9), (2, 4.9), (3, 50.0), (4, 76.0))])
    assert "goes from 0.9 to 76, but the target is 0.8" in reason(percent, goal=goal)
    assert "state scale = 0.01" in reason(percent, goal=goal)
    assert one(percent, goal=goal, scale=0.01).measurement.curve[-1].value == pytest.approx(0.76)
    # It may be so.
    assert one(percent, goal=goal, scale=1.0).measurement.curve[-1].value == 76.0
    # Errors and losses: a fraction that is to fall to 12 percent would be there at once; a loss may be large.
    assert "scale = 100" in reason(found(), goal=GoalSection(metric="wer", direction="minimize", target=12.0))
    falling = found([{"step": 1.0, "acc": 6.9}, {"step": 2.0, "acc": 2.3}])
    assert one(falling, goal=GoalSection(metric="val_loss", direction="minimize", target=0.5)).note == ""


def test_steps_that_contradict_the_epochs_are_noticed() -> None:
    rows = [{"step": 10.0 * e, "acc": 0.5, "epoch": float(e)} for e in (1, 2, 3)]
    assert samples(one(found(rows), 640))[-1] == 1920
    assert "batch_size, step or epoch_samples is wrong" in reason(found(rows), 5000)


def test_the_pattern_reads_parameters_from_the_name() -> None:
    run = one(found(name="bs128_lr3e-2"), name_pattern=r"bs(?P<bs>\d+)_lr(?P<lr>[\d.e-]+)")
    assert (run.measurement.configuration.batch_size, run.measurement.configuration.learning_rate) == (
        128,
        0.03,
    )


def test_one_bad_run_does_not_spoil_the_others() -> None:
    runs, left_out = past_runs([found(bs="x"), found()], mapping(), GOAL, None)
    assert (len(runs), len(left_out)) == (1, 1)
