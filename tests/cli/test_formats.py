"""Results on stdout in the format asked for, everything else on stderr, and nobody waits for torch."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import PACELINE, Ended, Workplace
from tuner.domain.recommendation import Recommendation

Tuned = tuple[Workplace, Ended]


@pytest.fixture
def at(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The folder of the tuned job, as the working folder."""
    monkeypatch.chdir(tuned[0].folder)
    return tuned[0]


def rows_of(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.stderr
    rows: list[dict[str, Any]] = json.loads(ended.stdout)
    return rows


def test_a_run_gives_its_answer_on_stdout_and_its_progress_on_stderr(tuned: Tuned) -> None:
    place, ended = tuned
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("Recommended for tiny (verified)\n")
    assert f"report: {place.folder}/paceline-out/tiny/report.html" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr
    kinds = [line.split("] ")[1].split(":")[0] for line in ended.messages]
    assert set(kinds) == {"plan", "decision", "slice", "end"}
    assert kinds[0] == "plan"
    assert kinds[-1] == "end"
    assert all(len(line) <= 100 for line in ended.stdout.splitlines() if "/" not in line)


def test_the_trained_model_of_a_run_can_be_loaded(at: Workplace) -> None:
    import torch

    reported = json.loads((at.folder / "paceline-out/tiny/recommendation.json").read_text())
    state = torch.load(reported["checkpoint"], weights_only=True)
    assert {name: tuple(value.shape) for name, value in state.items()} == {"weight": (2, 8), "bias": (2,)}


def test_a_run_that_ended_shows_its_answer_in_every_format(at: Workplace, paceline: Command) -> None:
    reported = paceline("run", "job.toml", "--format", "json")
    assert reported.code == 0, reported.stderr
    answer = Recommendation.from_dict(json.loads(reported.stdout))
    assert answer.verified is not None
    cells = list(csv.DictReader(io.StringIO(paceline("run", "job.toml", "--format", "csv").stdout)))
    assert len(cells) == 1
    assert int(cells[0]["batch_size"]) == answer.choice.configuration.batch_size
    assert float(cells[0]["seconds_median"]) == pytest.approx(answer.choice.seconds.median)


@pytest.mark.parametrize("command", [["status"], ["trials"], ["explain", "job.toml", "0"]])
def test_every_format_holds_the_same_rows(at: Workplace, paceline: Command, command: list[str]) -> None:
    name, *remainder = command
    arguments = [name, *(remainder or ["job.toml"])]
    rows = rows_of(paceline(*arguments, "--format", "json"))
    cells = list(csv.DictReader(io.StringIO(paceline(*arguments, "--format", "csv").stdout)))
    assert [list(row) for row in cells] == [list(rows[0])] * len(rows)
    for row, cell in zip(rows, cells, strict=True):
        assert {key: "" if value is None else str(value) for key, value in row.items()} == cell
    table = paceline(*arguments).stdout.splitlines()
    assert table[0].split()[0] == next(iter(rows[0]))
    assert len(table) == 1 + len(rows)


def test_what_a_study_shows_is_what_was_run(at: Workplace, paceline: Command) -> None:
    probes = at.study()[1]
    status = {row["name"]: row["value"] for row in rows_of(paceline("status", "job.toml", "-f", "json"))}
    assert status["probes"] == len(probes)
    assert status["running probes"] == 0
    assert status["stop reason"].startswith("a run reached the target")
    assert status["best value"] >= 0.97
    trials = rows_of(paceline("trials", "job.toml", "-f", "json"))
    assert [row["trial"] for row in trials] == [p.trial_number for p in probes]
    assert trials[0]["learning_rate"] == 0.001
    reached = [row for row in trials if row["outcome"] == "reached"]
    assert len(reached) == 1
    assert reached[0]["seconds_to_target"] is not None
    reported = rows_of(paceline("explain", "job.toml", str(reached[0]["trial"]), "-f", "json"))
    facts = {row["name"]: row["value"] for row in reported}
    assert facts["outcome"] == "reached"
    assert "slice 1" in facts


def test_a_trial_that_is_not_there_lists_those_that_are(at: Workplace, paceline: Command) -> None:
    ended = paceline("explain", "job.toml", "77")
    assert ended.code == 2
    assert "there is no trial 77 in study tiny; known are 0 to" in ended.stderr


def test_a_report_is_written_where_it_is_asked_for(
    at: Workplace, paceline: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = at.study()[1]
    monkeypatch.setenv("PACELINE_OUTPUT", str(tmp_path / "by environment"))
    ended = paceline("report", "job.toml")
    assert ended.code == 0, ended.stderr
    assert str(tmp_path / "by environment" / "report.html") in ended.stdout.splitlines()
    flagged = paceline("report", "job.toml", "--output", str(tmp_path / "by flag"))
    assert all(line.startswith(str(tmp_path / "by flag")) for line in flagged.stdout.splitlines())
    assert all(Path(line).is_file() for line in flagged.stdout.splitlines())
    assert at.study()[1] == before


def test_a_workload_that_changed_since_is_said_to_have_changed(
    at: Workplace, paceline: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Workplace(tmp_path)
    (tmp_path / "tiny_work.py").write_text((tmp_path / "tiny_work.py").read_text() + "\n# another line\n")
    monkeypatch.chdir(tmp_path)
    ended = paceline("status", other.job.name, "--storage", f"sqlite:///{at.folder / 'paceline.db'}")
    assert ended.code == 2
    assert "the workload's code or parameters" in ended.stderr
    assert "changed since the last study of tiny" in ended.stderr


def test_flags_stand_above_the_environment_and_that_above_the_file(
    workplace: Workplace, paceline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACELINE_STORAGE", "sqlite:////nowhere/by-environment.db")
    monkeypatch.setenv("PACELINE_BUDGET", "never")
    assert "/nowhere/by-environment.db" in paceline("status", "job.toml").stderr
    by_flag = paceline("status", "job.toml", "--storage", "sqlite:////nowhere/by-flag.db")
    assert "/nowhere/by-flag.db" in by_flag.stderr
    monkeypatch.setenv("PACELINE_STORAGE", "sqlite:////nowhere/by-environment.db")  # the command removes it
    assert "--budget = never" in paceline("run", "job.toml").stderr
    monkeypatch.setenv("PACELINE_STORAGE", "sqlite:////nowhere/by-environment.db")
    assert "/nowhere" in paceline("run", "job.toml", "--budget", "5m").stderr
    monkeypatch.setenv("PACELINE_SAMPLER", "grid")
    assert "PACELINE_SAMPLER" in paceline("run", "job.toml", "--budget", "5m").stderr
    monkeypatch.setenv("PACELINE_FORMAT", "yaml")
    assert paceline("doctor").code == 2


def test_schemas_are_json_and_their_formats_hold(paceline: Command) -> None:
    job = json.loads(paceline("schema").stdout)
    assert {"workload", "goal", "space", "budget"} <= set(job["properties"])
    answer = json.loads(paceline("schema", "--recommendation").stdout)
    assert {"choice", "runner_up", "verified"} <= set(answer["properties"])


def test_the_version_is_the_distribution_s(paceline: Command) -> None:
    assert paceline("--version").stdout == f"paceline {version('paceline')}\n"


def test_help_names_every_command_also_on_a_narrow_terminal(
    paceline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    narrow = paceline("--help")
    assert narrow.code == 0
    commands = ["init", "check", "run", "train", "status", "trials", "explain", "report", "schema", "doctor"]
    assert all(command in narrow.stdout for command in commands)
    assert max(len(line) for line in narrow.stdout.splitlines()) <= 40
    assert paceline("run", "--help").code == 0


WITHOUT_TORCH = """
import sys
import cli
try:
    cli.main(sys.argv[1:])
finally:
    print("imported:", *sorted({"torch", "optuna", "scipy", "sklearn"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "command", [["--help"], ["schema"], ["status", "job.toml"], ["init", "a.toml"], ["trials", "job.toml"]]
)
def test_what_only_reads_imports_neither_torch_nor_optuna(workplace: Workplace, command: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *command],
        cwd=workplace.folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == "imported:"


def test_a_shell_can_complete_commands_and_options(workplace: Workplace) -> None:
    # Whatever shell the tests run under, bash is asked for.
    asked_for = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = workplace.call("--show-completion", "bash", **asked_for)
    assert script.code == 0
    assert "complete_bash" in script.stdout
    asked = {"_PACELINE_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert workplace.call(COMP_WORDS="paceline tr", **asked).stdout.split() == ["train", "trials"]
    asked["COMP_CWORD"] = "2"
    assert workplace.call(COMP_WORDS="paceline run --max", **asked).stdout.split() == ["--max-dollars"]


def test_a_reader_that_stops_listening_ends_no_command_with_a_traceback(at: Workplace) -> None:
    ended = subprocess.run(
        f"set -o pipefail; {PACELINE} schema | true",
        shell=True,
        executable="/bin/bash",
        cwd=at.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ended.stderr


def test_the_doctor_lists_what_matters_for_a_bug_report(paceline: Command) -> None:
    rows = {row["name"]: row for row in rows_of(paceline("doctor", "--format", "json"))}
    assert rows["python"]["value"] == sys.version.split()[0]
    assert rows["paceline"]["value"] == version("paceline")
    assert "gloo" in rows["torch backends"]["value"]
    assert rows["torch backends"]["advice"] == ""
    assert "cores" in rows["hardware"]["value"]


@pytest.mark.slow
def test_the_format_chooses_the_paths_that_a_report_prints(
    at: Workplace, paceline: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)) or len(opened) < 2)
    common = ("report", "job.toml", "--output", tmp_path)
    chosen = paceline(*common, "--format", "md", "-f", "json", "--open")
    assert chosen.stdout.splitlines() == [str(tmp_path / "report.md"), str(tmp_path / "recommendation.json")]
    assert opened == [(tmp_path / "report.html").as_uri()]
    without = paceline(*common, "--open")
    assert without.code == 1
    assert "no browser was found to open" in without.stderr
    monkeypatch.setattr("tuner.report.pdf.BROWSERS", ())
    missing = paceline(*common, "--format", "pdf")
    assert (missing.code, missing.stdout) == (1, "")
    assert "apt-get install chromium" in missing.stderr
    assert paceline(*common, "--format", "docx").code == 2
