from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from search_spaces import Configuration
from tuner.domain.errors import InfeasibleError, JobError
from tuner.job import (
    VARIABLES,
    Job,
    Template,
    load_job,
    rendered_environment,
    script_digest,
    takes_seed,
    user_command,
    variable_name,
    written,
)
from tuner.job.command_files import script_files
from tuner.job.command_section import CommandSection
from tuner.job.command_values import own_launch, rendered_command, stated_values

JOB = """
[workload]
{workload}
[cluster]
nodes = {nodes}
[goal]
target = 0.9
[space]
batch_size = {batches}
learning_rate = {{ low = 0.001, high = 0.1 }}
[baseline]
batch_size = 12
learning_rate = 0.01
{more}
"""
REPORTED = "command = 'python train.py --lr {learning_rate} --batch-size {batch_size} --nodes {nodes}'"
CONFIGURATION = Configuration(nodes=1, batch_size=12, learning_rate=0.01, strategy="all_reduce")


def write_job(
    folder: Path, workload: str = REPORTED, *, nodes: str = "[1]", batches: str = "[12, 24]", more: str = ""
) -> Path:
    path = folder / "job.toml"
    path.write_text(JOB.format(workload=workload, nodes=nodes, batches=batches, more=more))
    return path


def test_a_command_implies_its_kind_and_needs_no_workload(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path))
    assert job.runs_command
    assert job.probe.kind == "command"
    assert job.probe.hang_seconds == 600
    assert not job.can_resume
    stored = type(job).model_validate(json.loads(job.model_dump_json()))
    assert stored == job


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (
            "command = 'train --lr {learnig_rate}'",
            r"\{learnig_rate\} is not a variable; did you mean \{learning_rate\}",
        ),
        ("command = 'train --lr {lr}'", "Known variables are nodes, devices_per_node, num_ranks"),
        ("command = 'train ${HOME}'", r"For a variable of the shell, write \$\{\{HOME\}\}"),
        ("command = 'train {batch_size'", "write {{ and }} for literal braces"),
        ("command = 'train {batch_size:d}'", "has a format"),
        ("command = ''", "workload.command"),
        (REPORTED + "\npath = 'a:B'", "path and workload.command are both stated"),
        (REPORTED + "\nenvironment = { RANKS = '{node_rank}' }", "differs between nodes"),
        (REPORTED + "\nenvironment = { '1X' = 'a' }", "is not a valid name of an environment variable"),
        (REPORTED + "\none_per = 'nod'", "did you mean 'node'"),
        (REPORTED + "\nmetrics = { source = 'csv' }", "workload.metrics.path is missing"),
        (REPORTED + "\nmetrics = { source = 'output' }", "workload.metrics.pattern is missing"),
        (REPORTED + "\nmetrics = { source = 'output', pattern = '(' }", "is not a regular expression"),
        (REPORTED + "\nmetrics = { source = 'output', pattern = 'a(?P<value>.)' }", "needs the groups"),
        (
            REPORTED + "\nmetrics = { source = 'output', pattern = '(?P<epoch>.) (?P<value>.)' }",
            "workload.epoch_samples is missing",
        ),
        (REPORTED + "\nfolder = 'nowhere'", "there is no folder"),
        (REPORTED + "\nresume = '-r {chekpoint}'", r"workload.resume = '-r .*did you mean \{checkpoint\}"),
        (REPORTED + "\ncomand = 'x'", "did you mean 'workload.command'"),
    ],
)
def test_what_is_wrong_with_a_command_is_said_before_anything_starts(
    tmp_path: Path, workload: str, words: str
) -> None:
    with pytest.raises(JobError, match=words):
        load_job(write_job(tmp_path, workload))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workload": "command = 'train {batch_size}'"}, "space.learning_rate has several values"),
        ({"workload": "command = 'train {learning_rate}'"}, "space.batch_size has several values"),
        ({"workload": "command = 'train {learning_rate} {batch_size}'", "nodes": "[1, 2]"}, "cluster.nodes"),
        (
            {"more": "[probe]\nmax_batch_size_per_rank = 6"},
            "probe.max_batch_size_per_rank needs accumulation",
        ),
        ({"more": "[probe]\nkind = 'emulated'"}, "workload.command implies 'command'"),
        ({"more": "[cluster.emulate]\ndelay = { high = 0.1 }"}, "not those of a command"),
    ],
)
def test_what_varies_must_reach_the_script(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(JobError, match=words):
        load_job(write_job(tmp_path, **changes))


@pytest.mark.parametrize(
    "script",
    [
        "import os; os.environ['PACELINE_LEARNING_RATE'], os.environ['PACELINE_BATCH_SIZE_PER_RANK']",
        "import json, os; json.load(open(os.environ['PACELINE_VALUES']))",
        "from paceline_client import values\nrate = values()['learning_rate']",
    ],
)
def test_a_script_may_read_its_values_from_environment_or_file(tmp_path: Path, script: str) -> None:
    (tmp_path / "train.py").write_text(script)
    assert load_job(write_job(tmp_path, "command = 'python train.py'")).runs_command
    (tmp_path / "train.py").write_text("import paceline_client\nnumbers = {}.values()")
    with pytest.raises(JobError, match="never uses"):
        load_job(write_job(tmp_path, "command = 'python train.py'"))


def test_a_copy_a_rank_knows_how_many_there_are(tmp_path: Path) -> None:
    workload = "one_per = 'rank'\ncommand = 'train {learning_rate} {batch_size_per_rank}'"
    assert load_job(write_job(tmp_path, workload, nodes="[1, 2]")).cluster.nodes == (1, 2)


def test_a_batch_that_does_not_split_evenly_is_infeasible_with_a_reason(tmp_path: Path) -> None:
    more = "[probe]\nmax_batch_size_per_rank = 4"
    workload = REPORTED.replace("--nodes", "{accumulation} --nodes")
    job = load_job(write_job(tmp_path, workload, nodes="[1, 3]", batches="[9, 10, 12]", more=more))
    space = job.search_space()
    reasons = {
        (nodes, batch): space.reasons_against(CONFIGURATION.replaced(nodes=nodes, batch_size=batch))
        for nodes in (1, 3)
        for batch in (9, 10, 12)
    }
    assert reasons[3, 9] == reasons[3, 12] == reasons[1, 9] == reasons[1, 12] == []
    assert "does not split evenly over 3 ranks" in reasons[3, 10][0]
    assert "over 3 micro-batches of at most 4" in reasons[1, 10][0]
    values = stated_values(job, CONFIGURATION)
    assert (values["batch_size_per_rank"], values["accumulation"], values["micro_batch_size"]) == (12, 3, 4)
    with pytest.raises(InfeasibleError, match="does not split evenly"):
        load_job(write_job(tmp_path, nodes="[7]", more="[probe]"))


def test_values_are_quoted_and_braces_can_be_doubled(tmp_path: Path) -> None:
    template = Template("a {output_folder} ${{HOME}} {{}} {node_rank}")
    assert template.variables == ("output_folder", "node_rank")
    line = template.rendered({"output_folder": "/x y"}, for_shell=True)
    assert line == "a '/x y' ${HOME} {} \"$PACELINE_NODE_RANK\""
    assert (
        template.rendered({"output_folder": "/x y", "node_rank": 3}, for_shell=False) == "a /x y ${HOME} {} 3"
    )


def test_resume_is_appended_or_put_where_the_template_says(tmp_path: Path) -> None:
    for command, line in (
        ("train {learning_rate} {batch_size}", "train 0.01 12 --resume '/a b'"),
        ("train {resume} {learning_rate} {batch_size}", "train --resume '/a b' 0.01 12"),
    ):
        job = load_job(write_job(tmp_path, f"command = '{command}'\nresume = '--resume {{checkpoint}}'"))
        values = {**stated_values(job, CONFIGURATION), "checkpoint": "/a b"}
        assert rendered_command(job, values, resumes=True) == line
        assert "--resume" not in rendered_command(job, values, resumes=False)


def test_the_fingerprint_knows_the_script_and_what_it_imports(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import parts")
    (tmp_path / "parts.py").write_text("x = 1")
    job = load_job(write_job(tmp_path))
    assert script_files(job.command, tmp_path) == [tmp_path / "parts.py", tmp_path / "train.py"]
    first = script_digest(job.command, tmp_path)
    (tmp_path / "parts.py").write_text("x = 2")
    assert script_digest(job.command, tmp_path) != first
    assert len(first) == 16
    other = load_job(write_job(tmp_path, REPORTED + "\ngrace = '2m'\nresume = '-r {checkpoint}'"))
    assert other.fingerprint("", "") == job.fingerprint("", "")
    changed = load_job(write_job(tmp_path, REPORTED.replace("--nodes", "--wide --nodes")))
    assert changed.fingerprint("", "") != job.fingerprint("", "")


def with_threads(folder: Path, threads: str, workload: str = REPORTED) -> Job:
    path = write_job(folder, workload)
    path.write_text(path.read_text().replace("nodes = [1]\n", f"nodes = [1]\n{threads}\n"))
    return load_job(path)


@pytest.mark.parametrize(
    "written",
    ["> progress.txt", ">>progress.txt", "--log train.log", "--save=model.pt", "| tee progress.txt"],
)
def test_a_file_that_the_command_writes_is_no_part_of_the_fingerprint(tmp_path: Path, written: str) -> None:
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "settings.json").write_text("{}")
    line = "python train.py --settings settings.json --lr {learning_rate} --batch-size {batch_size} "
    section = CommandSection(command=line + written)
    before = script_digest(section, tmp_path)
    for name in ("progress.txt", "train.log", "model.pt"):
        (tmp_path / name).write_text("epoch 1")
    assert script_digest(section, tmp_path) == before
    (tmp_path / "settings.json").write_text("{} ")
    assert script_digest(section, tmp_path) != before


def test_threads_that_are_stated_reach_a_command_unless_it_sets_them_itself(tmp_path: Path) -> None:
    job = with_threads(tmp_path, "threads_per_rank = 3")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    assert rendered_environment(job, {}) == dict.fromkeys((*names, "VECLIB_MAXIMUM_THREADS"), "3")
    # What the answer gives to run without Paceline trains as the probes did.
    assert own_launch(job, tmp_path, CONFIGURATION).environment["OMP_NUM_THREADS"] == "3"
    own = REPORTED + "\nenvironment = { OMP_NUM_THREADS = '5' }"
    job = with_threads(tmp_path, "threads_per_rank = 3", own)
    assert rendered_environment(job, {})["OMP_NUM_THREADS"] == "5"
    assert rendered_environment(job, {})["MKL_NUM_THREADS"] == "3"


def test_threads_that_are_not_stated_are_the_command_s_own_business(tmp_path: Path) -> None:
    job = with_threads(tmp_path, "")
    assert rendered_environment(job, {}) == {}
    # One thread and no word about threads are different trainings of a command.
    stated = with_threads(tmp_path, "threads_per_rank = 1")
    assert rendered_environment(stated, {})["OMP_NUM_THREADS"] == "1"
    assert stated.fingerprint("", "") != job.fingerprint("", "")


def test_module_of_python_is_found_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "train.py").write_text("")
    workload = "command = 'python -m work.train {learning_rate} {batch_size}'"
    job = load_job(write_job(tmp_path, workload))
    assert script_files(job.command, tmp_path) == [tmp_path / "work" / "train.py"]


def test_own_command_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "tell.sh").write_text(
        'echo "$@" "$PACELINE_BATCH_SIZE" "$LR" "$PACELINE_NODES"; cat "$PACELINE_VALUES"'
    )
    job = load_job(
        write_job(
            tmp_path,
            "command = 'sh tell.sh {learning_rate} {node_rank} {checkpoint}'\n"
            "environment = { LR = '{learning_rate}' }",
        )
    )
    line = user_command(job, tmp_path, CONFIGURATION)
    run = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, cwd="/")
    first, remainder = run.stdout.split("\n", 1)
    assert shlex.split(first) == ["0.01", "0", "checkpoint", "12", "0.01", "1"]
    assert json.loads(remainder)["learning_rate"] == 0.01


SECRET = "environment = { TOKEN = 's3cret {seed}', LR = '{learning_rate}' }"


def test_values_of_the_environment_are_not_published(tmp_path: Path) -> None:
    workload = "command = 'echo $TOKEN {learning_rate} {batch_size}'\n" + SECRET
    job = load_job(write_job(tmp_path, workload))
    published = job.published()
    assert published["workload"]["environment"] == {"TOKEN": "(not published)", "LR": "{learning_rate}"}
    assert published["workload"]["command"] == job.command.command
    line = user_command(job, tmp_path, CONFIGURATION)
    assert "s3cret" not in line
    assert "LR=0.01" in line
    unset = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True)
    assert (unset.returncode != 0, unset.stdout) == (True, "")
    assert "TOKEN: is not set; its value is in workload.environment of the job file" in unset.stderr
    environment = {**os.environ, "TOKEN": "mine"}
    run = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, env=environment)
    assert run.stdout == "mine 0.01 12\n"


def test_values_of_the_environment_are_published_if_the_job_file_says_so(tmp_path: Path) -> None:
    workload = "command = 'echo {learning_rate} {batch_size}'\npublish_environment = true\n" + SECRET
    job = load_job(write_job(tmp_path, workload))
    assert job.published() == job.model_dump(mode="json")
    assert "TOKEN='s3cret 0'" in user_command(job, tmp_path, CONFIGURATION)


def test_publishing_does_not_change_what_was_measured_but_another_value_does(tmp_path: Path) -> None:
    workload = "command = 'echo {learning_rate} {batch_size}'\n" + SECRET
    job = load_job(write_job(tmp_path, workload))
    shown = load_job(write_job(tmp_path, workload + "\npublish_environment = true"))
    other = load_job(write_job(tmp_path, workload.replace("s3cret", "other")))
    assert job.fingerprint("", "") == shown.fingerprint("", "") != other.fingerprint("", "")


def test_a_study_of_an_earlier_version_is_still_resumed() -> None:
    job = Job.model_validate(
        {
            "name": "t",
            "workload": {
                "command": "python train.py {learning_rate} {batch_size}",
                "environment": {"TOKEN": "secret", "LR": "{learning_rate}"},
            },
            "cluster": {"nodes": [1], "devices_per_node": 1},
            "goal": {"target": 0.9},
            "space": {"batch_size": [64], "learning_rate": [0.05]},
        }
    )
    # The fingerprint as version 0.1.0 computed it before `publish_environment` existed.
    assert job.fingerprint("code", "hardware") == "5e60b6d4a00b51a2"


def test_own_command_ends_where_the_training_does_if_the_script_takes_its_end(tmp_path: Path) -> None:
    workload = "command = 'echo {learning_rate} {batch_size} {until_samples} {until_steps}'"
    job = load_job(write_job(tmp_path, workload))
    line = user_command(job, tmp_path, CONFIGURATION, num_samples=100)
    run = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0.01", "12", "100", "9"]


def test_own_command_starts_a_copy_a_rank_where_nodes_are_processes(tmp_path: Path) -> None:
    workload = (
        "one_per = 'rank'\ncommand = 'echo $RANK of $WORLD_SIZE: {learning_rate} {batch_size_per_rank}'"
    )
    job = load_job(write_job(tmp_path, workload, nodes="[1, 2]"))
    line = user_command(job, tmp_path, CONFIGURATION.replaced(nodes=2))
    run = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert sorted(run.stdout.splitlines()) == ["0 of 2: 0.01 6", "1 of 2: 0.01 6"]


def test_every_variable_has_a_name_in_the_environment() -> None:
    assert variable_name("learning_rate") == "PACELINE_LEARNING_RATE"
    assert all(words and not words.endswith(".") for words in VARIABLES.values())


def test_a_word_longer_than_any_file_name_names_no_script(tmp_path):
    section = CommandSection(command="python train.py " + "x" * 5_000)
    assert script_files(section, tmp_path) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-05, "0.00003"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (1e16, "10000000000000000.0"),
        (64, "64"),
        ("sgd", "sgd"),
    ],
)
def test_numbers_have_no_exponent_which_is_text_to_yaml(value: object, text: str) -> None:
    assert written(value) == text
    assert (
        Template("--lr {learning_rate}").rendered({"learning_rate": value}, for_shell=True) == f"--lr {text}"
    )


@pytest.mark.parametrize(
    ("command", "script", "takes"),
    [
        ("{python} train.py {learning_rate} {batch_size} {seed}", "", True),
        ("{python} train.py {learning_rate} {batch_size}", "import sys", False),
        (
            "{python} train.py {learning_rate} {batch_size}",
            "import os; seed = os.environ['PACELINE_SEED']",
            True,
        ),
        (
            "{python} train.py {learning_rate} {batch_size}",
            "import paceline_client; paceline_client.values()",
            True,
        ),
        ("{python} train.py {values}", "", True),
    ],
)
def test_whether_a_command_takes_the_seed_is_read_from_it(
    tmp_path: Path, command: str, script: str, takes: bool
) -> None:
    (tmp_path / "train.py").write_text(script)
    job = Job.model_validate(
        {
            "workload": {"command": command},
            "goal": {"metric": "accuracy", "target": 0.9},
            "space": {"batch_size": [16], "learning_rate": [0.1]},
        }
    )
    assert takes_seed(job, tmp_path) is takes


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ("image = '-v /:/host'", r"cluster\.image"),
        ("image = 'a b'", r"cluster\.image"),
        ("container = 'docker'", "container is stated, but no image"),
        ("image = 'a'\ncontainer = 'dockr'", "did you mean 'docker'"),
        ("image = 'a'\ncontainer = 'pyxis'", "container = 'pyxis' needs launcher = 'slurm'"),
        ("image = 'a'\nlauncher = 'remote'", "not for a trainer elsewhere"),
    ],
)
def test_a_container_that_cannot_be_is_refused(tmp_path: Path, cluster: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        load_job(write_job(tmp_path, nodes=f"[1]\n{cluster}"))


def test_the_ranks_of_a_workload_do_not_run_in_containers(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"not for the ranks of a Workload.*start Paceline in the container"):
        load_job(write_job(tmp_path, "path = 'a:B'", nodes="[1]\nimage = 'a'"))


def test_an_image_has_its_own_python_and_its_own_studies(tmp_path: Path) -> None:
    plain, inside = (
        load_job(write_job(tmp_path, nodes=f"[1]\n{cluster}")) for cluster in ("", "image = 'team/x:1'")
    )
    assert stated_values(inside, CONFIGURATION)["python"] == "python3"
    assert plain.fingerprint("c", "h") != inside.fingerprint("c", "h")
