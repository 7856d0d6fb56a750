"""Chooses batch and GPUs without one training: 12 throughput probes, and the noise scale of the first epoch.

    python -m benchmarks.static_pick [--json] [--throughput PATH] [--convergence PATH] [--draws 20]

For each app of Pollux's tables: candidates are the batches whose training was recorded, on the placements
on which steps of that batch were measured. Seconds come from a fit of 12 timing probes, drawn anew 20
times; samples from the model that `run` uses (`tuner.analytic.samples_model`), with the smallest batch's
noise scale at the end of its first epoch, and a run as long as its schedule. The choice has the smallest
expected log time. It is judged by recorded steps to the target (`pollux_tables.TARGETS`) times measured
seconds, against the best candidate's.

`goodput`: argmax of throughput x statistical efficiency at the first epoch's noise scale, held constant (Qiao
et al., OSDI 2021), on the same fit; `largest_batch`: the largest batch where its step is fastest; `with
branch probes`: statistics of the smallest batch in the first epoch and at a quarter of the schedule, which a
probe that starts from a checkpoint there would give.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.batch_problems import arrived, tuned
from benchmarks.pollux_tables import FALLING, TARGETS, Run, Timings, read_runs, read_timings
from benchmarks.topology_steps import StepModel, draw_probes, fit_steps
from tuner.analytic.samples_model import SEED_SD, RatePrior, SamplesModel, fit_samples
from tuner.domain.measurement import NoiseStatistic

Array = npt.NDArray[np.float64]

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
NUM_PROBES = 12
#: Probes on up to so many nodes: cheap ones only, or the whole cluster.
PROBE_NODES = (4, 16)
_QUARTER = 0.25
#: The recorded noise scale of an epoch is a mean over its steps.
_NUM_ESTIMATES = 100
#: Standard deviations from the median to the ends of a 90% interval.
_NINETY = 1.645


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What can be chosen for one app, and how it does, one entry each, `(num,)`.

    Args:
        batch_sizes: Global batches.
        placements: GPUs used on each node.
        step_seconds: Measured, between the two local batches around it on a log scale.
        seconds: Steps to the target times step seconds; infinite where it was never reached.
    """

    batch_sizes: Array
    placements: tuple[tuple[int, ...], ...]
    step_seconds: Array
    seconds: Array

    def against_best(self, index: int) -> float:
        return float(self.seconds[index] / self.seconds.min())


def candidates(app: str, runs: dict[int, Run], timings: Timings) -> Candidates:
    """Recorded batches on the placements whose measured local batches hold them."""
    measured: dict[tuple[int, ...], list[tuple[float, float]]] = defaultdict(list)
    for placement, local, seconds in zip(
        timings.placements, timings.local_batch_sizes, timings.step_seconds, strict=True
    ):
        measured[placement].append((local, seconds))
    found = []
    for batch, run in runs.items():
        crossed = run.crossing(TARGETS[app], falling=app in FALLING)
        steps = crossed[0] if crossed else np.inf
        for placement, pairs in measured.items():
            local, seconds = np.array(sorted(pairs)).T
            own = batch / sum(placement)
            if local[0] <= own <= local[-1]:
                step = float(np.exp(np.interp(np.log(own), np.log(local), np.log(seconds))))
                found.append((float(batch), placement, step, step * steps))
    return Candidates(
        batch_sizes=np.array([f[0] for f in found]),
        placements=tuple(f[1] for f in found),
        step_seconds=np.array([f[2] for f in found]),
        seconds=np.array([f[3] for f in found]),
    )


def samples_model(run: Run, largest_batch_size: int, shares: Sequence[float] = ()) -> SamplesModel:
    """Samples by batch, from the noise statistics of one run and the length of its schedule.

    Args:
        run: That of the smallest batch. Its first epoch is used, and its length as the schedule's.
        largest_batch_size: The largest candidate.
        shares: Where in the schedule statistics were measured besides.
    """
    end = float(run.progress[-1])
    places = [0, *(int(np.searchsorted(run.progress, share * end)) for share in shares)]
    noise = tuple(
        NoiseStatistic(
            samples=int(run.progress[place]),
            noise=float(run.noise_scales[place]),
            squared_gradient=1.0,
            num_estimates=_NUM_ESTIMATES,
        )
        for place in places
    )
    prior = RatePrior(
        log_rate=0.0,
        sd=2.0,
        batch_size=float(run.batch_size),
        exponent=0.5,
        epoch_samples=float(run.progress[0]),
        largest_batch_size=float(largest_batch_size),
    )
    return fit_samples([replace(arrived(run.batch_size, end), noise=noise)], prior)


def expected_pick(offered: Candidates, steps: Array, samples: SamplesModel) -> int:
    """The candidate of the smallest expected log time, given seconds of its step."""
    expected, _ = samples.log_samples([tuned(int(batch)) for batch in offered.batch_sizes])
    return int(np.argmin(np.log(steps / offered.batch_sizes) + expected))


def goodput_pick(offered: Candidates, steps: Array, run: Run) -> int:
    """Pollux's: throughput times (N + B0) / (N + B), N the noise scale after the first epoch."""
    noise, smallest = run.noise_scales[0], run.batch_size
    efficiency = (noise + smallest) / (noise + offered.batch_sizes)
    return int(np.argmax(offered.batch_sizes / steps * efficiency))


def largest_pick(offered: Candidates, steps: Array) -> int:
    """The largest batch, where its step is fastest."""
    largest = offered.batch_sizes == offered.batch_sizes.max()
    return int(np.argmin(np.where(largest, steps, np.inf)))


def judge(app: str, runs: dict[int, Run], timings: Timings, nodes: int, draws: int) -> dict[str, Any]:
    """One app's picks over draws of the probes: medians, and the worst of ours."""
    offered, first = candidates(app, runs, timings), next(iter(runs.values()))
    early, branched = samples_model(first, max(runs)), samples_model(first, max(runs), (_QUARTER,))
    picks: dict[str, list[int]] = defaultdict(list)
    errors = []
    for seed in range(draws):
        probes = draw_probes(timings, NUM_PROBES, nodes, np.random.default_rng(seed))
        model: StepModel = fit_steps(app, timings, probes)
        steps = model.step_seconds(offered.placements, offered.batch_sizes)
        errors.append(np.mean(np.abs(steps / offered.step_seconds - 1)))
        picks["ours"].append(expected_pick(offered, steps, early))
        picks["branch"].append(expected_pick(offered, steps, branched))
        picks["goodput"].append(goodput_pick(offered, steps, first))
        picks["largest"].append(largest_pick(offered, steps))
    ratios = {name: [offered.against_best(i) for i in found] for name, found in picks.items()}
    chosen = Counter(picks["ours"]).most_common(1)[0][0]
    measured = goodput_pick(offered, offered.step_seconds, first)
    return {
        "app": app,
        "probe_nodes": nodes,
        "choice": _describe(offered, chosen),
        "best": _describe(offered, int(np.argmin(offered.seconds))),
        "time_to_target_against_best": float(np.median(ratios["ours"])),
        "worst_against_best": max(ratios["ours"]),
        "goodput_against_best": float(np.median(ratios["goodput"])),
        "goodput_on_measured_steps_against_best": offered.against_best(measured),
        "with_branch_probes_against_best": float(np.median(ratios["branch"])),
        "with_branch_probes_worst_against_best": max(ratios["branch"]),
        "samples_at_largest_batch": foreseen(app, runs, early),
        "with_branch_probes_samples_at_largest_batch": foreseen(app, runs, branched),
        "largest_batch_against_best": float(np.median(ratios["largest"])),
        "step_error": float(np.median(errors)),
        "candidates": len(offered.seconds),
        "draws": draws,
    }


def foreseen(app: str, runs: dict[int, Run], samples: SamplesModel) -> dict[str, float | None]:
    """Samples of the largest batch over those of the smallest, with a 90% interval, and as measured."""
    mean, covariance = samples.log_samples([tuned(max(runs)), tuned(min(runs))])
    difference = float(mean[0] - mean[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    sd = math.sqrt(variance + 2 * SEED_SD**2)
    ends = [runs[b].crossing(TARGETS[app], falling=app in FALLING) for b in (max(runs), min(runs))]
    measured = None
    if ends[0] and ends[1]:
        measured = ends[0][0] * max(runs) / (ends[1][0] * min(runs))
    return {
        "predicted": math.exp(difference),
        "lower": math.exp(difference - _NINETY * sd),
        "upper": math.exp(difference + _NINETY * sd),
        "measured": measured,
    }


def _describe(offered: Candidates, index: int) -> dict[str, Any]:
    placement = offered.placements[index]
    return {
        "batch_size": int(offered.batch_sizes[index]),
        "gpus": sum(placement),
        "nodes": len(placement),
        "placement": "".join(str(gpus) for gpus in placement),
    }


def main(
    throughput: Annotated[Path, typer.Option(help="Pollux's table of step times.")] = RECORDINGS
    / "pollux-throughput.csv",
    convergence: Annotated[Path, typer.Option(help="Pollux's table of convergence.")] = RECORDINGS
    / "pollux-convergence.csv",
    draws: Annotated[int, typer.Option(help="How often the probes are drawn anew.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Choose batch and GPUs of each app from probes alone."""
    runs, timings = read_runs(convergence), read_timings(throughput)
    rows = [judge(app, runs[app], timings[app], nodes, draws) for app in runs for nodes in PROBE_NODES]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        choice = row["choice"]
        typer.echo(
            f"{row['app']:12} probes on <= {row['probe_nodes']:2} nodes: batch {choice['batch_size']} on "
            f"{choice['gpus']} GPUs of {choice['nodes']} nodes, {row['time_to_target_against_best']:.2f}x "
            f"the best (worst draw {row['worst_against_best']:.2f}x); with branch probes "
            f"{row['with_branch_probes_against_best']:.2f}x; goodput {row['goodput_against_best']:.2f}x "
            f"(measured steps {row['goodput_on_measured_steps_against_best']:.2f}x); largest batch "
            f"{row['largest_batch_against_best']:.2f}x; steps off by {row['step_error']:.0%}; samples at the "
            f"largest batch {_foreseen_words(row['samples_at_largest_batch'])}, with branch probes "
            f"{_foreseen_words(row['with_branch_probes_samples_at_largest_batch'])}"
        )


def _foreseen_words(found: dict[str, float | None]) -> str:
    lower, predicted, upper, measured = (
        "never" if found[key] is None else f"{found[key]:.2f}"
        for key in ("lower", "predicted", "upper", "measured")
    )
    return f"{predicted}x [{lower}, {upper}] ({measured}x)"


if __name__ == "__main__":
    typer.run(main)
