"""Timings of a machine whose constants are known, and a launcher that hands them out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tuner.calibration import CalibrationPlan, Effort
from tuner.job import Job
from tuner.launchers import JobHandle, JobState, JobStatus, Launcher, LogFile, RankFailure, RankTask

FIXED, PER_SAMPLE, JITTER = 3e-3, 2e-4, 0.1
LATENCY, BYTES_PER_SECOND = 5e-4, 1e9
PARAMETER_BYTES = 400_000


def made_job(**cluster: Any) -> Job:
    return Job.model_validate(
        {
            "name": "made",
            "workload": {"path": "tuner.workloads.digits:Digits"},
            "cluster": {"nodes": [1, 2, 4], **cluster},
            "goal": {"target": 0.9},
            "space": {"batch_size": [16, 256], "learning_rate": [0.01]},
        }
    )


def made_plan(*, node_counts: tuple[int, ...] = (2,), rounds: int = 5, **cluster: Any) -> CalibrationPlan:
    return CalibrationPlan(
        job=made_job(**cluster),
        job_folder=Path(),
        batch_sizes_per_rank=(4, 16, 64, 256),
        learning_rate=0.01,
        node_counts=node_counts,
        effort=Effort(rounds=rounds, exchanges=6),
    )


class MadeLauncher(Launcher):
    """Answers every task of a calibration at once, as ranks of the made machine would.

    Args:
        fails: Name of a function whose ranks fail.
        hangs: Name of a function of whose ranks nothing is heard.
        waiting: Seconds that all-reduces of more than two ranks take beyond the law.
    """

    def __init__(self, *, fails: str = "", hangs: str = "", waiting: float = 0.0) -> None:
        self._fails, self._hangs, self._waiting = fails, hangs, waiting
        self._tasks: dict[str, tuple[RankTask, int]] = {}
        self._names = map(str, itertools.count())
        self._rng = np.random.default_rng(0)
        self.cancelled: list[str] = []

    def submit(self, task: RankTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        name, num_ranks = next(self._names), num_nodes * devices_per_node
        self._tasks[name] = (task, num_ranks)
        return JobHandle(identity=name, num_nodes=num_nodes, num_ranks=num_ranks, folder=task.folder)

    def poll(self, handle: JobHandle) -> JobStatus:
        task, num_ranks = self._tasks[handle.identity]
        name = task.function.partition(":")[2]
        if name == self._hangs:
            return JobStatus(state=JobState.RUNNING, seconds_since_progress=1e6)
        if name == self._fails:
            failure = RankFailure(rank=1, reason="ArithmeticError: the workload's own words")
            return JobStatus(state=JobState.FAILED, failures=(failure,))
        payload = task.payload.get("plan", task.payload)
        made = getattr(self, f"_{name}")
        results = {
            rank: made(CalibrationPlan.from_payload(payload), num_ranks, task.payload)
            for rank in range(num_ranks)
        }
        return JobStatus(state=JobState.SUCCEEDED, results=results)

    def cancel(self, handle: JobHandle) -> None:
        self.cancelled.append(handle.identity)

    def logs(self, handle: JobHandle) -> dict[int, str]:
        return {}

    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        return {}

    def trim_logs(self, handle: JobHandle) -> None:
        """Nothing was printed."""

    def close(self) -> None:
        """Nothing was started."""

    def _steps(self, batch_size: int, count: int) -> list[float]:
        mean = FIXED + PER_SAMPLE * batch_size
        return list(map(float, mean * (1 + JITTER * self._rng.standard_normal(count))))

    def _time_steps(self, plan: CalibrationPlan, num_ranks: int, payload: Any) -> Any:
        rounds = [
            [self._steps(size, 200) for size in plan.batch_sizes_per_rank] for _ in range(plan.effort.rounds)
        ]
        return {"parameter_bytes": PARAMETER_BYTES, "rounds": rounds}

    def _time_all_reduces(self, plan: CalibrationPlan, num_ranks: int, payload: Any) -> Any:
        hops = 2 * (num_ranks - 1)
        waiting = self._waiting if num_ranks > 2 else 0.0
        seconds = [
            waiting + hops * (LATENCY + size / num_ranks / BYTES_PER_SECOND) for size in payload["sizes"]
        ]
        # Whoever came first waited as well.
        return self._rounds(plan, seconds, most_more=0.0 if self._rng.random() < 0.3 else 1e-4)

    def _time_messages(self, plan: CalibrationPlan, num_ranks: int, payload: Any) -> Any:
        return self._rounds(plan, [2 * (LATENCY + size / BYTES_PER_SECOND) for size in payload["sizes"]])

    def _time_overlap(self, plan: CalibrationPlan, num_ranks: int, payload: Any) -> Any:
        alone = [[0.016] * 9] * plan.effort.rounds
        return {"alone": alone, "together": [[0.0165] * 9] * plan.effort.rounds}

    def _rounds(self, plan: CalibrationPlan, seconds: list[float], most_more: float = 0.0) -> Any:
        return {
            "rounds": [
                [[s + most_more * float(self._rng.random())] * plan.effort.exchanges for s in seconds]
                for _ in range(plan.effort.rounds)
            ]
        }
