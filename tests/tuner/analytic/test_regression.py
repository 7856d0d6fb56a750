from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tuner.analytic.regression import Parameter, Posterior, Residual, broadcast_slopes, fit

Array = npt.NDArray[np.float64]

PARAMETERS = (
    Parameter(name="log scale", mean=0.0, sd=2.0),
    Parameter(name="log slope", mean=0.0, sd=1.0),
)
NO_RESIDUAL = Residual(sd=0.0, length_scales=(1.0,))
X = np.linspace(0.0, 3.0, 12)[:, None]


def law(theta: Array, inputs: Array) -> Array:
    """log(scale + slope * x): bends in both parameters."""
    return np.asarray(np.log(np.exp(theta[0]) + np.exp(theta[1]) * inputs[:, 0]), dtype=float)


def fitted(observations: Array, noise: float = 0.05, residual: Residual = NO_RESIDUAL) -> Posterior:
    return fit(law, PARAMETERS, residual, X, observations, np.full(len(X), noise))


def test_the_derivatives_of_a_law_are_its_central_differences() -> None:
    theta, exact = np.array([0.4, -0.3]), np.exp([0.4, -0.3]) * np.stack([np.ones(12), X[:, 0]], axis=1)
    exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(broadcast_slopes(law)(theta, X), exact, atol=1e-8)


@examples(40)
@given(scale=st.floats(-2.0, 2.0), slope=st.floats(-1.5, 1.5))
def test_known_parameters_are_recovered_from_exact_data(scale: float, slope: float) -> None:
    truth = np.array([scale, slope])
    posterior = fitted(law(truth, X), noise=1e-3)
    assert posterior.converged
    # The prior, two or one wide, pulls a thousandth's noise by next to nothing.
    np.testing.assert_allclose(posterior.theta, truth, atol=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    inside_theta, inside_prediction, trials = 0, 0, 200
    ahead = np.array([[6.0]])
    for _ in range(trials):
        truth = rng.normal([0.0, 0.0], [0.7, 0.7])
        posterior = fitted(law(truth, X) + 0.1 * rng.standard_normal(len(X)), noise=0.1)
        inside_theta += abs(posterior.theta[1] - truth[1]) < 1.645 * posterior.theta_sd[1]
        mean, covariance = posterior.predict(ahead)
        error = abs(mean[0] - law(truth, ahead)[0])
        inside_prediction += error < 1.645 * np.sqrt(covariance[0, 0])
    # 90% of 200, three standard deviations of the count either way.
    assert 0.83 < inside_theta / trials < 0.97
    assert 0.83 < inside_prediction / trials < 0.98


def test_a_prediction_beyond_the_fitted_range_is_wider_than_within() -> None:
    posterior = fitted(law(np.array([0.3, 0.5]), X), residual=Residual(sd=0.1, length_scales=(1.0,)))
    mean, covariance = posterior.predict(np.array([[1.5], [12.0]]))
    assert covariance[1, 1] > 4 * covariance[0, 0]
    assert mean[1] == pytest.approx(law(np.array([0.3, 0.5]), np.array([[12.0]]))[0], abs=0.1)


def test_no_data_give_the_prior() -> None:
    empty = np.zeros((0, 1))
    posterior = fit(law, PARAMETERS, NO_RESIDUAL, empty, np.zeros(0), np.zeros(0))
    np.testing.assert_allclose(posterior.theta, [0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(posterior.theta_sd, [2.0, 1.0])
    assert posterior.at_prior() == ["log scale", "log slope"]
    mean, covariance = posterior.predict(np.array([[0.0]]))
    # At x = 0 the law is the log scale itself.
    assert mean[0] == pytest.approx(0.0, abs=1e-9)
    assert np.sqrt(covariance[0, 0]) == pytest.approx(2.0)


def test_a_parameter_the_data_do_not_show_is_named() -> None:
    at_zero = np.zeros((8, 1))
    posterior = fit(law, PARAMETERS, NO_RESIDUAL, at_zero, np.full(8, 1.5), np.full(8, 0.05))
    assert posterior.at_prior() == ["log slope"]
    assert posterior.theta[0] == pytest.approx(1.5, abs=0.01)


def test_the_residual_takes_up_what_the_law_leaves_out() -> None:
    bump = 0.4 * np.exp(-0.5 * ((X[:, 0] - 1.5) / 0.3) ** 2)
    observed = law(np.array([0.3, 0.5]), X) + bump
    stiff = fitted(observed, noise=0.02)
    supple = fitted(observed, noise=0.02, residual=Residual(sd=0.3, length_scales=(0.4,)))
    stiff_error = np.abs(stiff.predict(X)[0] - observed).max()
    supple_error = np.abs(supple.predict(X)[0] - observed).max()
    assert supple_error < 0.03
    assert stiff_error > 0.15


def test_between_two_points_the_residual_interpolates() -> None:
    inputs = np.array([[0.0], [1.0]])
    flat = (Parameter(name="level", mean=0.0, sd=0.01),)

    def constant(theta: Array, at: Array) -> Array:
        return theta[0] + np.zeros(len(at))

    residual = Residual(sd=1.0, length_scales=(1.0,))
    posterior = fit(constant, flat, residual, inputs, np.array([1.0, 3.0]), np.full(2, 1e-3))
    mean, covariance = posterior.predict(np.array([[0.0], [0.5], [1.0], [30.0]]))
    np.testing.assert_allclose(mean[[0, 2]], [1.0, 3.0], atol=0.01)
    assert 1.0 < mean[1] < 3.0
    # Far away nothing is known but the prior.
    assert mean[3] == pytest.approx(0.0, abs=0.02)
    assert covariance[3, 3] == pytest.approx(1.0, abs=0.01)
    assert covariance[1, 1] < 0.2


def test_covariances_are_symmetric_and_not_negative() -> None:
    posterior = fitted(law(np.array([0.3, 0.5]), X), residual=Residual(sd=0.2, length_scales=(0.5,)))
    at = np.linspace(0.0, 5.0, 30)[:, None]
    covariance = posterior.predict(at)[1]
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
