"""Times decisions of the search by number of slices, for recorded jobs and jobs that train.

    OMP_NUM_THREADS=1 python -m benchmarks.suggestion [--slices 200] [--repeats 5] [--json]
    OMP_NUM_THREADS=1 python -m benchmarks.suggestion FILE [--slices 200] [--json]

Without a file, two made searches with 400 or more candidates are timed at 50, 200 and 2,000 slices: one of a
recorded job, one of a job that trains. A decision is all that the search computes between two slices: it
reads the state from the probes, and the policy decides.

- `first`: the first decision of a fresh process, everything but imports, as after a restart.
- `later`: a decision after one more slice, with what earlier decisions of the process computed.

Figures are medians over fresh processes (`--repeats`), in CPU seconds: on a machine where nothing else runs,
the decision takes as long. The ledger is not included.

With a file, a recording is searched until it has so many slices; the median and the longest seconds of the
last tenth of the policy's decisions are printed.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.ma  # `np.median` imports it at its first call; imports are not timed
import typer
from threadpoolctl import threadpool_limits

from benchmarks.made_recording import MADE_TRAININGS, made_problem, recorded_probes
from benchmarks.made_search import EPOCH_SAMPLES, made_cluster, made_job, made_probes
from benchmarks.replay_problem import problem
from benchmarks.replay_search import ReplayedSearch, steps
from tuner.domain.ledger import ProbeRecord
from tuner.recordings.recording import NEUTRAL_EPOCH_SAMPLES
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Stop
from tuner.search.runs import RunCache
from tuner.search.slope_priors import NEUTRAL
from tuner.search.state import read_state

Kind = Literal["recorded", "trains"]
KINDS: tuple[Kind, ...] = ("recorded", "trains")
SLICES = (50, 200, 2_000)
#: Decisions after the first that are timed in each process, each after one more slice.
_NUM_LATER = 5


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Decisions of one process.

    Args:
        candidates: Configurations that were forecast.
        first: Seconds of the first decision.
        later: Seconds of each decision after it.
    """

    candidates: int
    first: float
    later: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures of one search.

    Args:
        kind: Whether the job is recorded or trains.
        slices: Slices known to the last decision of each process.
        candidates: Configurations that were forecast.
        first_seconds: Median over fresh processes of their first decision.
        longest_first_seconds: The longest of them.
        later_seconds: Median of the decisions after the first.
        longest_later_seconds: The longest of them.
    """

    kind: Kind
    slices: int
    candidates: int
    first_seconds: float
    longest_first_seconds: float
    later_seconds: float
    longest_later_seconds: float


def made_decisions(
    kind: Kind, num_slices: int, *, num_later: int = _NUM_LATER, repeats: int = 1
) -> list[Timed]:
    """Times the first decision of a made search and those after it, in fresh processes.

    Args:
        kind: Whether the job is recorded or trains.
        num_slices: Slices known to the last decision.
        num_later: How many decisions follow the first, each after one more slice.
        repeats: How many processes, one after the other.
    """
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        made = made_problem(Path(folder)) if kind == "recorded" else None
        probes = made_probes(num_slices) if made is None else recorded_probes(made, num_slices)
        path = None if made is None else made.path
        known = growing(probes, num_later)
        return list(pool.map(_timed, [path] * repeats, [known] * repeats))


def _timed(recording: Path | None, known: Sequence[Sequence[ProbeRecord]]) -> Timed:
    """Times one decision for each state of the probes; the job itself is read before.

    Args:
        recording: Of the recorded job; None for the one that trains.
        known: The probes known to each decision.
    """
    if recording is None:
        job, cluster, epoch_samples = made_job(), made_cluster(), EPOCH_SAMPLES
    else:
        job = problem(recording, "seconds", trainings=MADE_TRAININGS).job
        cluster, epoch_samples = job.resolved_cluster(), NEUTRAL_EPOCH_SAMPLES
    policy, cache = ModelPolicy(Believer(prior=NEUTRAL)), RunCache(job)
    found = []
    with threadpool_limits(limits=1, user_api="blas"):  # as `tuner.search.loop` does
        for probes in known:
            started = time.process_time()
            decision = policy.decide(read_state(job, cluster, probes, epoch_samples, cache=cache))
            found.append(time.process_time() - started)
    assert decision.beliefs is not None, "runs have scores, so that something is believed"
    return Timed(candidates=len(decision.beliefs.configurations), first=found[0], later=tuple(found[1:]))


def growing(probes: Sequence[ProbeRecord], num_later: int) -> list[list[ProbeRecord]]:
    """The probes without some last slices, and then with one more at a time, up to all of them."""
    shown = [list(probes)]
    for _ in range(num_later):
        *others, last = shown[0]
        remaining = last.slices[:-1]
        if remaining:
            others.append(replace(last, slices=remaining, outcome=remaining[-1].outcome))
        shown.insert(0, others)
    return shown


def made_row(kind: Kind, num_slices: int, repeats: int) -> Row:
    """Figures of one made search, each repetition in a fresh process.

    Args:
        kind: Whether the job is recorded or trains.
        num_slices: Slices known to the last decision.
        repeats: How many processes.
    """
    found = made_decisions(kind, num_slices, repeats=repeats)
    firsts, laters = [timed.first for timed in found], [s for timed in found for s in timed.later]
    return Row(
        kind=kind,
        slices=num_slices,
        candidates=found[0].candidates,
        first_seconds=float(np.median(firsts)),
        longest_first_seconds=max(firsts),
        later_seconds=float(np.median(laters)),
        longest_later_seconds=max(laters),
    )


def listed_seconds(recording: Path, num_slices: int) -> list[tuple[int, float]]:
    """Slices known and the policy's seconds of each decision of a search, until it has so many slices."""
    search = ReplayedSearch(problem(recording, "seconds", trainings=1_000_000_000))
    policy = ModelPolicy(Believer(prior=NEUTRAL))
    found = []
    for state, decision, seconds in steps(search, policy):
        found.append((len(state.slices), seconds))
        if len(state.slices) >= num_slices or isinstance(decision.action, Stop):
            break
    return found


def _milliseconds(median: float, longest: float) -> str:
    return f"{1000 * median:.0f} ms (longest {1000 * longest:.0f})"


def main(
    recording: Annotated[
        Path | None, typer.Argument(help="A recording to search; without one, made searches are timed.")
    ] = None,
    slices: Annotated[
        int | None, typer.Option(help="How many slices a decision rests on; 50, 200 and 2,000 if absent.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Fresh processes for each made search.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Print how long decisions take."""
    if recording is not None:
        found = listed_seconds(recording, slices or 200)
        last = [seconds for known, seconds in found if known > 0.9 * found[-1][0]]
        figures = {
            "recording": recording.name,
            "slices": found[-1][0],
            "median_seconds": float(np.median(last)),
            "longest_seconds": max(last),
        }
        typer.echo(json.dumps([figures] if as_json else figures))
        return
    rows = []
    for kind in KINDS:
        for num_slices in (slices,) if slices else SLICES:
            row = made_row(kind, num_slices, repeats)
            rows.append(asdict(row))
            if not as_json:
                first = _milliseconds(row.first_seconds, row.longest_first_seconds)
                later = _milliseconds(row.later_seconds, row.longest_later_seconds)
                typer.echo(f"{kind:8} {num_slices:5} slices, {row.candidates} candidates")
                typer.echo(f"         first decision {first}, later ones {later}")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
