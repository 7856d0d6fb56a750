from __future__ import annotations

import sys

import pytest

from tuner.domain.errors import JobError
from tuner.domain.workload import AdamWSettings, CosineSchedule
from tuner.job import Job, load_workload
from tuner.workloads.digits import Digits

OWN = """
from tuner.domain.workload import Metric, Workload

class Own(Workload):
    metric = Metric(name="recall", direction="maximize", lower=0, upper=1)

    def __init__(self, size, depth=2):
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.size = size

    def model(self): ...
    def training_data(self): ...
    def validation_data(self): ...
    def loss(self, model, batch): ...
    def score(self, model, data): ...

class OwnOptimizer(Own):
    def optimizer(self, parameters, learning_rate): ...

    def schedule(self, samples_seen):
        return 1.0

class Unfinished(Workload):
    def model(self): ...

class Other: ...
"""


@pytest.fixture(autouse=True)
def path_as_before():
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_training.py").write_text(OWN)
    return tmp_path


def job_of(path, parameters=None, goal=None, **workload):
    return Job.model_validate(
        {
            "workload": {"path": path, "parameters": parameters or {}, **workload},
            "goal": goal or {"metric": "recall", "direction": "maximize", "target": 0.5},
            "space": {"batch_size": [8], "learning_rate": [0.1]},
        }
    )


def test_a_shipped_workload_is_built_with_its_parameters(tmp_path):
    job = job_of(
        "tuner.workloads.digits:Digits", {"network": "mlp", "width": 4}, {"metric": "accuracy", "target": 0.9}
    )
    workload = load_workload(job, tmp_path)
    assert isinstance(workload, Digits)
    assert (workload.network, workload.width) == ("mlp", 4)


def test_a_module_beside_the_job_file_is_found(folder):
    assert load_workload(job_of("own_training:Own", {"size": 3}), folder).size == 3


def test_optimizer_and_schedule_of_the_job_are_used(folder):
    job = job_of(
        "own_training:Own",
        {"size": 1},
        optimizer={"name": "adamw", "weight_decay": 0.5},
        schedule={"name": "cosine", "horizon_samples": 10},
    )
    workload = load_workload(job, folder)
    assert workload.optimizer_settings == AdamWSettings(weight_decay=0.5)
    assert workload.schedule_settings == CosineSchedule(horizon_samples=10)
    assert workload.schedule(10) == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"optimizer": {"name": "sgd"}}, "workload.optimizer: OwnOptimizer defines its own `optimizer`"),
        ({"schedule": {"name": "constant"}}, r"defines its own `schedule`.*Remove \[workload.schedule\]"),
    ],
)
def test_settings_that_a_class_would_ignore_are_refused(folder, table, words):
    with pytest.raises(JobError, match=words):
        load_workload(job_of("own_training:OwnOptimizer", {"size": 1}, **table), folder)


@pytest.mark.parametrize(
    ("path", "parameters", "words"),
    [
        (
            "own_trainin:Own",
            {},
            r"no module own_trainin in .*; did you mean 'own_training'\?.* Put it beside",
        ),
        ("tuner.workloads.digit:Digits", {}, r"no module tuner.workloads.digit .*'tuner.workloads.digits'\?"),
        ("own_training:Onw", {}, r"no class Onw; did you mean own_training:Own\? Its workloads are Own, "),
        ("own_training:Other", {}, "own_training:Other is not a Workload. Derive the class"),
        ("own_training:Unfinished", {}, "does not define loss, score, training_data, validation_data"),
        (
            "own_training:Own",
            {"sizee": 1},
            r"unknown key 'workload.parameters.sizee'; did you mean 'workload.pa",
        ),
        ("own_training:Own", {"zzz": 1}, r"unknown key 'workload.parameters.zzz'. Own accepts size, depth"),
        ("own_training:Own", {}, "workload.parameters.size is missing: Own accepts size, depth"),
        (
            "own_training:Own",
            {"size": 1, "depth": 0},
            "workload.parameters: Own does not accept size = 1, depth = 0: ValueError: depth must be",
        ),
    ],
)
def test_what_cannot_be_built_is_named_with_what_can(folder, path, parameters, words):
    with pytest.raises(JobError, match=words):
        load_workload(job_of(path, parameters), folder)


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({"metric": "accuracy", "target": 0.5}, "goal.metric = 'accuracy': Own scores 'recall'"),
        ({"metric": "recall", "direction": "minimize", "target": 0.5}, "Own is to maximize recall"),
        (
            {"metric": "recall", "direction": "maximize", "target": 2},
            "goal.target = 2 is not a value recall of",
        ),
    ],
)
def test_a_goal_that_the_workload_does_not_have_is_refused(folder, goal, words):
    with pytest.raises(JobError, match=words):
        load_workload(job_of("own_training:Own", {"size": 1}, goal), folder)


def test_a_module_that_fails_to_import_is_reported_with_its_error(tmp_path):
    (tmp_path / "broken_training.py").write_text("1 / 0")
    with pytest.raises(
        JobError, match="importing broken_training failed with ZeroDivisionError: division by"
    ):
        load_workload(job_of("broken_training:Own"), tmp_path)


def test_a_module_that_needs_a_missing_one_says_which(tmp_path):
    (tmp_path / "needy_training.py").write_text("import no_such_library")
    with pytest.raises(JobError, match="needs the module no_such_library, which is not installed"):
        load_workload(job_of("needy_training:Own"), tmp_path)


def test_jobs_in_different_folders_may_name_their_modules_alike(tmp_path):
    for number in (1, 2):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "own_training.py").write_text(f"from own_part import PART\n{OWN}\nOwn.part = PART")
        (place / "own_part.py").write_text(f"PART = {number}")
    job = job_of("own_training:Own", {"size": 1})
    parts = [load_workload(job, tmp_path / str(number)).part for number in (1, 2, 1)]
    assert parts == [1, 2, 1]


def test_stray_folders_do_not_replace_our_packages(folder):
    for name in ("tuner", "search_spaces"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError('stray')")
    ours = sys.modules["tuner"]
    load_workload(job_of("own_training:Own", {"size": 1}), folder)
    goal = {"metric": "accuracy", "target": 0.9}
    assert isinstance(load_workload(job_of("tuner.workloads.digits:Digits", goal=goal), folder), Digits)
    assert sys.modules["tuner"] is ours


def test_the_job_folder_is_checked_last_once_the_workload_is_loaded(folder):
    load_workload(job_of("own_training:Own", {"size": 1}), folder)
    assert sys.path[-1] == str(folder.resolve())
    assert sys.path.count(str(folder.resolve())) == 1


def test_an_installed_library_below_the_job_folder_is_never_forgotten(folder, tmp_path_factory):
    import numpy

    load_workload(job_of("own_training:Own", {"size": 1}), folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "own_training.py").write_text(OWN)
    load_workload(job_of("own_training:Own", {"size": 1}), elsewhere)
    assert sys.modules["numpy"] is numpy
