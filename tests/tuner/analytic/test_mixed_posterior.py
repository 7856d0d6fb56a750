from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuner.analytic.made_measurements import configuration, rate_prior, run, timed
from tuner.analytic.mixed_posterior import MixedPosterior, PastLaw, PastValue, fit_mixed, informed
from tuner.analytic.regression import Parameter, Residual, fit
from tuner.analytic.samples_model import fit_samples
from tuner.analytic.step_time_model import fit_seconds
from tuner.domain.cluster import Cluster

Array = npt.NDArray[np.float64]

LINE = (Parameter(name="level", mean=0.0, sd=3.0), Parameter(name="slope", mean=0.0, sd=1.0))
NO_RESIDUAL = Residual(sd=0.0, length_scales=(1.0,))
INPUTS = np.linspace(0.0, 4.0, 9)[:, None]
RIGHT: PastLaw = {"slope": [PastValue(mean=2.0, sd=0.1, is_alike=True)]}
WRONG: PastLaw = {"slope": [PastValue(mean=-2.0, sd=0.1, is_alike=True)]}


def line(theta: Array, inputs: Array) -> Array:
    return np.asarray(theta[0] + theta[1] * inputs[:, 0])


def line_fit(past: PastLaw, *, num: int = 9, slope: float = 2.0) -> MixedPosterior:
    rng = np.random.default_rng(0)
    at = INPUTS[:num]
    observed = line(np.array([1.0, slope]), at) + 0.2 * rng.standard_normal(num)
    return fit_mixed(line, LINE, past, NO_RESIDUAL, at, observed, np.full(num, 0.2))


def test_without_a_past_there_is_one_posterior() -> None:
    plain = line_fit({})
    assert plain.names == ("neutral",)
    assert plain.sentences() == []
    assert "priors" not in plain.findings()
    np.testing.assert_array_equal(plain.theta, plain.parts[0].theta)
    np.testing.assert_array_equal(plain.theta_sd, plain.parts[0].theta_sd)
    other = line_fit({"another law's": [PastValue(mean=0.0, sd=1.0, is_alike=True)]})
    assert other.names == ("neutral",)


def test_the_evidence_of_a_linear_law_is_exact() -> None:
    observed, sd = np.array([0.3, 1.9, 2.2]), np.full(3, 0.4)
    at = INPUTS[:3]
    design = np.concatenate([np.ones((3, 1)), at], axis=1)
    covariance = (design * np.array([9.0, 1.0])) @ design.T + np.diag(sd**2)
    exact = -0.5 * (
        observed @ np.linalg.solve(covariance, observed)
        + np.linalg.slogdet(covariance)[1]
        + 3 * math.log(2 * math.pi)
    )
    found = fit(line, LINE, NO_RESIDUAL, at, observed, sd)
    assert found.log_evidence == pytest.approx(exact, abs=1e-6)
    assert fit(line, LINE, NO_RESIDUAL, INPUTS[:0], np.zeros(0), np.zeros(0)).log_evidence == 0.0


@pytest.mark.parametrize(("is_alike", "weight"), [(True, 0.5), (False, 0.1)])
def test_before_any_observation_a_past_of_other_jobs_counts_with_a_tenth(
    is_alike: bool, weight: float
) -> None:
    past = {"slope": [PastValue(mean=2.0, sd=0.1, is_alike=is_alike)]}
    found = line_fit(past, num=0)
    np.testing.assert_allclose(found.weights, [1.0 - weight, weight])
    assert f"past studies in this database has a weight of {weight:.0%}" in found.sentences()[0]
    assert 0.0 < found.theta[1] < 2.0
    assert set(found.at_prior()) == {"level", "slope"}


@pytest.mark.parametrize(("past", "expected"), [(RIGHT, "past studies"), (WRONG, "neutral")])
def test_the_prior_that_predicted_what_was_seen_is_believed(past: PastLaw, expected: str) -> None:
    found = line_fit(past)
    assert found.names[int(np.argmax(found.weights))] == expected
    assert f"past studies in this database has a weight of {found.weights[1]:.0%}" in found.sentences()[0]
    assert "Before the first run, its weight was 50%" in found.sentences()[0]
    assert sum(found.findings()["priors"].values()) == pytest.approx(1.0)  # type: ignore[attr-defined]


def test_a_past_of_other_jobs_that_predicted_the_runs_gains_weight() -> None:
    right, wrong = (
        line_fit({"slope": [PastValue(mean=mean, sd=0.1, is_alike=False)]}, num=4) for mean in (2.0, -2.0)
    )
    assert right.weights[1] > 0.1 > wrong.weights[1]


def test_a_wrong_past_costs_little_once_something_was_seen() -> None:
    asked = np.array([[8.0]])
    plain, wrong = (line_fit(past, num=4).predict(asked) for past in ({}, WRONG))
    assert abs(wrong[0][0] - plain[0][0]) < 0.5 * math.sqrt(plain[1][0, 0])


def test_a_right_past_predicts_what_few_observations_cannot() -> None:
    asked, truth = np.array([[8.0]]), 17.0
    plain, right = (line_fit(past, num=1).predict(asked) for past in ({}, RIGHT))
    assert abs(right[0][0] - truth) < 0.6 * abs(plain[0][0] - truth)


@given(st.floats(-3.0, 3.0), st.integers(0, 9))
def test_a_mixture_s_covariance_is_one_and_its_mean_between_its_parts(mean: float, num: int) -> None:
    found = line_fit({"slope": [PastValue(mean=mean, sd=0.3, is_alike=False)]}, num=num)
    middle, covariance = found.predict(INPUTS)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    parts = np.stack([part.predict(INPUTS)[0] for part in found.parts])
    assert np.all(middle <= parts.max(axis=0) + 1e-9)
    assert np.all(middle >= parts.min(axis=0) - 1e-9)


def test_what_is_moved_is_moved_in_every_part() -> None:
    found = line_fit(RIGHT)
    moved = found.moved(["level"], 5.0)
    np.testing.assert_allclose(moved.predict(INPUTS)[0] - found.predict(INPUTS)[0], 5.0, atol=1e-6)


def test_a_past_of_the_same_job_is_believed_more_than_one_of_another() -> None:
    (_, alike), (_, other) = (
        informed(LINE, {"slope": [PastValue(mean=2.0, sd=0.1, is_alike=is_alike)]}) or LINE
        for is_alike in (True, False)
    )
    assert alike.sd < other.sd < LINE[1].sd
    assert abs(alike.mean - 2.0) < abs(other.mean - 2.0)


def test_jobs_are_never_more_alike_than_assumed() -> None:
    stated = [PastValue(mean=2.0, sd=1e-3, is_alike=False)] * 100
    found = informed(LINE, {"slope": stated})
    assert found is not None
    assert found[1].sd >= 0.5 * LINE[1].sd
    assert found[0] == LINE[0]


def test_past_seconds_foretell_nodes_that_were_not_timed() -> None:
    cluster = Cluster(node_counts=(1, 2, 8), nodes_share_host=False)
    probes = [timed(configuration(1, b), 0.004 + 4e-4 * b) for b in (32, 128)]
    found = {}
    for name, bandwidth in (("none", None), ("slow", 2e7), ("quick", 2e10)):
        past = (
            {}
            if bandwidth is None
            else {"log bandwidth (bytes/s)": [PastValue(mean=math.log(bandwidth), sd=0.1, is_alike=True)]}
        )
        model = fit_seconds(probes, cluster, 40_000_000, past=past)
        found[name] = float(model.log_seconds_per_sample([configuration(8, 256)])[0][0])
    assert found["slow"] > found["none"] > found["quick"]
    assert math.exp(found["slow"] - found["quick"]) > 2


def test_past_samples_foretell_large_batches() -> None:
    stated = [run(configuration(1, 32, 0.05), 30_000.0)]
    costs = {}
    for scale in (20.0, 20_000.0):
        past = {"log noise scale": [PastValue(mean=math.log(scale), sd=0.2, is_alike=True)]}
        model = fit_samples(stated, rate_prior(), past=past)
        assert any("past studies" in line for line in model.summary())
        asked = [configuration(1, b, 0.05) for b in (32, 2048)]
        small, large = model.log_samples(asked)[0]
        costs[scale] = large - small
    assert costs[20.0] > costs[20_000.0] + 0.5
