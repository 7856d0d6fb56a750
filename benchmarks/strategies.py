"""Step seconds, bytes, staleness and robustness of every strategy, beside bare `DistributedDataParallel`.

    python -m benchmarks.strategies --json
    python -m benchmarks.strategies --compute sleep:20ms --delay-rank 1 --freeze-rank 1 --json

All run in one process, alternating: in every round each strategy makes its steps, and the bare loop before
each of them, so that what the machine does meanwhile meets all alike. A ratio is the median over rounds of
a strategy's step seconds over those of the bare loop beside it. With a delayed or frozen rank, the steps of
the *other* ranks are counted in a window of five seconds, from a log that the workload itself writes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.strategy_workloads import STEPS_FILE
from search_spaces import STRATEGIES, Configuration, traits_of, with_knobs
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.launchers import JobState, LocalLauncher, RankTask
from tuner.probes import Until
from tuner.probes.training import TrainingProber

_LEARNING_RATE = 0.01
_WARM_UP_SECONDS = 1.0
#: Where all wait for a frozen rank, nothing more is to be seen after the window.
_TIMEOUT_SECONDS = 3.0
_FOREVER = 1e6


class Bench:
    """Runs slices of one workload on one number of ranks.

    Args:
        launcher: Starts ranks.
        num_ranks: Ranks.
        model: `cnn` or `mlp` of `Digits`.
        width: Its width.
        batch_size_per_rank: Samples of one rank's step.
        sleep_seconds: Added to each step.
        folder: For everything that is written.
    """

    def __init__(
        self,
        launcher: LocalLauncher,
        *,
        num_ranks: int,
        model: str,
        width: int,
        batch_size_per_rank: int,
        sleep_seconds: float,
        folder: Path,
    ) -> None:
        self._launcher, self._num_ranks, self._folder = launcher, num_ranks, folder
        self._batch_size_per_rank = batch_size_per_rank
        self._workload = {"network": model, "width": width, "sleep_seconds": sleep_seconds}
        self._count = 0

    def bare(self, num_steps: int) -> float:
        """Median step seconds of the bare loop, of its slowest rank."""
        task = RankTask(
            function="benchmarks.bare_ddp:run",
            payload={
                "workload": self._workload,
                "batch_size_per_rank": self._batch_size_per_rank,
                "learning_rate": _LEARNING_RATE,
                "steps": num_steps,
            },
            folder=self._new_folder(),
        )
        handle = self._launcher.submit(task, num_nodes=self._num_ranks, devices_per_node=1)
        while not (status := self._launcher.poll(handle)).state.has_ended:
            time.sleep(0.01)
        if status.state is not JobState.SUCCEEDED:
            raise RuntimeError(f"the bare loop failed: {status.failures}")
        return max(float(np.median(steps[5:])) for steps in status.results.values())

    def steps(self, name: str, num_steps: int) -> Measurement:
        """A timing slice of a strategy."""
        prober = self._prober(None, delay_rank=None)
        handle = prober.start(
            self._configuration(name), Purpose.TIMING, Until(steps=num_steps), self._new_folder()
        )
        while (measured := prober.poll(handle)).outcome is Outcome.RUNNING:
            time.sleep(0.01)
        if measured.outcome is not Outcome.STOPPED:
            raise RuntimeError(f"{name} ended {measured.outcome}: {measured.error}")
        return measured

    def others_steps(
        self, name: str, seconds: float, *, delay_rank: int | None = None, freeze_rank: int | None = None
    ) -> tuple[dict[int, int], float | None]:
        """Steps of each rank in a window, and mean staleness.

        Args:
            name: The strategy.
            seconds: Length of the window.
            delay_rank: A rank whose steps are delayed by U[0, 300] ms from the start.
            freeze_rank: A rank that is stopped (SIGSTOP) where the window begins.
        """
        folder = self._new_folder()
        prober = self._prober(folder, delay_rank=delay_rank)
        until = Until(training_seconds=_WARM_UP_SECONDS + seconds + 0.5, steps=int(_FOREVER))
        handle = prober.start(self._configuration(name), Purpose.TIMING, until, folder)
        processes: dict[int, int] = {}
        while len(logs(folder, processes)) < self._num_ranks or not all(logs(folder, processes).values()):
            record = prober._slices[handle.identity]
            processes = self._launcher.processes(record.job)
            self._check(prober.poll(handle), name)
            time.sleep(0.01)
        begin = time.monotonic() + _WARM_UP_SECONDS
        while time.monotonic() < begin:
            prober.poll(handle)
            time.sleep(0.01)
        if freeze_rank is not None:
            os.kill(processes[freeze_rank], signal.SIGSTOP)
        limit = begin + seconds + _TIMEOUT_SECONDS
        while (measured := prober.poll(handle)).outcome is Outcome.RUNNING and time.monotonic() < limit:
            time.sleep(0.01)
        prober.cancel(handle)
        counted = {
            rank: sum(begin <= moment < begin + seconds for moment in moments)
            for rank, moments in logs(folder, processes).items()
        }
        return counted, measured.staleness_steps

    def _check(self, measured: Measurement, name: str) -> None:
        if measured.outcome is not Outcome.RUNNING:
            raise RuntimeError(f"{name} ended too soon, {measured.outcome}: {measured.error}")

    def _configuration(self, name: str) -> Configuration:
        return with_knobs(
            Configuration(
                nodes=self._num_ranks,
                batch_size=self._batch_size_per_rank * self._num_ranks,
                learning_rate=_LEARNING_RATE,
                strategy=name,
            )
        )

    def _prober(self, log_folder: Path | None, *, delay_rank: int | None) -> TrainingProber:
        delay = [] if delay_rank is None else [{"ranks": [delay_rank], "low": 0.0, "high": 0.3}]
        job = Job.model_validate(
            {
                "name": "strategies",
                "workload": {
                    "path": "benchmarks.strategy_workloads:Timed",
                    "parameters": {
                        **self._workload,
                        "folder": None if log_folder is None else str(log_folder),
                    },
                },
                "cluster": {"nodes": [self._num_ranks], "emulate": {"delay": delay}},
                "goal": {"target": 1.0},
                "space": {
                    "batch_size": [self._batch_size_per_rank * self._num_ranks],
                    "learning_rate": [_LEARNING_RATE],
                    "strategy": list(STRATEGIES),
                },
            }
        )
        return TrainingProber(job, Path.cwd(), self._launcher)

    def _new_folder(self) -> Path:
        self._count += 1
        folder = self._folder / f"{self._num_ranks}-{self._count}"
        folder.mkdir(parents=True)
        return folder


def logs(folder: Path, processes: Mapping[int, int]) -> dict[int, list[float]]:
    """The moments of each rank's steps."""
    found = {}
    for rank, process in processes.items():
        path = folder / STEPS_FILE.format(process=process)
        if path.exists():
            found[rank] = [float(line) for line in path.read_text().split("\n")[:-1]]
    return found


def rows_of(
    bench: Bench,
    num_ranks: int,
    model: str,
    *,
    names: list[str],
    rounds: int,
    num_steps: int,
    seconds: float,
    windows: int,
    delay_rank: int | None,
    freeze_rank: int | None,
) -> Iterator[dict[str, Any]]:
    """A row a strategy."""
    seen: dict[str, list[tuple[Measurement, float]]] = {name: [] for name in names}
    bench.bare(num_steps)
    for _ in range(rounds):
        for name in names:
            before = bench.bare(num_steps)
            seen[name].append((bench.steps(name, num_steps), before))
    for name in names:
        traits = traits_of(name)
        configuration = with_knobs(Configuration(batch_size=1, learning_rate=1.0, strategy=name))
        measured = [m for m, _ in seen[name]]
        step_seconds = [_step_seconds(m) for m in measured]
        ratios = [ours / bare for ours, (_, bare) in zip(step_seconds, seen[name], strict=True)]
        moved = [m.bytes_per_step for m in measured if m.bytes_per_step is not None]
        vectors = traits.vectors_per_exchange(num_ranks) / traits.tau_of(configuration)
        row: dict[str, Any] = {
            "strategy": name,
            "ranks": num_ranks,
            "model": model,
            "tau": traits.tau_of(configuration),
            "step_seconds": float(np.median(step_seconds)),
            "ddp_seconds": float(np.median([bare for _, bare in seen[name]])),
            "ddp_ratio": float(np.median(ratios)),
            "ddp_ratio_spread": [float(min(ratios)), float(max(ratios))],
            "others_delayed_ratio": None,
            "others_frozen_ratio": None,
            "staleness_steps": measured[-1].staleness_steps,
            "bytes_per_step": float(np.mean(moved)) if moved else None,
            "expected_bytes_per_step": vectors * measured[-1].parameter_bytes,
            "peak_bytes": max(m.peak_bytes for m in measured),
        }
        if delay_rank is not None or freeze_rank is not None:
            yield {**row, **_disturbed(bench, name, seconds, windows, delay_rank, freeze_rank)}
        else:
            yield row


def _step_seconds(measured: Measurement) -> float:
    """Median step of the slowest rank: with tau above 1 the mean, since only some steps exchange."""
    has_tau = traits_of(measured.configuration.strategy).tau_of(measured.configuration) > 1
    return max(rank.step.mean if has_tau else rank.step.median for rank in measured.ranks)


def _disturbed(
    bench: Bench, name: str, seconds: float, windows: int, delay_rank: int | None, freeze_rank: int | None
) -> dict[str, Any]:
    """Ratios of the other ranks' steps, disturbed over undisturbed; medians over windows that alternate."""
    found: dict[str, list[float]] = {"others_delayed_ratio": [], "others_frozen_ratio": []}
    staleness = None
    for _ in range(windows):
        plain, _ = bench.others_steps(name, seconds)
        if delay_rank is not None:
            slowed, staleness = bench.others_steps(name, seconds, delay_rank=delay_rank)
            found["others_delayed_ratio"].append(_others_ratio(slowed, plain, delay_rank))
        if freeze_rank is not None:
            frozen, _ = bench.others_steps(name, seconds, freeze_rank=freeze_rank)
            found["others_frozen_ratio"].append(_others_ratio(frozen, plain, freeze_rank))
    ratios: dict[str, Any] = {key: float(np.median(values)) for key, values in found.items() if values}
    return {**ratios, "staleness_steps": staleness}


def _others_ratio(disturbed: Mapping[int, int], plain: Mapping[int, int], rank: int) -> float:
    others = [r for r in plain if r != rank]
    return sum(disturbed.get(r, 0) for r in others) / sum(plain[r] for r in others)


def _compute_seconds(compute: str) -> float:
    kind, _, amount = compute.partition(":")
    if kind == "real" and not amount:
        return 0.0
    if kind == "sleep" and amount.endswith("ms"):
        return float(amount.removesuffix("ms")) / 1000
    raise typer.BadParameter(f"{compute!r}: allowed is real, or sleep:20ms")


@contextmanager
def _importable_here() -> Iterator[None]:
    """Ranks import the workload and the bare loop from this checkout."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    try:
        yield
    finally:
        sys.path.pop(0)


def main(
    ranks: Annotated[str, typer.Option(help="Numbers of ranks.")] = "2,4",
    strategies: Annotated[str, typer.Option(help="Names, or all.")] = "all",
    model: Annotated[str, typer.Option(help="cnn or mlp, of the digits workload.")] = "cnn",
    width: Annotated[int, typer.Option(help="Its width.")] = 32,
    batch_size_per_rank: Annotated[int, typer.Option(help="Samples of a rank's step.")] = 32,
    compute: Annotated[str, typer.Option(help="real, or sleep:20ms added to each step.")] = "real",
    delay_rank: Annotated[int | None, typer.Option(help="Delay this rank by U[0, 300] ms.")] = None,
    freeze_rank: Annotated[int | None, typer.Option(help="Stop this rank (SIGSTOP).")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of alternation.")] = 5,
    steps: Annotated[int, typer.Option(help="Steps a round.")] = 161,
    seconds: Annotated[float, typer.Option(help="Window in which others' steps are counted.")] = 5.0,
    windows: Annotated[int, typer.Option(help="Windows of each kind, alternating.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """Measure every strategy beside bare DistributedDataParallel."""
    names = list(STRATEGIES) if strategies == "all" else strategies.split(",")
    found: list[dict[str, Any]] = []
    with _importable_here(), tempfile.TemporaryDirectory() as folder, LocalLauncher() as launcher:
        for num_ranks in (int(number) for number in ranks.split(",")):
            bench = Bench(
                launcher,
                num_ranks=num_ranks,
                model=model,
                width=width,
                batch_size_per_rank=batch_size_per_rank,
                sleep_seconds=_compute_seconds(compute),
                folder=Path(folder),
            )
            for row in rows_of(
                bench,
                num_ranks,
                model,
                names=names,
                rounds=rounds,
                num_steps=steps,
                seconds=seconds,
                windows=windows,
                delay_rank=delay_rank,
                freeze_rank=freeze_rank,
            ):
                found.append({**row, "compute": compute})
                typer.echo(f"{row['strategy']} on {num_ranks} ranks: done", err=True)
                if not as_json:
                    typer.echo("  ".join(f"{key}={_short(value)}" for key, value in row.items()))
    if as_json:
        typer.echo(json.dumps(found, indent=1))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
