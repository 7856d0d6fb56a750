from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tuner.domain.measurement import CurvePoint
from tuner.job.sections import GoalSection
from tuner.probes.commands.positions import Positions
from tuner.probes.commands.progress_line import ProgressLine, ScriptLine
from tuner.probes.commands.run_clock import ReadPoint
from tuner.probes.commands.script_habits import ScriptHabits

#: The scripts of these tests train 10 samples a step, 100 an epoch, and take 1 s for an epoch.
BATCH, EPOCH = 10, 100
GOAL = GoalSection(metric="accuracy", target=0.9)


class Reader:
    """Reads lines as a slice does: all of them again where a line shows how the script counts."""

    def __init__(
        self,
        *,
        goal: GoalSection = GOAL,
        habits: ScriptHabits | None = None,
        epoch_samples: int | None = EPOCH,
        known: ReadPoint | None = None,
        earlier: Sequence[CurvePoint] = (),
        may_restart: bool = False,
    ) -> None:
        self.habits = habits or ScriptHabits()
        self.lines: list[ScriptLine] = []
        self.found: list[ProgressLine] = []
        self._make: Callable[[], Positions] = lambda: Positions(
            self.habits,
            goal,
            batch_size=BATCH,
            epoch_samples=epoch_samples,
            known=known or ReadPoint(),
            earlier=earlier,
            started_at=0.0,
            resumes=known is not None,
            may_restart=may_restart,
        )
        self.positions = self._make()

    def add(self, at: float, **fields: object) -> None:
        line = ScriptLine(seen_at=at, text=f"{fields}", **fields)
        self.lines.append(line)
        self.found += self.positions.place([line])
        while self.positions.has_changed:
            self.positions = self._make()
            self.found = self.positions.place(self.lines)

    @property
    def scores(self) -> list[tuple[int, float]]:
        return [(line.samples, line.value) for line in self.found if line.value is not None]

    @property
    def places(self) -> list[tuple[int, float]]:
        return [(line.samples, line.seen_at) for line in self.found]


def test_an_epoch_reported_at_its_end_is_a_whole_one() -> None:
    reader = Reader()
    for epoch in (1, 2, 3):
        reader.add(2.0 + epoch, epoch=epoch, value=0.1 * epoch)
    assert reader.scores == [(100, 0.1), (200, 0.2), pytest.approx((300, 0.3))]
    assert reader.habits.first_epoch == 1
    assert reader.habits.many_lines_an_epoch is False


@pytest.mark.parametrize("startup", [0.0, 1.0, 30.0])
def test_epochs_that_count_from_0_are_noticed(startup: float) -> None:
    reader = Reader()
    for epoch in (0, 1, 2):
        reader.add(startup + epoch + 1.0, epoch=epoch, value=0.1 * (epoch + 1))
    assert [samples for samples, _ in reader.scores] == [100, 200, 300]
    assert "from 0" in reader.habits.remarks[0]


def test_epoch_0_before_training_is_the_untrained_model() -> None:
    reader = Reader()
    for epoch in (0, 1, 2):
        reader.add(0.3 + epoch, epoch=epoch, value=0.1 * (epoch + 1))
    assert [samples for samples, _ in reader.scores] == [0, 100, 200]


def test_the_job_may_say_what_the_first_epoch_is_called() -> None:
    reader = Reader(habits=ScriptHabits(first_epoch=0))
    reader.add(0.3, epoch=0, value=0.1)
    assert reader.scores == [(100, 0.1)]


def test_parts_of_epochs_are_what_they_say() -> None:
    reader = Reader()
    for epoch in (0.0, 0.25, 0.5, 1.0):
        reader.add(epoch, epoch=epoch, value=0.1)
    assert [samples for samples, _ in reader.scores] == [0, 25, 50, 100]


def test_a_value_takes_the_epoch_announced_before_it() -> None:
    reader = Reader()
    for epoch in (1, 2, 3):
        reader.add(epoch - 1.0, epoch=epoch)
        reader.add(epoch - 0.05, value=0.1 * epoch)
    assert [line.samples for line in reader.found] == [0, 100, 100, 200, 200, 300]
    assert [samples for samples, _ in reader.scores] == [100, 200, 300]


def test_an_epoch_named_as_it_ends_is_done_there() -> None:
    reader = Reader()
    for epoch in (1, 2, 3):
        reader.add(3.0 + epoch, epoch=epoch)
        reader.add(3.1 + epoch, value=0.1 * epoch)
    assert reader.places[0] == (100, 4.0)
    assert [samples for samples, _ in reader.scores] == [100, 200, 300]


def test_many_scores_of_one_epoch_count_once_as_of_its_end() -> None:
    reader = Reader()
    for batch in range(25):
        epoch, within = divmod(batch, 10)
        reader.add(0.1 * (batch + 1), epoch=epoch, value=0.01 * batch)
        assert within < 10
    assert [samples for samples, _ in reader.scores] == [100, 200]
    assert [value for _, value in reader.scores] == pytest.approx([0.09, 0.19])
    assert [line.seen_at for line in reader.found] == pytest.approx([1.05, 2.05])
    # The last epoch was cut off: nothing is known of it, unless the script ended by itself.
    assert [line.samples for line in reader.positions.finish()] == [300]


@pytest.mark.parametrize("counts", ["step", "samples"])
@pytest.mark.parametrize("first", [0, 1])
def test_scores_behind_progress_within_epochs_belong_to_their_ends(counts: str, first: int) -> None:
    reader = Reader()
    factor = 1 if counts == "step" else BATCH
    for epoch in range(3):
        for step in (0, 4, 8):
            done = {counts: float(step * factor)}
            reader.add(1.0 + epoch + step / 10, epoch=float(epoch + first), **done)
        reader.add(2.0 + epoch, value=0.1 * (epoch + 1))
    assert [samples for samples, _ in reader.scores] == [100, 200, 300]
    assert reader.habits.scores_end_epochs is True
    assert [samples for samples, _ in reader.places] == [
        0,
        40,
        80,
        100,
        100,
        140,
        180,
        200,
        200,
        240,
        280,
        300,
    ]


def test_a_line_only_at_the_beginning_of_each_epoch_is_enough() -> None:
    reader = Reader()
    for epoch in range(1, 4):
        reader.add(float(epoch), epoch=float(epoch), step=0.0)
        reader.add(epoch + 0.9, value=0.1 * epoch)
    assert [samples for samples, _ in reader.scores] == [100, 200, 300]


def test_scores_on_the_way_through_an_epoch_belong_to_the_position_before() -> None:
    reader = Reader()
    for epoch in (1, 2):
        for step in (2, 4, 6, 8):
            reader.add(epoch + step / 10, epoch=float(epoch), step=float(step))
            if step in (4, 8):
                reader.add(epoch + step / 10 + 0.05, value=0.1 * epoch + 0.01 * step)
    assert reader.habits.scores_end_epochs is False
    assert [samples for samples, _ in reader.scores] == [40, 80, 140, 180]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_steps_of_the_whole_run_place_scores_by_themselves(every: int) -> None:
    # 10 steps of an epoch of 109 samples: the last 9 are dropped, so that epochs are shorter than they seem.
    reader = Reader(epoch_samples=109)
    for epoch in range(12):
        for step in range(1, 11):
            if step % every == 0:
                reader.add(epoch + step / 10, epoch=float(epoch + 1), step=float(10 * epoch + step))
        reader.add(epoch + 1.05, value=0.05 * epoch)
    assert [samples for samples, _ in reader.scores] == [100 * epoch for epoch in range(1, 13)]
    assert reader.positions.refusal is None


def test_a_score_once_on_the_way_through_each_epoch_stays_there() -> None:
    reader = Reader()
    for epoch in range(1, 4):
        for step in (2, 4):
            reader.add(epoch + step / 10, epoch=float(epoch), step=float(step))
        reader.add(epoch + 0.5, value=0.1 * epoch)
    assert [samples for samples, _ in reader.scores] == [40, 140, 240]


def test_a_score_before_each_epoch_is_not_of_its_end() -> None:
    reader = Reader()
    for epoch in range(4):
        reader.add(float(epoch), epoch=float(epoch), step=0.0)
        reader.add(epoch + 0.1, value=0.1 * epoch)
    assert [samples for samples, _ in reader.scores] == [0, 100, 200, 300]


def test_after_a_resume_scores_still_belong_to_the_ends_of_epochs() -> None:
    habits = ScriptHabits(first_epoch=1, step_is_within_epoch=True, scores_end_epochs=True)
    known = ReadPoint(samples=180, seconds=1.8, value=0.1)
    earlier = CurvePoint(training_seconds=1.0, step=10, samples=100, value=0.1)
    reader = Reader(habits=habits, known=known, earlier=[earlier])
    for epoch in (2, 3):
        for step in (0, 5):
            reader.add(epoch + step / 10, epoch=float(epoch), step=float(step))
        reader.add(epoch + 0.9, value=0.1 * epoch)
    assert [samples for samples, _ in reader.scores] == [200, 300]


def test_steps_within_epochs_are_added_to_the_epochs() -> None:
    reader = Reader()
    for step in range(1, 26):
        epoch, within = divmod(step - 1, 10)
        reader.add(0.1 * step, epoch=epoch + 1, step=within + 1, value=0.5 if within == 9 else None)
    assert [line.samples for line in reader.found] == [10 * step for step in range(1, 26)]
    assert [line.step for line in reader.found] == list(range(1, 26))
    assert reader.scores == [(100, 0.5), (200, 0.5)]


def test_an_epoch_s_size_follows_from_steps_within_it() -> None:
    reader = Reader(epoch_samples=None)
    for step in range(25):
        epoch, within = divmod(step, 10)
        reader.add(0.1 * step, epoch=epoch, step=within + 1)
    assert reader.found[-1].samples == 250
    assert any("workload.epoch_samples" in words for words in reader.habits.remarks)


def test_steps_that_go_on_beside_epochs_are_those_of_the_run() -> None:
    reader = Reader()
    for step in range(1, 26):
        reader.add(0.1 * step, epoch=(step - 1) // 10, step=step)
    assert [line.samples for line in reader.found] == [10 * step for step in range(1, 26)]


def test_steps_that_begin_again_after_as_many_as_an_epoch_has_are_of_the_next() -> None:
    reader = Reader()
    for step in range(1, 26):
        reader.add(0.1 * step, step=(step - 1) % 10 + 1)
    assert [line.samples for line in reader.found] == [10 * step for step in range(1, 26)]


def test_steps_that_begin_again_for_no_known_reason_are_refused() -> None:
    reader = Reader()
    for step in (*range(1, 36), 1):
        reader.add(0.1 * step, step=step)
    assert reader.positions.refusal is not None
    assert "fell from 350 to 10" in reader.positions.refusal


def test_a_restart_by_torchrun_goes_on_from_where_it_says() -> None:
    reader = Reader(may_restart=True)
    for step in (*range(1, 36), 21, 22, 23):
        reader.add(0.1 * step, step=step)
    assert reader.positions.refusal is None
    assert [line.samples for line in reader.found[-3:]] == [210, 220, 230]


def test_a_single_line_that_goes_back_is_left_out_and_counted() -> None:
    reader = Reader()
    for step in (1, 2, 3, 2, 4):
        reader.add(0.1 * step, step=step)
    assert [line.step for line in reader.found] == [1, 2, 3, 4]
    (ignored,) = reader.positions.ignored.values()
    assert ignored.count == 1


def test_late_scores_are_placed_at_the_step_they_name() -> None:
    reader = Reader()
    for step in range(1, 20):
        reader.add(0.1 * step, step=step)
        if step > 6 and step % 2 == 0:
            reader.add(0.1 * step, step=step - 6, value=0.1)
    assert [samples for samples, _ in reader.scores] == [20, 40, 60, 80, 100, 120]
    assert all(line.is_late for line in reader.found if line.value is not None)


def test_two_values_at_one_position_are_named() -> None:
    reader = Reader()
    reader.add(0.1, step=1, value=0.5)
    reader.add(0.1, step=1, value=0.25)
    reader.add(0.2, step=2, value=0.5)
    reader.add(0.2, step=2, value=0.25)
    assert len(reader.habits.remarks) == 1
    assert "several values for one position, such as 0.5 and 0.25 at 10 samples" in reader.habits.remarks[0]


def test_a_value_without_any_position_is_counted_as_left_out() -> None:
    reader = Reader()
    reader.add(0.1, value=0.5)
    assert list(reader.positions.ignored) == ["reports a value before any position (step, samples or epoch)"]


KNOWN = ReadPoint(step=20, samples=200, seconds=2.0, seconds_per_sample=0.01, value=0.5)
EARLIER = [
    CurvePoint(training_seconds=0.1 * n, step=n, samples=10 * n, value=0.025 * n) for n in range(1, 21)
]


@pytest.mark.parametrize("kind", ["step", "epoch"])
def test_a_resumed_script_that_counts_anew_goes_on_where_its_score_does(kind: str) -> None:
    known, earlier = (KNOWN, EARLIER) if kind == "step" else (replace(KNOWN, samples=2000), EARLIER)
    unit = 10 if kind == "step" else 100
    earlier = [replace(point, samples=unit * point.step) for point in earlier]
    reader = Reader(known=known, earlier=earlier, habits=ScriptHabits(first_position=unit, first_epoch=1))
    for number in range(1, 4):
        reader.add(float(number), **{kind: number}, value=0.5 + 0.025 * number)
    assert [line.samples for line in reader.found] == [known.samples + unit * n for n in range(1, 4)]


def test_a_resumed_script_that_began_anew_repeats_and_it_is_said() -> None:
    reader = Reader(known=KNOWN, earlier=EARLIER, habits=ScriptHabits(first_position=10))
    for step in range(1, 4):
        reader.add(0.1 * step, step=step, value=0.025 * step)
    assert [line.samples for line in reader.found] == [10, 20, 30]
    assert "started from scratch although it was asked to resume" in reader.habits.remarks[0]


def test_a_resumed_script_that_began_anew_with_its_epochs_says_so_too() -> None:
    earlier = [replace(point, samples=10 * point.samples) for point in EARLIER]
    known = replace(KNOWN, samples=10 * KNOWN.samples)
    reader = Reader(known=known, earlier=earlier, habits=ScriptHabits(first_epoch=1))
    for epoch in range(1, 4):
        reader.add(float(epoch), epoch=epoch, value=0.025 * epoch)
    assert [line.samples for line in reader.found] == [100, 200, 300]
    assert "started from scratch although it was asked to resume" in reader.habits.remarks[0]


def test_a_resumed_script_that_counts_on_is_where_it_says() -> None:
    reader = Reader(known=KNOWN, earlier=EARLIER, habits=ScriptHabits(first_position=10))
    reader.add(0.1, step=19)
    assert [line.samples for line in reader.found] == [190]


@pytest.mark.parametrize(
    ("kind", "unit", "reported"),
    [
        ("since the beginning", 1.0, lambda second: 1.001 * second),
        ("since the beginning", 60.0, lambda second: second / 60.0),
        ("since the last report", 1.0, lambda second: 1.001),
        ("since the last report", 1e-3, lambda second: 1000.0),
        ("date", 1.0, lambda second: 1.7e9 + 1.001 * second),
    ],
)
def test_a_script_s_clock_is_recognised_by_the_wall_clock(
    kind: str, unit: float, reported: Callable[[int], float]
) -> None:
    reader = Reader()
    for second in range(1, 5):
        reader.add(5.0 + second, step=second, seconds=reported(second))
    assert (reader.habits.clock, reader.habits.clock_unit) == (kind, unit)
    if kind == "date":
        times = [line.time for line in reader.found]
        assert times == pytest.approx([1.7e9 + 1.001 * second for second in range(1, 5)], rel=1e-15)
    else:
        assert [line.seconds for line in reader.found] == pytest.approx([1.0, 2.0, 3.0, 4.0], rel=2e-3)


def test_a_clock_that_contradicts_the_wall_clock_is_refused_with_the_reason() -> None:
    reader = Reader()
    for second in range(1, 8):
        reader.add(5.0 + second, step=second, seconds=7.0 + 1e-6 * second)
    assert {line.seconds for line in reader.found} == {None}
    assert "the script's clock is not used" in reader.habits.remarks[0]


def test_percent_is_settled_once_for_all_values_and_said_once() -> None:
    reader = Reader()
    for step, value in enumerate((0.8, 30.0, 91.5), start=1):
        reader.add(0.1 * step, step=step, value=value)
    assert [value for _, value in reader.scores] == pytest.approx([0.008, 0.3, 0.915])
    assert len(reader.habits.remarks) == 1
    assert "in percent" in reader.habits.remarks[0]


@pytest.mark.parametrize(
    ("metric", "target", "value", "read"),
    [
        ("accuracy", 0.9, 0.5, 0.5),
        ("top1_acc", 0.9, 55.0, 0.55),
        ("top1_acc", 90.0, 55.0, 55.0),
        ("loss", 0.9, 55.0, 55.0),
        ("reward", 0.9, 55.0, 55.0),
    ],
)
def test_only_fractions_are_taken_for_percent(metric: str, target: float, value: float, read: float) -> None:
    direction = None if metric in ("accuracy", "loss") else "maximize"
    reader = Reader(goal=GoalSection(metric=metric, target=target, direction=direction))
    reader.add(0.1, step=1, value=value)
    assert reader.scores == [pytest.approx((10, read))]


def test_a_percent_sign_settles_it_for_any_metric() -> None:
    reader = Reader(goal=GoalSection(metric="share", target=0.9, direction="maximize"))
    reader.add(0.1, step=1, value=0.5, has_percent_sign=True)
    assert reader.scores == [(10, 0.005)]


def test_a_value_that_the_metric_cannot_have_is_never_a_score() -> None:
    reader = Reader()
    reader.add(0.1, step=1, value=850.0)
    reader.add(0.2, step=2, value=-0.5)
    assert reader.scores == []
    assert [line.samples for line in reader.found] == [10, 20]
    assert sum(entry.count for entry in reader.positions.ignored.values()) == 2


def test_fractions_where_the_target_is_in_percent_are_remarked() -> None:
    reader = Reader(goal=GoalSection(metric="acc1", target=90.0, direction="maximize"))
    for step in range(1, 5):
        reader.add(0.1 * step, step=step, value=0.1 * step)
    assert "set goal.target = 0.9" in reader.habits.remarks[0]


def test_nan_before_anything_was_trained_is_no_divergence() -> None:
    reader = Reader()
    nan = float("nan")
    for step, value in enumerate((nan, nan, 0.5, nan)):
        reader.add(0.1 * step, step=step, value=value)
    values = [line.value for line in reader.found]
    assert values[:3] == [None, None, 0.5]
    assert values[3] != values[3]


def test_nan_of_a_loss_after_training_is_divergence_at_once() -> None:
    reader = Reader(goal=GoalSection(metric="loss", target=0.1))
    reader.add(0.1, step=1, value=float("nan"))
    assert reader.found[0].value != reader.found[0].value


def test_scores_that_count_epochs_under_the_name_of_steps_belong_where_training_was() -> None:
    # As MMEngine writes them: 10 steps an epoch, and its scores of the steps 1, 2, 3 ...
    reader = Reader()
    for epoch in range(1, 14):
        for step in (5, 10):
            number = 10 * (epoch - 1) + step
            reader.add(0.1 * number, step=number, epoch=epoch)
        reader.add(0.1 * number + 0.01, step=epoch, value=0.05 * epoch)
    assert reader.scores == [(100 * epoch, pytest.approx(0.05 * epoch)) for epoch in range(1, 14)]
    assert reader.positions.refusal is None
    assert "not a number of optimizer steps" in reader.habits.remarks[0]


@pytest.mark.parametrize("fields", [{"step": 2.0**53}, {"epoch": 2.0**52}, {"step": 2.0**52, "epoch": 1.0}])
def test_progress_that_means_too_many_samples_is_ignored(fields: dict[str, float]) -> None:
    reader = Reader()
    reader.add(1.0, step=10.0, value=0.2)
    reader.add(1.5, value=0.9, **fields)
    reader.add(2.0, step=20.0, value=0.3)
    assert reader.scores == [(100, 0.2), (200, 0.3)]
    (reason,) = reader.positions.ignored
    assert "more than 9.0072e+15 samples" in reason
