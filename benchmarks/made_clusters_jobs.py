"""Made jobs on several nodes: recorded seconds a step, and a training script whose curve is known."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from benchmarks.made_scripts_curves import Array, MadeScript
from benchmarks.own_scripts_jobs.pretended import Recipe
from benchmarks.step_time import PARAMETER_BYTES, RECORDINGS, read_timed
from search_spaces import Configuration
from tuner.job import Job
from tuner.recordings.recording import RecordedRun, Recording

Goal = Literal["seconds", "dollars", "deadline"]
GOALS: tuple[Goal, ...] = get_args(Goal)
APPS = ("bert", "cifar10", "deepspeech2", "imagenet")
NODE_COUNTS = (1, 2, 4, 8, 16)
#: Devices of a node, in turn: all are used. Both are recorded.
_DEVICES = (1, 4)
_NUM_BATCHES, _NUM_RATES = 6, 6
_SHAPES: tuple[Literal["early", "power", "sigmoid"], ...] = ("early", "power", "sigmoid")
#: A job may spend so many times the best training's cost.
_BUDGET_TRAININGS = 30.0
#: Standard deviation of the logarithm of a configuration's seconds a step around those recorded, and of its
#: steps over their mean.
_MOMENT_SD, _STEP_SPREAD = 0.025, 0.1


@dataclass(frozen=True, kw_only=True)
class RecordedSteps:
    """Recorded seconds of a step on one number of nodes, by samples a rank.

    Args:
        batch_size_per_rank: Ascending, `(num,)`.
        seconds: Seconds a step, mean of its recordings, `(num,)`.
    """

    batch_size_per_rank: Array
    seconds: Array

    def at(self, batch_size_per_rank: float, one_node: RecordedSteps) -> float:
        """Seconds a step: linear in the samples a rank between the recorded ones.

        Beyond them no exchange is known, only the compute, by the steps on one node. More samples take as
        long as the most recorded ones, or as on one node if longer: the exchange hides behind compute.
        Fewer save what they save on one node, at most half of the step.

        Args:
            batch_size_per_rank: Samples of a rank.
            one_node: Steps of the same app on one node.
        """
        batches, seconds = self.batch_size_per_rank, self.seconds
        inside = min(max(batch_size_per_rank, float(batches[0])), float(batches[-1]))
        found = float(np.interp(inside, batches, seconds))
        if batch_size_per_rank > inside:
            return max(found, one_node.compute(batch_size_per_rank))
        saved = one_node.compute(inside) - one_node.compute(batch_size_per_rank)
        return max(found - saved, 0.5 * found)

    def compute(self, batch_size_per_rank: float) -> float:
        """Seconds by a line through the two nearest recorded shares, beyond the recorded ones too."""
        batches, seconds = self.batch_size_per_rank, self.seconds
        i = int(np.clip(np.searchsorted(batches, batch_size_per_rank), 1, len(batches) - 1))
        slope = (seconds[i] - seconds[i - 1]) / (batches[i] - batches[i - 1])
        return float(seconds[i - 1] + slope * (batch_size_per_rank - batches[i - 1]))


@cache
def recorded_steps(app: str, devices_per_node: int) -> Mapping[int, RecordedSteps]:
    """Recorded steps by number of nodes of which so many devices are used.

    Source: the measurements of Pollux (Qiao et al., OSDI 2021), see `benchmarks.step_time`.
    """
    found: dict[int, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (name, _), timed in read_timed(*RECORDINGS).items():
        if name != app:
            continue
        placements = timed.steps.placements
        whole = (placements.num_ranks == devices_per_node * placements.num_nodes) & (
            placements.most_on_a_node == devices_per_node
        )
        for i in np.flatnonzero(whole):
            batch = float(timed.steps.batch_size_per_rank[i])
            found[int(placements.num_nodes[i])][batch].append(float(timed.step_seconds[i]))
    return MappingProxyType(
        {
            nodes: RecordedSteps(
                batch_size_per_rank=np.array(sorted(by_batch)),
                seconds=np.array([float(np.mean(by_batch[batch])) for batch in sorted(by_batch)]),
            )
            for nodes, by_batch in found.items()
        }
    )


@dataclass(frozen=True, kw_only=True)
class MadeCluster:
    """A training script on several nodes whose truth is known for every configuration.

    Args:
        app: Whose recorded seconds of a step.
        devices_per_node: Devices of a node.
        script: Its curves by samples; the seconds of its steps do not count.
        batch_sizes: Global batch sizes that may be chosen.
        learning_rates: Learning rates that may be chosen.
        startup_seconds: Charged for each slice.
        deadline_factor: Deadline over the shortest training.
        parameter_bytes: That the job states; 0 where it states none.
        node_counts: Numbers of nodes that may be chosen.
    """

    app: str
    devices_per_node: int
    script: MadeScript
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    startup_seconds: float
    deadline_factor: float
    parameter_bytes: int
    node_counts: tuple[int, ...] = NODE_COUNTS

    @property
    def seed(self) -> int:
        """Of the script."""
        return self.script.seed

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """All that a job may choose."""
        axes = itertools.product(self.node_counts, self.batch_sizes, self.learning_rates)
        return tuple(
            Configuration(nodes=nodes, batch_size=batch, learning_rate=rate, strategy="all_reduce")
            for nodes, batch, rate in axes
        )

    def step_seconds(self, configuration: Configuration) -> float:
        """True mean seconds of a step."""
        return self._step_seconds[configuration.nodes, configuration.batch_size]

    @cached_property
    def _step_seconds(self) -> dict[tuple[int, int], float]:
        recorded = recorded_steps(self.app, self.devices_per_node)
        pairs = itertools.product(self.node_counts, self.batch_sizes)
        return {
            (n, batch): recorded[n].at(batch / (n * self.devices_per_node), recorded[1]) for n, batch in pairs
        }

    @cached_property
    def _by_samples(self) -> dict[tuple[int, float], RecordedRun]:
        pairs = itertools.product(self.batch_sizes, self.learning_rates)
        return {
            (batch, rate): self.script.run(
                Configuration(nodes=1, batch_size=batch, learning_rate=rate, strategy="all_reduce")
            )
            for batch, rate in pairs
        }

    def seconds_to_target(self, configuration: Configuration) -> float:
        """True training seconds to the first score at the target; infinite if there is none."""
        run = self._by_samples[configuration.batch_size, configuration.learning_rate]
        return run.num_steps * self.step_seconds(configuration) if run.end is None else math.inf

    @cached_property
    def recording(self) -> Recording:
        """The runs of all configurations, with noise of their seconds."""
        return Recording(
            name=f"{self.app} {self.seed}",
            metric="accuracy",
            maximize=True,
            target=self.script.target,
            runs=tuple(map(self._run, self.configurations)),
            startup_seconds=self.startup_seconds,
        )

    def _run(self, configuration: Configuration) -> RecordedRun:
        by_samples = self._by_samples[configuration.batch_size, configuration.learning_rate]
        rate = round(1e6 * configuration.learning_rate)
        rng = np.random.default_rng([3, self.seed, configuration.nodes, configuration.batch_size, rate])
        step_seconds = self.step_seconds(configuration) * math.exp(_MOMENT_SD * rng.standard_normal())
        curve = by_samples.curve.copy()
        curve[:, 0] = curve[:, 1] * step_seconds
        return replace(
            by_samples,
            configuration=configuration,
            step_seconds=step_seconds,
            curve=curve,
            seconds_std=_STEP_SPREAD * float(curve[-1, 0]),
        )

    def cost(self, configuration: Configuration, goal: Goal) -> float:
        """True cost of one training: seconds, or node seconds; infinite past the deadline of that goal."""
        seconds = self.seconds_to_target(configuration)
        if goal == "deadline" and seconds > self.deadline_seconds:
            return math.inf
        return seconds if goal == "seconds" else seconds * configuration.nodes

    @cached_property
    def deadline_seconds(self) -> float:
        """So many times the shortest training, on the numbers of nodes that may be chosen."""
        return self.deadline_factor * min(map(self.seconds_to_target, self.configurations))

    def best(self, goal: Goal) -> Configuration:
        """The configuration that costs least."""
        return min(self.configurations, key=lambda c: self.cost(c, goal))

    def job(self, goal: Goal, trainings: int) -> Job:
        """The job file that a user would write: present settings on one node, a dollar a node hour.

        Args:
            goal: What is minimized; `deadline` minimizes dollars within `deadline_seconds`.
            trainings: That the answer serves.
        """
        middle, command = len(self.batch_sizes) // 2 - 1, "train.py {batch_size} {learning_rate}"
        budget = _BUDGET_TRAININGS * self.cost(self.best(goal), goal)
        deadline = {"deadline": f"{self.deadline_seconds:.6f}s"} if goal == "deadline" else {}
        return Job.model_validate(
            {
                "workload": {
                    "command": command,
                    "epoch_samples": self.script.recipe.epoch_samples,
                    "resume": "--resume {checkpoint}",
                    **({"parameter_bytes": self.parameter_bytes} if self.parameter_bytes else {}),
                },
                "cluster": {
                    "nodes": list(self.node_counts),
                    "devices_per_node": self.devices_per_node,
                    "dollars_per_node_hour": 1.0,
                    "launcher": "slurm",
                },
                "goal": {
                    "metric": "accuracy",
                    "target": self.script.target,
                    "minimize": "seconds" if goal == "seconds" else "dollars",
                    "trainings": trainings,
                    **deadline,
                },
                "space": {
                    "batch_size": list(self.batch_sizes),
                    "learning_rate": list(self.learning_rates),
                },
                "baseline": {
                    "nodes": 1,
                    "batch_size": self.batch_sizes[middle],
                    "learning_rate": self.learning_rates[1],
                },
                "budget": {"time": f"{budget:.6f}s"} if goal == "seconds" else {"dollars": budget / 3600.0},
            }
        )


def made_cluster(app: str, seed: int) -> MadeCluster:
    """A random job. By seed, a node has one device or four, the curve one of three shapes, and the job states
    the bytes of its parameters or not.

    Batch sizes reach from the smallest recorded share of a rank on one node to the largest on half of the
    nodes. The best training takes 5 minutes to 3 hours (log-uniform).
    """
    rng = np.random.default_rng([78, seed, APPS.index(app)])

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    devices = _DEVICES[seed % len(_DEVICES)]
    shares = recorded_steps(app, devices)[1].batch_size_per_rank
    lowest, highest = shares[0] * devices, shares[-1] * devices * NODE_COUNTS[-2]
    batches = tuple(round(float(b)) for b in np.geomspace(lowest, highest, _NUM_BATCHES))
    rates = tuple(float(f"{r:.3g}") for r in np.geomspace(1e-3, 1.0, _NUM_RATES))
    start, needed, best_seconds = 0.1, 1e6, between(300.0, 10_000.0)
    shape = _SHAPES[seed % len(_SHAPES)]
    recipe = Recipe(
        epoch_samples=round(needed / between(5, 40)),
        step_seconds=1.0,
        sample_seconds=0.0,
        needed_samples=needed,
        noise_batch=between(batches[1], batches[-1]),
        best_rate=between(0.02, 0.6),
        rate_width=float(rng.uniform(0.9, 2.0)),
        shape=shape,
        start=start,
        best=1.0,
        noise=(1 - start) * between(1e-3, 1.2e-2),
        max_epochs=400,
    )
    script = MadeScript(
        seed=seed,
        shape=shape,
        recipe=recipe,
        scores_per_epoch=int(rng.choice([1, 1, 1, 4])),
        edge_rate=between(0.3, 3.0),
        target=round(start + (1 - start) * float(rng.uniform(0.75, 0.95)), 4),
        startup_share=0.0,
        resumes=True,
    )
    made = MadeCluster(
        app=app,
        devices_per_node=devices,
        script=script,
        batch_sizes=batches,
        learning_rates=rates,
        startup_seconds=float(rng.uniform(10.0, 30.0)),
        deadline_factor=between(1.3, 4.0),
        parameter_bytes=int(PARAMETER_BYTES[app]) if seed // 4 % 2 else 0,
    )
    # The same job with so many samples that the best training takes as long as drawn.
    factor = best_seconds / min(map(made.seconds_to_target, made.configurations))
    scaled = replace(
        recipe,
        needed_samples=needed * factor,
        epoch_samples=max(round(recipe.epoch_samples * factor), 1),
    )
    return replace(made, script=replace(script, recipe=scaled))
