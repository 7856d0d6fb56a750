"""The bend of compute over the batch."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.batch_bend import bend_of


def test_each_batch_is_one_parameter_however_often_it_was_timed() -> None:
    bend = bend_of(np.array([32.0, 64.0, 32.0]))
    assert len(bend.parameters) == 2
    assert bend.design(np.log([32.0, 64.0, 128.0])).shape == (3, 2)


def test_the_parameters_have_the_process_own_variance_at_batches_that_were_timed() -> None:
    bend = bend_of(np.array([16.0, 64.0, 256.0]))
    variance = np.sum(bend.design(bend.log_batches) ** 2, axis=1)
    assert variance == pytest.approx(0.08**2, rel=1e-3)


def test_what_is_unexplained_grows_with_the_distance_from_timed_batches() -> None:
    bend = bend_of(np.array([32.0, 64.0]))
    near, far, farther = bend.unexplained_variance(np.log([64.0, 128.0, 4096.0]))
    # The jitter of the factorization leaves a ten-thousandth.
    assert near < 1e-3 * 0.08**2
    assert near < far < farther
    assert farther == pytest.approx(0.08**2, rel=1e-3)


def test_no_batch_bends_nothing() -> None:
    bend = bend_of(np.array([]))
    assert bend.parameters == ()
    assert bend.design(np.log([32.0])).shape == (1, 0)
    assert bend.unexplained_variance(np.log([32.0])) == pytest.approx(0.08**2)
