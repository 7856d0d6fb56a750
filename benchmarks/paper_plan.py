"""Which trainings `benchmarks.paper` makes, in which order, and how it goes on after it was cut off."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.paper_clocks import CLOCKS
from benchmarks.paper_train import GOSSIP, Place, Run, train

STRATEGIES = ("all_reduce", *GOSSIP, "elastic_averaging")
#: Of one rank's step, where nothing else is said.
SHARE = 16
#: A pilot's seed is none of those that are reported.
_PILOT_SEED = 100

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is trained.

    Args:
        samples: Of every run.
        rates: Base learning rates.
        seeds: Of runs that are reported.
        betas: Moving rates times ranks that pilots of half the samples try, for each number of ranks.
        gossip_on_slow: Whether gossip's exchanges are scheduled on the slow clock as well: messages take
            longer than steps there, so that what is mixed in is older.
        elastic_on_slow: Numbers of ranks where elastic averaging's are, first seed; elsewhere, as with the
            second line, that clock is priced from the run on the fast one.
        more_rates: Further rates, whose runs come after.
        other_batches: Ranks and total batch of the second line, first seed.
    """

    samples: int
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    betas: tuple[float, ...]
    gossip_on_slow: bool = False
    elastic_on_slow: tuple[int, ...] = ()
    more_rates: tuple[float, ...] = ()
    other_batches: tuple[tuple[int, int], ...] = ()


FULL = Plan(
    samples=300_000,
    rates=(0.4, 0.1),
    seeds=(0, 1),
    betas=(0.8, 3.2, 6.4),
    gossip_on_slow=True,
    elastic_on_slow=(8, 128),
    more_rates=(0.2,),
    other_batches=((8, 256), (32, 256)),
)
QUICK = Plan(samples=150_000, rates=(0.4, 0.1), seeds=(0,), betas=(0.8, 3.2), gossip_on_slow=True)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of a plan's runs; pilots go with the runs they are made for.

    Args:
        strategies: Whose; none says all.
        clocks: On whose clock exchanges are scheduled; none says all.
        reported: Places whose rows exist already; they are not trained again.
    """

    strategies: frozenset[str] = frozenset()
    clocks: frozenset[str] = frozenset()
    reported: frozenset[Place] = frozenset()

    def __post_init__(self) -> None:
        for given, known in ((self.strategies, STRATEGIES), (self.clocks, tuple(CLOCKS))):
            if unknown := sorted(given - set(known)):
                raise ValueError(f"the plan has no {', '.join(unknown)}; it has {', '.join(known)}")

    def __contains__(self, run: Run) -> bool:
        if self.strategies and run.strategy not in self.strategies:
            return False
        return run.is_pilot or (
            (not self.clocks or run.clock in self.clocks) and run.place not in self.reported
        )


ALL = Part()
#: What matters most comes first: few and many ranks.
_RANKS = (8, 128, 32)


def pilots(plan: Plan) -> list[Run]:
    """Runs that only pick the moving rate of elastic averaging, at the smallest rate: it trains there."""
    return [
        Run(
            strategy="elastic_averaging",
            ranks=ranks,
            batch_size=SHARE * ranks,
            learning_rate=min(plan.rates),
            seed=_PILOT_SEED,
            clock="fast",
            samples=plan.samples // 2,
            beta=beta,
            is_pilot=True,
        )
        for ranks in _RANKS
        for beta in plan.betas
    ]


def runs(plan: Plan) -> list[Run]:
    """Runs that are reported; what matters most comes first."""
    first = plan.seeds[0]
    return [
        *(run for ranks in _RANKS for run in _several(plan, STRATEGIES, ranks, SHARE * ranks, first)),
        *_gossip_on_slow(plan, first),
        *(
            replace(run, clock="slow")
            for ranks in plan.elastic_on_slow
            for run in _several(plan, ("elastic_averaging",), ranks, SHARE * ranks, first)
        ),
        *(
            run
            for seed in plan.seeds[1:]
            for ranks in _RANKS
            for run in _several(plan, STRATEGIES, ranks, SHARE * ranks, seed)
        ),
        *(run for seed in plan.seeds[1:] for run in _gossip_on_slow(plan, seed)),
        *(
            run
            for ranks, batch_size in plan.other_batches
            for run in _several(plan, STRATEGIES, ranks, batch_size, first)
        ),
        *(
            run
            for seed in plan.seeds
            for ranks in _RANKS
            for run in _several(plan, STRATEGIES, ranks, SHARE * ranks, seed, plan.more_rates)
        ),
    ]


def _gossip_on_slow(plan: Plan, seed: int) -> Iterator[Run]:
    rates = (*plan.rates, *plan.more_rates) if plan.gossip_on_slow else ()
    for rate in rates:
        for ranks in _RANKS:
            for run in _several(plan, GOSSIP, ranks, SHARE * ranks, seed, (rate,)):
                yield replace(run, clock="slow")


def _several(
    plan: Plan,
    strategies: Sequence[str],
    ranks: int,
    batch_size: int,
    seed: int,
    rates: Sequence[float] | None = None,
) -> list[Run]:
    return [
        Run(
            strategy=strategy,
            ranks=ranks,
            batch_size=batch_size,
            learning_rate=rate,
            seed=seed,
            clock="fast",
            samples=plan.samples,
        )
        for rate in (plan.rates if rates is None else rates)
        for strategy in strategies
    ]


def finished(path: Path) -> dict[str, Line]:
    """Lines of runs that have ended, by key; a line that was cut off is left out."""
    found: dict[str, Line] = {}
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            found[line["key"]] = line
    return found


def picked_betas(lines: Mapping[str, Line], plan: Plan) -> dict[int, float]:
    """By number of ranks, the beta whose pilot ended with the highest accuracy."""
    best: dict[int, tuple[float, float]] = {}
    for pilot in pilots(plan):
        line = lines.get(pilot.key)
        assert pilot.beta is not None
        if line is not None:
            accuracy = line["curve"][-1][2] if line["is_finite"] and line["curve"] else 0.0
            best[pilot.ranks] = max(best.get(pilot.ranks, (-1.0, 0.0)), (accuracy, pilot.beta))
    return {ranks: beta for ranks, (_, beta) in best.items()}


def train_all(
    plan: Plan,
    path: Path,
    *,
    part: Part = ALL,
    processes: int = 1,
    train_one: Callable[[Run], Line] = train,
) -> dict[str, Line]:
    """Makes every run of a plan, or of a part of it, that has not ended before.

    Args:
        plan: What is trained.
        path: A file of JSON lines, one a run, which is added to.
        part: Which of the plan's runs.
        processes: How many runs are made at a time, each on one thread.
        train_one: Makes one.

    Returns:
        The lines of these runs, pilots included, by key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_last_line(path)
    _make([run for run in pilots(plan) if run in part], path, processes, train_one)
    betas = picked_betas(finished(path), plan)
    resolved = [
        replace(run, beta=betas[run.ranks]) if run.strategy == "elastic_averaging" else run
        for run in runs(plan)
        if run in part
    ]
    _make(resolved, path, processes, train_one)
    return lines_of(plan, path, part=part)


def lines_of(plan: Plan, path: Path, *, part: Part = ALL) -> dict[str, Line]:
    """The lines of a plan's runs, or of a part of them, that have ended, by key."""
    lines = finished(path)
    wanted = [run.key for run in (*pilots(plan), *runs(plan)) if run in part]
    return {key: lines[key] for key in wanted if key in lines}


def _make(wanted: Sequence[Run], path: Path, processes: int, train_one: Callable[[Run], Line]) -> None:
    done = finished(path)
    left = [run for run in wanted if run.key not in done]
    began = time.perf_counter()
    for count, (run, line) in enumerate(_results(left, processes, train_one), start=1):
        with path.open("a") as file:
            file.write(json.dumps({"key": run.key, **line}) + "\n")
        minutes = (time.perf_counter() - began) / 60
        print(f"{count} of {len(left)} in {minutes:.1f} min: {run.key}", file=sys.stderr, flush=True)


def _results(
    left: Sequence[Run], processes: int, train_one: Callable[[Run], Line]
) -> Iterator[tuple[Run, Line]]:
    if processes == 1:
        yield from ((run, train_one(run)) for run in left)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = {pool.submit(train_one, run): run for run in left}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _end_last_line(path: Path) -> None:
    """What was being written when it was cut off stays a line of its own."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
