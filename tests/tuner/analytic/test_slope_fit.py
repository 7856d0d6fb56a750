"""What a fit of slopes reports, and its draws."""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces import Configuration
from tuner.analytic.slope_fit import SlopeFit
from tuner.analytic.slopes import Design, Observations, SlopePrior, fit_slopes


def test_a_fit_says_in_words_what_it_learnt_and_what_it_left_as_assumed() -> None:
    rng = np.random.default_rng(0)
    columns = np.column_stack([np.ones(12), rng.standard_normal(12), np.zeros(12)])
    columns[11, 2] = 1.0
    design = Design(columns, columns[:, 1:], np.ones(2))
    priors = [
        SlopePrior(name="neutral", mean=np.zeros(3), sd=np.array([5.0, 0.7, 0.7])),
        SlopePrior(name="reversed", mean=np.array([0.0, 0.6, 0.0]), sd=np.array([5.0, 0.1, 0.7])),
    ]
    seen = Observations(
        rows=np.arange(11),
        values=2.0 - 0.6 * columns[:11, 1],
        noise_sd=np.full(11, 0.03),
        common_sd=np.zeros(11),
    )
    model = fit_slopes(design, priors, seen, residual_sds=(0.1,), own_sd=0.05)
    fit = SlopeFit(
        quantity="seconds per sample",
        names=("intercept", "log nodes", "optimizer=adam"),
        model=model,
        rows={Configuration(nodes=i + 1): i for i in range(12)},
    )
    assert fit.at_prior() == ["optimizer=adam"]
    reported = fit.summary()
    assert "log(seconds per sample)" in reported[0]
    assert "log nodes -0.6" in reported[0]
    assert any("neutral 100%" in line for line in reported)
    assert "optimizer=adam" in reported[-1]
    assert fit.parameters()["log nodes"] == pytest.approx((model.slopes[1], model.slopes_sd[1]))
    assert fit.parameters()["log nodes"][0] == pytest.approx(-0.6, abs=0.15)
    assert fit.findings() == {"at_prior": ["optimizer=adam"], "sentences": reported}
    assert fit.between_moments_sd == 0.05
    two = [Configuration(nodes=12), Configuration(nodes=1)]
    speeds = fit.speeds(two, np.random.default_rng(0))
    assert speeds.mean == pytest.approx(model.mean[[11, 0]])
    assert speeds.draws.mean(axis=0) == pytest.approx(model.mean[[11, 0]], abs=0.02)
    assert speeds.draws.std(axis=0) == pytest.approx(speeds.sd, rel=0.15)
    samples = fit.log_samples_draws(two, [None, None], np.random.default_rng(0))
    np.testing.assert_array_equal(samples, speeds.draws)
