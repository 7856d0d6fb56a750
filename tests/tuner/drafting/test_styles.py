"""`paceline init --script` on scripts of ten option styles, and a search with the job file that it writes.

The scripts sleep instead of computing (`scripts/pretended.py`), so that the right answer is known.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tuner.drafting.metric_names import Direction

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True, kw_only=True)
class Style:
    """A script and what a draft of it must hold."""

    name: str
    command: str
    #: Parts of the command, or of the environment.
    parts: tuple[str, ...]
    #: Parts of `[workload.metrics]`.
    reading: tuple[str, ...]
    package: str | None = None
    epoch_samples: int | None = None
    resume: str | None = None
    direction: Direction = "maximize"
    #: Whether a framework's loop takes time of its own beside the known seconds of a step.
    has_overhead: bool = False


STYLES = (
    Style(
        name="argparse",
        command="python with_argparse.py",
        parts=("--batch-size {batch_size}", "--lr {learning_rate}", "--seed {seed}", "--epochs 200"),
        reading=("Epoch", "(?P<samples>", "Accuracy", "(?P<value>"),
        epoch_samples=2_000,
        resume="--resume {checkpoint}",
    ),
    Style(
        name="click",
        command="python with_click.py train",
        parts=(
            "train --batch-size {batch_size}",
            "--learning-rate {learning_rate}",
            "--out-dir {output_folder}",
        ),
        reading=("(?P<epoch>", "val loss", "(?P<value>"),
        package="click",
        epoch_samples=2_000,
    ),
    Style(
        name="hydra",
        command="python with_hydra.py",
        parts=(
            "data.batch_size={batch_size}",
            "optimizer.lr={learning_rate}",
            "hydra.run.dir={output_folder}",
        ),
        reading=("epoch", "val/acc=(?P<value>"),
        package="hydra",
    ),
    Style(
        name="gin",
        command="python with_gin.py --gin_file train.gin",
        parts=(
            "--gin_file train.gin",
            "--gin_bindings=train.batch_size={batch_size}",
            "--gin_bindings=train.learning_rate={learning_rate}",
        ),
        reading=("(?P<step>", "eval", "(?P<value>"),
        package="gin",
    ),
    Style(
        name="yaml",
        command="python with_yaml.py --config settings.yaml",
        parts=(
            "batch_size: ",
            "'{batch_size}'",
            "lr: ",
            "'{learning_rate}'",
            "{output_folder}/settings.yaml",
        ),
        reading=("(?P<epoch>", r"Val\s*Acc", "(?P<value>"),
        epoch_samples=2_000,
    ),
    Style(
        name="hugging_face",
        command="python with_hf_arguments.py --output_dir out --per_device_train_batch_size 32 "
        "--learning_rate 0.05 --num_train_epochs 400",
        parts=(
            "--per_device_train_batch_size {batch_size}",
            "--learning_rate {learning_rate}",
            "--output_dir {output_folder}",
            "--num_train_epochs 400",
        ),
        reading=("eval_accuracy", "(?P<epoch>"),
        package="transformers",
        epoch_samples=2_000,
    ),
    Style(
        name="lightning_cli",
        command="python with_lightning_cli.py fit",
        parts=(
            "fit --data.batch_size={batch_size}",
            "--model.learning_rate={learning_rate}",
            "--trainer.default_root_dir={checkpoint}",
        ),
        reading=("csv", "version_*/metrics.csv", "val_acc"),
        package="jsonargparse",
        has_overhead=True,
        resume="--ckpt_path $(ls -td {checkpoint}/",
    ),
    Style(
        name="fire",
        command="python with_fire.py",
        parts=("--batch_size={batch_size}", "--lr={learning_rate}", "--log_dir={output_folder}"),
        reading=("csv", "{output_folder}/progress.csv", "valid_accuracy", "iteration"),
        package="fire",
    ),
    Style(
        name="absl",
        command="python with_absl.py",
        parts=("--batch_size {batch_size}", "--learning_rate {learning_rate}", "--rng_seed {seed}"),
        reading=("(?P<epoch>", "test_accuracy", "(?P<value>"),
        package="absl",
    ),
    Style(
        name="variables",
        command="python with_variables.py",
        parts=("BATCH_SIZE={batch_size}", "LR={learning_rate}", "SEED={seed}", "EPOCHS=200"),
        reading=("(?P<epoch>", "val_accuracy", "(?P<value>"),
        epoch_samples=2_016,
    ),
)
#: These need no package and start at once.
FAST = ("argparse",)


def paceline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a folder, whose scripts' `python` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )


def true_seconds(scripts: Path, target: float, settings: dict[str, Any]) -> float:
    """Training seconds to a target with some settings, without noise."""
    spec = importlib.util.spec_from_file_location("pretended", scripts / "pretended.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return float(module.seconds_to(target, settings["batch_size"], settings["learning_rate"]))


def draft(style: Style, folder: Path) -> dict[str, Any]:
    """The job that is drafted for a style, after it was compared with what it must hold."""
    shutil.copytree(SCRIPTS, folder)
    drafted = paceline(folder, "init", "--script", style.command, "--yes", "job.toml")
    assert drafted.returncode == 0, drafted.stdout + drafted.stderr
    job = tomllib.loads((folder / "job.toml").read_text())
    workload, metrics = job["workload"], job["workload"]["metrics"]
    settings = [f"{name}={value}" for name, value in workload.get("environment", {}).items()]
    line = " ".join([*settings, workload["command"]])
    assert [part for part in style.parts if part not in line] == []
    read = json.dumps(metrics).replace("\\\\", "\\")
    assert [part for part in style.reading if part not in read] == []
    assert ("resume" in workload) == (style.resume is not None)
    assert workload.get("resume", "").startswith(style.resume or "")
    assert job["goal"]["metric"] == "accuracy"
    assert 0.75 < job["goal"]["target"] < 0.96
    if style.epoch_samples is not None:
        assert workload["epoch_samples"] == style.epoch_samples
    elif "epoch_samples" in workload:
        # Nothing shows how large the training set is.
        assert "epoch_samples = 10_000: set the size" in drafted.stdout
    assert job["baseline"] == {"batch_size": 32, "learning_rate": 0.05}
    return job


@pytest.mark.parametrize("style", [style for style in STYLES if style.name in FAST], ids=lambda one: one.name)
def test_a_draft_is_right(tmp_path: Path, style: Style) -> None:
    draft(style, tmp_path / "project")


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_draft_runs_to_a_right_answer(tmp_path: Path, style: Style) -> None:
    if style.package is not None:
        pytest.importorskip(style.package, reason=f"{style.package} is not installed")
    folder = tmp_path / "project"
    job = draft(style, folder)
    # Frameworks take ten seconds or more for each start of a training of two.
    budget = "120s" if style.name in ("hugging_face", "lightning_cli") else "45s"
    searched = paceline(folder, "run", "job.toml", "--budget", budget, "--format", "json")
    assert searched.returncode == 0, searched.stdout + searched.stderr
    choice = json.loads(searched.stdout)["choice"]
    target = job["goal"]["target"]
    now, answer = (
        true_seconds(folder, target, settings) for settings in (job["baseline"], choice["configuration"])
    )
    assert answer <= 1.05 * now
    measured = choice["measured_seconds"]
    if measured is not None:
        assert measured >= 0.4 * answer - 0.5
        assert style.has_overhead or measured <= 1.6 * answer + 0.5
