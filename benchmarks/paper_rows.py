"""What `benchmarks.paper` reports: a row a run and clock, and which strategy wins where."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.paper_clocks import CLOCKS
from benchmarks.paper_train import GOSSIP, Place
from tuner.domain.measurement import CurvePoint, crossing

#: Validation accuracies to which times are told.
TARGETS = (0.75, 0.80, 0.84)

Point = tuple[int, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run, as one clock sees it.

    Args:
        strategy: How ranks are kept in step.
        ranks: How many.
        batch_size: Samples of a step of all ranks.
        learning_rate: Before it is divided.
        clock: Whose seconds.
        seed: Of the run.
        beta: Moving rate times ranks, of elastic averaging.
        repriced: Whether exchanges were scheduled on another clock, or an earlier one, and only seconds are
            of this one; never for all-reduce, whose training does not depend on the clock.
        curve: `(samples, seconds, loss, accuracy)` of each scoring.
        final_accuracy: Of the last scoring; that of chance for a run that ended in losses beyond numbers.
        seconds_to_targets: To each of `TARGETS`; None where it was not reached.
        staleness_steps: Mean age of what was mixed in.
    """

    strategy: str
    ranks: int
    batch_size: int
    learning_rate: float
    clock: str
    seed: int
    beta: float | None
    repriced: bool
    curve: tuple[Point, ...]
    final_accuracy: float
    seconds_to_targets: tuple[float | None, ...]
    staleness_steps: float | None

    @property
    def arrangement(self) -> Arrangement:
        """What strategies are compared at."""
        return Arrangement(
            clock=self.clock,
            ranks=self.ranks,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )

    @property
    def place(self) -> Place:
        """Of the run that tells of it."""
        return self.strategy, self.ranks, self.batch_size, self.learning_rate, self.clock, self.seed

    def seconds_to(self, accuracy: float) -> float | None:
        """When it first reached an accuracy."""
        points = [
            CurvePoint(training_seconds=seconds, step=0, samples=samples, value=value)
            for samples, seconds, _, value in self.curve
        ]
        found = crossing(points, accuracy, maximize=True)
        return found[1] if found else None

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """As `to_json` gave it."""
        curve = tuple((int(n), float(s), float(x), float(y)) for n, s, x, y in data["curve"])
        return cls(**{**data, "curve": curve, "seconds_to_targets": tuple(data["seconds_to_targets"])})


@dataclass(frozen=True, kw_only=True, order=True)
class Arrangement:
    """A cell of the map."""

    clock: str
    ranks: int
    batch_size: int
    learning_rate: float


def rows_of(lines: Iterable[Mapping[str, Any]]) -> list[Row]:
    """A row for each clock of each run that is no pilot.

    A clock for which a run was made with its own schedule of exchanges is told by that run alone. A setting
    in which gossip was not scheduled on its clock is left out: how old what it mixes in is depends on it.
    """
    rows = [
        _row(line, clock, line["strategy"] != "all_reduce" and line["clock"] != clock)
        for line in lines
        if not line["is_pilot"]
        for clock in CLOCKS
    ]
    return merged([], rows)


def merged(stored: Iterable[Row], anew: Iterable[Row]) -> list[Row]:
    """Rows of before with those that were made anew, which replace them.

    No row of a run's own clock is replaced by one that was priced for it, nor is a setting told in which
    a row of gossip is so priced.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in (*stored, *anew):
        key = (row.arrangement, row.strategy, row.seed)
        if key not in found or found[key].repriced or not row.repriced:
            found[key] = row
    untold = {row.arrangement for row in found.values() if row.repriced and row.strategy in GOSSIP}
    reported = [row for row in found.values() if row.arrangement not in untold]
    return sorted(reported, key=lambda row: (row.arrangement, row.strategy, row.seed))


def reseconded(row: Row, seconds: Sequence[float]) -> Row:
    """A row with other seconds, one a point of its curve."""
    curve = tuple(
        (samples, _rounded(own), loss, accuracy)
        for (samples, _, loss, accuracy), own in zip(row.curve, seconds, strict=True)
    )
    timed = replace(row, curve=curve)
    crossed = [timed.seconds_to(target) for target in TARGETS]
    return replace(
        timed, seconds_to_targets=tuple(None if found is None else _rounded(found) for found in crossed)
    )


def _row(line: Mapping[str, Any], clock: str, repriced: bool) -> Row:
    staleness, points = line["staleness_steps"], line["curve"]
    untimed = Row(
        strategy=line["strategy"],
        ranks=line["ranks"],
        batch_size=line["batch_size"],
        learning_rate=line["learning_rate"],
        clock=clock,
        seed=line["seed"],
        beta=line["beta"],
        repriced=repriced,
        curve=tuple((samples, 0.0, round(loss, 3), accuracy) for samples, loss, accuracy in points),
        final_accuracy=points[-1][2] if line["is_finite"] and points else 0.1,
        seconds_to_targets=(),
        staleness_steps=None if staleness is None else _rounded(staleness),
    )
    return reseconded(untimed, line["seconds"][clock])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One strategy in one setting, over its seeds.

    Args:
        strategy: Its name.
        seconds: To the target, one a seed that reached it.
        accuracies: Final ones, one a seed.
    """

    strategy: str
    seconds: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def always_reached(self) -> bool:
        """Whether every seed reached the target."""
        return len(self.seconds) == len(self.accuracies)

    @property
    def mean_seconds(self) -> float:
        """Geometric mean over seeds; infinite where one did not reach the target."""
        return math.exp(float(np.mean(np.log(self.seconds)))) if self.always_reached else math.inf

    @property
    def mean_accuracy(self) -> float:
        """Mean final accuracy."""
        return float(np.mean(self.accuracies))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Who wins in one setting.

    Args:
        arrangement: Which.
        soonest: Strategies in order of their time to the target; those that missed it are left out.
        best: All strategies in order of final accuracy.
        num_seeds: Fewest seeds of a strategy.
        repriced: Whether any row was priced from another clock's run.
    """

    arrangement: Arrangement
    soonest: tuple[Comparison, ...]
    best: tuple[Comparison, ...]
    num_seeds: int
    repriced: bool

    @property
    def lead(self) -> float | None:
        """The second's time over the winner's; None where nobody else arrived."""
        return self.soonest[1].mean_seconds / self.soonest[0].mean_seconds if len(self.soonest) > 1 else None

    @property
    def is_clear(self) -> bool:
        """Whether the winner's worst seed is before the second's best."""
        return len(self.soonest) < 2 or max(self.soonest[0].seconds) < min(self.soonest[1].seconds)

    @property
    def is_clearly_best(self) -> bool:
        """Whether the highest accuracy's worst seed is above the second's best."""
        return len(self.best) < 2 or min(self.best[0].accuracies) > max(self.best[1].accuracies)


def cells(rows: Sequence[Row], target: float) -> list[Cell]:
    """The map to one target: every setting in which more than one strategy was trained."""
    found = []
    for arrangement in sorted({row.arrangement for row in rows}):
        here = [row for row in rows if row.arrangement == arrangement]
        statuses = []
        for name in dict.fromkeys(row.strategy for row in here):
            own = [row for row in here if row.strategy == name]
            times = [seconds for row in own if (seconds := row.seconds_to(target)) is not None]
            statuses.append(
                Comparison(
                    strategy=name,
                    seconds=tuple(times),
                    accuracies=tuple(row.final_accuracy for row in own),
                )
            )
        if len(statuses) > 1:
            arrived = [comparison for comparison in statuses if comparison.always_reached]
            found.append(
                Cell(
                    arrangement=arrangement,
                    soonest=tuple(sorted(arrived, key=lambda comparison: comparison.mean_seconds)),
                    best=tuple(sorted(statuses, key=lambda comparison: -comparison.mean_accuracy)),
                    num_seeds=min(len(comparison.accuracies) for comparison in statuses),
                    repriced=any(row.repriced for row in here),
                )
            )
    return found
