"""Fits the chance that a run never reaches its target (`tuner.analytic.plateau`) again on recorded curves.

    python -m benchmarks.plateaus [--recordings FOLDER] [--further 2] [--json]

Of each run with at least six scores before the target, random first parts (prefixes) are taken. The product's
function computes the features of a prefix; the outcome is whether the run reaches the target later. A run
that does not counts only where the recording goes on for `--further` times the samples, twice by default. So
`never` means: not within the recording. A larger `--further` leaves out more of the runs that were recorded
too briefly, but also more that truly never arrive, since runs that arrive always count: the truth is between.

A workload is a family of recordings (the same training with a shorter or longer clock is one). It prints

- the coefficients of a logistic regression on all workloads, and the product's own,
- for each workload the log loss (nats) of a regression on the others, of the product's constants, and of the
  base rate of the others,
- a reliability table of the product's `chance_of_never`: how often runs never arrived, by the stated chance.

The product's constants were chosen on these recordings: only the regression on the others is judged unseen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from tuner.analytic import plateau
from tuner.recordings.file import load_recording
from tuner.recordings.recording import RecordedRun, Recording, samples_at
from tuner.search.start_value import progress_of

Array = npt.NDArray[np.float64]

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
#: Scores before the target that a run needs, and prefixes that are taken of it.
_FEWEST_SCORES, _NUM_PREFIXES = 6, 4
#: A run that does not arrive is recorded for so many times the samples of the prefix, or it is left out.
_FURTHER = 2.0
#: Curves start at this quantile of the first scores, all taken so that larger is better.
_START_QUANTILE = 0.1
#: Weight of the squared coefficients, which keeps a regression on few runs finite.
_RIDGE = 1e-2
_NUM_BINS = 10
_PRODUCT = (plateau.RECORDED.constant, plateau.RECORDED.of_log_folds, plateau.RECORDED.of_progress)
#: Ends of recordings' names that say how their clock runs.
_CLOCKS = ("-quick", "-slow")


@dataclass(frozen=True, kw_only=True)
class Prefixes:
    """First parts of runs, `(num,)` each but for the features.

    Args:
        features: A constant 1 and `plateau_features`, `(num, 3)`.
        never: 1 where the run did not reach the target later, else 0.
        stated: The product's `chance_of_never`.
        workloads: The family of each.
    """

    features: Array
    never: Array
    stated: Array
    workloads: npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How well one workload is predicted, by mean log loss (nats).

    Args:
        name: The family of recordings.
        num_prefixes: Prefixes of its runs.
        never: Share of them that never arrived.
        left_out: Log loss of a regression on the others; None where there are no others.
        product: Of the product's constants.
        base_rate: Of the others' share that never arrived; None where there are no others.
    """

    name: str
    num_prefixes: int
    never: float
    left_out: float | None
    product: float
    base_rate: float | None


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Prefixes whose stated chance lies in a range.

    Args:
        lower: The range's lower end.
        upper: Its upper end.
        num_prefixes: Prefixes in it.
        stated: Their mean stated chance.
        never: Share of them that never arrived.
    """

    lower: float
    upper: float
    num_prefixes: int
    stated: float
    never: float


def workload_of(path: Path) -> str:
    """The family of a recording's file: its name without how its clock runs."""
    name = path.name.removesuffix(".jsonl.gz")
    for clock in _CLOCKS:
        name = name.removesuffix(clock)
    return name


def prefixes_of(paths: Sequence[Path], *, further: float = _FURTHER, seed: int = 0) -> Prefixes:
    """The prefixes of all runs of some recordings.

    Args:
        paths: The files.
        further: A run that does not arrive is recorded for so many times the samples of the prefix.
        seed: Of the lengths of prefixes.

    Raises:
        ValueError: No run of them is long enough.
    """
    rng = np.random.default_rng(seed)
    found = [
        (*features, never, stated, workload_of(path))
        for path in paths
        for features, never, stated in _prefixes(load_recording(path), further, rng)
    ]
    if not found:
        raise ValueError(f"none of {len(paths)} recordings has runs with {_FEWEST_SCORES} scores")
    log_folds, progress, never, stated, workloads = zip(*found, strict=True)
    return Prefixes(
        features=np.stack([np.ones(len(found)), np.array(log_folds), np.array(progress)], axis=1),
        never=np.array(never, dtype=float),
        stated=np.array(stated),
        workloads=np.array(workloads),
    )


def _prefixes(
    recording: Recording, further: float, rng: np.random.Generator
) -> Iterator[tuple[tuple[float, float], bool, float]]:
    """Features of each prefix of a recording's runs, whether the run never arrived, and the stated chance."""
    sign = 1.0 if recording.maximize else -1.0
    target = sign * recording.target
    curves = [curve_of(run, sign) for run in recording.runs]
    firsts = [values[0] for _, values in curves if len(values)]
    start = float(np.quantile(firsts, _START_QUANTILE)) if firsts else target
    if start >= target:
        return
    for samples, values in curves:
        past = np.flatnonzero(values >= target)
        never, end = not len(past), int(past[0]) if len(past) else len(values)
        if end < _FEWEST_SCORES:
            continue
        progress = progress_of(values, start, target)
        for length in rng.integers(plateau.FEWEST_SCORES, end, size=_NUM_PREFIXES):
            if never and samples[-1] < further * samples[length - 1]:
                continue
            known = samples[:length], progress[:length]
            yield plateau.plateau_features(*known), never, plateau.chance_of_never(*known, plateau.RECORDED)


def curve_of(run: RecordedRun, sign: float) -> tuple[Array, Array]:
    """Samples and values (larger is better) of a run's scores, without that of the untrained model."""
    curve = run.curve[(run.curve[:, 1] > 0) & np.isfinite(run.curve[:, 2])]
    samples = np.array([samples_at(step, run.configuration) for step in curve[:, 1]], dtype=float)
    return samples, sign * curve[:, 2]


def logistic(features: Array, never: Array) -> Array:
    """Coefficients of a logistic regression, `(num_features,)`, by Newton's method.

    Args:
        features: `(num, num_features)`.
        never: 0 or 1, `(num,)`.
    """
    found = np.zeros(features.shape[1])
    ridge = _RIDGE * np.eye(len(found))
    for _ in range(50):
        chance = chances(features, found)
        gradient = features.T @ (never - chance) - ridge @ found
        curvature = (features * (chance * (1.0 - chance))[:, None]).T @ features + ridge
        step = np.linalg.solve(curvature, gradient)
        found = found + step
        if np.abs(step).max() < 1e-10:
            break
    return found


def chances(features: Array, coefficients: Array) -> Array:
    """Chance of never arriving, `(num,)`."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(features @ coefficients, -50.0, 50.0))), dtype=float)


def log_loss(never: Array, chance: Array | float) -> float:
    """Mean of -log of the chance given to what happened, in nats."""
    chance = np.clip(chance, 1e-6, 1.0 - 1e-6)
    return float(-np.mean(never * np.log(chance) + (1.0 - never) * np.log(1.0 - chance)))


def judged(prefixes: Prefixes) -> list[Workload]:
    """Each workload, predicted from the others and by the product."""
    found = []
    for name in np.unique(prefixes.workloads):
        own = prefixes.workloads == name
        left_out = base_rate = None
        if not own.all():
            coefficients = logistic(prefixes.features[~own], prefixes.never[~own])
            left_out = log_loss(prefixes.never[own], chances(prefixes.features[own], coefficients))
            base_rate = log_loss(prefixes.never[own], float(prefixes.never[~own].mean()))
        found.append(
            Workload(
                name=str(name),
                num_prefixes=int(own.sum()),
                never=float(prefixes.never[own].mean()),
                left_out=left_out,
                product=log_loss(prefixes.never[own], prefixes.stated[own]),
                base_rate=base_rate,
            )
        )
    return found


def reliability(prefixes: Prefixes) -> list[Bin]:
    """How often runs never arrived, by the product's stated chance; ranges without any are left out."""
    edges = np.linspace(0.0, 1.0, _NUM_BINS + 1)
    place = np.minimum((prefixes.stated * _NUM_BINS).astype(int), _NUM_BINS - 1)
    return [
        Bin(
            lower=float(edges[number]),
            upper=float(edges[number + 1]),
            num_prefixes=int((place == number).sum()),
            stated=float(prefixes.stated[place == number].mean()),
            never=float(prefixes.never[place == number].mean()),
        )
        for number in np.unique(place)
    ]


def main(
    recordings: Annotated[Path, typer.Option(help="Folder of recordings (*.jsonl.gz).")] = RECORDINGS,
    further: Annotated[
        float, typer.Option(help="Runs that never arrive count where recorded for so many times the samples.")
    ] = _FURTHER,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Fit the chance of never arriving again, and judge it."""
    prefixes = prefixes_of(sorted(recordings.glob("*.jsonl.gz")), further=further)
    fitted, workloads, bins = (
        logistic(prefixes.features, prefixes.never),
        judged(prefixes),
        reliability(prefixes),
    )
    if as_json:
        result = {
            "coefficients": dict(zip(("constant", "log_folds", "progress"), fitted.tolist(), strict=True)),
            "product": dict(zip(("constant", "log_folds", "progress"), _PRODUCT, strict=True)),
            "workloads": [asdict(workload) for workload in workloads],
            "reliability": [asdict(one) for one in bins],
        }
        typer.echo(json.dumps(result, indent=1))
        return
    for name, values in (("all workloads", fitted.tolist()), ("product", _PRODUCT)):
        constant, log_folds, progress = values
        typer.echo(f"{name}: log odds = {constant:.2f} {log_folds:+.2f} log f {progress:+.2f} progress")
    typer.echo("workload                    prefixes  never   log loss: left out  product  base rate")
    for one in workloads:
        left_out, base_rate = ("-" if v is None else f"{v:.3f}" for v in (one.left_out, one.base_rate))
        typer.echo(
            f"{one.name:27} {one.num_prefixes:4} {one.never:6.2f} "
            f"{left_out:>20} {one.product:8.3f} {base_rate:>10}"
        )
    typer.echo("stated chance   prefixes   mean  never")
    for interval in bins:
        ends = f"{interval.lower:.1f} to {interval.upper:.1f}"
        typer.echo(f"{ends}  {interval.num_prefixes:8}  {interval.stated:5.2f}  {interval.never:5.2f}")


if __name__ == "__main__":
    typer.run(main)
