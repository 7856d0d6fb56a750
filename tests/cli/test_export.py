from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from storage import open_storage
from tests.cli.conftest import Command
from tests.cli.workplace import Ended, Workplace
from tuner.report.launch_files import TARGETS


@pytest.fixture
def place(tuned: tuple[Workplace, Ended], monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The folder of a job that was tuned."""
    assert tuned[1].code == 0, tuned[1].stderr
    monkeypatch.chdir(tuned[0].folder)
    return tuned[0]


def test_without_a_study_it_says_what_to_do(paceline: Command, workplace: Workplace) -> None:
    ended = paceline("export", "job.toml", "--target", "slurm")
    assert (ended.code, ended.stdout) == (2, "")
    assert "`paceline run job.toml` starts one" in ended.stderr


def test_without_a_recommendation_it_says_what_to_do(
    paceline: Command, place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("job.toml", "tiny_work.py", "paceline.db"):
        shutil.copy(place.folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("paceline.db") as connection:
        connection.execute("delete from paceline_recommendations")
    connection.close()
    ended = paceline("export", "job.toml", "--target", "env")
    assert ended.code == 2
    assert "has no recommendation yet; `paceline run job.toml`" in ended.stderr


def test_an_unknown_target_lists_the_known(paceline: Command, place: Workplace) -> None:
    ended = paceline("export", "job.toml", "--target", "pbs")
    assert ended.code == 2
    assert all(target in ended.stderr for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_trains_what_is_recommended(target: str, paceline: Command, place: Workplace) -> None:
    ended = paceline("export", "job.toml", "--target", target)
    assert ended.code == 0, ended.stderr
    with open_storage(f"sqlite:///{place.folder / 'paceline.db'}") as store:
        study = store.ledger.studies()[-1]
        given = store.ledger.recommendations(study.study_id)[-1].recommendation
    rate = given["choice"]["configuration"]["learning_rate"]
    expected = f"PACELINE_LEARNING_RATE={rate}" if target == "env" else given["command"]
    assert expected in ended.stdout
    assert "# Goal: accuracy >= 0.97, soonest" in ended.stdout
    assert f"# Made by: paceline export job.toml --target {target}" in ended.stdout


def test_a_file_is_written_once_and_replaced_when_asked(
    paceline: Command, place: Workplace, tmp_path: Path
) -> None:
    script = tmp_path / "go there.sh"
    first = paceline("export", "job.toml", "-t", "torchrun", "-o", script)
    assert (first.code, first.stdout) == (0, f"wrote {script}\n")
    assert os.access(script, os.X_OK)
    assert "# Start it on one machine: sh 'go there.sh'" in script.read_text()
    again = paceline("export", "job.toml", "-t", "k8s", "-o", script)
    assert again.code == 2
    assert "--force" in again.stderr
    assert paceline("export", "job.toml", "-t", "k8s", "-o", script, "--force").code == 0
    assert yaml.safe_load(script.read_text())["kind"] == "TrainJob"
    assert not os.access(script, os.X_OK) or os.geteuid() == 0


def test_a_place_that_cannot_be_written_is_a_storage_error(
    paceline: Command, place: Workplace, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert paceline("export", "job.toml", "-t", "env", "-o", tmp_path / "file" / "x").code == 6
    assert paceline("export", "job.toml", "-t", "env", "-o", tmp_path).code == 6


def test_what_the_machine_is_can_be_said(paceline: Command, place: Workplace) -> None:
    ended = paceline("export", "job.toml", "-t", "k8s", "--accelerator", "A100", "--image", "org/train:1")
    trainer = yaml.safe_load(ended.stdout)["spec"]["trainer"]
    assert trainer["image"] == "org/train:1"
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": str(trainer["numProcPerNode"])}


def test_the_report_s_script_is_the_same_thing(paceline: Command, place: Workplace) -> None:
    def code(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("#")]

    exported = paceline("export", "job.toml", "--target", "torchrun").stdout
    assert code(exported) == code((place.folder / "paceline-out" / "tiny" / "launch.sh").read_text())


def test_it_answers_without_torch(place: Workplace) -> None:
    code = (
        "import sys, cli\n"
        "try: cli.main(['export', 'job.toml', '--target', 'slurm'])\n"
        "except SystemExit as ending: assert not ending.code\n"
        "assert not {'torch', 'sklearn', 'optuna', 'scipy'} & set(sys.modules), 'slow imports'"
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=place.folder, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
def test_the_exported_script_trains(place: Workplace, tmp_path: Path) -> None:
    script = tmp_path / "go.sh"
    assert place.call("export", "job.toml", "-t", "torchrun", "-o", str(script)).code == 0
    # Elsewhere: the folder is shared with tests that tell what was tuned in it.
    elsewhere = shutil.copytree(place.folder, tmp_path / "elsewhere")
    script.write_text(script.read_text().replace(str(place.folder), str(elsewhere)))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    answer = subprocess.run([str(script)], cwd="/", env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "training seconds to target" in answer.stdout
