from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from search_spaces import Configuration, FloatRange, OneOf, ProductSpace, SearchSpace
from tests.tuner.search.world import configuration, make_job
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.search.optuna_trials import StudyTrials
from tuner.search.sampler import FeasibleSampler, baseline_sampler, distributions


def crowded_job(**sections: Any) -> Job:
    """Half of all combinations leave ranks without a sample."""
    space = {"batch_size": [1, 2, 4, 8], "learning_rate": {"low": 1e-3, "high": 1.0}}
    return make_job(cluster={"nodes": [1, 2, 4, 8]}, space=space, baseline=None, **sections)


def study_of(job: Job, name: str, seed: int = 0) -> optuna.Study:
    return optuna.create_study(sampler=baseline_sampler(name, job.search_space(), seed))


@pytest.mark.parametrize("name", ["tpe", "gp", "random"])
def test_no_sampler_ever_asks_what_is_infeasible(name: str) -> None:
    job = crowded_job()
    study, space = study_of(job, name), job.search_space()
    trials = StudyTrials(study, job)
    share = np.mean([space.is_feasible(c) for c in all_combinations(space)])
    assert share < 0.7
    for _ in range(8):  # five at the start, three that were learnt
        number, asked = trials.ask()
        assert space.reasons_against(asked) == []
        study.tell(number, asked.learning_rate + 1.0 / asked.batch_size)


def all_combinations(space: SearchSpace) -> list[Configuration]:
    free = ProductSpace(choices=space.axes)
    rng = np.random.default_rng(0)
    return [c for c in (free.sample(rng) for _ in range(200)) if c is not None]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_the_same_seed_asks_the_same(name: str) -> None:
    def asked(seed: int) -> list[Configuration]:
        job = crowded_job()
        trials = StudyTrials(study_of(job, name, seed), job)
        return [trials.ask()[1] for _ in range(4)]

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_a_sampler_that_only_suggests_what_is_infeasible_is_overruled() -> None:
    class Stubborn(optuna.samplers.RandomSampler):
        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {"nodes": 8, "batch_size": 1}

    job = crowded_job()
    sampler = FeasibleSampler(lambda seed: Stubborn(seed=seed), job.search_space(), 0)
    trials = StudyTrials(optuna.create_study(sampler=sampler), job)
    for _ in range(5):
        assert job.search_space().is_feasible(trials.ask()[1])


@pytest.mark.parametrize("name", ["tpe", "gp", "random"])
def test_a_study_that_goes_on_in_another_process_is_not_asked_the_same_again(name: str) -> None:
    job = crowded_job()
    study = study_of(job, name)
    first = [StudyTrials(study, job).ask()[1] for _ in range(3)]
    study.sampler = baseline_sampler(name, job.search_space(), 0)
    later = [StudyTrials(study, job).ask()[1] for _ in range(3)]
    assert not set(first) & set(later)


def test_the_space_becomes_optuna_s_distributions() -> None:
    found = distributions(make_job().search_space())
    assert found["learning_rate"] == FloatDistribution(1e-4, 1.0, log=True)
    assert found["nodes"] == CategoricalDistribution([1, 2, 4])
    assert found["batch_size"] == CategoricalDistribution([16, 32, 64, 128, 256, 512, 1024])
    assert found["strategy"] == CategoricalDistribution(["all_reduce"])


def test_present_settings_outside_the_space_are_allowed() -> None:
    space = ProductSpace(choices={"learning_rate": FloatRange(low=0.01, high=0.1), "batch_size": OneOf([16])})
    found = distributions(space, {"learning_rate": 0.5, "batch_size": 48})
    assert found["learning_rate"] == FloatDistribution(0.01, 0.5, log=True)
    assert found["batch_size"] == CategoricalDistribution([16, 48])


def test_a_baseline_outside_the_space_becomes_a_trial() -> None:
    job = make_job(baseline={"nodes": 3, "batch_size": 48, "learning_rate": 2.0})
    baseline = job.baseline_configuration()
    assert baseline is not None
    assert not job.search_space().is_feasible(baseline)
    study = study_of(job, "tpe")
    number = StudyTrials(study, job).begin(baseline, Purpose.STATISTICS)
    assert Configuration(study.get_trials()[number].params) == baseline
    assert "configuration" not in study.get_trials()[number].user_attrs


def test_a_proposed_configuration_becomes_the_trial_to_the_last_digit() -> None:
    job = make_job()
    study = study_of(job, "tpe")
    chooser = study.sampler
    trials = StudyTrials(study, job)
    for nodes, batch, rate in ((1, 64, 0.01), (4, 1024, 0.000123456), (2, 16, 1.0)):
        what = configuration(nodes, batch, rate)
        number = trials.begin(what, Purpose.TIMING)
        trial = study.get_trials()[number]
        assert Configuration(trial.params) == what
        assert trial.user_attrs["purpose"] == "timing"
    assert study.sampler is chooser


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_what_was_proposed_teaches_the_study_s_own_sampler(name: str) -> None:
    job = make_job()
    study = study_of(job, name)
    trials, rng = StudyTrials(study, job), np.random.default_rng(0)

    def value(what: Configuration) -> float:
        return abs(float(np.log(what.learning_rate / 0.03)))

    for _ in range(20):
        what = job.search_space().sample(rng)
        assert what is not None
        study.tell(trials.begin(what, Purpose.TRAINING), value(what))
    found = []
    for _ in range(12):
        number, what = trials.ask()
        found.append(value(what))
        study.tell(number, found[-1])
    # Draws at random, uniform over four decades, lie 2.3 off at the median.
    assert np.median(found) < 1.5


def test_a_trial_that_was_reported_is_left_alone() -> None:
    job = make_job()
    study = study_of(job, "random")
    trials = StudyTrials(study, job)
    number = trials.begin(configuration(), Purpose.TRAINING)
    seen = Measurement(
        configuration=configuration(), purpose=Purpose.TRAINING, outcome=Outcome.REACHED, charged_seconds=9.0
    )
    trials.end(number, Outcome.REACHED, 7.5, seen)
    trials.end(number, Outcome.FAILED, None, None)
    trials.report(number, [CurvePoint(training_seconds=1.0, step=1, samples=64, value=0.5)])
    (trial,) = study.get_trials()
    assert trial.value == 7.5
    assert trial.user_attrs["outcome"] == "reached"
    assert trial.intermediate_values == {}
