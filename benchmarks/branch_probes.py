"""What a short probe from a mid-training checkpoint tells of a configuration, against one from the start.

    python -m benchmarks.branch_probes [--workloads digits-cnn,digits-mlp] [--json]

A trunk is trained to the target with one configuration and kept at some shares of its way. Configurations of
other batches and rates are trained to the target from the start, which is the truth; their first so many
samples are what a look shows. A branch goes on from the trunk's checkpoint with their batch and rate, for as
many samples. Both estimate the logarithm of samples to target over the trunk's:

- a look: the samples at which it comes as far as it does, over those at which the trunk was as far;
- a branch: the samples in which it goes from its first scoring (behind the jump that a change of rate makes)
  to its last, over those that the trunk took for the same.

Held against the truth: the standard deviation of what is left after a line through the estimates, each
configuration left out in turn, beside that of the truth itself. All on one rank.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from tuner.domain.data_order import SampleStream, fetch
from tuner.domain.workload import SGDSettings, Workload
from tuner.workloads.digits import Digits
from tuner.workloads.fashion_mnist import FashionMNIST

Array = npt.NDArray[np.float64]
Curve = list[tuple[int, float]]

#: Where on the trunk's way to the target branches begin, and how long looks and branches are, in its lengths.
_PLACES, _LENGTHS = (0.15, 0.3, 0.6), (0.08, 0.16, 0.32)
#: A run that took so many times the trunk's samples ends.
_LONGEST = 8.0
_SCORES = 6
#: A look or branch that gains nothing counts as so many times as slow as the trunk.
_SLOWEST = 16.0


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is trained.

    Args:
        name: For people.
        workload: The workload.
        target: Of its metric; it rises.
        trunk: Batch and rate of the trunk.
        batches: Others.
        rates: Others.
        most_samples: No run is longer.
        first_evaluation: Samples of the first scoring.
    """

    name: str
    workload: Workload
    target: float
    trunk: tuple[int, float]
    batches: tuple[int, ...]
    rates: tuple[float, ...]
    most_samples: int
    first_evaluation: int = 256

    def others(self) -> list[tuple[int, float]]:
        """Batch and rate of all but the trunk."""
        return [(b, r) for b in self.batches for r in self.rates if (b, r) != self.trunk]


def problem(name: str) -> Problem:
    """A problem by its name."""
    momentum = SGDSettings(momentum=0.9)
    if name.startswith("digits"):
        workload: Workload = Digits(network="cnn" if name.endswith("cnn") else "mlp", width=32)
        workload.optimizer_settings = SGDSettings(momentum=0.5)
        return Problem(
            name=name,
            workload=workload,
            target=0.95,
            trunk=(32, 0.03),
            batches=(8, 32, 128, 256),
            rates=(0.003, 0.01, 0.03, 0.1, 0.3),
            most_samples=200_000,
        )
    if name == "fashion_mnist":
        workload = FashionMNIST(width=8, depth=1, normalization="group", validation_samples=2000)
        workload.optimizer_settings = momentum
        return Problem(
            name=name,
            workload=workload,
            target=0.80,
            trunk=(64, 0.03),
            batches=(16, 64, 256, 512),
            rates=(0.003, 0.01, 0.03, 0.1),
            most_samples=400_000,
            first_evaluation=512,
        )
    raise typer.BadParameter(f"{name!r} is none of digits-cnn, digits-mlp, fashion_mnist")


class Training:
    """One run on one rank.

    Args:
        of: What is trained.
        batch_size: Samples a step.
        rate: Learning rate.
        seed: Of the initial model and the order of the data.
        trunk: A run whose parameters and buffers it begins with; its own optimizer goes on with theirs.
    """

    def __init__(
        self, of: Problem, batch_size: int, rate: float, seed: int, trunk: dict[str, Any] | None = None
    ) -> None:
        self._of, self._batch_size = of, batch_size
        torch.manual_seed(seed)
        self.model = of.workload.model()
        self.optimizer = of.workload.optimizer(self.model.parameters(), rate)
        self.samples = 0
        if trunk is not None:
            self.model.load_state_dict(trunk["model"])
            state = copy.deepcopy(trunk["optimizer"])
            for group in state["param_groups"]:
                group["lr"] = rate
            self.optimizer.load_state_dict(state)
        self._data = of.workload.training_data()
        self._validation = of.workload.validation_data()
        self._stream = SampleStream(len(self._data), seed + 1000 * (trunk is not None))  # type: ignore[arg-type]

    def saved(self) -> dict[str, Any]:
        """What a branch begins with."""
        return copy.deepcopy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})

    def train_to(self, samples: int) -> None:
        """Goes on until so many samples were seen."""
        self.model.train()
        while self.samples < samples:
            batch = fetch(
                self._data,
                self._stream.indices(self.samples, self._batch_size).tolist(),
                torch.device("cpu"),
            )
            self.optimizer.zero_grad(set_to_none=True)
            self._of.workload.loss(self.model, batch).backward()
            self.optimizer.step()
            self.samples += self._batch_size

    def score(self) -> float:
        """The metric now."""
        self.model.eval()
        with torch.no_grad():
            return float(self._of.workload.score(self.model, self._validation))


def train_to_target(of: Problem, batch_size: int, rate: float, seed: int, most: int) -> tuple[Curve, float]:
    """The curve of a run from the start, and the samples at which it crosses the target (inf: not)."""
    run = Training(of, batch_size, rate, seed)
    curve: Curve = []
    point = of.first_evaluation
    while run.samples < most:
        run.train_to(point)
        curve.append((run.samples, run.score()))
        if curve[-1][1] >= of.target:
            return curve, crossing(curve, of.target)
        point = max(math.ceil(run.samples * 1.1), run.samples + 1)
    return curve, math.inf


def crossing(curve: Curve, level: float) -> float:
    """Samples at which a curve first comes to a level, linear between scorings; infinite where never."""
    before: tuple[float, float] = (0.0, 0.1)
    for samples, value in curve:
        if value >= level:
            if before[1] >= level or value == before[1]:
                return float(samples)
            return before[0] + (level - before[1]) / (value - before[1]) * (samples - before[0])
        before = (float(samples), value)
    return math.inf


def probe_estimate(curve: Curve, trunk: Curve, samples: float) -> float:
    """Log of how many times the trunk's samples a run takes, by its first so many samples."""
    seen = [(s, v) for s, v in curve if s <= samples] or curve[:1]
    estimates = []
    for samples_then, _ in seen[-3:]:
        same = crossing(trunk, max(value for at, value in seen if at <= samples_then))
        ratio = samples_then / max(same, 1.0)
        estimates.append(math.log(min(max(ratio, 1 / _SLOWEST), _SLOWEST)))
    return float(np.mean(estimates))


def branch_estimate(curve: Curve, trunk: Curve, started: tuple[int, float], *, from_trunk: bool) -> float:
    """The same by a branch.

    Args:
        curve: Of the branch, samples since it left the trunk.
        trunk: Of the trunk, to the target.
        started: Samples and metric of the trunk where it left.
        from_trunk: Whether it counts from where it left, not from its first scoring.
    """
    first = (0, started[1]) if from_trunk else curve[0]
    last_value = float(np.mean([v for _, v in curve[-2:]]))
    last_samples = float(np.mean([s for s, _ in curve[-2:]]))
    place, later = (min(crossing(trunk, v), trunk[-1][0]) for v in (first[1], last_value))
    gained = max(later - place, 1e-9)
    ratio = (last_samples - first[0]) / gained
    return math.log(min(max(ratio, 1 / _SLOWEST), _SLOWEST))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration, seed, place and length.

    Args:
        workload: Its name.
        seed: The seed.
        batch_size: The batch.
        learning_rate: The rate.
        place: Share of the trunk's way at which the branch left it.
        length: Of look and branch, in the trunk's lengths.
        truth: Log samples to target over the trunk's.
        probe: Its estimate by a look.
        branch: By a branch, from its first scoring on.
        branch_from_trunk: By a branch, from where it left on.
    """

    workload: str
    seed: int
    batch_size: int
    learning_rate: float
    place: float
    length: float
    truth: float
    probe: float
    branch: float
    branch_from_trunk: float


def rows_of(name: str, seed: int) -> list[Row]:
    """All rows of one workload and seed."""
    torch.set_num_threads(1)
    of = problem(name)
    trunk, length = train_to_target(of, *of.trunk, seed, of.most_samples)
    if not math.isfinite(length):
        raise typer.BadParameter(f"the trunk of {name} does not reach {of.target}")
    run, saved = Training(of, *of.trunk, seed), {}
    for place in _PLACES:
        run.train_to(int(place * length))
        saved[place] = (run.samples, run.score(), run.saved())
    most = int(min(of.most_samples, _LONGEST * length))
    rows = []
    for batch_size, rate in of.others():
        curve, truth = train_to_target(of, batch_size, rate, seed, most)
        log_truth = math.log(min(truth, most) / length)
        for place, (samples, value, state) in saved.items():
            branch = Training(of, batch_size, rate, seed, state)
            scored: Curve = []
            for share in np.geomspace(_LENGTHS[0] / 2, _LENGTHS[-1], 2 * _SCORES):
                branch.train_to(int(share * length))
                if not scored or branch.samples > scored[-1][0]:
                    scored.append((branch.samples, branch.score()))
            for span in _LENGTHS:
                seen = [(s, v) for s, v in scored if s <= 1.01 * span * length] or scored[:1]
                rows.append(
                    Row(
                        workload=name,
                        seed=seed,
                        batch_size=batch_size,
                        learning_rate=rate,
                        place=place,
                        length=span,
                        truth=log_truth,
                        probe=probe_estimate(curve, trunk, span * length),
                        branch=branch_estimate(seen, trunk, (samples, value), from_trunk=False),
                        branch_from_trunk=branch_estimate(seen, trunk, (samples, value), from_trunk=True),
                    )
                )
    return rows


def left_over(truth: Array, estimates: Array) -> float:
    """Standard deviation of the truth around a line through the estimates, each row left out in turn."""
    errors = []
    design = np.column_stack([np.ones(len(truth)), estimates]) if estimates.size else np.ones((len(truth), 1))
    for i in range(len(truth)):
        others = np.arange(len(truth)) != i
        weights = np.linalg.lstsq(design[others], truth[others], rcond=None)[0]
        errors.append(truth[i] - design[i] @ weights)
    return float(np.sqrt(np.mean(np.square(errors))))


def summary(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """What is left unknown by workload, place and length."""
    for name in dict.fromkeys(row.workload for row in rows):
        for place in _PLACES:
            for length in _LENGTHS:
                of = [r for r in rows if (r.workload, r.place, r.length) == (name, place, length)]
                truth = np.array([r.truth for r in of])
                columns = {
                    "look": [[r.probe] for r in of],
                    "branch": [[r.branch] for r in of],
                    "branch_from_trunk": [[r.branch_from_trunk] for r in of],
                    "both": [[r.probe, r.branch, r.branch_from_trunk] for r in of],
                }
                yield {
                    "workload": name,
                    "place": place,
                    "length": length,
                    "rows": len(of),
                    "nothing": left_over(truth, np.zeros((len(of), 0))),
                    **{key: left_over(truth, np.array(value)) for key, value in columns.items()},
                }


def main(
    workloads: Annotated[str, typer.Option(help="Names, by commas.")] = "digits-cnn,digits-mlp,fashion_mnist",
    seeds: Annotated[int, typer.Option(help="How many.")] = 2,
    processes: Annotated[int, typer.Option(help="At once.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Hold branches against looks."""
    tasks = [(name, seed) for name in workloads.split(",") for seed in range(seeds)]
    with ProcessPoolExecutor(processes) as pool:
        rows = [row for found in pool.map(rows_of, *zip(*tasks, strict=True)) for row in found]
    if as_json:
        typer.echo(json.dumps(list(summary(rows)), indent=1))
        return
    for found in summary(rows):
        typer.echo(
            f"{found['workload']:14} from {found['place']:.2f}, length {found['length']:.2f}: left unknown "
            f"{found['nothing']:.2f}; by a look {found['look']:.2f}; by a branch {found['branch']:.2f} "
            f"(from the trunk's {found['branch_from_trunk']:.2f}); by both {found['both']:.2f} "
            f"({found['rows']} runs)"
        )


if __name__ == "__main__":
    typer.run(main)
