"""Searches of made training scripts on a virtual clock, judged by the computed truth.

    python -m benchmarks.made_scripts [--jobs 60] [--first 0] [--processes 1] [--short] [--json]
        [--output FILE]
    python -m benchmarks.made_scripts --fit [--jobs 400] [--first 2000]

A job tunes batch size and learning rate of a script that scores once or four times an epoch. Its learning
curve has one of six shapes. Sizes, noise, chance level and start-up are random; half of the scripts resume
(`benchmarks.made_scripts_curves`). `ModelPolicy` searches it as it would a user's command, until a training
reaches the target or 30 times the best training's seconds are spent. Nothing trains and nothing sleeps.

With `--short`, start-up takes one to five times as long as the best training, the present settings are 5 to
50 times slower than the best, and the answer serves 20 trainings (`short_script`).

Four tables have a row for each shape, for scripts that resume and those that start over, and for all jobs:

- `searches`: of the jobs whose target some configuration reaches, how many arrived, what they spent until
  then (or in all) and the true training seconds of the answer, both over the best configuration's training
  seconds (geometric means; of answers that arrive), and how many were wrongly called unreachable. Of the
  others, how many were called unreachable, and how many of these with at most half of the budget spent.
- `intervals`: predictions of started runs that do arrive, by the share of the run known. How many 90%
  intervals hold the truth, their median width (upper over lower end), and the median of the predicted median
  over the truth.
- `totals`: of the reachable, the search and all further trainings that the answer serves, over the least
  possible: one start-up, and all trainings with the best configuration (geometric mean and 90th percentile).
  Of searches that end since no probe pays back, the share of stated bounds that held (with 90% probability
  nothing is more than so many times as fast), the median bound, and the median number of probes.
- `chances`: the stated chance that a started run arrives, and the share that does. In each range every job
  counts as one, since jobs that never arrive make most predictions.

`--fit` fits the log odds of never arriving (`tuner.analytic.plateau.TRAINED`) again, by a logistic regression
on random first parts of curves. Half of the jobs are fitted; the log loss (nats) is on the other half.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
import typer

from benchmarks.made_scripts_curves import SHAPES, MadeScript, configurations, made_script, short_script
from benchmarks.memory_ledger import MemoryLedger
from benchmarks.plateaus import chances, log_loss, logistic
from tuner.analytic import plateau
from tuner.domain.checkpoints import write_atomically
from tuner.domain.cluster import Cluster
from tuner.domain.ledger import PredictedAgainstMeasured, PredictionRecord
from tuner.job import Job
from tuner.probes import Prober
from tuner.probes.recorded import RecordedProber
from tuner.search.believer import Believer
from tuner.search.context import SearchContext
from tuner.search.loop import Search
from tuner.search.model_policy import ModelPolicy
from tuner.search.optuna_trials import StudyTrials
from tuner.search.policy import StopKind
from tuner.search.sampler import baseline_sampler
from tuner.search.start_value import guessed_start, progress_of

Row = dict[str, Any]

#: Ranges of the share of a run that is known when it is predicted, and of stated chances.
SHARES = ((0.0, 0.025), (0.025, 0.1), (0.1, 0.25), (0.0, 0.25), (0.25, 0.9))
CHANCES = ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0))
#: Of the fit: curves of a job, first parts of each, runs that show where curves start, and the progress after
#: which no search goes on.
_NUM_CURVES, _NUM_PARTS, _NUM_FIRSTS, _MOST_PROGRESS = 8, 3, 3, 5.0
PRODUCT = (plateau.TRAINED.constant, plateau.TRAINED.of_log_folds, plateau.TRAINED.of_progress)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One search.

    Args:
        script: What it tuned.
        spent_seconds: What it spent.
        num_slices: Slices that it ran.
        num_probes: Configurations that it tried.
        has_arrived: Whether a training reached the target, which ends the search.
        stop: Why it ended.
        answer_seconds: True training seconds of the answer; infinite if it never arrives, or without one.
        regret_bound: The factor that nothing is stated to be faster than the answer by; infinite without one.
        predictions: Of runs that were started, with their true training seconds.
    """

    script: MadeScript
    spent_seconds: float
    num_slices: int
    num_probes: int
    has_arrived: bool
    stop: StopKind
    answer_seconds: float
    regret_bound: float
    predictions: tuple[PredictedAgainstMeasured, ...]

    @property
    def total_over_least(self) -> float:
        """Seconds of the search and of all further trainings, over those of one that knows the best."""
        script = self.script
        further = script.trainings - self.has_arrived
        least = script.startup_seconds + script.trainings * script.best_seconds
        return (self.spent_seconds + further * self.answer_seconds) / least

    def row(self) -> Row:
        """For JSON, without the predictions; None where a number is infinite."""
        seconds = {
            "best_seconds": self.script.best_seconds,
            "budget_seconds": self.script.budget_seconds,
            "spent_seconds": self.spent_seconds,
            "answer_seconds": self.answer_seconds,
            "regret_bound": self.regret_bound,
            "total_over_least": self.total_over_least,
        }
        return {
            **{name: getattr(self.script, name) for name in ("seed", "shape", "resumes")},
            **{name: _finite(value) for name, value in seconds.items()},
            **{"num_slices": self.num_slices, "num_probes": self.num_probes},
            **{"arrived": self.has_arrived, "stop": self.stop.value},
        }


def searched(seed: int, is_short: bool = False) -> Searched:
    """Searches the made script of a seed; the same seed gives the same search.

    Args:
        seed: Of the script and of the search.
        is_short: Whether it is a `short_script`.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _searched((short_script if is_short else made_script)(seed), Path(folder))


def script_prober(script: MadeScript, cluster: Cluster) -> RecordedProber:
    """Trains a script on a virtual clock; each slice pays for its start-up, as that of a real script does."""
    return RecordedProber(
        replace(script.recording, startup_seconds=script.startup_seconds),
        cluster=cluster,
        can_resume=script.resumes,
        pays_to_resume=True,
    )


def virtual_context(
    script: MadeScript, job: Job, cluster: Cluster, prober: Prober, folder: Path
) -> SearchContext:
    """What a search of a made script needs: a ledger in memory, and the prober's clock.

    Args:
        script: What is searched.
        job: Its job.
        cluster: What it runs on.
        prober: Trains it on a virtual clock.
        folder: Of the probes.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ledger = MemoryLedger(clock=prober.now)
    sampler = baseline_sampler("random", job.search_space(), script.seed)
    return SearchContext(
        job=job,
        cluster=cluster,
        study=ledger.open_study(job.name, job.name, {}),
        ledger=ledger,
        trials=StudyTrials(optuna.create_study(sampler=sampler), job),
        folder=folder,
        epoch_samples=script.recipe.epoch_samples,
        owner="benchmark",
        clock=prober.now,
        sleep=lambda _: None,
    )


def _searched(script: MadeScript, folder: Path) -> Searched:
    job = script.job()
    cluster = replace(job.resolved_cluster(), cores_per_host=1)
    prober = script_prober(script, cluster)
    context = virtual_context(script, job, cluster, prober, folder)
    loop = Search(context, prober, ModelPolicy(Believer(seed=script.seed)))
    result = loop.run()
    stop = result.stop
    state, answer = loop.state(), result.beliefs.recommended if result.beliefs else None
    return Searched(
        script=script,
        spent_seconds=state.spent.seconds,
        num_slices=len(state.slices),
        num_probes=len(state.probes),
        has_arrived=any(run.arrived for run in state.runs.values()),
        stop=stop.kind,
        answer_seconds=math.inf if answer is None else script.seconds_to_target(answer),
        regret_bound=math.inf if answer is None or result.beliefs is None else result.beliefs.regret_bound,
        predictions=tuple(
            _compared(p, script)
            for p in context.ledger.predictions(context.study.study_id)
            if p.seconds_observed
        ),
    )


def _compared(prediction: PredictionRecord, script: MadeScript) -> PredictedAgainstMeasured:
    truth = script.seconds_to_target(prediction.configuration)
    share = prediction.seconds_observed / truth
    return PredictedAgainstMeasured(prediction=prediction, measured_seconds=truth, share_observed=share)


def report(searches: Sequence[Searched]) -> dict[str, list[Row]]:
    """The tables, see this file's head; None where there is nothing to take a mean of."""
    groups: dict[str, Sequence[Searched]] = {
        **{shape: [one for one in searches if one.script.shape == shape] for shape in SHAPES},
        "resuming": [one for one in searches if one.script.resumes],
        "repeating": [one for one in searches if not one.script.resumes],
        "all": searches,
    }
    groups = {name: group for name, group in groups.items() if group}
    return {
        "searches": [{"jobs": name, **outcomes(group)} for name, group in groups.items()],
        "totals": [{"jobs": name, **totals(group)} for name, group in groups.items()],
        "intervals": [
            {"jobs": name, "share_above": low, "share_up_to": high, **intervals(group, low, high)}
            for low, high in SHARES
            for name, group in groups.items()
        ],
        "chances": [
            {"jobs": name, "from": low, "to": high, **reliability(group, low, high)}
            for low, high in CHANCES
            for name, group in groups.items()
        ],
    }


def outcomes(searches: Sequence[Searched]) -> Row:
    """How searches ended: a row of the first table without its name."""
    reachable = [one for one in searches if one.script.best_seconds < math.inf]
    others = [one for one in searches if one.script.best_seconds == math.inf]
    called = [one for one in others if one.stop is StopKind.UNREACHABLE]
    regrets = [one.answer_seconds / one.script.best_seconds for one in reachable]
    regrets = [regret for regret in regrets if regret < math.inf]
    spent = [one.spent_seconds / one.script.best_seconds for one in reachable]
    return {
        "reachable": len(reachable),
        "arrived": sum(one.has_arrived for one in reachable),
        "spent_over_best": float(np.exp(np.mean(np.log(spent)))) if spent else None,
        "answers": len(regrets),
        "regret": float(np.exp(np.mean(np.log(regrets)))) if regrets else None,
        "wrongly_called": sum(one.stop is StopKind.UNREACHABLE for one in reachable),
        "unreachable": len(others),
        "called": len(called),
        "called_early": sum(one.spent_seconds <= one.script.budget_seconds / 2 for one in called),
    }


def totals(searches: Sequence[Searched]) -> Row:
    """What searches and trainings took together: a row of the second table without its name."""
    reachable = [one for one in searches if one.script.best_seconds < math.inf]
    ratios = np.array([one.total_over_least for one in reachable if one.total_over_least < math.inf])
    ended = [one for one in reachable if one.stop is StopKind.NO_GAIN]
    held = [one.answer_seconds / one.script.best_seconds <= one.regret_bound for one in ended]
    return {
        "reachable": len(reachable),
        "answers": len(ratios),
        "total": float(np.exp(np.log(ratios).mean())) if len(ratios) else None,
        "total_90": float(np.quantile(ratios, 0.9)) if len(ratios) else None,
        "no_gain": len(ended),
        "bound_held": float(np.mean(held)) if held else None,
        "bound": _finite(np.median([one.regret_bound for one in ended])) if ended else None,
        "probes": float(np.median([one.num_probes for one in ended])) if ended else None,
    }


def intervals(searches: Sequence[Searched], low: float, high: float) -> Row:
    """How predictions compare with the truth where more than `low` and at most `high` of a run is known.

    `infinite` are those that expect with 95% never to arrive. They do not hold the truth, and have no width.
    """
    found = [p for one in searches for p in one.predictions if low < p.share_observed <= high]
    truths = np.array([p.measured_seconds for p in found])
    lower, median, upper = (
        np.array([p.prediction.quantiles[level] for p in found]) for level in (0.05, 0.5, 0.95)
    )
    finite = lower < np.inf
    return {
        "num": len(found),
        "infinite": len(found) - int(finite.sum()),
        "hold": float(np.mean((lower <= truths) & (truths <= upper))) if found else None,
        "width": _finite(np.median(upper[finite] / lower[finite])) if finite.any() else None,
        "median_over_true": _finite(np.median(median[finite] / truths[finite])) if finite.any() else None,
    }


def reliability(searches: Sequence[Searched], low: float, high: float) -> Row:
    """Stated chances from `low` to below `high` (1 included): mean over jobs of each job's mean."""
    jobs = []
    for one in searches:
        chance = np.array([p.prediction.probability_of_reaching for p in one.predictions])
        arrives = np.array([p.measured_seconds < math.inf for p in one.predictions])
        chosen = (low <= chance) & ((chance < high) | (high == 1.0))
        if chosen.any():
            jobs.append((chosen.sum(), chance[chosen].mean(), arrives[chosen].mean()))
    num, stated, arriving = np.array(jobs).T if jobs else np.zeros((3, 0))
    return {
        "num": int(num.sum()),
        "num_jobs": len(jobs),
        "stated": float(stated.mean()) if jobs else None,
        "arrive": float(arriving.mean()) if jobs else None,
    }


def _finite(value: float | np.floating[Any]) -> float | None:
    return float(value) if math.isfinite(value) else None


def fit(seeds: Sequence[int]) -> dict[str, list[Row]]:
    """Fits the log odds of never arriving to half of some made scripts, and judges them on the others.

    Args:
        seeds: Of the scripts. All shapes are fitted once, are judged once, and so on.

    Returns:
        A table `odds`: what was fitted, the product's constants, and the fitted half's base rate.
    """
    rows = np.array([(seed, *part) for seed in seeds for part in first_parts(made_script(seed))])
    features, never = np.column_stack([np.ones(len(rows)), rows[:, 1:3]]), rows[:, 3]
    own = rows[:, 0] // len(SHAPES) % 2 == 0
    share = float(never[own].mean())
    constants = {
        "fitted": logistic(features[own], never[own]),
        "product": np.array(PRODUCT),
        "base rate": np.array([math.log(share / (1.0 - share)), 0.0, 0.0]),
    }
    names = ("constant", "of_log_folds", "of_progress")
    return {
        "odds": [
            {
                "kind": kind,
                **dict(zip(names, values.tolist(), strict=True)),
                "loss": log_loss(never[~own], chances(features[~own], values)),
            }
            for kind, values in constants.items()
        ]
    }


def first_parts(script: MadeScript) -> Iterator[tuple[float, float, bool]]:
    """The two features of random first parts of curves before the target, and whether the run never arrives.

    The number of scores is log-uniform, from `plateau.FEWEST_SCORES`.
    """
    rng = np.random.default_rng([5, script.seed])
    steady = [c for c in configurations() if c.learning_rate <= script.edge_rate]
    runs = [script.run(steady[i]) for i in rng.permutation(len(steady))[:_NUM_CURVES]]
    start = guessed_start(script.job(), [float(run.curve[0, 2]) for run in runs[:_NUM_FIRSTS]])
    assert start is not None, "no made script scores the untrained model"
    for run in runs:
        samples = run.curve[:, 1] * run.configuration.batch_size
        num = int(np.searchsorted(script.progress(run.configuration, samples), _MOST_PROGRESS))
        ratio = min(num, len(samples) - (run.end is None)) / plateau.FEWEST_SCORES
        if ratio < 1.0:
            continue
        progress = progress_of(run.curve[:, 2], start, script.target)
        for share in rng.uniform(size=_NUM_PARTS):
            length = round(plateau.FEWEST_SCORES * ratio**share)
            yield *plateau.plateau_features(samples[:length], progress[:length]), run.end is not None


def lines(tables: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Tables as text; rows that count nothing are left out."""
    for name, rows in tables.items():
        yield name
        yield "  ".join(f"{key:>9}" for key in rows[0])
        for row in rows:
            if row.get("num") != 0:
                yield "  ".join(f"{_text(value):>{max(9, len(key))}}" for key, value in row.items())


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Number of made scripts.")] = 60,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Concurrent searches.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the JSON object to this file.")] = None,
    is_short: Annotated[bool, typer.Option("--short", help="Scripts whose start-up takes long.")] = False,
    fits: Annotated[bool, typer.Option("--fit", help="Fit the odds of never arriving instead.")] = False,
) -> None:
    """Search made scripts, and compare with the truth."""
    seeds, runs = range(first, first + jobs), []
    if fits:
        tables = fit(seeds)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
            short = [is_short] * len(seeds)
            searches = list((pool.map if processes > 1 else map)(searched, seeds, short))
        tables, runs = report(searches), [one.row() for one in searches]
    text = json.dumps({"runs": runs, **tables}, indent=1, allow_nan=False)
    if output is not None:
        write_atomically(output, lambda file: file.write(f"{text}\n".encode()))
    typer.echo(text if as_json else "\n".join(lines(tables)))


if __name__ == "__main__":
    typer.run(main)
