"""One training of `benchmarks.paper`: one strategy on some ranks, scored at marks, priced on every clock."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from benchmarks.paper_clocks import CLOCKS, Clock
from benchmarks.paper_network import Network
from benchmarks.paper_stack import stacked_emulation
from search_spaces import Configuration, with_knobs
from tuner.domain.workload import StepSchedule
from tuner.emulation import Emulation, Trained, emulation
from tuner.workloads.fashion_mnist import FashionMNIST
from tuner.workloads.images import LabelledImages

GOSSIP = ("gossip_pull", "gossip_push")
#: The rate is divided by 10 once all ranks have seen these shares of a run's samples.
DIVISIONS = (1 / 2, 3 / 4)
#: Where a run is scored, as shares of its samples: densely after the divisions.
POINTS = (
    1 / 48,
    1 / 24,
    1 / 12,
    1 / 6,
    1 / 4,
    1 / 3,
    5 / 12,
    1 / 2,
    13 / 24,
    7 / 12,
    2 / 3,
    3 / 4,
    19 / 24,
    1.0,
)
_VALIDATION_SAMPLES = 5000
_NORM_SAMPLES = 1024
_SCORED_AT_ONCE = 250


#: Strategy, ranks, batch, rate, clock and seed of what is told.
Place = tuple[str, int, int, float, str, int]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Args:
        strategy: How ranks are kept in step.
        ranks: How many.
        batch_size: Samples of a step of all ranks.
        learning_rate: Before it is divided.
        seed: Of initial parameters, order of data, draws.
        clock: On which cluster exchanges are scheduled; all-reduce has no use for it.
        samples: Where it ends, and of which marks and divisions are shares.
        beta: Moving rate times ranks, of elastic averaging; None for one that a pilot picks.
        is_pilot: Whether it only serves to pick beta.
    """

    strategy: str
    ranks: int
    batch_size: int
    learning_rate: float
    seed: int
    clock: str
    samples: int
    beta: float | None = None
    is_pilot: bool = False

    @property
    def key(self) -> str:
        """What it is known by in a file; beta that a pilot picks is no part of it."""
        words = [f"{name}={value}" for name, value in asdict(self).items() if name != "beta" or self.is_pilot]
        return " ".join(words)

    @property
    def place(self) -> Place:
        """What it tells of."""
        return self.strategy, self.ranks, self.batch_size, self.learning_rate, self.clock, self.seed


class PaperWorkload(FashionMNIST):
    """The paper's optimizer on a small network; the rate is divided at fixed samples seen by all.

    Args:
        samples: Of a whole run.
        share: Samples of one rank's step.
    """

    def __init__(self, *, samples: int, share: int) -> None:
        super().__init__(normalization="batch", validation_samples=_VALIDATION_SAMPLES)
        self._share = share
        self.schedule_settings = StepSchedule(at_samples=tuple(round(samples * s) for s in DIVISIONS))

    def model(self) -> nn.Module:
        return Network(share=self._share)

    def optimizer(self, parameters: Any, learning_rate: float) -> optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
        )


class Scorer:
    """Loss and accuracy on validation data, under batch-norm moments of the scored parameters.

    All strategies are scored alike: moments are those of some training samples, estimated anew at each mark.

    Args:
        training: From which samples for moments are drawn.
        validation: What is scored.
        seed: Of that draw.
    """

    def __init__(self, training: LabelledImages, validation: LabelledImages, seed: int) -> None:
        chosen = np.random.default_rng(seed).choice(len(training), _NORM_SAMPLES, replace=False)
        self._for_moments = training.images[torch.from_numpy(chosen)]
        self._validation = validation

    def score(self, network: Network) -> tuple[float, float]:
        """Loss and accuracy."""
        moments = network.moments(self._for_moments)
        losses: list[Tensor] = []
        right = 0
        for start in range(0, len(self._validation), _SCORED_AT_ONCE):
            images = self._validation.images[start : start + _SCORED_AT_ONCE]
            labels = self._validation.labels[start : start + _SCORED_AT_ONCE]
            scores = network.scores(images, moments)
            losses.append(functional.cross_entropy(scores, labels, reduction="sum"))
            right += int((scores.argmax(dim=1) == labels).sum())
        return float(sum(losses)) / len(self._validation), right / len(self._validation)


def trained_of(run: Run, clock: Clock) -> Trained:
    """What is emulated: the same for the same seed, whatever the strategy and the clock."""
    workload = PaperWorkload(samples=run.samples, share=run.batch_size // run.ranks)
    torch.manual_seed(run.seed)
    model = workload.model()
    num_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    axes: dict[str, Any] = {"nodes": run.ranks, "batch_size": run.batch_size}
    axes |= {"learning_rate": run.learning_rate, "strategy": run.strategy}
    if run.strategy == "elastic_averaging":
        assert run.beta is not None, "a pilot picks beta before"
        axes["beta"] = run.beta
    if run.strategy.startswith("gossip"):
        axes["tau"] = 1
    return Trained(
        workload=workload,
        make_model=lambda: copy.deepcopy(model),
        data=workload.training_data(),
        configuration=with_knobs(Configuration(axes)),
        num_ranks=run.ranks,
        cluster=clock.cluster(run.ranks, num_bytes),
        seed=run.seed,
    )


def train(run: Run) -> dict[str, Any]:
    """Trains, and prices the curve on every clock.

    Returns:
        The run; `curve` of `[samples, loss, accuracy]`; `seconds` by clock, one a point of the curve; mean
        staleness in steps; and what it took here.
    """
    torch.set_num_threads(1)
    began = time.perf_counter()
    trained = trained_of(run, CLOCKS[run.clock])
    emulated = stacked_emulation(trained)
    workload = trained.workload
    scorer = Scorer(workload.training_data(), workload.validation_data(), run.seed)  # type: ignore[arg-type]
    curve: list[tuple[int, float, float]] = []
    own: list[float] = []
    scoring_seconds = 0.0
    for point in points_of(run.samples):
        emulated.run(samples=point)
        scoring_began = time.perf_counter()
        with emulated.scored():
            loss, accuracy = scorer.score(emulated.model)  # type: ignore[arg-type]
        scoring_seconds += time.perf_counter() - scoring_began
        if not (emulated.is_finite and math.isfinite(loss)):
            break
        curve.append((emulated.samples, round(loss, 4), round(accuracy, 4)))
        own.append(emulated.seconds)
    seconds = {run.clock: own}
    for name, clock in CLOCKS.items():
        if name != run.clock:
            cluster = clock.cluster(run.ranks, 4 * emulated.model.vector.numel())  # type: ignore[operator]
            empty = emulation(replace(trained, cluster=cluster, computes=False))
            seconds[name] = prices(empty, [samples for samples, _, _ in curve])
    return {
        **asdict(run),
        "is_finite": emulated.is_finite,
        "curve": curve,
        "seconds": {name: [round(s, 3) for s in found] for name, found in seconds.items()},
        "staleness_steps": emulated.staleness_steps,
        "machine_seconds": round(time.perf_counter() - began, 1),
        "scoring_seconds": round(scoring_seconds, 1),
    }


def points_of(samples: int) -> list[int]:
    """Samples at which a run is scored."""
    return [round(samples * share) for share in POINTS]


def prices(empty: Emulation, samples: Sequence[int]) -> list[float]:
    """When an emulation that computes nothing has seen so many samples."""
    found = []
    for count in samples:
        empty.run(samples=count)
        found.append(empty.seconds)
    return found
