from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.memory_ledger import MemoryLedger
from search_spaces import Configuration
from tests.slurm_cluster import SlurmCluster
from tests.tuner.launchers.container_programs import install_runtimes
from tuner.domain.errors import JobError
from tuner.domain.ledger import RecommendationRecord
from tuner.domain.recommendation import Alternative, Estimate, Recommendation, TuningCost
from tuner.job import Job, load_job
from tuner.service.exporting import ExportOptions, export_job
from tuner.service.opening import OpenedJob

ROOT = Path(__file__).resolve().parents[3]
CHOICE = Configuration(nodes=2, batch_size=64, learning_rate=0.05, strategy="gossip_pull", tau=4)


class Store:
    """A study kept in memory."""

    url = "memory"

    def __init__(self, ledger: MemoryLedger) -> None:
        self.ledger = ledger


def opened(folder: Path, **cluster: object) -> OpenedJob:
    job = Job.model_validate(
        {
            "name": "digits",
            "workload": {"path": "tuner.workloads.digits:Digits"},
            "cluster": {"nodes": [1, 2], "devices_per_node": 2, "threads_per_rank": 3, **cluster},
            "goal": {"target": 0.9},
            "space": {"batch_size": [64], "learning_rate": [0.05]},
        }
    )
    return OpenedJob(job=job, path=folder / "my job.toml", fingerprint="f")


def opened_command(at: Path, command: str, **workload: object) -> OpenedJob:
    """A job whose nodes tell what they were told."""
    job = Job.model_validate(
        {
            "name": "digits",
            "workload": {"command": command, **workload},
            "cluster": {"nodes": [1, 2], "devices_per_node": 2, "threads_per_rank": 2},
            "goal": {"target": 0.9},
            "space": {"batch_size": [64], "learning_rate": [0.05], "strategy": ["gossip_pull"], "tau": [4]},
        }
    )
    return OpenedJob(job=job, path=at / "my job.toml", fingerprint="f")


def recommendation(**changes: object) -> Recommendation:
    made = Recommendation(
        job_name="digits",
        study_name="digits",
        created_at=0.0,
        goal="accuracy >= 0.9, soonest",
        choice=Alternative(
            configuration=CHOICE,
            seconds=Estimate(lower=80.0, median=100.0, upper=140.0),
            dollars=None,
            probability_of_reaching=0.9,
            samples_observed=6400,
            seconds_observed=50.0,
        ),
        runner_up=None,
        baseline=None,
        verified=None,
        provisional=True,
        evidence=(),
        warnings=(),
        stop_reason="the budget ended",
        tuning=TuningCost(seconds=1.0, dollars=0.0, num_probes=1, seconds_by_purpose={}, seconds_by_part={}),
        checkpoint=None,
        command="paceline train elsewhere.toml",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def exported(job: OpenedJob, target: str, *given: Recommendation, output: Path | None = None) -> str:
    ledger = MemoryLedger()
    study = ledger.open_study(job.job.name, "f", {})
    for answer in given:
        record = RecommendationRecord(
            study_id=study.study_id, created_at=answer.created_at, recommendation=answer.to_dict()
        )
        ledger.add_recommendation(record)
    return export_job(job, Store(ledger), ExportOptions(target=target, output=output))  # type: ignore[arg-type]


def test_what_was_advised_last_is_exported_for_the_job_file_as_it_is_called_now(tmp_path: Path) -> None:
    older = recommendation(goal="accuracy >= 0.5, soonest")
    text = exported(opened(tmp_path), "torchrun", older, recommendation())
    command = f"paceline train '{tmp_path / 'my job.toml'}' --nodes 2 --batch-size 64 --learning-rate 0.05 "
    assert f"\n{command}--strategy gossip_pull --tau 4\n" in text
    assert f"\ncd {Path.cwd()} || exit\n" in text
    for fact in (
        "Goal: accuracy >= 0.9, soonest",
        "Predicted (provisional): 1m 40s (1m 20s to 2m 20s). Median and 90% interval; chance of",
        "Trust: provisional.",
        "It runs on one machine: the 2 nodes are groups of processes there.",
    ):
        assert f"\n# {fact}" in text


def test_one_machine_is_asked_for_all_ranks_and_their_threads(tmp_path: Path) -> None:
    text = exported(opened(tmp_path), "slurm", recommendation())
    assert "#SBATCH --nodes=1\n" in text
    assert "#SBATCH --cpus-per-task=12\n" in text


def test_nodes_that_the_tuner_starts_itself_are_not_started_twice(tmp_path: Path) -> None:
    job = opened(tmp_path, launcher="slurm", slurm={"partition": "gpu"})
    with pytest.raises(JobError, match=r"cluster\.launcher = 'slurm'.*`--target torchrun`"):
        exported(job, "slurm", recommendation())
    script = exported(job, "torchrun", recommendation())
    assert "# The command starts all nodes itself, with the job file's launcher (slurm)." in script


def test_what_was_emulated_has_values_but_nothing_to_launch(tmp_path: Path) -> None:
    answer = recommendation(command="")
    with pytest.raises(JobError, match=r"cannot be exported to k8s: .*virtual clock.*--target env"):
        exported(opened(tmp_path), "k8s", answer)
    text = exported(opened(tmp_path), "env", answer)
    assert "\nPACELINE_NODES=2\n" in text
    assert "\nPACELINE_TAU=4\n" in text
    assert "\nPACELINE_DEVICES_PER_NODE=2\n" in text


def test_nothing_advised_yet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"study digits has no recommendation yet; `paceline run .*resumes"):
        exported(opened(tmp_path), "env")


def test_advice_of_another_major_version_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"another version of Paceline; `paceline run .*a new one"):
        exported(opened(tmp_path), "env", replace(recommendation(), schema_version="9.0"))


def submitted(script: str, folder: Path, cluster: SlurmCluster) -> tuple[str, str]:
    """How a batch script's job ended, and what it said."""
    (folder / "go.sbatch").write_text(script)
    said = folder / "said.txt"
    job = cluster.run("sbatch", "--parsable", f"--output={said}", str(folder / "go.sbatch")).strip()
    return cluster.wait_for_job(job), said.read_text()


TELLING = (
    "printf '%s\\n' {nodes} {learning_rate} {batch_size_per_rank} {node_rank} {main_address} {main_port} "
    '"$GREETING" "$PACELINE_BATCH_SIZE" > {output_folder}/{node_rank}'
)

PUBLISHED = {"environment": {"GREETING": "it's {tau} $HOME"}, "publish_environment": True}


def test_a_command_of_one_s_own_runs_on_the_recommended_nodes(tmp_path: Path) -> None:
    (tmp_path / "the code").mkdir()
    job = opened_command(
        tmp_path,
        TELLING,
        folder="the code",
        environment={"GREETING": "it's {tau} $HOME"},
        publish_environment=True,
    )
    (tmp_path / "go.sh").write_text(exported(job, "torchrun", recommendation()))
    for node in ("0", "1"):
        subprocess.run(["sh", str(tmp_path / "go.sh"), node, "host-a", "1234"], cwd="/", check=True)
        reported = (tmp_path / "the code" / "output" / node).read_text().splitlines()
        assert reported == ["2", "0.05", "16", node, "host-a", "1234", "it's 4 $HOME", "64"]


@pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer"])
def test_a_launch_file_starts_the_container_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    programs = install_runtimes(tmp_path / "bin", monkeypatch)
    job = opened_command(
        tmp_path, TELLING + ' && echo "$IN_CONTAINER" >> {output_folder}/{node_rank}', **PUBLISHED
    )
    cluster = job.job.cluster.model_copy(update={"image": "team/train:1.0", "container": runtime})
    job = replace(job, job=job.job.model_copy(update={"cluster": cluster}))
    text = exported(job, "torchrun", recommendation())
    assert "# It runs in the image team/train:1.0\n" in text
    (tmp_path / "go.sh").write_text(text)
    subprocess.run(["sh", str(tmp_path / "go.sh"), "1", "host-a", "1234"], cwd="/", check=True, timeout=30)
    reported = (tmp_path / "output" / "1").read_text().splitlines()
    assert reported == ["2", "0.05", "16", "1", "host-a", "1234", "it's 4 $HOME", "64", runtime]
    assert "team/train:1.0" in (programs / "calls.jsonl").read_text()
    for target in ("slurm", "ray"):
        assert f"exec {runtime} " in exported(job, target, recommendation())
    (task,) = yaml.safe_load_all(exported(job, "skypilot", recommendation()))
    assert task["resources"]["image_id"] == "docker:team/train:1.0"
    assert f"exec {runtime} " not in task["run"]


def test_values_that_are_not_published_are_exported_to_a_file_for_the_owner_alone(tmp_path: Path) -> None:
    job = opened_command(tmp_path, TELLING, environment={"GREETING": "it's {tau} $HOME", "TAU": "{tau}"})
    assert "it's 4" not in exported(job, "torchrun", recommendation())
    script, secret = tmp_path / "go.sh", tmp_path / "go.sh.secret.env"
    text = exported(job, "torchrun", recommendation(), output=script)
    assert "export TAU=4\n" in text
    assert "GREETING" in text
    assert "it's" not in text
    assert secret.stat().st_mode & 0o777 == 0o600
    subprocess.run(["sh", str(script), "1", "host-a", "1234"], cwd="/", check=True)
    assert (tmp_path / "output" / "1").read_text().splitlines()[6] == "it's 4 $HOME"
    script.unlink()
    with pytest.raises(JobError, match=r"go\.sh\.secret\.env already exists"):
        exported(job, "torchrun", recommendation(), output=script)
    assert not script.exists()


def test_two_launch_files_of_one_name_have_their_own_secret_files(tmp_path: Path) -> None:
    job = opened_command(tmp_path, TELLING, environment={"GREETING": "it's {tau} $HOME"})
    for name, target in (("job.sh", "torchrun"), ("job.sbatch", "slurm"), ("job.yaml", "k8s")):
        exported(job, target, recommendation(), output=tmp_path / name)
    secrets = {path.name for path in tmp_path.glob("job.*.secret.*")}
    assert secrets == {"job.sh.secret.env", "job.sbatch.secret.env", "job.yaml.secret.yaml"}


@pytest.mark.slow
def test_slurm_runs_a_command_of_one_s_own_as_it_is_exported(
    tmp_path: Path, slurm_cluster: SlurmCluster
) -> None:
    job = opened_command(
        tmp_path, TELLING, environment={"GREETING": "it's {tau} $HOME"}, publish_environment=True
    )
    state, said = submitted(exported(job, "slurm", recommendation()), tmp_path, slurm_cluster)
    assert state == "COMPLETED", said
    reported = [(tmp_path / "output" / node).read_text().splitlines() for node in ("0", "1")]
    address, port = reported[0][4:6]
    for node, lines in enumerate(reported):
        assert lines == ["2", "0.05", "16", str(node), address, port, "it's 4 $HOME", "64"]
    assert address in slurm_cluster.nodes


@pytest.mark.slow
def test_slurm_trains_the_script_that_ships(tmp_path: Path, slurm_cluster: SlurmCluster) -> None:
    for name in ("own_script.py", "own_script.toml"):
        shutil.copy(ROOT / "examples" / name, tmp_path / name)
    shutil.copy(ROOT / "paceline_client.py", tmp_path)
    path = tmp_path / "own_script.toml"
    text = path.read_text().replace("own_script.py --lr", "own_script.py --samples 3000 --lr")
    path.write_text(text)
    choice = Configuration(nodes=2, batch_size=64, learning_rate=0.05, strategy="all_reduce")
    answer = recommendation(choice=replace(recommendation().choice, configuration=choice))
    job = OpenedJob(job=load_job(path), path=path, fingerprint="f")
    script = exported(job, "slurm", answer)
    assert "# The script imports paceline_client: install Paceline on the nodes" in script
    state, said = submitted(script, tmp_path, slurm_cluster)
    assert state == "COMPLETED", said
    saved = torch.load(tmp_path / "checkpoint", weights_only=True)
    assert saved["step"] == math.ceil(3000 / 64)


def test_schedulers_are_asked_for_the_nodes_of_a_command(tmp_path: Path) -> None:
    job = opened_command(tmp_path, TELLING, one_per="rank")
    options = exported(job, "slurm", recommendation())
    for option in ("nodes=2", "ntasks-per-node=2", "cpus-per-task=2"):
        assert f"#SBATCH --{option}\n" in options
    assert "one machine:" not in options
    trainer = yaml.safe_load(exported(job, "k8s", recommendation()))["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 2)
    # The folder of this machine means nothing in a container.
    assert str(tmp_path) not in str(trainer)


def test_the_values_of_a_command_are_all_its_variables(tmp_path: Path) -> None:
    text = exported(opened_command(tmp_path, TELLING), "env", recommendation())
    for line in ("NODES=2", "NUM_RANKS=4", "BATCH_SIZE_PER_RANK=16", "ACCUMULATION=1", "SEED=0", "TAU=4"):
        assert f"\nPACELINE_{line}\n" in text


def test_a_launch_file_says_where_to_report_the_real_time_without_a_token(tmp_path: Path) -> None:
    job, ledger = opened_command(tmp_path, "python train.py"), MemoryLedger()
    study = ledger.open_study(job.job.name, job.fingerprint, {})
    made = recommendation().to_dict()
    ledger.add_recommendation(
        RecommendationRecord(study_id=study.study_id, created_at=1.0, recommendation=made)
    )
    options = ExportOptions(target="torchrun", report_to="https://paceline.example.org/")
    text = export_job(job, Store(ledger), options)  # type: ignore[arg-type]
    place = (
        f"https://paceline.example.org/api/v1/outcomes?study={study.study_id}&target=0.9&direction=maximize"
    )
    assert f"PACELINE_REPORT_TO='{place}&scores=1&values=" in text
    assert "PACELINE_TOKEN=" not in text
    assert "set PACELINE_TOKEN to the token of the job first" in text
    for server in ("example.org", "https://me:secret@example.org"):
        with pytest.raises(JobError, match="is not the address of a server"):
            export_job(job, Store(ledger), replace(options, report_to=server))  # type: ignore[arg-type]
    by_import_path = replace(job, job=opened(tmp_path).job)
    text = export_job(by_import_path, Store(ledger), options)  # type: ignore[arg-type]
    assert f"PACELINE_REPORT_TO='{place}&scores=1&values=" in text
    assert "\npaceline train " in text
