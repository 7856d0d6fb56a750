"""What the README and the pages under docs/ say is so: blocks run, tables and links hold."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import paceline_client
import pytest
import typer.main

from cli import app
from search_spaces import STRATEGIES
from storage.tables import metadata
from tuner.domain.errors import TunerError
from tuner.domain.measurement import Outcome, Purpose
from tuner.domain.workload import METRICS, AdamWSettings, SGDSettings
from tuner.job import VARIABLES, Job, example_names, job_schema, load_job, load_workload, variable_name
from tuner.past_runs.formats import FORMATS
from tuner.past_runs.mapping import Mapping
from tuner.service.options import INTERRUPTED, PROVISIONAL, Format, Sampler, SourceFormat

ROOT = Path(__file__).resolve().parents[1]
#: Text of the README and of every page under docs/, by path.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
TEXT = "\n".join(PAGES.values())


def blocks() -> list[tuple[str, str]]:
    """What follows the backticks, and the text, of every fenced block of all pages."""
    return re.findall(r"^```([^\n]+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def block(info: str) -> str:
    (text,) = {text for head, text in blocks() if head == info}
    return text


def page(name: str) -> str:
    return PAGES[f"docs/{name}.md"]


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
        if command.hidden:
            continue
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


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 250


def test_blocks_of_one_file_are_the_same_on_every_page() -> None:
    files = [info for info, _ in blocks() if " " in info]
    assert {"python train.py", "toml train.toml", "python teacher.py", "toml teacher.toml"} <= set(files)
    assert [info for info in files if not block(info)] == []


def test_blocks_of_toml_can_be_read() -> None:
    read = [tomllib.loads(text) for info, text in blocks() if info.split()[0] == "toml"]
    assert len(read) > 5
    assert all(read)


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
    for part in ("machine", "torchrun", "slurm", "ray", "remote"):
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
    reported = {name.strip("`"): set(code(keys)) for name, keys, _ in rows(page("reference/job_file"))}
    assert reported == sections


def test_the_table_of_commands_is_that_of_the_help() -> None:
    reported = [code(cells[0])[0].removeprefix("paceline ") for cells in rows(page("reference/commands"))]
    assert sorted(reported) == sorted(commands())


def test_the_table_of_the_mapping_file_names_every_key() -> None:
    tables = rows(page("guides/past_runs"))
    start = next(i for i, cells in enumerate(tables) if code(cells[0]) == ["metric"])
    assert [name for cells in tables[start:] for name in code(cells[0])] == list(Mapping.model_fields)
    assert [code(cells[0])[0] for cells in tables[:start]] == ["tensorboard", "mlflow", "wandb", "csv"]
    assert {one.name for one in FORMATS} == {f.value for f in SourceFormat} - {"auto"}


def test_targets_of_make_are_those_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    reported = re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", TEXT + contributing, flags=re.MULTILINE)
    assert set(reported) <= set(targets)
    assert {"demo", "test", "test-all", "soak"} <= set(reported)


def test_commands_are_called_as_they_can_be() -> None:
    fenced = [
        line.removeprefix("$ ") for info, text in blocks() if info == "console" for line in text.splitlines()
    ]
    inline = [words for words in code(TEXT) if words.startswith("paceline ")]
    called = [shlex.split(line, comments=True) for line in [*fenced, *inline]]
    assert len(called) > 10
    for words in called:
        assert words[0] == "paceline"
        name = " ".join(words[1:3]) if words[1] in ("db", "token") else words[1]
        known = {option for parameter in commands()[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_flags_of_run_and_their_values_are_those_that_exist() -> None:
    reported = {words.split()[0] for words in code(page("reference/commands")) if words.startswith("--")}
    assert reported - {"--example", "--script", "--recommendation", "--resume", "--wait"} == {
        option
        for parameter in commands()["run"].params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert "--format " + "|".join(Format) in page("reference/commands")
    assert {"tpe", "gp", "random"} == {s.value for s in Sampler} - {"model"}
    assert "`paceline run --sampler tpe` (or `gp`, `random`)" in TEXT


def test_environment_variables_are_those_that_are_read() -> None:
    read = {str(p.envvar) for c in commands().values() for p in c.params if getattr(p, "envvar", None)}
    # What a script is told is another matter: the table of variables says so.
    reported = {variable_name(variable) for variable in VARIABLES} | {"PACELINE_NAME", "PACELINE_REPORT_TO"}
    assert set(re.findall(r"PACELINE_[A-Z_]+", TEXT)) - reported == read
    assert [cells[0].strip("`") for cells in rows(page("reference/environment"))] == sorted(
        read, key=page("reference/environment").index
    )


def test_the_table_of_variables_is_that_of_templates() -> None:
    reported = [cells for cells in rows(page("guides/own_script")) if cells[0].startswith("`{")]
    assert reported == [
        [f"`{{{name}}}`", f"`{variable_name(name)}`", words] for name, words in VARIABLES.items()
    ]


def test_the_client_s_functions_are_reported() -> None:
    reported = page("guides/own_script")
    assert [
        name for name in paceline_client.__all__ if f"`{name}(" not in reported and name != "values"
    ] == []


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    kinds = [TunerError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    reported = {int(cells[0]) for cells in rows(page("reference/exit_codes")) if cells[0].isdigit()}
    assert reported == {0, 2, PROVISIONAL, INTERRUPTED} | {kind.exit_code for kind in kinds}


def test_names_in_the_text_are_those_of_the_code() -> None:
    assert set(re.findall(r"`(paceline_\w+)`", TEXT)) - {"paceline_client", "paceline_remote"} == set(
        metadata.tables
    )
    assert all(f"`{name}`" in page("guides/own_training") for name in METRICS)
    assert all(f"`{name}`" in page("reference/job_file") for name in example_names())
    glossary = {cells[0]: cells[1] for cells in rows(page("reference/glossary"))}
    assert set(code(glossary["outcome"])) == {o.value for o in Outcome if o is not Outcome.RUNNING}
    assert set(code(glossary["purpose"])) == {purpose.value for purpose in Purpose}
    settings = {SGDSettings().name, AdamWSettings().name}
    assert settings <= set(code(page("reference/job_file")))


def test_the_table_of_strategies_names_each_with_its_knobs() -> None:
    described = {cells[0].strip("`"): cells[3] for cells in rows(page("reference/strategies"))}
    assert described.keys() == STRATEGIES.keys()
    for name, traits in STRATEGIES.items():
        knobs = [f"`{knob}` ({known.default})" for knob, known in traits.knobs.items()]
        assert described[name] == ", ".join(knobs), name


def test_sections_of_the_report_have_the_names_they_are_known_by() -> None:
    folder = ROOT / "tuner" / "report"
    sources = "".join(path.read_text() for path in [*folder.glob("*.py"), *folder.glob("templates/*.j2")])
    reported = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", page("reference/report"))
    assert len(reported) > 4
    # Labels of facts are lower case in the code.
    assert [name for name in reported if " ".join(name.split()).lower() not in sources.lower()] == []


def links(name: str) -> list[str]:
    """Targets of links and pictures of a page."""
    return re.findall(r"\]\(([^)]+)\)", PAGES[name])


def anchors(text: str) -> set[str]:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def linked(name: str) -> list[tuple[Path, str]]:
    """File and anchor that a page's links name, but for those to other hosts."""
    inner = [target.partition("#") for target in links(name) if not target.startswith("http")]
    source = ROOT / name
    return [((source.parent / path).resolve() if path else source, anchor) for path, _, anchor in inner]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_and_pictures_lead_somewhere(name: str) -> None:
    for path, anchor in linked(name):
        assert path.is_file(), path
        assert path.is_relative_to(ROOT), path
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{path}#{anchor}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        near = {path.relative_to(ROOT).as_posix() for path, _ in linked(name)}
        waiting += sorted((near & set(PAGES)) - reached)
    assert set(PAGES) - reached == set()


def test_the_list_of_pages_names_every_page() -> None:
    named = {path.relative_to(ROOT).as_posix() for path, _ in linked("docs/index.md")}
    assert set(PAGES) - named == {"README.md", "docs/index.md"}


def test_pictures_ask_no_other_host_for_anything() -> None:
    drawn = sorted((ROOT / "docs" / "images").glob("*.svg"))
    assert drawn
    for path in drawn:
        assert re.findall(r"url\([\"']?http|href=[\"']http", path.read_text(encoding="utf-8")) == []


@pytest.mark.slow
def test_your_own_script_is_tuned_as_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(block("python train.py"))
    path = tmp_path / "train.toml"
    path.write_text(block("toml train.toml").replace('"python ', f'"{sys.executable} '))
    checked = paceline(tmp_path, "check", path.name, "--resume", "--format", "json")
    assert checked.returncode == 0, checked.stderr
    (resume,) = [row["value"] for row in json.loads(checked.stdout) if row["name"] == "resume"]
    assert resume.startswith("yes: saved at")
    ran = paceline(tmp_path, "run", path.name, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    # How far its run gets without --verify depends on how much time the machine gives the probes.
    verified = paceline(tmp_path, "run", path.name, "--verify", "--format", "json")
    assert verified.returncode == 0, verified.stderr
    answer = json.loads(verified.stdout)
    assert answer["verified"]["reached"]
    assert Path(answer["checkpoint"]).is_file()
    assert "train.py --lr" in answer["user_command"]


@pytest.mark.slow
def test_your_own_training_is_tuned_as_the_readme_says(tmp_path: Path) -> None:
    import optuna
    import torch

    path = write_own_training(tmp_path)
    checked = paceline(tmp_path, "check", path.name, "--format", "json")
    assert checked.returncode == 0, checked.stderr
    assert any(row["name"] == "step milliseconds" and row["value"] > 0 for row in json.loads(checked.stdout))
    ran = paceline(tmp_path, "run", path.name)
    assert ran.returncode == 0, ran.stderr
    output = tmp_path / "paceline-out" / "teacher"
    for name in code(
        page("reference/files").split("**A folder a probe**")[0].split("**The output folder**")[1]
    ):
        # The file of private values is written only for a job with [workload.environment].
        if "." in name and not name.startswith("[") and name != "launch.sh.secret.env":
            assert (output / name).is_file(), name
    (model,) = output.glob("probes/*/*/model.pt")
    for name in ("probe.json", "metrics.jsonl", "checkpoints"):
        assert (model.parent / name).exists()
    network = load_workload(load_job(path), tmp_path).model()
    network.load_state_dict(torch.load(model, weights_only=True))
    script = block("python study").replace("examples/", str(tmp_path) + "/").replace('"digits"', '"teacher"')
    reported: dict[str, Any] = {}
    exec(script, reported)
    assert "COMPLETE" in {trial.state.name for trial in reported["study"].trials}
    assert isinstance(reported["study"], optuna.Study)
