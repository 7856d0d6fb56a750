"""The bank: the search against baselines on all recordings and on kinds of problems derived from each.

    python -m benchmarks.bank [--recordings PATH,...] [--kinds plain,late-30,...]
        [--samplers model,tpe-sha,...] [--seeds 5] [--processes 2] [--label NAME] [--against SAMPLER|LABEL]
        [--quick] [--report-only] [--json]

`benchmarks.bank_kinds` describes the kinds. Each is searched for seconds and, where the recording has prices,
for dollars with a deadline (the median training time of what arrives); for an answer that serves one training
and for one that serves many. Costs are in the best configuration's own cost. A search ends by itself or after
60 of these units (`model`) or 100 (the others), and `model` after 1,000 decisions, too. What was not reached
counts as 60 or 100.

For each kind it prints the geometric mean over recordings and the worst recording of the cost (the median of
the seeds): until the recommendation is within 20% of the best to stay there (many trainings), or until the
first run arrives in time (one). Coverage and width are those of 90% intervals that were stated after the
first score was read. `bound held` counts searches that stopped since no probe pays back: in what share the
recommendation costs at most the stated bound times the best. `gave up` is the share that said that nothing
reaches the target. The table of probabilities compares what was stated with what came true, where the
recording tells. Ratios to another sampler are paired by seed.

Results are stored in `--out` as they come. A search that is stored there is not run again: a baseline's by
recording, kind, goal, trainings and seed, the model's also by `--label`, by default a digest of its code. So
a run can be ended and resumed, and two versions compared: `--against LABEL`. `--quick` runs one seed of
`model` and `tpe-sha` on four recordings, with all kinds but two.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, get_args

import typer

from benchmarks.bank_kinds import KINDS
from benchmarks.bank_report import report, tables
from benchmarks.bank_search import (
    MODEL,
    TRAININGS,
    Results,
    Search,
    cells_of,
    code_label,
    execute,
    searches_of,
)
from benchmarks.peers import PEERS, missing
from benchmarks.replay_optuna import BASELINES
from benchmarks.replay_problem import Goal
from tuner.domain.errors import TunerError

_ROOT = Path(__file__).resolve().parents[1]
RECORDINGS = _ROOT.parent / "shared" / "recordings"
SUFFIX = ".jsonl.gz"
OUT = _ROOT / "bank-out" / "results.jsonl"
SAMPLERS = (MODEL, *BASELINES, *PEERS)
DEFAULT_SAMPLERS = (MODEL, "tpe", "tpe-sha", "random")
#: Of `--quick`: one recording of each source and pace of scoring.
QUICK_RECORDINGS = ("bank-cnn_epochs-slow", "bank-tabular-slow", "stepback-cifar10-resnet20", "trimtuner-rnn")
#: Of `--quick`: scores after 10% of the best training change little, and every 4th is much like late scores.
QUICK_KINDS = tuple(name for name in KINDS if name not in ("late-10", "rare"))
QUICK_SAMPLERS, QUICK_SEEDS = (MODEL, "tpe-sha"), 1
#: Seconds between two lines of progress.
_PROGRESS_SECONDS = 30.0


def run(searches: Sequence[Search], results: Results, processes: int) -> None:
    """Carries out what is not stored yet, and stores each result as it comes."""
    left = [search for search in searches if search.key not in results.rows]
    _say(f"{len(searches) - len(left)} of {len(searches)} searches are stored")
    if not left:
        return
    # Each process on one core: the matrices are small.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    started = reported = time.monotonic()
    with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
        try:
            for number, future in enumerate(as_completed([pool.submit(execute, s) for s in left]), 1):
                results.add(future.result())
                now = time.monotonic()
                if now - reported >= _PROGRESS_SECONDS:
                    reported = now
                    _say(f"{number} of {len(left)} in {now - started:.0f} s")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _say(f"{len(left)} searches in {time.monotonic() - started:.0f} s")


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _files(given: Sequence[str], quick: bool) -> list[Path]:
    """The recordings; a folder stands for all in it."""
    found: list[Path] = []
    for path in map(Path, given):
        found += sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if quick:
        found = [path for path in found if path.name.removesuffix(SUFFIX) in QUICK_RECORDINGS]
    if not found:
        raise typer.BadParameter(f"there is no *{SUFFIX} in {', '.join(given)}", param_hint="--recordings")
    return found


def _chosen(given: str, allowed: Sequence[str], option: str) -> list[str]:
    names = given.split(",")
    for name in names:
        if name not in allowed:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(allowed)}", param_hint=option)
    return names


def main(
    recordings: Annotated[str, typer.Option(help="Files or folders.")] = str(RECORDINGS),
    kinds: Annotated[str | None, typer.Option(help=f"Some of {','.join(KINDS)}.")] = None,
    goals: Annotated[str, typer.Option(help="What is minimized.")] = ",".join(get_args(Goal)),
    trainings: Annotated[str, typer.Option(help="many, one or both.")] = "many,one",
    samplers: Annotated[str | None, typer.Option(help=f"Some of {','.join(SAMPLERS)}.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Searches of each sampler; 5 if absent.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Searches at a time.")] = 2,
    label: Annotated[str | None, typer.Option(help="Version of the model; a digest of its code.")] = None,
    against: Annotated[
        str, typer.Option(help="Sampler, or label of the model, to compare with.")
    ] = "tpe-sha",
    out: Annotated[Path, typer.Option(help="The file of results.")] = OUT,
    quick: Annotated[bool, typer.Option("--quick", help="A subset of a few minutes.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Search nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as an object on stdout.")] = False,
) -> None:
    """Judge the search by the bank of recordings."""
    names = _chosen(
        samplers or ",".join(QUICK_SAMPLERS if quick else DEFAULT_SAMPLERS), SAMPLERS, "--samplers"
    )
    for name in [name for name in names if name in PEERS and missing(name) is not None]:
        _say(str(missing(name)))
        names.remove(name)
    chosen_kinds = _chosen(kinds or ",".join(QUICK_KINDS if quick else KINDS), list(KINDS), "--kinds")
    chosen_goals: list[Goal] = [g for g in get_args(Goal) if g in _chosen(goals, get_args(Goal), "--goals")]
    served = dict(zip(("many", "one"), TRAININGS, strict=True))
    many = [served[name] for name in _chosen(trainings, list(served), "--trainings")]
    count = seeds or (QUICK_SEEDS if quick else 5)
    mine = label or code_label()
    try:
        results = Results(out)
        with tempfile.TemporaryDirectory(prefix="paceline-bank-") as folder:
            cells = [
                cell
                for path in _files(recordings.split(","), quick)
                for cell in cells_of(path, chosen_kinds, chosen_goals, Path(folder))
            ]
            searches = searches_of(cells, names, count, many, mine)
            if not report_only:
                run(searches, results, processes)
    except TunerError as error:
        raise typer.BadParameter(str(error)) from error
    other = against if against in SAMPLERS else f"{MODEL} {against}"
    if against not in SAMPLERS:
        searches += searches_of(cells, [MODEL], count, many, against)
    rows = [results.rows[search.key] for search in searches if search.key in results.rows]
    if not rows:
        labels = sorted({row["label"] for row in results.rows.values() if row["label"]})
        raise typer.BadParameter(
            f"{out} has none of these searches; its labels are {', '.join(labels) or 'none'}"
        )
    found = report(rows, f"{MODEL} {mine}", other)
    typer.echo(json.dumps(found, indent=1) if as_json else tables(found))


if __name__ == "__main__":
    typer.run(main)
