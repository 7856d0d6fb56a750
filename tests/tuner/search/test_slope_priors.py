"""Slopes believed beforehand: what recordings and past studies show has its signs, and is not too sure."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models.learnt_slopes import learnt_from
from benchmarks.replay_beliefs import REVERSED
from search_spaces import Configuration
from tests.levels import examples
from tests.recorded_grid import MACHINES, grid, recorded_run
from tuner.analytic.features import SAMPLES_SLOPES, SECONDS_SLOPES, features_of, prior_of
from tuner.analytic.slopes import Observations, fit_slopes
from tuner.domain.ledger import FitRecord
from tuner.recordings.recording import RecordedRun, Recording
from tuner.search.slope_priors import (
    NEUTRAL,
    TEXTBOOK,
    learnt_from_fits,
)

#: What jobs differ by at the least, of slopes of which something is believed.
BETWEEN_JOBS = 0.2


def fit(model: str, parameters: dict[str, tuple[float, float]]) -> FitRecord:
    return FitRecord(
        study_id=0, fingerprint="", model=model, created_at=0.0, num_slices=9, parameters=parameters
    )


def made_recording(seed: int = 0, *, maximize: bool = True) -> Recording:
    """Seconds a sample go by nodes^-0.7 batch^-0.3, samples to target by batch^0.6 rate^-0.3."""
    rng = np.random.default_rng(seed)
    runs = []
    for nodes, batch, rate in itertools.product((1, 2, 4, 8), (16, 64, 256), (0.01, 0.03, 0.1)):
        per_sample = 0.01 * nodes**-0.7 * (batch / 64) ** -0.3 * math.exp(0.03 * rng.standard_normal())
        needed = 20_000 * (batch / 64) ** 0.6 * (rate / 0.03) ** -0.3 * math.exp(0.1 * rng.standard_normal())
        steps = np.ceil(np.geomspace(0.05, 1.5, 12) * needed / batch) + np.arange(12)
        values = 0.98 - 0.88 * np.exp(-2.4 * steps * batch / needed)
        runs.append(
            RecordedRun(
                configuration=Configuration(nodes=nodes, batch_size=batch, learning_rate=rate),
                step_seconds=per_sample * batch,
                curve=np.stack(
                    [steps * per_sample * batch, steps, values if maximize else 1 - values], axis=1
                ),
            )
        )
    return Recording(
        name="made",
        metric="accuracy" if maximize else "error",
        maximize=maximize,
        target=0.9 if maximize else 0.1,
        runs=tuple(runs),
    )


def test_text_book_signs_are_reversed_or_left_out() -> None:
    assert REVERSED.seconds["log nodes"].mean == -TEXTBOOK.seconds["log nodes"].mean > 0
    assert NEUTRAL.name == "neutral"
    assert TEXTBOOK.seconds["log nodes"].mean < 0 < TEXTBOOK.samples["log batch"].mean


def test_slopes_of_a_recording_are_learnt_with_their_signs() -> None:
    learnt = learnt_from(made_recording())
    true = {
        "seconds": {"log nodes": -0.7, "log batch": -0.3},
        "samples": {"log batch": 0.6, "log rate": -0.3},
    }
    for quantity, slopes in true.items():
        for name, slope in slopes.items():
            found = getattr(learnt, quantity)[name]
            # The text-book slope counts as one more study.
            assert abs(found.mean - slope) < found.sd, (quantity, name)
            assert found.mean == pytest.approx(slope, abs=0.15), (quantity, name)
    assert learnt.samples["log nodes"].mean < TEXTBOOK.samples["log nodes"].mean


def test_the_grid_s_law_is_learnt_with_its_signs_cores_among_them() -> None:
    learnt = learnt_from(grid())
    assert learnt.seconds["log nodes"].mean < 0
    assert learnt.seconds["log cores"].mean < 0
    assert learnt.seconds["log batch"].mean < 0
    assert learnt.samples["log batch"].mean > 0
    assert learnt.samples["log rate"].mean < 0


def test_a_falling_metric_teaches_the_same_as_a_rising_one() -> None:
    rising, falling = (learnt_from(made_recording(maximize=m)) for m in (True, False))
    for name, slope in rising.samples.items():
        assert falling.samples[name].mean == pytest.approx(slope.mean, abs=1e-6)
        assert falling.samples[name].sd == pytest.approx(slope.sd, abs=1e-6)


def test_what_one_recording_taught_is_surer_than_the_text_book_but_not_sure_of_another_job() -> None:
    learnt = learnt_from(made_recording())
    for known, found in ((SECONDS_SLOPES, learnt.seconds), (SAMPLES_SLOPES, learnt.samples)):
        assert set(found) == set(known)
        for name, slope in found.items():
            assert min(known[name].sd, BETWEEN_JOBS) <= slope.sd <= known[name].sd
            assert (slope.neutral_sd, slope.neutral_mean) == (
                known[name].neutral_sd,
                known[name].neutral_mean,
            )


def test_axes_that_a_recording_lacks_stay_as_in_the_text_book() -> None:
    learnt = learnt_from(made_recording())
    for quantity, known in (("seconds", SECONDS_SLOPES), ("samples", SAMPLES_SLOPES)):
        for name in ("log cores", "apart", "apart x log nodes"):
            assert getattr(learnt, quantity)[name].mean == pytest.approx(known[name].mean)


def test_learnt_slopes_foretell_larger_jobs_than_were_recorded() -> None:
    learnt = learnt_from(made_recording())
    asked = [Configuration(nodes=n, batch_size=64, learning_rate=0.03) for n in (1, 2, 32)]
    features = features_of(asked, cores={})
    names = features.names_of(learnt.seconds)
    # One step time, seen on one node.
    seen = Observations(
        rows=np.array([0]), values=np.log([0.01]), noise_sd=np.array([0.03]), common_sd=np.zeros(1)
    )
    spreads = {}
    for believed in (TEXTBOOK, learnt):
        prior = prior_of("textbook", names, believed.seconds, level=math.log(0.01))
        model = fit_slopes(
            features.design(believed.seconds), [prior], seen, residual_sds=(0.12,), own_sd=0.05
        )
        spreads[believed.name] = math.sqrt(model.variance[2])
        assert abs(model.mean[2] - math.log(0.01 * 32**-0.7)) < 1.645 * spreads[believed.name]
    assert spreads["learnt"] < spreads["textbook"]


def test_nothing_is_learnt_without_fits_or_from_those_of_one_quantity_alone() -> None:
    assert learnt_from_fits([]) is None
    assert learnt_from_fits([fit("seconds", {"log nodes": (-0.9, 0.1)})]) is None
    strange = [fit(quantity, {"tail": (1.0, 0.1)}) for quantity in ("seconds", "samples")]
    assert learnt_from_fits(strange) is None


def test_past_studies_move_slopes_the_more_the_more_there_are() -> None:
    def after(num: int) -> tuple[float, float]:
        fits = [fit("seconds", {"log nodes": (0.3, 0.1)}), fit("samples", {"log batch": (0.9, 0.1)})]
        learnt = learnt_from_fits(fits * num)
        assert learnt is not None
        assert learnt.name == "learnt"
        assert learnt.samples["log rate"].mean == SAMPLES_SLOPES["log rate"].mean
        return learnt.seconds["log nodes"].mean, learnt.seconds["log nodes"].sd

    means, sds = zip(*(after(num) for num in (1, 3, 20)), strict=True)
    assert SECONDS_SLOPES["log nodes"].mean < means[0] < means[1] < means[2] < 0.3
    assert sds[0] >= sds[1] >= sds[2] >= BETWEEN_JOBS


def test_a_surer_study_counts_for_more() -> None:
    pair = [fit("samples", {"log batch": (m, s)}) for m, s in ((0.0, 0.05), (1.0, 2.0))]
    learnt = learnt_from_fits([fit("seconds", {"log nodes": (-0.6, 0.1)}), *pair])
    assert learnt is not None
    assert learnt.samples["log batch"].mean < 0.3


def test_a_parameter_without_a_spread_or_unknown_is_passed_over() -> None:
    parameters = {"log nodes": (5.0, 0.0), "scale": (1.0, 0.1), "log batch": (0.5, 0.1)}
    learnt = learnt_from_fits([fit("seconds", parameters), fit("samples", parameters)])
    assert learnt is not None
    assert learnt.seconds["log nodes"].mean == SECONDS_SLOPES["log nodes"].mean
    assert "scale" not in learnt.samples


@examples(40)
@given(
    stated=st.lists(st.tuples(st.floats(-3.0, 3.0), st.floats(0.01, 5.0)), min_size=1, max_size=6),
    name=st.sampled_from(["log nodes", "log batch"]),
)
def test_what_is_learnt_lies_between_all_that_was_observed(
    stated: list[tuple[float, float]], name: str
) -> None:
    fits = [fit(quantity, {name: pair}) for pair in stated for quantity in ("seconds", "samples")]
    learnt = learnt_from_fits(fits)
    assert learnt is not None
    means = [SECONDS_SLOPES[name].mean, *(mean for mean, _ in stated)]
    assert min(means) - 1e-9 <= learnt.seconds[name].mean <= max(means) + 1e-9
    assert min(BETWEEN_JOBS, SECONDS_SLOPES[name].sd) <= learnt.seconds[name].sd <= SECONDS_SLOPES[name].sd


def test_runs_that_never_arrive_do_not_keep_a_recording_from_teaching() -> None:
    plain = made_recording()
    never = RecordedRun(
        configuration=Configuration(nodes=1, batch_size=16, learning_rate=0.3),
        step_seconds=0.1,
        curve=np.array([[1.0, 10, 0.1], [10.0, 100, 0.1]]),
        end="diverged",
    )
    learnt = learnt_from(grid(runs=(*plain.runs, never), machines=tuple(MACHINES)))
    assert learnt.samples["log batch"].mean > 0
    assert recorded_run(never.configuration).end != "diverged"
