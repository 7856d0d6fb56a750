"""`run --explore`: after the answer, probes make the predictions of other configurations more certain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import Storage, open_storage
from tests.tuner.service.desk import Desk, small_job
from tuner.advice.prediction import predict
from tuner.domain.errors import JobError
from tuner.search.policy import StopKind
from tuner.service.predicting import StudyForecasts


def searched(folder: Path, store: Storage, *, budget: dict[str, Any], explore: bool) -> Desk:
    """Runs a search for many trainings; it must not end without its answer."""
    folder.mkdir()
    job = small_job(budget={"time": None, **budget}, goal={"trainings": 20})
    desk = Desk(folder, store, job=job)
    result = desk.run(explore=explore)
    assert result.stop.kind is StopKind.NO_GAIN
    assert not result.recommendation.ended_by_budget
    return desk


def predictions(desk: Desk) -> tuple[float, float]:
    """Returns the median width of the intervals of all untried configurations, and the share that hold."""
    study = desk.store.ledger.studies()[-1]
    forecasts = StudyForecasts(desk.opened, desk.store.ledger, study)
    tried = {probe.configuration for probe in desk.probes()}
    untried = [c for c in forecasts.space.candidates() if c not in tried]
    ending = forecasts.ending(untried)
    widths, held = [], []
    for configuration in untried:
        seconds = predict(ending, configuration).forecast.seconds
        truth = desk.law.seconds_to_target(configuration)
        widths.append(seconds.upper / seconds.lower)
        held.append(seconds.lower <= truth <= seconds.upper)
    return float(np.median(widths)), float(np.mean(held))


@pytest.mark.slow
def test_exploring_makes_predictions_of_untried_configurations_more_certain(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/plain.db") as store:
        plain = searched(tmp_path / "plain", store, budget={"time": "40m"}, explore=False)
        width, _ = predictions(plain)
        num_probes = len(plain.probes())
    with open_storage(f"sqlite:///{tmp_path}/explored.db") as store:
        explored = searched(tmp_path / "explored", store, budget={"time": "40m"}, explore=True)
        explored_width, held = predictions(explored)
    assert len(explored.probes()) > num_probes
    # Measured: 10.1 and 3.2; 97% of the intervals hold.
    assert explored_width < 0.5 * width
    assert held >= 0.85


@pytest.mark.slow
def test_probes_explore_until_the_budget_is_used_up_and_the_answer_is_not_provisional(
    tmp_path: Path,
) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as store:
        desk = Desk(tmp_path, store, job=small_job(budget={"time": None, "probes": 7}))
        result = desk.run(explore=True)
        assert result.stop.kind is StopKind.ARRIVED
        assert not result.recommendation.ended_by_budget
        first = desk.probes()
        assert len(first) == 7
        reasons = [text for text in desk.texts("decision") if "the answer is known" in text]
        assert len(reasons) > 1
        # Called again, it trains nothing and gives the same answer.
        assert desk.run(explore=True).stop.kind is StopKind.ARRIVED
        assert desk.probes() == first


def test_exploring_needs_a_limit_and_the_model(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as store:
        endless = Desk(tmp_path, store, job=small_job(budget={"time": None}))
        with pytest.raises(JobError, match=r"section \[budget\] has no limit. Set budget.time"):
            endless.run(explore=True)
        with pytest.raises(JobError, match="--sampler tpe makes none"):
            Desk(tmp_path, store).run(explore=True, sampler="tpe")
        assert store.ledger.studies() == []
