"""Emulated ranks beside real ones: constants taken on two ranks predict what four and eight do.

    python -m benchmarks.emulation --against-real --json

Constants come from `tuner.calibration` on two ranks, the nodes of the smallest case, and from nowhere else.
Real runs are training probes (`TrainingProber`) whose ranks pass messages over TCP, as those of several hosts
do; emulated ones are `tuner.emulation` with the same seed, data order and initial weights under a virtual
clock. Compared are seconds in which all ranks see a global batch, mean staleness, mean disagreement between
ranks over the second half of a run (mean squared distance to their mean; by steps where ranks make them
together, else by time), and the validation loss after as many samples.

Real ranks share the cores of one machine. So that these are not the bottleneck, the network is tiny and a
step is mostly a *sleep*, drawn uniformly anew for each step of each rank (`RankDelay`): what is tested is the
clock's arithmetic (who waits for whom, what is how old), not the cost of gradients. What collectives and
messages take beside it is real, and where ranks outnumber cores it includes waiting for a core, which no law
of links has: see `exchange_share`.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.emulation_links import MessagesLauncher, reason_against_namespaces, slow_links
from benchmarks.emulation_workload import (
    disagreement,
    flat_parameters,
    recorded_disagreement,
    recorded_disagreement_in_step,
)
from search_spaces import Configuration, traits_of, with_knobs
from tuner.calibration import CalibrationPlan, Constants, Effort, calibrate
from tuner.domain.cluster import RankDelay, VirtualCluster
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.emulation import Emulation, Trained, emulation
from tuner.emulation.timing import all_reduce_seconds
from tuner.job import Job
from tuner.launchers import LocalLauncher
from tuner.probes import Until
from tuner.probes.ranks.emulated_slice import rank_timings
from tuner.probes.ranks.rank_setup import prepare
from tuner.probes.slice_plan import SlicePlan
from tuner.probes.training import TrainingProber

STRATEGIES = ("all_reduce", "local_sgd", "gossip_pull", "gossip_push", "gossip_pairs", "elastic_averaging")
#: Exchanges are frequent enough for a short run to hold many.
KNOBS = {"local_sgd": {"tau": 4}, "elastic_averaging": {"tau": 4}}
#: Samples of one rank's step.
SHARE = 8
_LEARNING_RATE = 0.02
#: Instants at which ranks are compared, of one run.
_NUM_INSTANTS = 80
_LONGEST_SECONDS = 300.0
#: What an emulation takes where the calibration could not tell how well exchanges hide: `MachineSection`'s.
_USUAL_OVERLAP = 1.5

#: Largest relative error of each figure; the value's is in spreads of seeds.
BARS = {"seconds": 0.10, "staleness": 0.10, "disagreement": 0.20, "value": 1.0}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is run for real and emulated.

    Args:
        sleep: Shortest and longest sleep of every step, seconds.
        num_steps: Steps of a rank.
        width: Of the network.
        delayed: What rank 1 sleeps besides, shortest and longest, seconds; None for nothing.
        megabits: Of each rank's link, a second; None for the loopback interface.
    """

    sleep: tuple[float, float]
    num_steps: int
    width: int = 4
    delayed: tuple[float, float] | None = None
    megabits: float | None = None

    @property
    def workload(self) -> str:
        """In words."""
        low, high = (round(1000 * seconds) for seconds in self.sleep)
        return f"digits, mlp of width {self.width}, steps sleep {low} to {high} ms"

    @property
    def disturbance(self) -> str:
        """In words."""
        found = []
        if self.delayed is not None:
            low, high = (round(1000 * seconds) for seconds in self.delayed)
            found.append(f"rank 1 sleeps {low} to {high} ms more")
        if self.megabits is not None:
            found.append(f"links of {self.megabits:g} Mbit/s")
        return ", ".join(found) or "none"

    @property
    def delays(self) -> tuple[RankDelay, ...]:
        """As a cluster has them."""
        everybody = RankDelay(ranks=None, low=self.sleep[0], high=self.sleep[1])
        if self.delayed is None:
            return (everybody,)
        return everybody, RankDelay(ranks=(1,), low=self.delayed[0], high=self.delayed[1])


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one run showed.

    Args:
        seconds: In which all ranks see a global batch.
        staleness: Mean age of what was mixed in, steps; None where nothing was.
        disagreement: Between ranks; 0 where they are equal.
        value: Validation loss at the end.
        samples: Of all ranks at the end.
    """

    seconds: float
    staleness: float | None
    disagreement: float
    value: float
    samples: int


def job_of(case: Case, num_ranks: int, seed: int, folder: Path | None, num_samples: int) -> Job:
    """The job of a case's runs; scored once, at the end."""
    return Job.model_validate(
        {
            "name": "against-real",
            "seed": seed,
            "workload": {
                "path": "benchmarks.emulation_workload:Watched",
                "parameters": {"width": case.width, "folder": None if folder is None else str(folder)},
                "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
            },
            "cluster": {
                "nodes": [num_ranks],
                "emulate": {"delay": [asdict(delay) for delay in case.delays]},
            },
            "goal": {"metric": "loss", "target": 0.0},
            "space": {
                "batch_size": [SHARE * num_ranks],
                "learning_rate": [_LEARNING_RATE],
                "strategy": list(STRATEGIES),
            },
            "probe": {"first_score_samples": num_samples, "hang_timeout": 60},
        }
    )


def configuration_of(strategy: str, num_ranks: int) -> Configuration:
    """A rank's share does not depend on their number."""
    axes = {"nodes": num_ranks, "batch_size": SHARE * num_ranks, "learning_rate": _LEARNING_RATE}
    return with_knobs(Configuration({**axes, "strategy": strategy, **KNOBS.get(strategy, {})}))


def real_run(
    launcher: LocalLauncher, case: Case, configuration: Configuration, seed: int, folder: Path
) -> Seen:
    """Real ranks, as a training probe starts them.

    Raises:
        RuntimeError: The probe went wrong.
    """
    num_ranks, num_samples = configuration.nodes, case.num_steps * configuration.batch_size
    job = job_of(case, num_ranks, seed, folder, num_samples)
    prober = TrainingProber(job, Path(__file__).resolve().parent, launcher)
    handle = prober.start(configuration, Purpose.TRAINING, Until(samples=num_samples), folder / "probe")
    limit = time.monotonic() + _LONGEST_SECONDS
    while (measured := prober.poll(handle)).outcome is Outcome.RUNNING:
        if time.monotonic() > limit:
            prober.cancel(handle)
        time.sleep(0.02)
    if measured.outcome is not Outcome.PAUSED or measured.lost_ranks:
        lost = f", lost ranks {measured.lost_ranks}" if measured.lost_ranks else ""
        raise RuntimeError(f"{configuration} ended {measured.outcome}{lost}: {measured.error}")
    seconds, last = measured.batch_seconds, measured.curve[-1]
    assert seconds is not None
    # With equal parameters on all ranks there is nothing to compare, but for a step under way.
    distance, traits = 0.0, traits_of(configuration.strategy)
    if traits.barrier and traits.exchanged == "parameters":
        distance = recorded_disagreement_in_step(folder)
    elif traits.exchanged == "parameters":
        distance = recorded_disagreement(folder, num_instants=_NUM_INSTANTS)
    return Seen(
        seconds=seconds,
        staleness=measured.staleness_steps,
        disagreement=distance,
        value=last.value,
        samples=last.samples,
    )


def emulated_run(
    cluster: VirtualCluster, case: Case, configuration: Configuration, seed: int, num_samples: int
) -> Seen:
    """The same under a virtual clock, until so many samples."""
    job = job_of(case, configuration.nodes, seed, None, num_samples)
    plan = SlicePlan(
        job=job,
        job_folder=Path(__file__).resolve().parent,
        configuration=configuration,
        purpose=Purpose.TRAINING,
        until=Until(samples=num_samples),
        folder=Path(),
    )
    prepared = prepare(plan)
    run = emulation(
        Trained(
            workload=prepared.workload,
            make_model=lambda: prepared.model(torch.device("cpu")),
            data=prepared.training_data,
            configuration=configuration,
            num_ranks=configuration.nodes,
            cluster=cluster,
            seed=seed,
        )
    )
    distance = []
    for point in np.linspace(0.5 * num_samples, num_samples, _NUM_INSTANTS, endpoint=False):
        run.run(samples=int(point))
        if len(run.ranks) > 1:
            vectors = np.stack([flat_parameters(rank.model).numpy() for rank in run.ranks])
            distance.append(disagreement(vectors))
    run.run(samples=num_samples)
    with run.scored(), torch.no_grad():
        run.model.eval()
        value = prepared.workload.score(run.model, prepared.validation_data)
        run.model.train()
    return Seen(
        seconds=_batch_seconds(run),
        staleness=run.staleness_steps,
        disagreement=float(np.mean(distance)) if distance else 0.0,
        value=value,
        samples=run.samples,
    )


def _batch_seconds(run: Emulation) -> float:
    """As a real run's are told."""
    timed = Measurement(
        configuration=run.trained.configuration,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        ranks=tuple(rank_timings(run)),
    )
    assert timed.batch_seconds is not None
    return timed.batch_seconds


def constants_of(
    case: Case, launcher: LocalLauncher, folder: Path, listen: Callable[[str], None]
) -> Constants:
    """Constants of the machine and its links, from two ranks."""
    plan = CalibrationPlan(
        job=job_of(case, 2, 0, None, 1),
        job_folder=Path(__file__).resolve().parent,
        batch_sizes_per_rank=(2, SHARE, 4 * SHARE),
        learning_rate=1e-4,
        node_counts=(2,),
        # Between two exchanges ranks sleep, and cores go idle: they do here.
        effort=Effort(
            rounds=7, window_seconds=0.1, exchanges=5, pause_seconds=min(0.04, sum(case.sleep) / 2)
        ),
    )
    return calibrate(plan, launcher, folder, listen)


def row_of(
    case: Case,
    strategy: str,
    num_ranks: int,
    real: Sequence[Seen],
    emulated: Sequence[Seen],
    exchange_seconds: float,
) -> dict[str, Any]:
    """One line of the table.

    Args:
        case: What was run.
        strategy: How ranks were kept in step.
        num_ranks: p.
        real: By seed.
        emulated: By seed, in the same order.
        exchange_seconds: What the law says that exchanges add to a step at most.
    """
    summaries = {"real": summary(real), "emulated": summary(emulated)}
    errors = {
        key: relative_error(summaries["emulated"][key], summaries["real"][key])
        for key in ("seconds", "staleness", "disagreement")
    }
    errors["value"] = value_error([s.value for s in real], [s.value for s in emulated])
    return {
        "workload": case.workload,
        "strategy": strategy,
        "tau": traits_of(strategy).tau_of(configuration_of(strategy, num_ranks)),
        "ranks": num_ranks,
        "disturbance": case.disturbance,
        "seeds": len(real),
        **summaries,
        "exchange_share": exchange_seconds / summaries["emulated"]["seconds"],
        "errors": errors,
        "within": {
            key: None if error is None else bool(abs(error) <= BARS[key]) for key, error in errors.items()
        },
    }


def summary(seen: Sequence[Seen]) -> dict[str, Any]:
    """Medians over seeds; of seconds and values their spread too."""
    seconds, values = [s.seconds for s in seen], [s.value for s in seen]
    ages = [s.staleness for s in seen if s.staleness is not None]
    return {
        "seconds": float(np.median(seconds)),
        "seconds_spread": [min(seconds), max(seconds)],
        "staleness": float(np.mean(ages)) if ages else None,
        "disagreement": float(np.mean([s.disagreement for s in seen])),
        "value": float(np.mean(values)),
        "value_spread": [min(values), max(values)],
    }


def relative_error(predicted: float | None, measured: float | None) -> float | None:
    """Predicted over measured, less one; None where there is nothing to predict."""
    if predicted is None or measured is None or measured == 0:
        return None
    return predicted / measured - 1


def value_error(real: Sequence[float], emulated: Sequence[float]) -> float | None:
    """Difference of the means, in standard deviations between seeds; None where one seed tells no spread.

    The spread is that of both kinds of run, pooled.
    """
    if min(len(real), len(emulated)) < 2:
        return None
    spread = math.sqrt(0.5 * (float(np.var(real, ddof=1)) + float(np.var(emulated, ddof=1))))
    return (float(np.mean(emulated)) - float(np.mean(real))) / max(spread, 1e-12)


def exchange_seconds(cluster: VirtualCluster, configuration: Configuration, num_bytes: int) -> float:
    """What exchanges add to a step by their law where nothing of them hides."""
    traits = traits_of(configuration.strategy)
    tau = traits.tau_of(configuration)
    if traits.barrier:
        return all_reduce_seconds(cluster, configuration.nodes, num_bytes) / tau
    vectors = traits.vectors_per_exchange(configuration.nodes)
    return vectors * (cluster.one_way_seconds + cluster.link_seconds(num_bytes)) / tau


def compared(
    case: Case,
    *,
    ranks: Sequence[int],
    strategies: Sequence[str],
    seeds: int,
    listen: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Rows of one case; first the constants its emulated runs go by, as a row of their own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paceline-against-real-")))
        places = ()
        if case.megabits is not None:
            places = stack.enter_context(slow_links(max(ranks), megabits=case.megabits))
        launcher = stack.enter_context(MessagesLauncher(places))
        constants = constants_of(case, launcher, folder, listen)
        cluster = constants.virtual_cluster(overlap=_USUAL_OVERLAP, delays=case.delays)
        yield {"workload": case.workload, "disturbance": case.disturbance, "constants": asdict(constants)}
        for num_ranks in ranks:
            pairs: dict[str, list[tuple[Seen, Seen]]] = {name: [] for name in strategies}
            for seed in range(seeds):
                for name in strategies:
                    configuration = configuration_of(name, num_ranks)
                    own = folder / f"{num_ranks}-{name}-{seed}"
                    own.mkdir()
                    try:
                        real = real_run(launcher, case, configuration, seed, own)
                    except RuntimeError as error:
                        # A rank may be passed over where the machine is too busy to hear of it in time.
                        listen(f"left out: {error}")
                        continue
                    emulated = emulated_run(cluster, case, configuration, seed, real.samples)
                    pairs[name].append((real, emulated))
                    summaries = f"{real.seconds:.4f} s, emulated {emulated.seconds:.4f} s"
                    listen(f"{name} on {num_ranks} ranks, seed {seed}: {summaries}")
            for name, both in pairs.items():
                if not both:
                    continue
                configuration = configuration_of(name, num_ranks)
                yield row_of(
                    case,
                    name,
                    num_ranks,
                    [real for real, _ in both],
                    [emulated for _, emulated in both],
                    exchange_seconds(cluster, configuration, constants.parameter_bytes),
                )


def cases(num_steps: int) -> list[tuple[Case, tuple[str, ...]]]:
    """What is compared, and for which strategies."""
    short, long = (0.02, 0.06), (0.15, 0.25)
    barrier = tuple(name for name in STRATEGIES if traits_of(name).barrier)
    return [
        (Case(sleep=short, num_steps=num_steps), STRATEGIES),
        (Case(sleep=short, num_steps=num_steps, delayed=(0.0, 0.12)), STRATEGIES),
        # Where an exchange is a smaller part of the step, so is what waiting for a core adds to it.
        (Case(sleep=long, num_steps=num_steps // 2), barrier),
        # A vector takes longer than a step.
        (Case(sleep=short, num_steps=num_steps, width=16, megabits=16.0), STRATEGIES),
    ]


def table(
    *,
    ranks: Sequence[int],
    strategies: Sequence[str],
    seeds: int,
    num_steps: int,
    listen: Callable[[str], None],
) -> dict[str, Any]:
    """The whole comparison, as plain data."""
    torch.set_num_threads(1)
    rows, constants, skipped = [], [], []
    reason = reason_against_namespaces()
    for case, names in cases(num_steps):
        if case.megabits is not None and reason is not None:
            skipped.append({"disturbance": case.disturbance, "reason": reason})
            continue
        chosen = [name for name in names if name in strategies]
        if not chosen:
            continue
        listen(f"{case.workload}; disturbance: {case.disturbance}")
        for row in compared(case, ranks=ranks, strategies=chosen, seeds=seeds, listen=listen):
            (constants if "constants" in row else rows).append(row)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "note": "Real ranks share these cores; steps are mostly sleeps, so that the cores are not the "
        "bottleneck. Constants are from two ranks.",
        "bars": BARS,
        "constants": constants,
        "rows": rows,
        "skipped": skipped,
    }


def line_of(row: dict[str, Any]) -> str:
    """One row in words."""
    real, emulated, errors, within = row["real"], row["emulated"], row["errors"], row["within"]

    def summaries(key: str, form: str) -> str:
        if errors[key] is None:
            return "-"
        missed = "" if within[key] else " !"
        size = f"{errors[key]:+.1f} spreads" if key == "value" else f"{errors[key]:+.0%}"
        return f"{real[key]:{form}} {emulated[key]:{form}} ({size}{missed})"

    forms = {"seconds": ".4f", "staleness": ".2f", "disagreement": ".3g", "value": ".3f"}
    words = "  ".join(f"{key} {summaries(key, form)}" for key, form in forms.items())
    return f"{row['strategy']:18} p={row['ranks']}  {words}  exchange {row['exchange_share']:.0%}"
