"""Jobs over the tiny workloads."""

from pathlib import Path
from typing import Any

from search_spaces import Configuration
from tuner.job import Job

FOLDER = Path(__file__).parent


def tiny_job(workload: str = "Blobs", *, target: float = 1.0, metric: str = "accuracy", **more: Any) -> Job:
    """A job over `tiny_workloads:<workload>`.

    Keywords: parameters (of the workload), seed, probe, cluster, schedule.
    """
    section = {"path": f"tiny_workloads:{workload}", "parameters": more.pop("parameters", {})}
    if "schedule" in more:
        section["schedule"] = more.pop("schedule")
    return Job.model_validate(
        {
            "name": "tiny",
            "workload": section,
            "cluster": {"nodes": [1, 2, 3, 4], "dollars_per_node_hour": 3.6, **more.pop("cluster", {})},
            "goal": {"metric": metric, "target": target},
            "space": {"batch_size": [10, 20, 64], "learning_rate": {"low": 1e-4, "high": 1e9}},
            "probe": {
                "first_score_samples": 40,
                "score_growth": 1.5,
                "max_scoring": 1e6,
                **more.pop("probe", {}),
            },
            **more,
        }
    )


def configuration(*, nodes: int = 1, batch_size: int = 20, learning_rate: float = 0.05) -> Configuration:
    return Configuration(
        nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy="all_reduce"
    )
