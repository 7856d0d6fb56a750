"""Strategies with knobs in the Optuna study: asked, proposed, kept."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution

from search_spaces import STRATEGIES, Configuration
from tests.tuner.search.test_sampler import study_of
from tests.tuner.search.world import make_job
from tuner.domain.measurement import Purpose
from tuner.job import Job
from tuner.search.optuna_trials import StudyTrials
from tuner.search.sampler import knob_distributions


def knobby_job() -> Job:
    space = {"batch_size": [2, 8], "learning_rate": {"low": 1e-3, "high": 1.0}, "strategy": list(STRATEGIES)}
    return make_job(cluster={"nodes": [1, 2, 4]}, space=space, baseline=None)


@pytest.mark.parametrize("name", ["tpe", "gp", "random"])
def test_every_sampler_asks_the_knobs_of_its_strategy_and_no_others(name: str) -> None:
    job = knobby_job()
    study, space = study_of(job, name), job.search_space()
    trials = StudyTrials(study, job)
    asked = []
    for _ in range(6):  # five at the start, one that was learnt
        number, what = trials.ask()
        assert space.reasons_against(what) == []
        study.tell(number, what.learning_rate)
        asked.append(what)
    assert len({what.strategy for what in asked}) > 1


def test_a_knob_is_offered_with_the_levels_of_all_strategies_that_have_it() -> None:
    space = make_job(space={"strategy": ["all_reduce", "gossip_pull", "local_sgd"]}).search_space()
    assert knob_distributions(space, "all_reduce") == {}
    assert knob_distributions(space, "gossip_pull") == {"tau": CategoricalDistribution([1, 4, 16])}
    assert knob_distributions(space, "local_sgd") == knob_distributions(space, "gossip_pull")


def test_a_proposed_configuration_becomes_a_trial_with_its_knobs() -> None:
    job = knobby_job()
    study = study_of(job, "tpe")
    what = Configuration(
        nodes=4, batch_size=8, learning_rate=0.03, strategy="elastic_averaging", tau=10, beta=0.8
    )
    number = StudyTrials(study, job).begin(what, Purpose.TRAINING)
    trial = study.get_trials()[number]
    assert Configuration(trial.params) == what
    assert "configuration" not in trial.user_attrs


def test_a_knob_outside_the_levels_is_stored_beside_the_trial() -> None:
    job = knobby_job()
    study = study_of(job, "tpe")
    what = Configuration(nodes=4, batch_size=8, learning_rate=0.03, strategy="gossip_pull", tau=7)
    number = StudyTrials(study, job).begin(what, Purpose.TRAINING)
    trial = study.get_trials()[number]
    assert "tau" not in trial.params
    assert Configuration.from_key(trial.user_attrs["configuration"]) == what
