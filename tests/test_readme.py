"""What the README says is so: its blocks run, and its tables are those of the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli import INTERRUPTED, PROVISIONAL, Format, Sampler, app
from storage.tables import metadata
from tuner import client
from tuner.errors import TunerError
from tuner.job import VARIABLES, Job, example_names, job_schema, load_job, load_workload, variable_name
from tuner.measurement import Outcome, Purpose
from tuner.workload import METRICS, AdamWSettings, SGDSettings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> list[tuple[str, str]]:
    """What follows the backticks, and the text, of every fenced block."""
    return re.findall(r"^```([^\n]+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def block(info: str) -> str:
    (text,) = (text for head, text in blocks() if head == info)
    return text


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the rows of a section's tables, without heads and rulers."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rulers = [i for i, cells in enumerate(lines) if set("".join(cells)) <= set("-: ")]
    heads = [i - 1 for i in rulers]
    return [[c.strip() for c in cells] for i, cells in enumerate(lines) if i not in {*rulers, *heads}]


def code(text: str) -> list[str]:
    """What stands between single backticks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose)]


def commands() -> dict[str, Any]:
    """Every command with its parameters, those of groups under both their words."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found.update({f"{name} {n}": c for n, c in inner.items()} if inner else {name: command})
    return found


def write_own_training(folder: Path) -> Path:
    (folder / "teacher.py").write_text(block("python teacher.py"))
    path = folder / "teacher.toml"
    path.write_text(block("toml teacher.toml"))
    return path


def paceline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import cli; cli.main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)


def test_the_job_of_the_readme_loads_with_its_workload(tmp_path: Path) -> None:
    path = write_own_training(tmp_path)
    job = load_job(path)
    workload = load_workload(job, tmp_path)
    assert type(workload).__name__ == "Student"
    assert job.name == "teacher"
    assert job.baseline is not None
    assert job.search_space().is_runnable(job.baseline.configuration())


def test_the_table_of_the_job_file_names_every_key_and_no_other() -> None:
    sections = {"top of the file": {"name", "seed"}}
    schema = job_schema()["$defs"]
    for name in set(Job.model_fields) - {"name", "seed"}:
        sections[f"[{name}]"] = set(schema[f"{name.capitalize()}Section"]["properties"])
    for part in ("machine", "torchrun", "slurm", "ray"):
        sections[f"[cluster.{part}]"] = set(schema[f"{part.capitalize()}Section"]["properties"])
    sections["[workload]"] -= {"optimizer", "schedule"}
    sections["[workload] with command"] = set(schema["CommandSection"]["properties"]) - {
        "metrics",
        "optimizer",
    }
    sections["[workload.metrics]"] = set(schema["MetricsSection"]["properties"])
    for name, kinds in (("optimizer", "Settings"), ("schedule", "Schedule")):
        matching = (set(schema[kind]["properties"]) for kind in schema if kind.endswith(kinds))
        sections[f"[workload.{name}]"] = set().union(*matching)
    told = {name.strip("`"): set(code(keys)) for name, keys, _ in rows(section("The job file"))}
    assert told == sections


def test_the_table_of_commands_is_that_of_the_help() -> None:
    told = [
        code(cells[0])[0].removeprefix("paceline ") for cells in rows(section("Commands"))[: len(commands())]
    ]
    assert sorted(told) == sorted(commands())


def test_commands_are_called_as_they_can_be() -> None:
    fenced = [
        line.removeprefix("$ ") for info, text in blocks() if info == "console" for line in text.splitlines()
    ]
    inline = [words for words in code(README) if words.startswith("paceline ")]
    called = [shlex.split(line, comments=True) for line in [*fenced, *inline]]
    assert len(called) > 10
    for words in called:
        assert words[0] == "paceline"
        name = " ".join(words[1:3]) if words[1] == "db" else words[1]
        known = {option for parameter in commands()[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_flags_of_run_and_their_values_are_those_that_exist() -> None:
    told = {words.split()[0] for words in code(section("Commands")) if words.startswith("--")}
    assert told - {"--example", "--recommendation"} == {
        option
        for parameter in commands()["run"].params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert "--format " + "|".join(Format) in section("Commands")
    assert {"tpe", "gp", "random"} == {s.value for s in Sampler} - {"model"}
    assert "`paceline run --sampler tpe` (or `gp`, `random`)" in README


def test_environment_variables_are_those_that_are_read() -> None:
    read = {str(p.envvar) for c in commands().values() for p in c.params if getattr(p, "envvar", None)}
    # What a script is told is another matter: the table of variables says so.
    told = {variable_name(variable) for variable in VARIABLES} | {"PACELINE_NAME"}
    assert set(re.findall(r"PACELINE_[A-Z_]+", README)) - told == read


def test_the_table_of_variables_is_that_of_templates() -> None:
    told = [cells for cells in rows(section("Your own script in five minutes")) if cells[0].startswith("`{")]
    assert told == [[f"`{{{name}}}`", f"`{variable_name(name)}`", words] for name, words in VARIABLES.items()]


def test_the_client_s_functions_are_told() -> None:
    told = section("Your own script in five minutes")
    assert [name for name in client.__all__ if f"`{name}(" not in told and name != "values"] == []


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    kinds = [TunerError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    told = {int(cells[0]) for cells in rows(section("Commands")) if cells[0].isdigit()}
    assert told == {0, 2, PROVISIONAL, INTERRUPTED} | {kind.exit_code for kind in kinds}


def test_names_in_the_text_are_those_of_the_code() -> None:
    assert set(re.findall(r"`(paceline_\w+)`", README)) == set(metadata.tables)
    assert all(f"`{name}`" in section("Your own training in five minutes") for name in METRICS)
    assert all(f"`{name}`" in section("The job file") for name in example_names())
    glossary = {cells[0]: cells[1] for cells in rows(section("Glossary"))}
    assert set(code(glossary["outcome"])) == {o.value for o in Outcome if o is not Outcome.RUNNING}
    assert set(code(glossary["purpose"])) == {purpose.value for purpose in Purpose}
    settings = {SGDSettings().name, AdamWSettings().name}
    assert settings <= set(code(section("The job file")))


def test_sections_of_the_report_have_the_names_they_are_told_by() -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "tuner" / "report").glob("*.py")))
    told = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", section("Reading the report"))
    assert len(told) > 4
    assert [name for name in told if f'"{" ".join(name.split())}' not in sources] == []


def test_links_within_the_readme_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or target.lstrip("#") in anchors or (ROOT / target).is_file(), target


@pytest.mark.slow
def test_your_own_script_is_tuned_as_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(block("python train.py"))
    path = tmp_path / "train.toml"
    path.write_text(block("toml train.toml").replace('"python ', f'"{sys.executable} '))
    checked = paceline(tmp_path, "check", path.name, "--format", "json")
    assert checked.returncode == 0, checked.stderr
    assert {"what": "can resume", "value": "yes"} in json.loads(checked.stdout)
    ran = paceline(tmp_path, "run", path.name, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["verified"]["reached"]
    assert Path(answer["checkpoint"]).is_file()
    assert "train.py --lr" in answer["own_command"]


@pytest.mark.slow
def test_your_own_training_is_tuned_as_the_readme_says(tmp_path: Path) -> None:
    import optuna
    import torch

    path = write_own_training(tmp_path)
    checked = paceline(tmp_path, "check", path.name, "--format", "json")
    assert checked.returncode == 0, checked.stderr
    assert any(row["what"] == "step milliseconds" and row["value"] > 0 for row in json.loads(checked.stdout))
    ran = paceline(tmp_path, "run", path.name)
    assert ran.returncode == 0, ran.stderr
    output = tmp_path / "paceline-out" / "teacher"
    for name in code(
        section("What is kept where").split("**A folder a probe**")[0].split("**The output folder**")[1]
    ):
        if "." in name:
            assert (output / name).is_file(), name
    (model,) = output.glob("probes/*/*/model.pt")
    for name in ("probe.json", "metrics.jsonl", "checkpoints"):
        assert (model.parent / name).exists()
    network = load_workload(load_job(path), tmp_path).model()
    network.load_state_dict(torch.load(model, weights_only=True))
    script = block("python study").replace("examples/", str(tmp_path) + "/").replace('"digits"', '"teacher"')
    told: dict[str, Any] = {}
    exec(script, told)
    assert "COMPLETE" in {trial.state.name for trial in told["study"].trials}
    assert isinstance(told["study"], optuna.Study)
