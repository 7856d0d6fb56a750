from __future__ import annotations

import json

import pytest

from tuner.domain.errors import InfeasibleError, JobError
from tuner.job import Job, job_name, load_job, problems

VALID = {
    "workload": 'path = "tuner.workloads.digits:Digits"',
    "goal": "target = 0.9",
    "space": "batch_size = { low = 8, high = 64 }\nlearning_rate = { low = 1e-3, high = 0.1 }",
}


@pytest.fixture
def write(tmp_path):
    def write_job(top="", **tables):
        merged = {**VALID, **tables}
        text = top + "\n" + "\n".join(f"[{name}]\n{body}" for name, body in merged.items())
        path = tmp_path / "my-job.toml"
        path.write_text(text)
        return path

    return write_job


def test_a_job_is_read_and_named_for_its_file(write):
    job = load_job(write(baseline="batch_size = 32\nlearning_rate = 0.01", budget='time = "1h30m"'))
    assert job.name == "my-job"
    assert job.budget.time == 5400
    assert job.space.axes()["batch_size"].levels() == [8, 16, 32, 64]
    assert job.baseline_configuration().batch_size == 32
    assert load_job(write('name = "other"')).name == "other"


def test_a_stored_job_comes_back_unchanged(write):
    job = load_job(
        write(
            **{
                "workload.parameters": "width = 8\nnetwork = 'mlp'",
                "workload.schedule": 'name = "step"\nat_samples = [100, 200]',
                "workload.optimizer": 'name = "adamw"',
                "cluster": "nodes = [1, 3]",
                "baseline": "batch_size = 24\nlearning_rate = 0.01\nnodes = 3",
            }
        )
    )
    stored = json.loads(json.dumps(job.model_dump(mode="json")))
    assert Job.model_validate(stored) == job


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"goal": "target = 0.9\ntargt = 1"}, r"unknown key 'goal.targt'; did you mean 'goal.target'\?"),
        ({"goal": "target = 0.9\nbatch_size = 1"}, r"did you mean 'space.batch_size'\? Allowed in \[goal\]"),
        ({"gaol": "target = 1"}, r"unknown key 'gaol'; did you mean 'goal'\? Allowed in the job file: name"),
        (
            {"space": "batch_size = [8]\nlearning_rate = [0.1]\ndropout = [0.0, 0.2]"},
            r"unknown key 'space.dropout'. Allowed .* tunes no other options: .* workload.command",
        ),
        ({"goal": "metric = 'accuracy'"}, r"goal.target is missing \(the value of the metric"),
        ({"goal": "target = '0.9'"}, "goal.target = '0.9': must be a number"),
        (
            {"goal": "target = 84"},
            "goal.target = 84 is not a value accuracy can have; allowed is 0 to 1; write 84% as 0.84",
        ),
        ({"goal": "target = -1"}, "goal.target = -1 is not a value accuracy can have; allowed is 0 to 1"),
        ({"goal": "target = nan"}, "goal.target = nan: must be a finite number"),
        ({"goal": "target = 1\nmetric = 'acuracy'"}, "goal.metric = 'acuracy' is not a known one .accuracy"),
        ({"goal": "target = 1\ndirection = 'minimize'"}, "goal.direction = 'minimize': accuracy is a metric"),
        ({"goal": "target = 1\nminimize = 'dolars'"}, "'dolars': allowed is .*; did you mean 'dollars'"),
        ({"goal": "target = 1\nminimize = 'dollars'"}, "needs cluster.dollars_per_node_hour above 0"),
        ({"goal": "target = 1\ndeadline = 'soon'"}, "goal.deadline = 'soon': 'soon' is not a duration"),
        ({"cluster": "nodes = [2, 1]"}, r"cluster.nodes = \[2, 1\]: must be ascending, without repetition"),
        ({"cluster": "nodes = [1, 0]"}, r"cluster.nodes\[1\] = 0: must be greater than 0"),
        ({"cluster": "nodes = []"}, r"cluster.nodes = \[\]: must have at least 1 values"),
        ({"cluster": "devices_per_node = true"}, "cluster.devices_per_node = true: must be a whole number"),
        (
            {"cluster": "launcher = 'locl'"},
            "cluster.launcher = 'locl': allowed is 'local', .* or 'remote'; did you mean",
        ),
        ({"budget": "probes = 0"}, "budget.probes = 0: must be greater than 0"),
        ({"probe": "score_growth = 3"}, "probe.score_growth = 3: must be at most 2"),
        ({"probe": "timing_steps = 3"}, "probe.timing_steps = 3: must be at least 10"),
        ({"workload": 'path = "digits"'}, "workload.path = 'digits': must be an import path like"),
        (
            {"workload.optimizer": 'name = "adam"'},
            "workload.optimizer.name = 'adam': allowed is 'sgd', 'adamw'; did you mean 'adamw'",
        ),
        ({"workload.schedule": "horizon_samples = 1"}, "workload.schedule.name is missing: .*'cosine'"),
        ({"workload.schedule": "name = 'cosine'"}, "workload.schedule.horizon_samples is missing"),
        (
            {"workload.optimizer": "name = 'sgd'\nmomentum = 1"},
            "workload.optimizer.momentum = 1: .*less than 1",
        ),
        ({"workload.optimizer": "name = 'sgd'\nmomntum = 0"}, "did you mean 'workload.optimizer.momentum'"),
        (
            {"baseline": "batch_size = 2.0\nlearning_rate = 1"},
            "baseline.batch_size = 2.0: must be a whole number",
        ),
        (
            {"baseline": "batch_size = 2\nlearning_rate = 1\nstrategy = 'allreduce'"},
            "baseline.strategy = 'allreduce': unknown strategy .*did you mean 'all_reduce'",
        ),
    ],
)
def test_a_mistake_is_named_with_key_value_and_remedy(write, tables, words):
    path = write(**tables)
    with pytest.raises(JobError, match=words) as caught:
        load_job(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            "batch_size = 32\nlearning_rate = [0.1]",
            "space.batch_size = 32: must be a list .global batch sizes",
        ),
        (
            "batch_size = [32]\nlearning_rate = {low = -1, high = 1}",
            "space.learning_rate.low = -1: must be gr",
        ),
        ("batch_size = [32]\nlearning_rate = {low = 1}", "space.learning_rate.high is missing"),
        (
            "batch_size = [32]\nlearning_rate = {low = 1, high = 2, hgh = 1}",
            "unknown key 'space.learning_rate.hgh'; did you mean 'space.learning_rate.high'",
        ),
        (
            "batch_size = [32]\nlearning_rate = [0.1, 'x']",
            r"space.learning_rate\[1\] = 'x': must be a number",
        ),
        ("batch_size = [32]\nlearning_rate = [0.1, 0.1]", "space.learning_rate = .*must not repeat a value"),
        (
            "batch_size = {low = 9, high = 8}\nlearning_rate = [1]",
            "space.batch_size = .*low 9 is above high 8",
        ),
        (
            "batch_size = [8]\nlearning_rate = [1]\nstrategy = ['a']",
            "space.strategy = .*unknown strategy 'a'",
        ),
    ],
)
def test_a_mistake_in_the_space_names_one_kind_of_choice_only(write, space, words):
    with pytest.raises(JobError, match=words) as caught:
        load_job(write(space=space))
    assert "problems" not in str(caught.value)


def test_every_problem_is_listed_at_once(write):
    path = write("seed = -1", goal="targt = 1", budget="probes = 0")
    with pytest.raises(JobError, match="4 problems") as caught:
        load_job(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert all(line.startswith("  - ") for line in lines[1:])


def test_a_syntax_error_is_reported_with_its_line(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("[goal]\ntarget = \n")
    with pytest.raises(JobError, match=r"job.toml: is not valid TOML: .*line 2"):
        load_job(path)


def test_a_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(JobError, match=r"there is no such file.*paceline init"):
        load_job(tmp_path / "job.toml")


def test_a_folder_is_distinguished_from_a_file(tmp_path):
    (tmp_path / "job.toml").write_text("")
    with pytest.raises(JobError, match=r"is a folder; name the job file in it. It contains job.toml"):
        load_job(tmp_path)


def test_bytes_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(JobError, match=r"is not text in UTF-8: .* at byte 8"):
        load_job(path)


def test_a_table_given_as_a_value_is_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("goal = 3\n[workload]\npath = 'a:B'\n[space]\nbatch_size = [1]\nlearning_rate = [1.0]")
    with pytest.raises(JobError, match="goal = 3: must be a table"):
        load_job(path)


def test_nothing_feasible_is_an_error_of_its_own_with_reasons(write):
    path = write(cluster="nodes = [4]", space="batch_size = [1, 2]\nlearning_rate = [0.1]")
    words = "no configuration can run: batch_size 1 leaves some of 4 ranks .*; batch_size 2 .*Raise space"
    with pytest.raises(InfeasibleError, match=words) as caught:
        load_job(path)
    assert caught.value.exit_code == 3


def test_a_baseline_that_cannot_run_is_refused(write):
    path = write(baseline="nodes = 4\nbatch_size = 2\nlearning_rate = 0.1")
    with pytest.raises(JobError, match="the baseline cannot run: batch_size 2 leaves some of 4 ranks"):
        load_job(path)


@pytest.mark.parametrize(
    ("file", "name"),
    [("digits.toml", "digits"), ("my job (2).toml", "my-job-2-"), ("_x.toml", "x"), ("___.toml", "job")],
)
def test_a_name_made_from_a_file_is_one_that_jobs_may_have(tmp_path, file, name):
    assert job_name(tmp_path / file) == name


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"workload": 'command = "python train.py \\u0000"'}, r"workload\.command"),
        ({"workload": 'path = "a:B"\nparameters = { files = ["a", "\\u0000"] }'}, r"workload\.parameters"),
    ],
)
def test_a_nul_character_is_reported_with_its_key(write, tables, key):
    with pytest.raises(JobError, match=rf"my-job.toml: {key}.* contains a NUL character"):
        load_job(write(**tables))


@pytest.mark.parametrize(
    "tables",
    [{"goal": 'target = 0.9\nmetric = "' + "a" * 50_000 + '"'}, {"cluster": f"nodes = {['x'] * 5_000}"}],
)
def test_a_message_stays_short_where_a_value_or_a_list_of_problems_is_long(write, tables):
    with pytest.raises(JobError, match=r"my-job.toml: ") as caught:
        load_job(write(**tables))
    assert len(str(caught.value)) < 22_000


@pytest.mark.parametrize("text", ["1", "[1]", '{\\"nodes\\": [1]}', "nonsense", "[" * 50_000])
def test_a_baseline_in_quotes_is_refused(write, text):
    with pytest.raises(JobError, match=r"my-job.toml: baseline.* must be a table"):
        load_job(write(f'baseline = "{text}"'))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (
            {"baseline": "batch_size = 9223372036854775808\nlearning_rate = 1"},
            r"baseline.batch_size = .* integers must be from -2\^63 to 2\^63 - 1",
        ),
        (
            {"baseline": "batch_size = 9223372036854775807\nlearning_rate = 1"},
            "baseline.batch_size = 9223372036854775807: must be at most 100,000,000",
        ),
        ({"cluster": "nodes = [100001]"}, r"cluster.nodes\[0\] = 100001: must be at most 100,000"),
        (
            {"space": "batch_size = [8]\nlearning_rate = {low = 1, high = 2, levels_per_decade = 1001}"},
            "levels_per_decade = 1001: must be at most 1,000",
        ),
        (
            {
                "cluster": f"nodes = {list(range(1, 400))}",
                "space": f"batch_size = {list(range(400, 800))}\nlearning_rate = [0.1]",
            },
            r"\[space\] and cluster.nodes have 159,600 combinations, but at most 100,000 are allowed. List",
        ),
        (
            {"cluster": "nodes = [2000]", "space": "batch_size = [2000]\nlearning_rate = [0.1]"},
            "cluster.launcher = 'local' starts at most 1,024 processes on this host. Lower one",
        ),
        (
            {"workload": "command = 'x'\nmetrics = {source = 'output', pattern = 'a{99999999999999999999}'}"},
            "workload.metrics.pattern = .*is not a regular expression",
        ),
    ],
)
def test_sizes_have_limits(write, tables, words):
    with pytest.raises(JobError, match=rf"my-job.toml: .*{words}") as caught:
        load_job(write(**tables))
    assert "problems" not in str(caught.value)


def test_a_name_has_at_most_200_characters(write, tmp_path):
    with pytest.raises(JobError, match=r"name = 'aaa.*must have at most 200 characters"):
        load_job(write('name = "' + "a" * 201 + '"'))
    assert job_name(tmp_path / ("a" * 240 + ".toml")) == "a" * 200


def test_many_unknown_keys_are_counted(write, monkeypatch):
    made = []
    original = problems._problem
    monkeypatch.setattr(problems, "_problem", lambda *given: made.append(1) or original(*given))
    with pytest.raises(JobError, match=r"1,000 problems") as caught:
        load_job(write("\n".join(f"k{number} = 1" for number in range(1_000))))
    assert str(caught.value).endswith("and 980 more")
    assert len(made) == 20
