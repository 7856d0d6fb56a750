"""Whatever a user gets wrong ends with its exit code and one clear message, and nothing on stdout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import Ended, Workplace


def assert_refused(ended: Ended, code: int, *words: str) -> None:
    """One message on stderr, with these words, and no result."""
    assert ended.code == code, ended.stderr
    assert ended.stdout == ""
    said = [line for line in ended.messages if "] plan: " not in line]
    assert said[0].startswith("paceline: "), ended.stderr
    assert ended.stderr.count("paceline: ") == 1
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("time = ", "tome = ", 2, ["job.toml", "budget.tome", "did you mean 'budget.time'?"]),
        ("[budget]", "[bugdet]", 2, ["bugdet", "did you mean 'budget'?"]),
        ("nodes = [1, 2]", 'nodes = "two"', 2, ["cluster.nodes = 'two'", "must be a list"]),
        ("target = 0.97", 'target = "high"', 2, ["goal.target = 'high'"]),
        ("target = 0.97", "target = 97", 2, ["goal.target = 97", "accuracy", "0 to 1"]),
        ("target = 0.97", "target =", 2, ["not valid TOML", "line 9"]),
        ("target = 0.97", 'target = 0.97\nmetric = "accurracy"', 2, ["goal.metric", "accuracy"]),
        ("[16, 32]", "[1]\n[cluster.more]", 2, ["cluster.more"]),
        ("nodes = [1, 2]", "nodes = [64]", 3, ["no configuration can run", "32 leaves some of 64 ranks"]),
        ("tiny_work:", "tiny_wrok:", 2, ["no module tiny_wrok", "did you mean 'tiny_work'?"]),
        (":Lines", ":Line", 2, ["no class Line", "did you mean tiny_work:Lines?"]),
        ("parameters = {", "parameters = { dely = 1.0", 2, ["workload.parameters.dely", "delay"]),
    ],
)
def test_what_is_wrong_in_the_job_file_is_named(
    workplace: Workplace, paceline: Command, old: str, new: str, code: int, words: list[str]
) -> None:
    workplace.write_job((old, new))
    assert_refused(paceline("run", "job.toml"), code, *words)
    assert not (workplace.folder / "paceline-out" / "tiny" / "recommendation.json").exists()


def test_all_that_is_wrong_in_a_job_file_is_reported_at_once(workplace: Workplace, paceline: Command) -> None:
    workplace.write_job(("target = 0.97", "target = 97"), ("probes = 8", 'probes = "many"'))
    assert_refused(paceline("check", "job.toml"), 2, "budget.probes")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no data", ["the lines are not in /data/lines; get them with `fetch lines`"]),
        ("broken data", ["job.toml: workload.path", "cannot load its data: KeyError: 'lines'"]),
        ("empty data", ["the training data are empty"]),
    ],
)
def test_a_workload_without_its_data_is_found_before_anything_is_paid(
    workplace: Workplace, paceline: Command, fault: str, words: list[str]
) -> None:
    workplace.write_job(fault=fault)
    for command in ("run", "check"):
        ended = paceline(command, "job.toml")
        assert ended.code == 2
        assert ended.stdout == ""
        last = ended.messages[-1]
        assert last.startswith("paceline: ")
        assert all(word in last for word in words)


def test_a_job_file_that_is_not_there_is_named(workplace: Workplace, paceline: Command) -> None:
    for command in ("run", "check", "status", "trials", "report"):
        assert_refused(paceline(command, "nothere.toml"), 2, "nothere.toml: there is no such file")
    assert_refused(paceline("run", "."), 2, "is a folder", "job.toml")


def test_reading_a_study_that_is_not_there_says_how_to_begin_one(
    workplace: Workplace, paceline: Command
) -> None:
    for command in (["status"], ["trials"], ["report"], ["explain"]):
        number = ["0"] if command == ["explain"] else []
        ended = paceline(*command, "job.toml", *number)
        assert_refused(ended, 2, "no study of this job", "`paceline run job.toml`", "--storage")


def test_an_output_folder_that_cannot_be_written_is_a_storage_error(
    workplace: Workplace, paceline: Command
) -> None:
    (workplace.folder / "file").write_text("")
    for output in ("file", "file/below"):
        ended = paceline("run", "job.toml", "--output", output)
        assert_refused(
            ended, 6, f"the output folder {output} cannot be written", "file is a file", "--output"
        )
    assert_refused(paceline("run", "job.toml", "-o", "/proc/nowhere"), 6, "/proc/nowhere")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param(
            "postgresql://me:secret@127.0.0.1:1/study",
            ["cannot be reached", "me:***@127.0.0.1:1"],
            marks=pytest.mark.slow,  # needs the driver, psycopg
        ),
        ("mysql://me:secret@127.0.0.1/study", ["SQLite or PostgreSQL, not in mysql"]),
        ("nonsense", ["'nonsense' is no database URL"]),
        ("sqlite:////nowhere/study.db", ["/nowhere, which does not exist"]),
        ("sqlite:///job.toml", ["is not a SQLite database"]),
    ],
)
def test_a_database_that_cannot_be_used_is_a_storage_error(
    workplace: Workplace, paceline: Command, url: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.OPENING_SECONDS", 0.1)
    before = workplace.job.read_text()
    for command in ("run", "status"):
        ended = paceline(command, "job.toml", "--storage", url)
        assert_refused(ended, 6, *words)
        assert "secret" not in ended.stderr
    assert workplace.job.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "Missing argument"),
        (["run", "job.toml", "--nonsense"], "No such option: --nonsense"),
        (["run", "job.toml", "--sampler", "grid"], "'model', 'tpe', 'gp', 'random'"),
        (["run", "job.toml", "--max-dollars", "much"], "--max-dollars"),
        (["explain", "job.toml", "first"], "valid integer"),
        (["train", "job.toml", "--nodes", "1"], "Missing option '--batch-size'"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_usage_errors_show_how_the_command_is_used(
    workplace: Workplace, paceline: Command, arguments: list[str], words: str
) -> None:
    ended = paceline(*arguments)
    assert ended.code == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("Usage: ")
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--budget", "soon"],
            "--budget = soon (flag or environment variable): 'soon' is not a duration",
        ),
        (["--budget", "-5m"], "'-5m' is not a duration"),
        (["--max-dollars", "5"], "needs cluster.dollars_per_node_hour above 0"),
        (["--max-dollars", "-5"], "greater than 0"),
    ],
)
def test_a_budget_that_is_none_is_refused_like_the_file_s(
    workplace: Workplace, paceline: Command, flags: list[str], words: str
) -> None:
    assert_refused(paceline("run", "job.toml", *flags), 2, words)


def test_init_writes_a_job_that_passes_and_replaces_nothing_unasked(
    workplace: Workplace, paceline: Command
) -> None:
    ended = paceline("init", "new.toml")
    assert ended.code == 0
    assert ended.stderr == "Next: paceline check new.toml\n"
    template = Path("new.toml").read_text()
    Path("new.toml").write_text("mine")
    assert_refused(paceline("init", "new.toml"), 2, "new.toml already exists", "--force")
    assert Path("new.toml").read_text() == "mine"
    assert paceline("init", "new.toml", "--force").code == 0
    assert Path("new.toml").read_text() == template


def test_init_knows_its_examples_and_where_it_may_write(workplace: Workplace, paceline: Command) -> None:
    assert_refused(paceline("init", "a.toml", "--example", "digit"), 2, "did you mean 'digits'?", "char_lm")
    assert paceline("init", "a.toml", "--example", "digits").code == 0
    assert 'name = "digits"' in Path("a.toml").read_text()
    assert_refused(paceline("init", "a.toml/b.toml"), 6, "a.toml/b.toml cannot be written")


@pytest.mark.parametrize(
    ("nodes", "batch_size", "rate", "strategy", "words"),
    [
        (0, 16, 0.1, "all_reduce", "nodes = 0: should be greater than 0"),
        (1, 0, 0.1, "all_reduce", "batch_size = 0: should be greater than 0"),
        (1, 16, -1.0, "all_reduce", "learning_rate = -1.0: should be greater than 0"),
        (1, 16, "nan", "all_reduce", "finite"),
        (1, 16, 0.1, "all_reduced", "unknown strategy 'all_reduced'; known are all_reduce"),
        (2, 1, 0.1, "all_reduce", "batch_size 1 leaves some of 2 ranks without a sample"),
        (3, 16, 0.1, "all_reduce", "nodes = 3: cluster.nodes allows up to 2"),
    ],
)
def test_training_what_cannot_be_trained_is_refused_before_it_begins(
    workplace: Workplace,
    paceline: Command,
    nodes: int,
    batch_size: int,
    rate: float,
    strategy: str,
    words: str,
) -> None:
    axes = ["--nodes", nodes, "--batch-size", batch_size, "--learning-rate", rate, "--strategy", strategy]
    assert_refused(paceline("train", "job.toml", *axes), 2, words)


def test_training_needs_no_number_of_nodes_where_the_job_allows_one(
    workplace: Workplace, paceline: Command
) -> None:
    axes = ["--batch-size", 0, "--learning-rate", 0.1]
    assert_refused(paceline("train", "job.toml", *axes), 2, "--nodes is missing: the job allows 1, 2 nodes")
    path = Path("job.toml")
    text = path.read_text().replace("nodes = [1, 2]", "nodes = [2]")
    path.write_text(text.replace("[space]", '[space]\nstrategy = ["gossip_pull"]'))
    refused = paceline("train", "job.toml", *axes)
    assert_refused(refused, 2, "cannot train nodes=2 batch_size=0 learning_rate=0.1 strategy=gossip_pull")


def test_without_a_command_help_is_shown(paceline: Command) -> None:
    for arguments in ([], ["db"]):
        ended = paceline(*arguments)
        assert ended.code == 2
        assert "Usage: " in ended.stdout
        assert re.search(r"upgrade|doctor", ended.stdout)
