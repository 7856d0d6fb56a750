"""Kinds of search problems derived from a recording: other scores, other start-ups, other targets.

Each kind is a function of a recording. It returns a recording, or None where the kind does not apply or would
change nothing. All are deterministic. The truth of a derived problem is computed from the derived recording.

Two rules hold for every kind that drops scores. A run keeps its last score, because that is the end of what
was recorded of it: a run that arrived still arrives, and a run that did not is as long as before. The
evaluation of the untrained model (step 0) counts as a score like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.replay_problem import true_seconds
from tuner.recordings.recording import Array, Recording

#: Configurations of a small space, and the size that a space has to exceed to be reduced to it.
NUM_FEW, FEW_FROM = 20, 60
#: Share of the configurations that reach the target at the edge, and the fewest that do.
EDGE_SHARE, FEWEST_AT_EDGE = 0.03, 2
#: A target out of reach lies past the best recorded value by this share of what the best run gained on the
#: median first score.
BEYOND_SHARE = 0.02
#: Start-up as a share of the time between scores.
SHORT_STARTUP = 1 / 30
#: Fewest scores of a curve from which its noise is estimated.
_FEWEST_FOR_NOISE = 7
#: Median of the absolute value of a standard normal.
_NORMAL_MEDIAN = 0.6745

Derivation = Callable[[Recording], Recording | None]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to derive a problem from a recording.

    Args:
        name: As given to `--kinds`.
        words: What it is, for people.
        derive: The derived recording; None where the kind does not apply.
        can_resume: Whether runs resume where they were.
        is_reachable: Whether any configuration reaches the target.
    """

    name: str
    words: str
    derive: Derivation
    can_resume: bool = True
    is_reachable: bool = True


def as_replayed(recording: Recording) -> Recording:
    """The recording with the replayed runs only: of several shares of the data the largest counts."""
    return replace(recording, runs=tuple(recording.run(c) for c in recording.configurations()), digest="")


def best_seconds(recording: Recording) -> float:
    """True training seconds of the configuration that reaches the target first."""
    return min(true_seconds(recording).values())


def late_scores(recording: Recording, share: float) -> Recording | None:
    """Drops each run's scores before a share of the best training's seconds, except its last one.

    Args:
        recording: What is changed.
        share: Of the training seconds of the best configuration.
    """
    first = share * best_seconds(recording)
    return _with_curves(recording, [_filtered(run.curve, run.curve[:, 0] >= first) for run in recording.runs])


def rare_scores(recording: Recording, every: int) -> Recording | None:
    """Keeps each run's every n-th score and its last one; the first score comes n times later.

    Args:
        recording: What is changed.
        every: n.
    """
    return _with_curves(
        recording,
        [_filtered(run.curve, np.arange(1, len(run.curve) + 1) % every == 0) for run in recording.runs],
    )


def doubled_noise(recording: Recording) -> Recording | None:
    """Adds normal noise to each score so that the noise of its curve is twice as large.

    The noise of a curve is estimated from what each score differs from the line through its two neighbours,
    over log steps (`curve_noise`); a curve of fewer than 7 scores gets the median of the others'. Independent
    noise of sqrt(3) times that standard deviation is added. The last score stays as it is, so that a run that
    arrived still arrives, and no score leaves the range of the recorded values. A run may arrive earlier than
    it did, by noise.
    """
    sizes = [curve_noise(run.curve) for run in recording.runs]
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    usual = float(np.median(known))
    values = np.concatenate([run.curve[:, 2] for run in recording.runs])
    low, high = float(values.min()), float(values.max())
    curves = []
    for number, (run, size) in enumerate(zip(recording.runs, sizes, strict=True)):
        curve = run.curve.copy()
        normals = np.random.default_rng((0, number)).standard_normal(len(curve))
        noise = math.sqrt(3) * (usual if size is None else size) * normals
        curve[:-1, 2] = np.clip(curve[:-1, 2] + noise[:-1], low, high)
        curves.append(curve)
    return _with_curves(recording, curves)


def curve_noise(curve: Array) -> float | None:
    """Standard deviation of independent noise in a curve's scores; None of fewer than 7 trained scores.

    The residual of a score is its difference from the line through its neighbours, divided by the standard
    deviation which that difference has under unit noise, sqrt(1 + w^2 + (1 - w)^2) with the neighbours'
    weights w and 1 - w. The estimate is the median of the absolute residuals over 0.6745.

    Args:
        curve: Seconds, step and value of each score, `(num_points, 3)`.
    """
    trained = curve[curve[:, 1] > 0]
    if len(trained) < _FEWEST_FOR_NOISE:
        return None
    x, y = np.log(trained[:, 1]), trained[:, 2]
    weight = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    residual = y[1:-1] - weight * y[:-2] - (1 - weight) * y[2:]
    unit = np.sqrt(1 + weight**2 + (1 - weight) ** 2)
    return float(np.median(np.abs(residual) / unit) / _NORMAL_MEDIAN)


def short_startup(recording: Recording) -> Recording | None:
    """Sets the start-up to a thirtieth of the time between two scores of a run (median over all scores)."""
    gaps = np.concatenate([np.diff(run.curve[:, 0]) for run in recording.runs])
    return (
        None if not len(gaps) else replace(recording, startup_seconds=SHORT_STARTUP * float(np.median(gaps)))
    )


def long_startup(recording: Recording) -> Recording | None:
    """Sets the start-up to the training seconds of the best configuration."""
    return replace(recording, startup_seconds=best_seconds(recording))


def edge_target(recording: Recording) -> Recording | None:
    """Moves the target so that only the best 3% of the configurations, and at least 2, reach it.

    The target is halfway between the best values of the last configuration that reaches it and of the next
    one. A run that was recorded only up to the old target ends there, and whether it would reach the new one
    is unknown: it counts as not reaching it.
    """
    bests = sorted(_best_values(recording), reverse=recording.maximize)
    num = max(FEWEST_AT_EDGE, round(EDGE_SHARE * len(bests)))
    while num < len(bests) and bests[num] == bests[num - 1]:
        num += 1
    if num >= len(bests):
        return None
    return replace(recording, target=(bests[num - 1] + bests[num]) / 2)


def unreachable_target(recording: Recording) -> Recording | None:
    """Moves the target past the best recorded value, so that no configuration reaches it.

    The distance is 2% of what the best value gained on the median first score, and at most half of the way to
    1 (a metric that is maximized and never exceeds 1) or to 0 (one that is minimized and never negative).
    """
    bests = _best_values(recording)
    scored = [run.curve[run.curve[:, 1] > 0] for run in recording.runs]
    first = float(np.median([curve[0, 2] for curve in scored if len(curve)]))
    best = max(bests) if recording.maximize else min(bests)
    distance = BEYOND_SHARE * abs(best - first)
    if recording.maximize and best <= 1:
        distance = min(distance, (1 - best) / 2)
    if not recording.maximize and best >= 0:
        distance = min(distance, best / 2)
    if distance <= 0:
        return None
    return replace(recording, target=best + distance if recording.maximize else best - distance)


def few_configurations(recording: Recording) -> Recording | None:
    """Keeps 20 configurations drawn at random, the first among those that arrive; only of more than 60."""
    runs = recording.runs
    if len(runs) <= FEW_FROM:
        return None
    rng = np.random.default_rng(0)
    arriving = [i for i, run in enumerate(runs) if math.isfinite(recording.truth_seconds(run))]
    first = int(rng.choice(arriving))
    others = rng.permutation([i for i in range(len(runs)) if i != first])[: NUM_FEW - 1]
    return replace(recording, runs=tuple(runs[i] for i in sorted([first, *map(int, others)])))


def _unchanged(recording: Recording) -> Recording:
    return recording


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(name="plain", words="as recorded", derive=_unchanged),
        *(
            Kind(
                name=f"late-{percent}",
                words=f"first score after {percent}% of the best training",
                derive=partial(late_scores, share=percent / 100),
            )
            for percent in (10, 30, 100)
        ),
        Kind(name="rare", words="every 4th score", derive=partial(rare_scores, every=4)),
        Kind(name="noisy", words="noise doubled", derive=doubled_noise),
        Kind(
            name="short-startup",
            words="start-up a thirtieth of the time between scores",
            derive=short_startup,
        ),
        Kind(name="long-startup", words="start-up as long as the best training", derive=long_startup),
        Kind(name="edge", words="target at the best 3%", derive=edge_target),
        Kind(
            name="unreachable",
            words="a target that nothing reaches",
            derive=unreachable_target,
            is_reachable=False,
        ),
        Kind(name="few", words=f"{NUM_FEW} configurations only", derive=few_configurations),
        Kind(name="no-resume", words="runs cannot resume", derive=_unchanged, can_resume=False),
    )
}


def derived(kind: Kind, recording: Recording) -> Recording | None:
    """The recording of a kind, without the runs that no replay uses; None where the kind does not apply."""
    found = kind.derive(as_replayed(recording))
    return None if found is None else replace(found, name=recording.name)


def _filtered(curve: Array, chosen: np.ndarray) -> Array:
    """The chosen scores, and the last one."""
    if not len(curve):
        return curve
    rows = np.asarray(chosen, dtype=bool).copy()
    rows[-1] = True
    return np.asarray(curve[rows], dtype=float)


def _with_curves(recording: Recording, curves: Sequence[Array]) -> Recording | None:
    """The recording with other curves; None where all are as before."""
    before = [run.curve for run in recording.runs]
    if all(np.array_equal(old, new) for old, new in zip(before, curves, strict=True)):
        return None
    changed = (replace(run, curve=curve) for run, curve in zip(recording.runs, curves, strict=True))
    return replace(recording, runs=tuple(changed))


def _best_values(recording: Recording) -> list[float]:
    """The best value of each run after its first step; runs without one are left out."""
    scored = [run.curve[run.curve[:, 1] > 0, 2] for run in recording.runs]
    return [float(v.max() if recording.maximize else v.min()) for v in scored if len(v)]
