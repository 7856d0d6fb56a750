from __future__ import annotations

import re
import tomllib

import pytest

from tuner.domain.errors import JobError
from tuner.job import (
    Job,
    example_names,
    example_scripts,
    example_text,
    job_template,
    job_warnings,
    load_job,
    load_workload,
)
from tuner.job.command_files import script_files


def test_the_examples_ship():
    assert example_names() == [
        "char_lm",
        "cluster_of_128",
        "cluster_partly_here",
        "digits",
        "fashion_mnist",
        "fashion_mnist_delayed",
        "lightning_script",
        "numpy_script",
        "own_script",
        "own_script_slurm",
        "remote_trainer",
    ]


SCRIPTS = [name for name in example_names() if example_scripts(name)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_examples_of_commands_load_with_the_scripts_that_ship(tmp_path, name):
    path = tmp_path / "job.toml"
    path.write_text(example_text(name))
    (script,) = example_scripts(name).items()
    (tmp_path / script[0]).write_text(script[1])
    job = load_job(path)
    assert script[0] in job.command.command
    assert script_files(job.command, tmp_path) == [tmp_path / script[0]]
    assert job.baseline is not None


@pytest.mark.parametrize("name", [None, *(n for n in example_names() if n not in SCRIPTS)])
def test_template_and_examples_load_and_name_workloads_that_build(tmp_path, name):
    path = tmp_path / "job.toml"
    path.write_text(job_template() if name is None else example_text(name))
    job = load_job(path)
    workload = load_workload(job, tmp_path)
    assert workload.metric.name == job.goal.metric
    assert job.baseline is not None
    assert not any("baseline" in warning or "budget" in warning for warning in job_warnings(job))


def test_options_the_template_leaves_out_are_options_that_exist():
    lines = re.sub(r"^# (?=\w+ = )", "", job_template(), flags=re.MULTILINE)
    data = tomllib.loads(lines.replace("max_dollars", "#").replace("dollars = 2", "#"))
    job = Job.model_validate(data)
    assert job.probe.slice_seconds == 20
    assert job.budget.probes == 100
    assert job.goal.deadline == 7200


def test_an_unknown_example_gets_the_nearest():
    with pytest.raises(
        JobError,
        match=r"no example 'digit'; did you mean 'digits'.*char_lm, cluster_of_128, cluster_partly_here",
    ):
        example_text("digit")


def test_examples_inside_an_installed_package_come_first(tmp_path, monkeypatch):
    (tmp_path / "installed.toml").write_text("seed = 1")
    monkeypatch.setattr("tuner.job.template._INSTALLED_EXAMPLES", tmp_path)
    assert example_names() == ["installed"]
    assert example_text("installed") == "seed = 1"


def test_a_folder_named_examples_beside_an_installed_package_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "foreign.toml").write_text("")
    monkeypatch.setattr("tuner.job.template._INSTALLED_EXAMPLES", tmp_path / "tuner" / "examples")
    monkeypatch.setattr("tuner.job.template._CHECKOUT", tmp_path)
    assert example_names() == []
