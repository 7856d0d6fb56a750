"""Scores that are printed before or after their position."""

from __future__ import annotations

import pytest

from tests.tuner.probes.commands.test_positions import Reader


@pytest.mark.parametrize("kind", ["epoch", "step"])
def test_a_score_before_each_position_belongs_to_it(kind: str) -> None:
    reader = Reader()
    for number in (1, 2, 3):
        reader.add(2.0 + number, value=0.1 * number)
        reader.add(2.01 + number, **{kind: number})
    unit = 100 if kind == "epoch" else 10
    assert reader.scores == [(unit * n, pytest.approx(0.1 * n)) for n in (1, 2, 3)]
    assert reader.positions.ignored == {}
    assert "assigned to the next position" in reader.habits.remarks[0]


def test_a_score_before_training_is_not_that_of_the_first_epoch() -> None:
    reader = Reader()
    reader.add(0.3, value=0.05)
    for number in (1, 2):
        reader.add(0.31 + number - 1, epoch=number)
        reader.add(0.3 + number, value=0.1 * number)
    assert reader.scores == [(100, 0.1), (200, 0.2)]
    assert "before any position" in next(iter(reader.positions.ignored))


def test_a_score_after_its_position_stays_there() -> None:
    reader = Reader()
    for number in (1, 2):
        reader.add(2.0 + number, epoch=number)
        reader.add(2.9 + number, value=0.1 * number)
    assert reader.scores == [(100, 0.1), (200, 0.2)]
    assert reader.positions.is_settled
