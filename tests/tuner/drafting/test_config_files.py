"""Keys of configuration files are found with their lines, and `sed` changes them and nothing else."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuner.drafting.config_files import config_files

YAML = """\
# Settings: a comment with a colon
seed: 7
train:
  batch_size: 32   # a step
  path: "a#b"
eval:
  batch_size: 500
optimizer: {name: sgd}
sched:
  lr: 1e-3
"""
JSON = json.dumps({"train": {"batch_size": 32, "lr": 0.1}, "eval": {"batch_size": 500}, "seed": 7}, indent=2)
TOML = """\
seed = 7
[train]
batch_size = 32
lr = 0.1 # rate
[eval]
batch_size = 500
"""
INI = "[train]\nbatch_size=32\nlr=0.1\n"


@pytest.mark.parametrize(
    ("name", "text", "batch", "rate", "read"),
    [
        ("c.yaml", YAML, "train.batch_size", "sched.lr", yaml.safe_load),
        ("c.json", JSON, "train.batch_size", "train.lr", json.loads),
        ("c.toml", TOML, "train.batch_size", "train.lr", tomllib.loads),
    ],
)
def test_only_what_is_named_changes(
    tmp_path: Path, name: str, text: str, batch: str, rate: str, read: Any
) -> None:
    (tmp_path / name).write_text(text)
    [file] = config_files(["--config", name, "--lr", "0.1"], tmp_path)
    command = file.rewritten({batch: "64", rate: "0.25"})
    assert command is not None
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected, changed = read(text), read(done.stdout)
    section, key = batch.split(".")
    expected[section][key] = 64
    section, key = rate.split(".")
    expected[section][key] = 0.25
    assert changed == expected


def test_files_are_found_behind_options_and_alone(tmp_path: Path) -> None:
    (tmp_path / "c.ini").write_text(INI)
    for words in (["c.ini"], ["--config=c.ini"], ["-c", "c.ini"]):
        [file] = config_files(words, tmp_path)
        assert file.keys["train.batch_size"] == (2, "32")
    assert config_files(["--config", "missing.yaml", "x" * 5_000, "."], tmp_path) == []


def test_a_path_with_spaces_survives(tmp_path: Path) -> None:
    (tmp_path / "my config.yaml").write_text("out: here\nlr: 0.1\n")
    [file] = config_files(["my config.yaml"], tmp_path)
    command = file.rewritten({"out": "'/a b/c'"})
    assert command is not None
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert yaml.safe_load(done.stdout) == {"out": "/a b/c", "lr": 0.1}


def test_a_comment_that_repeats_the_value_does_not_take_the_change(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("batch_size: 32  # 32 per GPU\n")
    [file] = config_files(["c.yaml"], tmp_path)
    done = subprocess.run(
        str(file.rewritten({"batch_size": "64"})),
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert yaml.safe_load(done.stdout) == {"batch_size": 64}


def test_nothing_to_change_gives_no_command(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(YAML)
    [file] = config_files(["c.yaml"], tmp_path)
    assert file.rewritten({}) is None
