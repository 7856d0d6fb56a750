"""`paceline init --script`: what it refuses, what it writes without scores, and that it never overwrites."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SCRIPT = """
import argparse, sys
parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--mode", default="")
args = parser.parse_args()
open("started", "a").write("x")
if args.mode == "fails":
    sys.exit("no data in /data")
if args.mode == "silent":
    print("nothing to see")
if not args.mode:
    for epoch in range(1, 6):
        print(f"epoch {epoch} loss {1 / epoch / args.lr:.4f}", flush=True)
"""


def init(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "cli", "init", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def test_an_existing_file_is_not_overwritten_and_nothing_runs(folder: Path) -> None:
    (folder / "job.toml").write_text("mine")
    done = init(folder, "--script", "python train.py", "--yes")
    assert done.returncode == 2
    assert "job.toml already exists" in done.stderr
    assert (folder / "job.toml").read_text() == "mine"
    assert not (folder / "started").exists()
    forced = init(folder, "--script", "python train.py", "--yes", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "metric" in (folder / "job.toml").read_text()


def test_without_a_terminal_or_yes_the_command_does_not_run(folder: Path) -> None:
    done = init(folder, "--script", "python train.py")
    assert done.returncode == 0
    assert "--yes" in done.stderr
    assert not (folder / "started").exists()
    job = tomllib.loads((folder / "job.toml").read_text())
    assert job["workload"]["command"] == ("python train.py --batch-size {batch_size} --lr {learning_rate}")
    assert job["baseline"] == {"batch_size": 16, "learning_rate": 0.5}
    assert "pattern = 'epoch" in done.stdout or "no score was seen" in done.stdout


def test_a_help_that_fails_is_quoted(folder: Path) -> None:
    (folder / "train.py").write_text("import there_is_no_such_module\n" + SCRIPT)
    done = init(folder, "--script", "python train.py")
    assert "python train.py --help failed: ModuleNotFoundError: No module named 'there_is" in done.stderr
    assert "batch_size = {" in (folder / "job.toml").read_text()


def test_a_loss_is_minimized_and_read_with_its_epoch(folder: Path) -> None:
    done = init(folder, "--script", "python train.py --lr 0.25", "--yes", "sub.toml")
    assert done.returncode == 0, done.stderr
    job = tomllib.loads((folder / "sub.toml").read_text())
    assert job["goal"]["metric"] == "loss"
    # The best of 4, 2, 1.33, 1, 0.8.
    assert 0.8 < job["goal"]["target"] < 1.0
    assert job["baseline"]["learning_rate"] == 0.25
    assert "paceline run sub.toml" in done.stderr


def test_a_job_file_elsewhere_names_the_working_folder(folder: Path) -> None:
    (folder / "jobs").mkdir()
    done = init(folder, "--script", "python train.py", "--yes", "jobs/job.toml")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads((folder / "jobs" / "job.toml").read_text())["workload"]["folder"] == ".."


@pytest.mark.parametrize(("mode", "said"), [("silent", "no score was seen"), ("fails", "no data in /data")])
def test_without_a_score_the_file_says_what_is_known_and_what_is_guessed(
    folder: Path, mode: str, said: str
) -> None:
    done = init(folder, "--script", f"python train.py --mode {mode}", "--yes")
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert "paceline check job.toml" in done.stderr
    text = (folder / "job.toml").read_text()
    job = tomllib.loads(text)
    assert "{batch_size}" in job["workload"]["command"]
    assert text.count("GUESS") >= 4
    assert f"--mode {mode}" in job["workload"]["command"]


def test_a_script_without_options_for_batch_and_rate_gets_advice(folder: Path) -> None:
    (folder / "plain.py").write_text("for e in range(5): print('epoch', e, 'val_acc', e / 5)")
    done = init(folder, "--script", "python plain.py", "--yes")
    assert done.returncode == 0, done.stderr
    assert "no option for the batch size was found" in done.stdout
    assert "$PACELINE_LEARNING_RATE" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--script", "python train.py", "--example", "digits"], "exclude each other"),
        (["--yes"], "--yes goes with --script"),
        (["--script", "python a.py && python b.py", "--yes"], "&&"),
        (["--script", "", "--yes"], "--script is empty"),
        (["--script", "python train.py", "--yes", "--force", "train.py"], "ends in .toml"),
        (["--script", "python train.py", "--yes", "--force", "folder.toml"], "is a folder"),
        (["--script", "python train.py", "--yes", "--wait", "soon"], "--wait"),
    ],
)
def test_wrong_calls_are_refused(folder: Path, arguments: list[str], said: str) -> None:
    (folder / "folder.toml").mkdir()
    done = init(folder, *arguments)
    code = 6 if said == "is a folder" else 2
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not (folder / "job.toml").exists()


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    done = init(folder, "--script", "python train.py", "--yes", "nowhere/job.toml")
    assert done.returncode == 6
    assert "nowhere" in done.stderr
    assert not (folder / "started").exists()


def test_a_program_that_cannot_be_read_is_not_started_for_its_help(folder: Path) -> None:
    (folder / "train.sh").write_text("touch started; python train.py")
    done = init(folder, "--script", "bash train.sh --batch_size=8 --lr=0.1")
    assert done.returncode == 0, done.stderr
    assert not (folder / "started").exists()
    job = tomllib.loads((folder / "job.toml").read_text())
    assert job["workload"]["command"] == "bash train.sh --batch_size={batch_size} --lr={learning_rate}"


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_it_asks_before_it_runs(folder: Path, answer: str) -> None:
    main, terminal = pty.openpty()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "init", "--script", "python train.py"],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(main, f"{answer}\n".encode())
    _, said = process.communicate(timeout=60)
    os.close(main)
    os.close(terminal)
    assert process.returncode == 0, said
    assert "Run it in this folder for up to 60 s?" in said
    assert (folder / "started").exists() == (answer == "y")
    assert (folder / "job.toml").exists()


def test_a_configuration_file_that_says_where_to_write_is_changed_for_the_run(folder: Path) -> None:
    (folder / "train.py").write_text(CONFIGURED)
    (folder / "c.yaml").write_text("batch_size: 16\nlr: 0.5\noutput_dir: runs\n")
    (folder / "runs").mkdir()
    (folder / "runs" / "scores.csv").write_text("mine")
    done = init(folder, "--script", "python train.py --config c.yaml", "--yes")
    assert done.returncode == 0, done.stderr
    assert (folder / "runs" / "scores.csv").read_text() == "mine"
    metrics = tomllib.loads((folder / "job.toml").read_text())["workload"]["metrics"]
    assert metrics["path"] == "{output_folder}/scores.csv"


CONFIGURED = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--config")
lines = open(parser.parse_args().config).read().splitlines()
config = dict(line.split(": ") for line in lines)
folder = pathlib.Path(config["output_dir"])
folder.mkdir(exist_ok=True)
with open(folder / "scores.csv", "w") as file:
    file.write("step,val_acc\\n")
    for step in range(1, 6):
        file.write(f"{step},{step / 10}\\n")
"""
