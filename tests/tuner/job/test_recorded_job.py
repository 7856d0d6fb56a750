import os
from pathlib import Path

import pytest

from search_spaces import ListedSpace
from tests.recorded_grid import JOB, MACHINES, TARGET, configuration, grid, write_grid, write_job
from tuner.domain.cluster import Machine
from tuner.domain.errors import JobError
from tuner.job import Job, check_feasible, job_warnings, load_job


def job_of(folder: Path, *changes, **more) -> Job:
    return load_job(write_job(folder, *changes, **more))


BUDGET = "[budget]"


def test_the_recording_states_goal_space_and_cluster(tmp_path):
    job = job_of(tmp_path)
    assert (job.goal.metric, job.goal.target, job.goal.maximize) == ("accuracy", TARGET, True)
    assert isinstance(job.search_space(), ListedSpace)
    assert job.search_space().candidates() == grid().configurations()
    assert job.resolved_cluster().node_counts == (1, 2)
    assert job.resolved_cluster().extra_nodes == 1
    assert (job.workload, job.space) == (None, None)


def test_the_recording_is_found_beside_the_job_file_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "jobs").mkdir()
    write_job(tmp_path / "jobs")
    monkeypatch.chdir(tmp_path)
    assert load_job(Path("jobs/replay.toml")).recording().name == "grid"


def test_a_job_survives_being_stored_as_plain_data(tmp_path):
    job = job_of(
        tmp_path, (BUDGET, '[baseline]\nnodes=1\nmachine="small"\nbatch_size=32\nlearning_rate=0.1\n[budget]')
    )
    assert Job.model_validate(job.model_dump(mode="json")) == job


def test_a_metric_that_is_not_common_knowledge_gets_its_direction_from_the_recording(tmp_path):
    job = job_of(tmp_path, metric="perplexity", maximize=False, target=0.5)
    assert (job.goal.metric, job.goal.direction, job.goal.maximize) == ("perplexity", "minimize", False)


def test_the_target_may_be_another_within_what_was_recorded(tmp_path):
    assert job_of(tmp_path, ("trainings = 3", "target = 0.8")).goal.target == 0.8
    with pytest.raises(JobError, match=r"goal.target = 0.99: the best accuracy in the recording is 0.9\d+"):
        job_of(tmp_path, ("trainings = 3", "target = 0.99"))


def test_dollars_are_made_small_where_the_recording_has_prices(tmp_path):
    assert job_of(tmp_path, ("trainings = 3", "minimize = 'dollars'")).goal.minimize == "dollars"
    with pytest.raises(JobError, match=r"goal\.minimize = 'dollars' needs machines with prices"):
        job_of(tmp_path, ("trainings = 3", "minimize = 'dollars'"), prices=False)
    with pytest.raises(JobError, match=r"budget\.dollars needs machines with prices"):
        job_of(tmp_path, ('time = "10m"', "dollars = 3"), prices=False)


def test_the_cheapest_is_not_sought_among_machines_that_cost_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(MACHINES, "small", Machine(cores=1, dollars_per_hour=0.0))
    with pytest.raises(JobError, match=r"a price above 0 for each machine, but small costs nothing in"):
        job_of(tmp_path, ("trainings = 3", "minimize = 'dollars'"))
    assert job_of(tmp_path).goal.minimize == "seconds"


def test_the_baseline_is_one_of_the_recorded_configurations(tmp_path):
    # Where all runs have the same strategy, it need not be said.
    stated = '[baseline]\nnodes = 2\nmachine = "large"\nbatch_size = 32\nlearning_rate = 0.1\n[budget]'
    job = job_of(tmp_path, (BUDGET, stated))
    assert job.baseline_configuration() == configuration(nodes=2, machine="large")
    assert job.search_space().is_runnable(job.baseline_configuration())
    assert job_warnings(job) == []


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (
            'nodes = 2\nmachine = "large"\nbatch_size = 32\nlearning_rate = 0.2',
            "baseline: .* was not recorded. The nearest recorded configuration is nodes=2 machine=large "
            "batch_size=32 learning_rate=0.1",
        ),
        (
            "nodes = 2\nbatch_size = 32\nlearning_rate = 0.1",
            "baseline.machine is missing: allowed is one of 'small', 'large'",
        ),
        (
            'nodes = 2\nmachin = "large"\nbatch_size = 32\nlearning_rate = 0.1',
            "unknown key 'baseline.machin'; did you mean 'baseline.machine'",
        ),
        (
            "nodes = 2\nmachine = [1]\nbatch_size = 32\nlearning_rate = 0.1",
            r"baseline: axis 'machine' has the value \[1\]",
        ),
    ],
)
def test_a_baseline_that_was_not_recorded_is_refused(tmp_path, stated, words):
    with pytest.raises(JobError, match=words):
        job_of(tmp_path, (BUDGET, f"[baseline]\n{stated}\n[budget]"))


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("workload", 'path = "a:B"'),
        ("cluster", "nodes = [1]"),
        ("space", "batch_size = [8]\nlearning_rate = [0.1]"),
    ],
)
def test_what_the_recording_states_may_not_be_stated_again(tmp_path, section, text):
    with pytest.raises(JobError, match=rf"\[{section}\] is stated, but probe.recording states it already"):
        job_of(tmp_path, (BUDGET, f"[{section}]\n{text}\n[budget]"))


def test_everything_wrong_is_reported_at_once(tmp_path):
    with pytest.raises(JobError) as caught:
        job_of(
            tmp_path,
            ("trainings = 3", 'metric = "loss"\ntrainings = 0'),
            (BUDGET, '[workload]\npath = "a:B"\n[budget]'),
            ('time = "10m"', 'tme = "10m"'),
        )
    words = str(caught.value)
    assert "4 problems" in words
    assert "[workload] is stated" in words
    assert "goal.metric = 'loss', but the recording has 'accuracy'" in words
    assert "goal.trainings = 0" in words
    assert "did you mean 'budget.time'" in words


def test_a_recording_that_cannot_be_read_is_reported_with_the_job_s_key(tmp_path):
    path = tmp_path / "replay.toml"
    path.write_text(JOB)
    with pytest.raises(JobError, match=r"replay.toml: probe.recording: .*grid.jsonl.gz: .* cannot be read"):
        load_job(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[probe]\nkind = "recorded"\n[goal]\ntarget = 1', "probe.recording is missing"),
        (
            '[probe]\nrecording = "x"\n[goal]\ntarget = 1',
            "probe.recording is stated, but nothing is replayed",
        ),
        ('[probe]\nkind = "recordd"\n[goal]\ntarget = 1', "did you mean 'recorded'"),
        ('[probe]\nkind = "recorded"\nrecording = 3\n[goal]\ntarget = 1', "recording = 3: must be a string"),
    ],
)
def test_a_probe_that_is_half_a_replay_is_refused(tmp_path, text, words):
    path = tmp_path / "replay.toml"
    path.write_text(text)
    with pytest.raises(JobError, match=words):
        load_job(path)


def test_a_strategy_that_only_a_recording_names_is_none_to_train_by(tmp_path):
    write_grid(tmp_path / "grid.jsonl.gz", strategies=("hogwild",))
    job_of(tmp_path, strategies=("hogwild",))
    path = tmp_path / "train.toml"
    path.write_text(
        '[workload]\npath = "a:B"\n[goal]\ntarget = 0.9\n'
        '[space]\nbatch_size = [8]\nlearning_rate = [0.1]\nstrategy = ["hogwild"]\n'
    )
    with pytest.raises(JobError, match="unknown strategy 'hogwild'; known are all_reduce"):
        load_job(path)


def test_the_fingerprint_is_that_of_the_recording_alone(tmp_path):
    job = job_of(tmp_path)
    mark = job.fingerprint("", "this machine")
    assert job.model_copy(update={"seed": 7}).fingerprint("code", "another machine") == mark
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert job_of(moved).fingerprint("", "") == mark
    os.utime(moved / "grid.jsonl.gz")
    assert job_of(moved, startup_seconds=3.0).fingerprint("", "") != mark


def test_a_recorded_job_is_always_feasible(tmp_path):
    job = job_of(tmp_path, ('time = "10m"', ""))
    check_feasible(job, tmp_path / "replay.toml")
    absent, unlimited = job_warnings(job)
    assert "State a recorded one there" in absent
    assert "[budget] is empty" in unlimited


def test_how_many_nodes_are_there_at_once_may_be_stated_beside_a_recording(tmp_path):
    cluster = job_of(tmp_path, (BUDGET, "[cluster]\ncapacity = 9\n[budget]")).resolved_cluster()
    assert (cluster.node_counts, cluster.nodes_at_once) == ((1, 2), 9)
    assert job_of(tmp_path).resolved_cluster().nodes_at_once == 3
    with pytest.raises(JobError, match="below the largest number of nodes of a configuration, 2 and 1 extra"):
        job_of(tmp_path, (BUDGET, "[cluster]\ncapacity = 2\n[budget]"))
