"""Chooses batch and GPUs without one training: 12 throughput probes, and the noise scale of the first epoch.

    python -m benchmarks.static_pick [--json] [--throughput PATH] [--convergence PATH] [--draws 20]

For each app of Pollux's tables: candidates are the batches whose training was recorded, on the placements
on which steps of that batch were measured. Seconds come from a fit of 12 timing probes, drawn anew 20
times; samples from `benchmarks.models.batch_scaling` with the smallest batch's noise scale at the end of its
first epoch, and a run as long as its schedule. The choice has the smallest expected log time. It is judged
by recorded steps to the target (`pollux_tables.TARGETS`) times measured seconds, against the best
candidate's.

`goodput`: argmax of throughput x statistical efficiency at the first epoch's noise scale, held constant (Qiao
et al., OSDI 2021), on the same fit; `largest_batch`: the largest batch where its step is fastest; `with
branch probes`: statistics of the three smallest batches in the first epoch and at a quarter of the schedule,
as probes give them that start from a checkpoint there.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.models.batch_scaling import BatchScaling, fit_batch_scaling
from benchmarks.models.growing_noise import growing_noise
from benchmarks.pollux_tables import FALLING, TARGETS, Run, Timings, read_runs, read_timings
from benchmarks.topology_steps import StepModel, draw_probes, fit_steps

Array = npt.NDArray[np.float64]

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
NUM_PROBES = 12
#: Probes on up to so many nodes: cheap ones only, or the whole cluster.
PROBE_NODES = (4, 16)
_QUARTER = 0.25
_NUM_BRANCHES = 3
#: Points between two measured noise scales.
_NUM_BETWEEN = 24


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


def scaling(runs: Sequence[Run], shares: tuple[float, ...] = ()) -> BatchScaling:
    """Relative samples by batch, from statistics of one batch or several, the smallest first.

    Args:
        runs: Their first epochs are used, and the first run's length as the schedule's.
        shares: Where in the schedule statistics were measured besides.
    """
    first = runs[0]
    end = float(first.progress[-1])
    places = [0, *(int(np.searchsorted(first.progress, share * end)) for share in shares)]
    known = first.progress[places]
    between = np.geomspace(known[0], known[-1], _NUM_BETWEEN if shares else 1)
    scales = [
        np.exp(np.interp(np.log(between), np.log(known), np.log(run.noise_scales[places]))) for run in runs
    ]
    batches = np.array([run.batch_size for run in runs], dtype=float)
    noise = growing_noise(between / end, batches, np.stack(scales))
    return fit_batch_scaling([first.batch_size], [1.0], [0.0], noise=noise)


def expected_pick(offered: Candidates, steps: Array, samples: BatchScaling) -> int:
    """The candidate of the smallest expected log time, given seconds of its step."""
    batches = np.unique(offered.batch_sizes)
    expected = np.exp(samples.weights @ samples.draws(batches))
    relative = expected[np.searchsorted(batches, offered.batch_sizes)]
    return int(np.argmin(steps * relative / offered.batch_sizes))


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
    smallest = list(runs.values())[:_NUM_BRANCHES]
    early, branched = scaling(smallest[:1]), scaling(smallest, (_QUARTER,))
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


def foreseen(app: str, runs: dict[int, Run], samples: BatchScaling) -> dict[str, float | None]:
    """Samples of the largest batch over those of the smallest, with a 90% interval, and as measured."""
    lower, predicted, upper = samples.quantiles(np.array([float(max(runs))]), (0.05, 0.5, 0.95))[:, 0]
    ends = [runs[b].crossing(TARGETS[app], falling=app in FALLING) for b in (max(runs), min(runs))]
    measured = None
    if ends[0] and ends[1]:
        measured = ends[0][0] * max(runs) / (ends[1][0] * min(runs))
    return {
        "predicted": float(predicted),
        "lower": float(lower),
        "upper": float(upper),
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
