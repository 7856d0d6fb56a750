"""Scripts of one's own of which little is known: the budget holds, and nothing is invented."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from storage import open_storage
from tests.cli.workplace import PACELINE
from tuner.domain.measurement import Measurement

SILENT = """
import time
while True:
    print("still loading", flush=True)
    time.sleep(0.05)
"""

#: Scores every tenth of a second or so, and saves nothing.
SCORES = """
import sys, time
for step in range(1, 10_000):
    time.sleep(0.02)
    if step % 5 == 0:
        print(f"step {step} acc {0.5 + step / 1e5:.6f}", flush=True)
"""

JOB = """
name = "tiny"
[workload]
command = "{{python}} train.py {{learning_rate}} {{batch_size}}"
one_per = "job"
epoch_samples = 400
grace = "1s"
[workload.metrics]
source = "output"
pattern = 'step (?P<step>\\d+) acc (?P<value>\\S+)'
[goal]
target = 0.9
[space]
batch_size = [8, 16]
learning_rate = [0.01, 0.03, 0.1]
[baseline]
batch_size = 16
learning_rate = 0.01
[budget]
time = "{seconds}s"
"""


def run(folder: Path, script: str, seconds: int) -> tuple[int, str]:
    """Exit code and all that `paceline run` says."""
    (folder / "train.py").write_text(script)
    (folder / "job.toml").write_text(JOB.format(seconds=seconds))
    ended = subprocess.run(
        [str(PACELINE), "run", "job.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def slices(folder: Path) -> list[Measurement]:
    with open_storage(f"sqlite:///{folder / 'paceline.db'}") as store:
        probes = store.ledger.probes(store.ledger.studies()[-1].study_id)
    return [measurement for probe in probes for measurement in probe.slices]


def spent_seconds(folder: Path) -> float:
    return sum(measurement.charged_seconds for measurement in slices(folder))


@pytest.mark.slow
def test_a_script_that_reports_nothing_is_ended_with_the_budget_and_gives_no_answer(tmp_path: Path) -> None:
    code, out = run(tmp_path, SILENT, 3)
    assert code == 3, out
    assert "no score was read, so there is no recommendation: the time budget of 3 s is used up" in out
    assert spent_seconds(tmp_path) <= 3 * 1.05 + 1.0 + 0.5
    report = json.loads((tmp_path / "paceline-out" / "tiny" / "report.json").read_text())
    assert report["recommendation"] is None
    assert report["probes"][0]["scores"] == 0
    assert not (tmp_path / "paceline-out" / "tiny" / "recommendation.json").exists()
    assert "No recommendation" in (tmp_path / "paceline-out" / "tiny" / "report.md").read_text()


@pytest.mark.slow
def test_a_single_slice_is_ended_with_the_budget_and_its_scores_are_kept(tmp_path: Path) -> None:
    _, out = run(tmp_path, SCORES.replace("0.5 + step / 1e5", "0.1 + step / 2500"), 8)
    assert "the time budget of 8 s is used up" in out
    assert spent_seconds(tmp_path) <= 8 * 1.05 + 1.0 + 0.5
    assert any(measurement.trained_curve for measurement in slices(tmp_path))


@pytest.mark.slow
def test_one_run_that_stands_still_does_not_end_a_search(tmp_path: Path) -> None:
    code, out = run(tmp_path, SCORES, 40)
    assert code == 3, out
    assert "no score is better than the first one yet" in out
    assert len({measurement.configuration for measurement in slices(tmp_path)}) >= 3
