"""A script's own options change seconds and samples, and the models learn by how much."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search_spaces import Configuration
from tests.tuner.analytic.test_step_time_model import ASYNCHRONOUS, PARAMETER_BYTES, configuration, timed
from tuner.analytic.option_columns import NO_OPTIONS, option_columns
from tuner.analytic.step_time_model import fit_seconds

WIDTHS, BATCHES = (64, 128, 256, 512), (16, 64, 256)


def test_columns_leave_out_what_laws_know_and_what_does_not_differ() -> None:
    found = option_columns([configuration(nodes, 64) for nodes in (1, 2)])
    assert len(found) == len(NO_OPTIONS) == 0
    alike = [configuration(1, 64).replaced(width=64), configuration(1, 16).replaced(width=64)]
    assert len(option_columns(alike)) == 0


def test_ordered_options_are_logarithms_around_their_middle() -> None:
    asked = [configuration(1, 64).replaced(width=width) for width in WIDTHS]
    columns = option_columns(asked).of(asked)
    assert columns.shape == (4, 1)
    assert np.diff(columns[:, 0]) == pytest.approx(math.log(2))
    assert columns.sum() == pytest.approx(0)


def test_options_without_an_order_are_indicators() -> None:
    asked = [configuration(1, 64).replaced(optimizer=name) for name in ("sgd", "adam", "lion")]
    columns = option_columns(asked).of(asked)
    assert columns.shape == (3, 3)
    assert columns.sum(axis=0) == pytest.approx(0)
    assert np.linalg.matrix_rank(columns) == 2


def seconds(asked: Configuration) -> float:
    """A step of a network whose work grows with its width; half precision takes two thirds."""
    factor = float(asked["width"]) / 64 * (2 / 3 if asked.get("precision") == "bf16" else 1)
    return (0.004 + 2e-5 * asked.batch_size) * factor


def test_seconds_follow_the_options() -> None:
    asked = [
        configuration(1, batch).replaced(width=width, precision=precision)
        for batch in BATCHES
        for width in WIDTHS
        for precision in ("fp32", "bf16")
    ]
    seen = [c for c in asked if (c["width"], c["precision"]) in ((64, "fp32"), (64, "bf16"), (128, "fp32"))]
    model = fit_seconds(
        [timed(c, seconds(c)) for c in seen], ASYNCHRONOUS, PARAMETER_BYTES, options=option_columns(asked)
    )
    unseen = [c for c in asked if c not in seen]
    mean, covariance = model.log_seconds_per_sample(unseen)
    missed = mean - np.log([seconds(c) / c.batch_size for c in unseen])
    sd = np.sqrt(np.diag(covariance))
    assert np.abs(missed).max() < 0.5
    assert np.abs(missed / sd).max() < 2.5
    # Timings of different options are no disagreement between moments.
    assert model.between_moments_sd < 0.1
    blind = fit_seconds([timed(c, seconds(c)) for c in seen], ASYNCHRONOUS, PARAMETER_BYTES)
    assert blind.between_moments_sd > 0.2
