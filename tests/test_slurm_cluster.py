"""The SLURM that other tests run on does what a cluster does."""

from __future__ import annotations

import pytest

from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.slow


def test_a_job_over_all_nodes_sees_each_of_them_once(slurm_cluster: SlurmCluster) -> None:
    words = slurm_cluster.run("srun", "--nodes=4", "--ntasks-per-node=1", "printenv", "SLURMD_NODENAME")
    assert sorted(words.split()) == list(slurm_cluster.nodes)


def test_a_failing_job_says_so(slurm_cluster: SlurmCluster) -> None:
    job = slurm_cluster.run("sbatch", "--parsable", "--wrap", "exit 3").strip()
    assert slurm_cluster.wait_for_job(job) == "FAILED"


def test_generic_resources_and_partitions_are_known(slurm_cluster: SlurmCluster) -> None:
    words = slurm_cluster.run(
        "srun", "--partition=other", "--gres=tile:2", "--account=someone", "printenv", "SLURM_JOB_PARTITION"
    )
    assert words.strip() == "other"


def test_a_node_that_dies_fails_its_job_and_comes_back(slurm_cluster: SlurmCluster) -> None:
    node = slurm_cluster.nodes[-1]
    job = slurm_cluster.run(
        "sbatch", "--parsable", "--no-requeue", f"--nodelist={node}", "--wrap", "srun sleep 300"
    ).strip()
    slurm_cluster.wait_until(lambda: slurm_cluster.job_state(job) == "RUNNING", "a running job")
    slurm_cluster.stop_node(node)
    try:
        assert slurm_cluster.wait_for_job(job) == "NODE_FAIL"
    finally:
        slurm_cluster.start_node(node)
        slurm_cluster.wait_until_idle()
