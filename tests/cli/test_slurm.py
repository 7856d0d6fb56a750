"""The command with `launcher = "slurm"`, on a real SLURM of four nodes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import Workplace, kill_session, wait_until
from tests.slurm_cluster import SlurmCluster
from tuner.launchers.slurm_submission import missing_parts

# A probe's ranks import torch anew, on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 'time = "60s"', 'time = "10m"'


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    monkeypatch.setenv("SLURM_CONF", slurm_cluster.environment["SLURM_CONF"])
    # The script's `python` is the one with torch.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{slurm_cluster.environment['PATH']}")
    missing = missing_parts()
    if missing:
        pytest.skip("; ".join(f"{what} is not here: {remedy}" for what, remedy in missing))
    return slurm_cluster


def jobs(slurm: SlurmCluster, *options: str) -> list[str]:
    """Names, nodes and states of jobs that SLURM knows."""
    return slurm.run("squeue", "--noheader", "--format=%j %D %T", *options).splitlines()


def test_the_example_is_tuned_over_one_to_four_nodes(
    slurm: SlurmCluster, workplace: Workplace, paceline: Command
) -> None:
    assert paceline("init", "own.toml", "--example", "own_script_slurm").code == 0
    ended = paceline("run", "own.toml", "--output", "out")
    assert ended.code == 0, ended.stderr
    assert "Recommended for own_script_slurm" in ended.stdout
    found = json.loads(Path("out/recommendation.json").read_text())
    assert found["choice"]["configuration"]["nodes"] in (1, 2, 4)
    probed = [line for line in jobs(slurm, "--states=all") if line.startswith("paceline-")]
    assert {line.split()[1] for line in probed} <= {"1", "2", "4"}
    assert {line.split()[2] for line in probed} == {"COMPLETED"}, "SLURM's books tell the truth"
    assert jobs(slurm) == []

    # What is exported trains the recommendation, as it is.
    assert paceline("export", "own.toml", "--target", "slurm", "--output", "own.sbatch").code == 0
    shutil.copy(ROOT / "paceline_client.py", "paceline_client.py")
    submitted = ["sbatch", "--parsable", "--output=own.out", "own.sbatch"]
    number = subprocess.run(submitted, check=True, capture_output=True, text=True).stdout.strip()
    assert slurm.wait_for_job(number, seconds=400) == "COMPLETED", Path("own.out").read_text()
    assert Path("checkpoint").stat().st_size > 10_000


def test_a_killed_tuner_s_job_is_ended_by_the_next(
    slurm: SlurmCluster, workplace: Workplace, paceline: Command
) -> None:
    cluster = 'nodes = [1, 2]\nlauncher = "slurm"\n'
    changes = ("nodes = [1, 2]\n", cluster), TIMEOUT, ("probes = 8", "probes = 2")
    workplace.write_job(*changes, delay=0.05)
    tuner = workplace.start("run", "job.toml", "--output", "out")
    wait_until(lambda: any("RUNNING" in line for line in jobs(slurm)), "a job runs")
    (first,) = jobs(slurm)
    kill_session(tuner)
    workplace.write_job(*changes)
    ended = paceline("run", "job.toml", "--output", "out")
    assert ended.code == 0, ended.stderr
    assert jobs(slurm) == []
    assert f"{first.split()[0]} " in " ".join(jobs(slurm, "--states=all"))
    assert not list(workplace.folder.glob("out/probes/*/*/job-*/engine.json"))


def test_what_slurm_refuses_ends_the_command_with_its_words(
    slurm: SlurmCluster, workplace: Workplace, paceline: Command
) -> None:
    cluster = 'nodes = [1, 2]\nlauncher = "slurm"\n[cluster.slurm]\npartition = "nope"\n'
    workplace.write_job(("nodes = [1, 2]\n", cluster), TIMEOUT)
    ended = paceline("check", "job.toml")
    assert ended.code == 5, ended
    assert "invalid partition specified: nope" in ended.stderr
    assert "[cluster.slurm]" in ended.stderr
