"""Searches over nodes, batch size and learning rate on made clusters, judged by the computed truth.

    python -m benchmarks.made_clusters [--app bert] [--jobs 24] [--first 0] [--knows-steps] [--processes 1]

A job tunes a made training script (`benchmarks.made_clusters_jobs`) on up to 16 nodes, under a virtual clock.
The seconds of a step are those recorded for one app of Pollux, with 2.5% noise, so that no law of the product
made them. The samples to the target follow a law with a basin in the learning rate, whose samples grow with
the batch size. Starting a slice takes 10 to 30 s. Half of the jobs state one training, the others twenty;
half state the bytes of their parameters, which the time of an exchange depends on. Nothing trains and
nothing sleeps.

Goals are `seconds`, `dollars` (a node costs the same everywhere, so one node is cheapest for all recorded
apps), and `deadline`: dollars within 1.3 to 4 times the shortest training.

A table has a row for each app and goal, and for jobs that state their bytes and those that do not:

- `median`, `mean`, `worst`: the true cost of one training with the recommendation over the best
  configuration's (geometric mean). `over_1.2` counts those above 1.2, `late` those past the deadline, which
  are in no mean, and `none` the searches without a recommendation.
- `nodes_wrong`: answers that cost more than 1.2 times as much as the same batch size and learning rate on the
  best number of nodes; `untimed` of them never timed or trained on that number.
- `blind`: answers on a number of nodes that was never timed or trained on.
- `spent`: what the search spent until its end, over the cost of the best training (geometric mean).
- `held`, `width`: coverage of the 90% intervals of seconds to the target, of draws that reach it, of
  configurations on at least 8 nodes, and median ratio of their ends, by the last decision at which nothing
  was timed on more than two nodes. `step_held`, `step_width`, `step_error`: the same of seconds a step, and
  the median of |predicted / true - 1|.
- `timed`: the numbers of nodes that steps were timed on, by timing or training, with the share of jobs.

`--knows-steps` tells each search all true seconds of a step first, free of charge. The difference is what
timing more steps could save at most.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.made_clusters_jobs import APPS, GOALS, Goal, MadeCluster, made_cluster
from benchmarks.made_scripts import lines, virtual_context
from search_spaces import Configuration
from tuner.analytic.step_time_model import SecondsModel
from tuner.domain.cluster import Cluster
from tuner.domain.ledger import Ledger
from tuner.domain.measurement import Measurement, Purpose
from tuner.probes import ProbeHandle, Prober, Until
from tuner.probes.recorded import RecordedProber
from tuner.search.beliefs import Beliefs
from tuner.search.believer import Believer
from tuner.search.loop import Search
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Decision
from tuner.search.state import SearchState

Row = dict[str, Any]
Array = npt.NDArray[np.float64]

#: Trainings that the answer serves, in turn.
TRAININGS = (1, 20)
#: Candidates on so many nodes are forecast while steps were timed on no more than so many.
_MANY_NODES, _FEW_NODES = 8, 2
_WRONG = 1.2
_NORMAL_95 = 1.6449


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One job.

    Args:
        app: Whose seconds of a step.
        seed: Of the made script.
        goal: What is minimized.
        knows_steps: Whether the search knows the true seconds of all steps.
    """

    app: str
    seed: int
    goal: Goal
    knows_steps: bool = False

    @property
    def trainings(self) -> int:
        """Trainings that the answer serves."""
        return TRAININGS[self.seed // 2 % len(TRAININGS)]


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """What was forecast of configurations on many nodes while few had been timed, `(num,)` each.

    Args:
        held: Whether the 90% interval of seconds to the target holds the truth.
        width: Its upper end over its lower one.
        step_held: Whether that of seconds a step does.
        step_width: Its upper end over its lower one.
        step_error: |predicted / true - 1| of seconds a step.
    """

    held: npt.NDArray[np.bool_]
    width: Array
    step_held: npt.NDArray[np.bool_]
    step_width: Array
    step_error: Array


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One search.

    Args:
        asked: The job.
        cluster: What it tuned on.
        answer: The recommendation; None without one.
        spent: In the goal's unit: seconds, or node seconds.
        timed: Numbers of nodes on which steps were timed before the end, by timing or training.
        num_slices: Slices that ran.
        stop: Why it ended.
        forecasts: See there; None where more nodes were timed before the first forecast.
    """

    asked: Asked
    cluster: MadeCluster
    answer: Configuration | None
    spent: float
    timed: tuple[int, ...]
    num_slices: int
    stop: str
    forecasts: Forecasts | None

    def cost(self, configuration: Configuration) -> float:
        """True cost of one training in the goal's unit."""
        return self.cluster.cost(configuration, self.asked.goal)

    @property
    def best_cost(self) -> float:
        """Cost of the best configuration."""
        return self.cost(self.cluster.best(self.asked.goal))

    @property
    def regret(self) -> float:
        """Cost of the answer over the best one's; infinite without an answer, and past the deadline."""
        return math.inf if self.answer is None else self.cost(self.answer) / self.best_cost

    @property
    def best_nodes(self) -> int | None:
        """The number of nodes that costs least with the answer's batch size and learning rate."""
        if self.answer is None:
            return None
        return min((self.answer.replaced(nodes=n) for n in self.cluster.node_counts), key=self.cost).nodes

    @property
    def has_wrong_nodes(self) -> bool:
        """Whether the answer costs clearly more than on `best_nodes`."""
        if self.answer is None or self.best_nodes is None:
            return False
        best = self.cost(self.answer.replaced(nodes=self.best_nodes))
        return best < math.inf and self.cost(self.answer) > _WRONG * best

    def row(self) -> Row:
        """For JSON; None where a number is infinite."""
        return {
            **{"app": self.asked.app, "seed": self.asked.seed, "goal": self.asked.goal},
            **{
                "devices": self.cluster.devices_per_node,
                "bytes": self.cluster.parameter_bytes,
                "trainings": self.asked.trainings,
            },
            "answer": None if self.answer is None else self.answer.as_dict(),
            "best": self.cluster.best(self.asked.goal).as_dict(),
            **{"best_nodes": self.best_nodes, "has_wrong_nodes": self.has_wrong_nodes},
            "regret": self.regret if self.regret < math.inf else None,
            "spent": self.spent / self.best_cost,
            **{"timed": list(self.timed), "num_slices": self.num_slices, "stop": self.stop},
        }


@dataclass
class _Observed:
    """A policy that remembers the last beliefs while few nodes had been timed."""

    policy: ModelPolicy
    beliefs: Beliefs | None = None
    trace: list[str] = field(default_factory=list)

    def decide(self, state: SearchState) -> Decision:
        """See `Policy`."""
        decision = self.policy.decide(state)
        if decision.beliefs is not None and max(timed_nodes(state), default=1) <= _FEW_NODES:
            self.beliefs = decision.beliefs
        self.trace.append(f"{state.spent.seconds:9.1f} {decision.action}")
        return decision


class _ScriptProber(Prober):
    """Trains the script on a virtual clock; its measurements hold the bytes that the job states.

    Args:
        made: What runs.
        cluster: What is charged.
    """

    def __init__(self, made: MadeCluster, cluster: Cluster) -> None:
        self._recorded = RecordedProber(made.recording, cluster=cluster, pays_to_resume=True)
        self._parameter_bytes = made.parameter_bytes

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        return self._recorded.start(configuration, purpose, until, folder)

    def poll(self, handle: ProbeHandle) -> Measurement:
        return replace(self._recorded.poll(handle), parameter_bytes=self._parameter_bytes)

    def cancel(self, handle: ProbeHandle) -> None:
        self._recorded.cancel(handle)

    def now(self) -> float:
        return self._recorded.now()

    def close(self) -> None:
        self._recorded.close()


def timed_nodes(state: SearchState) -> tuple[int, ...]:
    """Numbers of nodes on which steps were timed, ascending."""
    return tuple(sorted({m.configuration.nodes for m in state.slices if m.ranks}))


def searched(asked: Asked) -> Searched:
    """Searches one job; the same job gives the same search."""
    with tempfile.TemporaryDirectory() as folder:
        return search_traced(asked, Path(folder))[0]


def search_traced(asked: Asked, folder: Path) -> tuple[Searched, list[str]]:
    """One search, and its decisions with the seconds spent before each."""
    made = made_cluster(asked.app, asked.seed)
    job = made.job(asked.goal, asked.trainings)
    cluster = job.resolved_cluster()
    prober = _ScriptProber(made, cluster)
    context = virtual_context(made.script, job, cluster, prober, folder)
    if asked.knows_steps:
        _time_all(made, context.ledger, context.study.study_id)
    policy = _Observed(ModelPolicy(Believer(seed=asked.seed)))
    loop = Search(context, prober, policy)
    result = loop.run()
    stop = result.stop
    state = loop.state()
    found = Searched(
        asked=asked,
        cluster=made,
        answer=result.beliefs.recommended if result.beliefs else None,
        spent=state.spent.seconds if asked.goal == "seconds" else state.spent.dollars * 3600.0,
        timed=timed_nodes(state),
        num_slices=sum(m.charged_seconds > 0 for m in state.slices),
        stop=stop.kind.value,
        forecasts=None if policy.beliefs is None else _forecasts(policy.beliefs, made),
    )
    return found, policy.trace


def _time_all(made: MadeCluster, ledger: Ledger, study_id: int) -> None:
    """Stores timings of all steps, free of charge."""
    prober = RecordedProber(made.recording, folderless=True)
    rate = made.learning_rates[-1]  # the present settings have another one
    for configuration in made.configurations:
        if configuration.learning_rate != rate:
            continue
        lease = ledger.start_probe(
            study_id, configuration, Purpose.TIMING, trial_number=None, owner="free", lease_seconds=60.0
        )
        handle = prober.start(configuration, Purpose.TIMING, Until(steps=30), Path("free"))
        timing = replace(prober.poll(handle), charged_seconds=0.0, charged_dollars=0.0, startup_seconds=0.0)
        ledger.append_slice(lease, timing)
        ledger.release(lease)


def _forecasts(beliefs: Beliefs, made: MadeCluster) -> Forecasts:
    seconds = beliefs.predictor.seconds
    assert isinstance(seconds, SecondsModel), "a job that trains has a law of seconds"
    totals = np.where(np.isfinite(beliefs.forecast.total), beliefs.forecast.total, np.nan)
    chosen = [
        i
        for i, c in enumerate(beliefs.configurations)
        if c.nodes >= _MANY_NODES and made.seconds_to_target(c) < math.inf and np.isfinite(totals[:, i]).any()
    ]
    configurations = [beliefs.configurations[i] for i in chosen]
    low, high = np.nanquantile(totals[:, chosen], [0.05, 0.95], axis=0)
    truth = np.array([made.seconds_to_target(c) for c in configurations])
    mean, covariance = seconds.log_seconds_per_sample(configurations)
    missed = mean - np.log([made.step_seconds(c) / c.batch_size for c in configurations])
    half = _NORMAL_95 * np.sqrt(np.diag(covariance))
    return Forecasts(
        held=(low <= truth) & (truth <= high),
        width=high / low,
        step_held=np.abs(missed) <= half,
        step_width=np.exp(2.0 * half),
        step_error=np.abs(np.expm1(missed)),
    )


def summary(searches: Sequence[Searched]) -> Row:
    """A row of the table, without its name."""
    answered = [one for one in searches if one.answer is not None]
    regrets = [one.regret for one in answered if one.regret < math.inf]
    wrong = [one for one in answered if one.has_wrong_nodes]
    forecasts = [one.forecasts for one in searches if one.forecasts is not None]
    nodes = sorted({n for one in searches for n in one.timed})
    shares = {n: sum(n in one.timed for one in searches) / len(searches) for n in nodes}
    return {
        "jobs": len(searches),
        "median": float(np.median(regrets)) if regrets else None,
        "mean": _geometric_mean(regrets),
        "worst": max(regrets, default=None),
        "over_1.2": sum(regret > _WRONG for regret in regrets),
        "late": len(answered) - len(regrets),
        "none": len(searches) - len(answered),
        "nodes_wrong": len(wrong),
        "untimed": sum(one.best_nodes not in one.timed for one in wrong),
        "blind": sum(one.answer is not None and one.answer.nodes not in one.timed for one in searches),
        "spent": _geometric_mean([one.spent / one.best_cost for one in searches]),
        "slices": float(np.mean([one.num_slices for one in searches])),
        "held": _middle(np.mean, [f.held for f in forecasts]),
        "width": _middle(np.median, [f.width for f in forecasts]),
        "step_held": _middle(np.mean, [f.step_held for f in forecasts]),
        "step_width": _middle(np.median, [f.step_width for f in forecasts]),
        "step_error": _middle(np.median, [f.step_error for f in forecasts]),
        "timed": " ".join(f"{n}:{share:.0%}" for n, share in shares.items()),
    }


def _geometric_mean(values: Sequence[float]) -> float | None:
    return float(np.exp(np.mean(np.log(values)))) if values else None


def _middle(of: Callable[[Any], Any], parts: Sequence[npt.NDArray[Any]]) -> float | None:
    return float(of(np.concatenate(parts))) if parts else None


def report(searches: Sequence[Searched]) -> list[Row]:
    """A row for each goal and number of trainings: of each app, with and without stated bytes, and of all."""
    groups = {app: [one for one in searches if one.asked.app == app] for app in APPS}
    groups["stated"] = [one for one in searches if one.cluster.parameter_bytes]
    groups["unstated"] = [one for one in searches if not one.cluster.parameter_bytes]
    groups["all"] = list(searches)
    rows = []
    for (name, group), goal, trainings in itertools.product(groups.items(), GOALS, TRAININGS):
        found = [one for one in group if (one.asked.goal, one.asked.trainings) == (goal, trainings)]
        if found:
            rows.append({"of": name, "goal": goal, "trainings": trainings, **summary(found)})
    return rows


def main(
    app: Annotated[list[str] | None, typer.Option(help="App; may be repeated.  [default: all]")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of each app and goal.")] = 20,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 0,
    knows_steps: Annotated[bool, typer.Option(help="Tell the searches all seconds of a step.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Concurrent searches.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Search made clusters, and compare with the truth."""
    unknown = sorted(set(app or []) - set(APPS))
    if unknown:
        raise typer.BadParameter(
            f"no app {', '.join(unknown)}; there are {', '.join(APPS)}", param_hint="--app"
        )
    asked = [
        Asked(app=name, seed=seed, goal=goal, knows_steps=knows_steps)
        for name, seed, goal in itertools.product(app or APPS, range(first, first + jobs), GOALS)
    ]
    if processes > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
            searches = list(pool.map(searched, asked))
    else:
        searches = [searched(one) for one in asked]
    rows = report(searches)
    if as_json:
        typer.echo(json.dumps({"runs": [one.row() for one in searches], "table": rows}, indent=1))
    else:
        typer.echo("\n".join(lines({"searches": rows})))


if __name__ == "__main__":
    typer.run(main)
