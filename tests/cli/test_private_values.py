"""What nobody but the script is to read: values of its environment, and the password of the database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.workplace import PACELINE

SECRET = "s3cret-0123456789"
SCRIPT = """
import json, os, sys
from paceline_client import report, should_stop
rate, batch = float(sys.argv[1]), int(sys.argv[2])
names = ["TOKEN", "PACELINE_STORAGE"]
open("seen.json", "w").write(json.dumps({name: os.environ.get(name) for name in names}))
for step in range(1, 201):
    report(step=step, samples=step * batch, value=1 - 0.99 ** (step * batch * rate))
    if should_stop():
        break
"""
JOB = f"""
name = "secretive"
[workload]
command = "{sys.executable} train.py {{learning_rate}} {{batch_size}}"
environment = {{ TOKEN = "{SECRET}" }}
[goal]
target = 0.8
[space]
batch_size = [20, 40]
learning_rate = [0.5, 1.0]
[budget]
time = "60s"
probes = 3
"""


@pytest.mark.slow
def test_only_the_script_and_files_of_the_owner_get_a_value_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "job.toml").write_text(JOB)
    environment = {**os.environ, "PACELINE_STORAGE": f"sqlite:///{tmp_path}/study.db"}
    for arguments in (
        ("run", "job.toml"),
        ("trials", "job.toml", "--format", "json"),
        ("status", "job.toml"),
    ):
        answer = subprocess.run(
            [PACELINE, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert answer.returncode == 0, answer.stderr
        assert SECRET not in answer.stdout + answer.stderr
    assert json.loads((tmp_path / "seen.json").read_text()) == {"TOKEN": SECRET, "PACELINE_STORAGE": None}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"study.db", "launch.sh", "launch.sh.secret.env", "report.html", "recommendation.json"} <= names
    for path in files:
        if SECRET.encode() in path.read_bytes() and path.name not in ("job.toml", "seen.json"):
            assert path.stat().st_mode & 0o777 == 0o600, path
            assert path.name in ("launch.sh.secret.env", "task.json"), path
