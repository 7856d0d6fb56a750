"""Makes recordings to develop the search on: a small network trained for real, with modelled seconds.

    python -m benchmarks.small_recordings digits OUTPUT.jsonl.gz
    python -m benchmarks.small_recordings fashion OUTPUT.jsonl.gz [--folder FOLDER]

Constants of the search were chosen on such recordings: what it does on them is no evidence for it. The curves
are real: `benchmarks.small_network` is trained for every number of nodes, batch size, learning rate and
strategy (a synchronous or an asynchronous parameter server). The seconds are modelled, by `Clock`, since one
machine has no cluster to time. The same command writes the same file: every seed comes from the numbers of
its configuration.

On one core, with OMP_NUM_THREADS=1, digits take half a minute and Fashion-MNIST two minutes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.small_network import ASYNC, SYNC, Images, Scoring, Split, Task, train
from search_spaces import Configuration
from tuner.domain.cluster import Machine
from tuner.domain.errors import DataNotFoundError
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording
from tuner.workloads.idx_files import find_idx, read_idx

MACHINES = {
    "a": Machine(cores=2, dollars_per_hour=0.05),
    "b": Machine(cores=4, dollars_per_hour=0.13),
    "c": Machine(cores=8, dollars_per_hour=0.30),
}
#: Where Debian's package `dataset-fashion-mnist` puts the files.
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_DIGITS_SPLIT_SEED = 0
_NUM_DIGITS_TRAINING = 1_300
_NUM_FASHION_TRAINING, _NUM_FASHION_VALIDATION = 30_000, 2_000
#: Of the training images' pixels, where white is 1.
_FASHION_MEAN = np.float32(0.29)
#: Of seconds and values in the file.
_DECIMALS = 4


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How long a step of the server takes.

    With n nodes of c cores and b samples of one rank:

        gradient = (latency + b * sample) / c^0.75 * exp(0.05 z)
        message  = 2 * service, a fifth of it on one node
        sync     = gradient * (1 + 0.12 * 0.8 sqrt(2 ln n)) + n * message
        async    = max(message, (gradient + message) / n) * exp(0.03 z')

    z and z' are standard normal, drawn once a configuration. The slowest of n ranks, whose seconds vary by
    12%, is waited for; 0.8 sqrt(2 ln n) is about the largest of n normal variables. An asynchronous
    step is one rank's: n ranks make n in the time of one, until the server has no slot free.

    Args:
        latency_seconds: Of any gradient, on one core.
        seconds_per_sample: On one core.
        service_seconds: The server's, for one message to it or from it.
    """

    latency_seconds: float
    seconds_per_sample: float
    service_seconds: float

    def step_seconds(self, what: Configuration, cores: int, rng: np.random.Generator) -> float:
        """Mean seconds of a step: of all ranks if synchronous, of one rank if not."""
        nodes = what.nodes
        compute = (self.latency_seconds + self.seconds_per_sample * what.batch_size) / math.pow(cores, 0.75)
        compute *= math.exp(rng.normal(0.0, 0.05))
        message = 2 * self.service_seconds * (1.0 if nodes > 1 else 0.2)
        if what.strategy == ASYNC:
            return max(message, (compute + message) / nodes) * math.exp(rng.normal(0.0, 0.03))
        slowest = 0.8 * math.sqrt(2 * math.log(nodes))
        return compute * (1 + 0.12 * slowest) + nodes * message


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recording to be made.

    Args:
        name: The recording's.
        source: Where the data come from, and their licence.
        task: What is trained.
        target: The value that counts as reached.
        node_counts: Axis of the grid.
        batch_sizes: Axis of the grid: samples of one rank's gradient.
        learning_rates: Axis of the grid.
        clock: How long steps take.
        startup_seconds: Charged for each new probe.
    """

    name: str
    source: str
    task: Task
    target: float
    node_counts: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    clock: Clock
    startup_seconds: float


DIGITS = Plan(
    name="small-digits",
    source="benchmarks/small_recordings.py: scikit-learn's digits (UCI, CC BY 4.0), trained in numpy; "
    "seconds are modelled",
    task=Task(metric="loss", num_hidden=32, num_samples=40_000),
    target=0.25,
    node_counts=(1, 2, 4, 8, 16, 32),
    batch_sizes=(8, 64),
    learning_rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    clock=Clock(latency_seconds=2e-3, seconds_per_sample=2e-4, service_seconds=4e-4),
    startup_seconds=0.015,
)
FASHION = Plan(
    name="small-fashion",
    source="benchmarks/small_recordings.py: Fashion-MNIST (Xiao et al. 2017, MIT), trained in numpy; "
    "seconds are modelled",
    task=Task(metric="accuracy", num_hidden=64, num_samples=120_000),
    target=0.82,
    node_counts=(1, 3, 6, 12, 24, 48),
    batch_sizes=(16, 128),
    learning_rates=(0.003, 0.02, 0.1, 0.5),
    clock=Clock(latency_seconds=4e-3, seconds_per_sample=3e-4, service_seconds=1e-3),
    startup_seconds=0.09,
)


def digits() -> Split:
    """Handwritten digits of 8 x 8 pixels, which scikit-learn brings: 1,300 to train on, 497 to score."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(_DIGITS_SPLIT_SEED).permutation(len(bunch.target))
    images = Images(
        pixels=(bunch.data[order] / 16).astype(np.float32), labels=bunch.target[order].astype(np.int64)
    )
    remainder = slice(_NUM_DIGITS_TRAINING, None)
    return Split(
        training=images.first(_NUM_DIGITS_TRAINING),
        validation=Images(pixels=images.pixels[remainder], labels=images.labels[remainder]),
    )


def fashion_mnist(folder: Path = FASHION_FOLDER) -> Split:
    """Clothing of 28 x 28 pixels: the first 30,000 images to train on, the first 2,000 tests to score.

    Args:
        folder: Holds the four IDX files, plain or gzipped.

    Raises:
        DataNotFoundError: One of them is not there, or cannot be read.
    """
    return Split(
        training=_fashion_images(folder, "train").first(_NUM_FASHION_TRAINING),
        validation=_fashion_images(folder, "t10k").first(_NUM_FASHION_VALIDATION),
    )


def record(plan: Plan, data: Split) -> Recording:
    """Trains every configuration of a plan, and times it on every machine."""
    runs: list[RecordedRun] = []
    for nodes, batch_size, learning_rate in itertools.product(
        plan.node_counts, plan.batch_sizes, plan.learning_rates
    ):
        # Not the strategy: both start from the same weights and see the same samples.
        numbers = (nodes, batch_size, *learning_rate.as_integer_ratio())
        for strategy in (SYNC, ASYNC):
            what = Configuration(
                nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy=strategy
            )
            scorings = train(plan.task, data, what, _generator(*numbers))
            runs += _timed_runs(plan, what, scorings, (*numbers, int(strategy == ASYNC)))
    return Recording(
        name=plan.name,
        source=plan.source,
        metric=plan.task.metric,
        maximize=plan.task.metric == "accuracy",
        target=plan.target,
        machines=MACHINES,
        batch_size_scope="rank",
        extra_nodes=1,
        startup_seconds=plan.startup_seconds,
        runs=tuple(runs),
    )


def _timed_runs(
    plan: Plan, what: Configuration, scorings: list[Scoring], numbers: tuple[int, ...]
) -> Iterator[RecordedRun]:
    """A training as it would go on each machine."""
    for name, machine in MACHINES.items():
        step_seconds = plan.clock.step_seconds(what, machine.cores, _generator(*numbers, machine.cores))
        curve = np.array([(s.step * step_seconds, s.step, s.value) for s in scorings])
        yield RecordedRun(
            configuration=what.replaced(machine=name),
            step_seconds=step_seconds,
            curve=curve.round(_DECIMALS),
            end=f"{plan.task.num_samples} samples",
        )


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(numbers))


def _fashion_images(folder: Path, part: str) -> Images:
    stems = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    paths = [find_idx(folder, stem) for stem in stems]
    found = [path for path in paths if path is not None]
    if len(found) < len(stems):
        missing = ", ".join(stem for stem, path in zip(stems, paths, strict=True) if path is None)
        raise DataNotFoundError(
            f"Fashion-MNIST is not in {folder}: {missing} (plain or .gz) not found there. "
            "Do `apt-get install dataset-fashion-mnist`, or name a folder with the four IDX files by --folder"
        )
    try:
        pixels, labels = (read_idx(path) for path in found)
    except (OSError, ValueError) as error:
        raise DataNotFoundError(f"Fashion-MNIST cannot be read: {error}. Fetch its files again") from error
    return Images(
        pixels=pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255) - _FASHION_MEAN,
        labels=labels.astype(np.int64),
    )


def _report(recording: Recording, path: Path) -> None:
    seconds = np.array([recording.truth_seconds(run) for run in recording.runs])
    best = recording.runs[int(seconds.argmin())].configuration
    typer.echo(
        f"{path}: {len(seconds)} runs, {np.isfinite(seconds).sum()} arrive, "
        f"the first after {seconds.min():.3g} s: {best}"
    )


app = typer.Typer(add_completion=False, help=__doc__)
Output = Annotated[Path, typer.Argument(help="The file to write, .jsonl.gz.")]


@app.command("digits")
def record_digits(output: Output) -> None:
    """Digits of scikit-learn, whose loss is to fall to 0.25."""
    recording = record(DIGITS, digits())
    write_recording(recording, output)
    _report(recording, output)


@app.command("fashion")
def record_fashion(
    output: Output,
    folder: Annotated[Path, typer.Option(help="Folder with the four IDX files.")] = FASHION_FOLDER,
) -> None:
    """Fashion-MNIST, whose accuracy is to rise to 0.82."""
    try:
        data = fashion_mnist(folder)
    except DataNotFoundError as error:
        raise typer.BadParameter(str(error), param_hint="--folder") from error
    recording = record(FASHION, data)
    write_recording(recording, output)
    _report(recording, output)


if __name__ == "__main__":
    app()
