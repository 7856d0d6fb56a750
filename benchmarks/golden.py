"""Seeded searches whose course is stored, so that a change of the code can be shown to change no behavior.

    python -m benchmarks.golden            # writes benchmarks/results/golden.json
    python -m benchmarks.golden --check    # runs the same searches and compares; exit code 1 if they differ

Three kinds of jobs are tuned through `run_job`, with a study database in a temporary folder:

- `recorded`: a small table of runs, computed by a formula in this file, is replayed for several goals,
  samplers and seeds.
- `live`: local ranks train scikit-learn's digits. The losses and scores are real. The seconds come from a
  fixed clock, `FixedClock`, so that they do not depend on the machine's load.
- `emulated`: one process trains for the ranks of a described cluster. Training seconds are those of the
  virtual clock; the seconds charged come from the fixed clock.

The file holds the configurations tried with their outcome, the recommendation, the last predictions, and a
digest of all predictions stored on the way. Numbers are rounded to five digits. Another processor or another
version of torch may round differently: compare on one machine, before and after a change.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from search_spaces import Configuration
from storage import open_storage
from tuner.domain.checkpoints import write_atomically
from tuner.domain.cluster import Cluster, Machine
from tuner.domain.errors import TunerError
from tuner.domain.ledger import PredictionRecord
from tuner.domain.measurement import Measurement, Purpose, RankTiming, Spread
from tuner.probes import ProbeHandle, Prober, Until
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording
from tuner.service.launchers import job_prober
from tuner.service.opening import OpenedJob, open_job
from tuner.service.run import RunOptions, run_job

#: Predictions stored in full; the others count by their digest.
_NUM_LAST = 20
RESULT = Path(__file__).parent / "results" / "golden.json"

_RECORDED = """
name = "golden"
[probe]
kind = "recorded"
recording = "golden.jsonl.gz"
[goal]
trainings = {trainings}
minimize = "{minimize}"
[budget]
probes = 40
"""
_DIGITS = """
name = "golden"
[goal]
metric = "accuracy"
target = 0.9
[workload]
path = "tuner.workloads.digits:Digits"
parameters = { network = "mlp", width = 16 }
"""
_LIVE = f"""{_DIGITS}
[workload.optimizer]
name = "sgd"
momentum = 0.5
[cluster]
nodes = [1, 2]
[space]
batch_size = {{ low = 16, high = 64 }}
learning_rate = {{ low = 1e-3, high = 1.0 }}
strategy = ["all_reduce", "local_sgd"]
[baseline]
nodes = 1
batch_size = 32
learning_rate = 0.003
[probe]
# No evaluation is skipped for the real time that the one before it took.
max_scoring = 1e6
[budget]
probes = 8
"""
_EMULATED = f"""{_DIGITS}
[cluster]
nodes = [1, 2, 4, 8]
[cluster.machine]
fixed_seconds = "5ms"
seconds_per_sample = "1ms"
jitter = 0.1
latency = "100us"
bandwidth = "1Gbit/s"
[space]
batch_size = {{ low = 16, high = 128 }}
learning_rate = {{ low = 1e-3, high = 1.0 }}
strategy = ["all_reduce", "elastic_averaging", "gossip_pull", "local_sgd"]
[baseline]
nodes = 4
batch_size = 64
learning_rate = 0.01
[probe]
kind = "emulated"
max_scoring = 1e6
[budget]
probes = 10
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One search.

    Args:
        name: Its key in the file.
        job: The job file's text.
        seed: Of the search.
        sampler: See `RunOptions`.
        parallel: See `RunOptions`.
    """

    name: str
    job: str
    seed: int = 0
    sampler: Any = "model"
    parallel: int = 1


def cases() -> Iterator[Case]:
    """All searches, the quick ones first."""
    for minimize, trainings, seed in itertools.product(("seconds", "dollars"), (1, 5), (0, 1)):
        job = _RECORDED.format(minimize=minimize, trainings=trainings)
        yield Case(name=f"recorded, {minimize}, {trainings} trainings, seed {seed}", job=job, seed=seed)
    job = _RECORDED.format(minimize="seconds", trainings=5)
    for sampler in ("tpe", "random"):
        yield Case(name=f"recorded, {sampler}", job=job, sampler=sampler)
    yield Case(name="recorded, 3 probes at once", job=job + "\n[cluster]\ncapacity = 12\n", parallel=3)
    for seed in (0, 1):
        yield Case(name=f"live, seed {seed}", job=_LIVE, seed=seed)
    yield Case(name="emulated", job=_EMULATED)


def recording() -> Recording:
    """A table of 72 runs: two machines, three node counts, three batches, four rates.

    Seconds a step: (0.02 + 0.002 b / sqrt(cores)) (1 + 0.1 ln nodes), b samples a rank. Samples to target
    grow with the batch and with the distance from the best rate; the smallest rate never arrives.
    """
    machines = {
        "small": Machine(cores=1, dollars_per_hour=0.36),
        "large": Machine(cores=4, dollars_per_hour=1.8),
    }
    runs = []
    for nodes, machine, batch_size, rate in itertools.product(
        (1, 2, 4), machines, (16, 64, 256), (0.001, 0.01, 0.05, 0.2)
    ):
        per_rank = batch_size / nodes / math.sqrt(machines[machine].cores)
        step_seconds = (0.02 + 0.002 * per_rank) * (1 + 0.1 * math.log(nodes))
        best_rate = 0.1 / (1 + 100 / batch_size)
        distance = math.log(rate / best_rate)
        samples = 6_000 * (1 + batch_size / 150) * math.exp(math.sqrt(1 + distance**2) - 1)
        steps = np.ceil(np.geomspace(0.05, 1.5, 14) * samples / batch_size)
        ceiling = 0.6 if rate < 0.005 else 0.97
        values = ceiling - (ceiling - 0.1) * np.exp(-2.6 * steps * batch_size / samples)
        runs.append(
            RecordedRun(
                configuration=Configuration(
                    nodes=nodes,
                    machine=machine,
                    batch_size=batch_size,
                    learning_rate=rate,
                    strategy="all_reduce",
                ),
                step_seconds=step_seconds,
                curve=np.stack([steps * step_seconds, steps, values], axis=1),
                end="one pass" if values[-1] < 0.9 else None,
            )
        )
    return Recording(
        name="golden",
        source="benchmarks/golden.py: computed by a formula",
        metric="accuracy",
        maximize=True,
        target=0.9,
        machines=machines,
        extra_nodes=0,
        startup_seconds=2.0,
        runs=tuple(runs),
    )


class FixedClock(Prober):
    """Carries out slices with another prober, and puts computed seconds in the place of measured ones.

    A step takes 4 ms, 20 us for each sample of a rank, and 1 ms for each further node. A slice that is to
    end by the training clock ends after the samples that take so long. Emulated runs keep their virtual
    training clock. A slice is charged half a second, its steps, and 10 ms for each evaluation. Gradient noise
    is left out: how often it is measured depends on real time.

    Args:
        inner: The prober that trains.
        cluster: Says which configurations are emulated.
    """

    def __init__(self, inner: Prober, cluster: Cluster) -> None:
        self._inner, self._cluster = inner, cluster
        #: Folder of a probe to the steps its run had done when the slice in flight began.
        self._first_steps: dict[Path, int] = {}
        self._last_steps: dict[Path, int] = {}

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        if until.training_seconds is not None and not self._cluster.emulates(configuration):
            steps = max(1, round(until.training_seconds / step_seconds(configuration)))
            samples = steps * configuration.batch_size
            until = replace(until, training_seconds=None, samples=min(samples, until.samples or samples))
        self._first_steps[folder.resolve()] = self._last_steps.get(folder.resolve(), 0)
        return self._inner.start(configuration, purpose, until, folder)

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = self._inner.poll(handle)
        self._last_steps[handle.folder] = measurement.step
        return reclocked(measurement, measurement.step - self._first_steps.get(handle.folder, 0))

    def cancel(self, handle: ProbeHandle) -> None:
        self._inner.cancel(handle)

    def close(self) -> None:
        self._inner.close()


def step_seconds(configuration: Configuration) -> float:
    """Seconds a step by the fixed clock."""
    per_rank = math.ceil(configuration.batch_size / configuration.nodes)
    return 4e-3 + 2e-5 * per_rank + 1e-3 * (configuration.nodes - 1)


def reclocked(measurement: Measurement, steps: int) -> Measurement:
    """A measurement with the seconds of the fixed clock.

    Args:
        measurement: As the prober saw it.
        steps: Steps of the slice.
    """
    seconds = step_seconds(measurement.configuration)
    scoring = 0.01 * len(measurement.curve)
    charged = 0.5 + steps * seconds + scoring
    common = replace(
        measurement,
        noise=(),
        peak_bytes=0,
        scoring_seconds=scoring,
        startup_seconds=0.5,
        charged_seconds=charged,
        checkpoint=None,
    )
    if measurement.emulated:
        return common
    return replace(
        common,
        training_seconds=measurement.step * seconds,
        curve=tuple(replace(p, training_seconds=p.step * seconds) for p in measurement.curve),
        ranks=tuple(_timing(timing, seconds) for timing in measurement.ranks),
        staleness_steps=None,
    )


def _timing(timing: RankTiming, seconds: float) -> RankTiming:
    def spread(mean: float) -> Spread:
        # How many steps count as warm-up depends on real time; the spread does not.
        return Spread(median=mean, p10=0.9 * mean, p90=1.1 * mean, mean=mean, std=0.05 * mean, count=20)

    return replace(
        timing,
        compute=spread(0.9 * seconds),
        sync=spread(0.1 * seconds),
        input=spread(0.0),
        step=spread(seconds),
    )


def outcome_of(case: Case) -> dict[str, Any]:
    """Runs one search and returns what is stored of it."""
    with tempfile.TemporaryDirectory(prefix="paceline-golden-") as name:
        folder = Path(name)
        write_recording(recording(), folder / "golden.jsonl.gz")
        path = folder / "golden.toml"
        path.write_text(f"seed = {case.seed}\n{case.job}")
        opened = open_job(path)

        def make_prober(job: OpenedJob) -> Prober:
            inner = job_prober(job)
            return inner if job.job.recording() is not None else FixedClock(inner, job.cluster)

        options = RunOptions(output=folder / "out", sampler=case.sampler, parallel=case.parallel)
        with open_storage(f"sqlite:///{folder / 'study.db'}") as store:
            try:
                answer: Any = run_job(opened, store, options, make_prober=make_prober)
                answer = answer.recommendation.to_dict()
            except TunerError as error:
                answer = {"error": type(error).__name__}
            (study,) = store.ledger.studies()
            probes = store.ledger.probes(study.study_id)
            predictions = [_prediction(p) for p in store.ledger.predictions(study.study_id)]
    return {
        "probes": [
            [str(probe.configuration), probe.purpose.value, probe.outcome.value]
            + [[m.samples, _rounded(m.training_seconds), _rounded(_last_value(m))] for m in probe.slices]
            for probe in probes
        ],
        "recommendation": _of_recommendation(answer),
        "num_predictions": len(predictions),
        "digest_of_predictions": hashlib.sha256(json.dumps(predictions).encode()).hexdigest()[:16],
        "last_predictions": predictions[-_NUM_LAST:],
    }


def _prediction(prediction: PredictionRecord) -> list[Any]:
    quantiles = [_rounded(prediction.quantiles[level]) for level in (0.05, 0.5, 0.95)]
    return [str(prediction.configuration), *quantiles, _rounded(prediction.probability_of_reaching)]


def _last_value(measurement: Measurement) -> float | None:
    return measurement.curve[-1].value if measurement.curve else None


def _of_recommendation(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        return answer
    return {
        key: answer[key] and {part: _plain(answer[key][part]) for part in _PARTS}
        for key in ("choice", "runner_up", "baseline")
    } | {"stop_reason": answer["stop_reason"], "provisional": answer["provisional"]}


_PARTS = (
    "configuration",
    "seconds",
    "dollars",
    "probability_of_reaching",
    "measured_seconds",
    "share_observed",
)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return _rounded(value) if isinstance(value, float) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def differences(stored: Any, found: Any, where: str = "") -> Iterator[str]:
    """Where two results differ, in order, with both values."""
    if isinstance(stored, dict) and isinstance(found, dict):
        for key in [*stored, *(key for key in found if key not in stored)]:
            if key not in stored or key not in found:
                yield f"{where}/{key}: only in the {'stored' if key in stored else 'new'} result"
            else:
                yield from differences(stored[key], found[key], f"{where}/{key}")
    elif isinstance(stored, list) and isinstance(found, list):
        if len(stored) != len(found):
            yield f"{where}: {len(stored)} entries stored, {len(found)} found"
        for number, (old, new) in enumerate(zip(stored, found, strict=False)):
            yield from differences(old, new, f"{where}/{number}")
    elif stored != found:
        yield f"{where}: stored {stored!r}, found {found!r}"


def main(
    check: Annotated[bool, typer.Option("--check", help="Compare with the stored file.")] = False,
    only: Annotated[str, typer.Option(help="Run only the cases whose name contains this text.")] = "",
    file: Annotated[Path, typer.Option(help="The stored file.")] = RESULT,
) -> None:
    """Runs the searches; writes their course, or compares it with the stored one."""
    stored = json.loads(file.read_text()) if check else {}
    found: dict[str, Any] = {}
    num_different = 0
    for case in cases():
        if only not in case.name:
            continue
        found[case.name] = result = outcome_of(case)
        counts = (
            f"{len(found[case.name]['probes'])} probes, {found[case.name]['num_predictions']} predictions"
        )
        different = list(differences(stored.get(case.name), result)) if check else []
        num_different += bool(different)
        verdict = ("DIFFERS" if different else "equal") if check else "done"
        typer.echo(f"{case.name}: {counts}: {verdict}")
        for line in different[:3]:
            typer.echo(f"  {line}")
    if not check:
        lines = [f"{json.dumps(name)}: {json.dumps(result)}" for name, result in found.items()]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_atomically(file, lambda out: out.write(text.encode()))
    raise typer.Exit(1 if num_different else 0)


if __name__ == "__main__":
    typer.run(main)
