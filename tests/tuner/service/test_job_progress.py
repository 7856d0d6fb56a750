"""Progress of a submitted job: nothing is an answer before a score, and the budget limits the finish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import open_storage
from tests.recorded_grid import write_job
from tuner.search.beliefs import Beliefs
from tuner.search.events import SearchEvent
from tuner.search.state import SearchState
from tuner.service.attempt import Attempt
from tuner.service.job_progress import ProgressWatch
from tuner.service.opening import open_job
from tuner.service.run import RunOptions, run_job


class Recorder(ProgressWatch):
    """Stores the progress after each decision."""

    def __init__(self, *, is_real: bool) -> None:
        super().__init__(clock=lambda: 1000.0, is_real=is_real)
        self.states: list[SearchState] = []
        self.found: list[dict] = []  # type: ignore[type-arg]

    def watch(self, state: SearchState, beliefs: Beliefs | None) -> None:
        super().watch(state, beliefs)
        self.states.append(state)
        self.found.append(dict(self.progress()))


@pytest.mark.slow
@pytest.mark.parametrize("trainings", [1, 3])
def test_the_incumbent_and_the_finish_follow_the_search(tmp_path: Path, trainings: int) -> None:
    from dataclasses import replace

    path = write_job(tmp_path, ("trainings = 3", f"trainings = {trainings}"))
    # The seconds of a recording are not real; here they stand for those of a job that trains.
    watch = Recorder(is_real=True)
    ids: list[int] = []
    attempt = Attempt(job_id=1, number=1, study_id=None, set_study=ids.append, watch=watch.watch)
    opened = replace(open_job(path), attempt=attempt)
    with open_storage(f"sqlite:///{tmp_path}/study.db") as store:
        result = run_job(opened, store, RunOptions(output=tmp_path / "out"), watch.listen)
    assert ids == [result.study.study_id]
    json.dumps(watch.found, allow_nan=False)
    for state, found in zip(watch.states, watch.found, strict=True):
        assert ("incumbent" in found) <= state.has_scores
        assert ("finish" in found) == ("incumbent" in found)
        assert found["budget"][0]["used"] == pytest.approx(state.elapsed_seconds)
    last = watch.found[-1]
    assert last["incumbent"]["configuration"] == result.recommendation.choice.configuration.as_dict()
    with_finish = [found for found in watch.found if "finish" in found]
    assert len(with_finish) > 3
    for found in with_finish:
        finish, used = found["finish"], found["budget"][0]["used"]
        # A forecast is not renewed while nothing is decided, so `used` may only be larger.
        assert finish["high"] <= 1000.0 + 600.0
        if trainings == 3:
            assert (finish["low"], finish["median"]) == (None, None)
        else:
            assert finish["low"] <= finish["median"] <= finish["high"]
        assert used >= 0.0


def test_progress_before_the_first_decision_has_no_answer_and_no_usage() -> None:
    watch = ProgressWatch(clock=lambda: 5.0, attempt=2)
    watch.listen(SearchEvent(kind="plan", text="checking the workload and its data"))
    assert watch.progress() == {
        "updated_at": 5.0,
        "attempt": 2,
        "text": "checking the workload and its data",
        "slices": [],
    }
    assert watch.usage() is None
