"""The figures that README and docs state, computed from the stored results of the benchmarks.

A comment `<!-- figures: NAME ... -->` after a paragraph or table names its figures. The tests check that the
paragraph has each text of the figures, and that benchmarks/results/README.md lists the command beside the
stored result.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of one paragraph or table.

    Args:
        command: The program that wrote the result, such as `benchmarks.emulation`.
        result: Name of the stored result.
        texts: Computes the texts that the paragraph must contain from the result: the content of a JSON file,
            or the text of another file.
    """

    command: str
    result: str
    texts: Callable[[Any], Iterable[str]]

    def stated(self) -> list[str]:
        """Returns the texts that the paragraph must contain."""
        path = RESULTS / self.result
        content = path.read_text(encoding="utf-8")
        return list(self.texts(json.loads(content) if path.suffix == ".json" else content))


def _emulation(rows: Any) -> list[str]:
    ratios = [row["ratio"] for row in rows]
    usual = sum(ratio <= 1.3 for ratio in ratios)
    memory = max(row["peak_mib"] for row in rows if row["ranks"] == 128) / 1024
    return [f"{usual} of {len(rows)}", f"up to {max(ratios):.1f}", f"{memory:.1f} GiB"]


def _emulation_against_real(result: Any) -> list[str]:
    found = {}
    for name in ("seconds", "disagreement", "staleness"):
        within = [row["within"][name] for row in result["rows"] if row["within"].get(name) is not None]
        found[name] = f"{sum(within)} of {len(within)}"
    return [
        f"seconds are within 10% in {found['seconds']} rows",
        f"disagreement between ranks within 20% in {found['disagreement']}",
        f"staleness within 10% in {found['staleness']}",
    ]


def _topology(rows: Any) -> list[str]:
    def mean(model: str) -> str:
        return f"{statistics.mean(row['mean_error'] for row in rows if row['model'] == model):.0%}"

    return [f"mean error of {mean('placed')}", f"it is {mean('alike')}"]


def _samples(rows: Any) -> list[str]:
    factors = [
        math.exp(abs(math.log(row["predicted"] / row["measured"])))
        for row in rows
        if row["source"] == "steplaw"
    ]
    return [f"a factor of {statistics.median(factors):.2f} (median of {len(factors)}"]


def _noise_growth(rows: Any) -> list[str]:
    found = [row for row in rows if row["model"] == "growing" and row["share"] == 0.25]
    misses = [(row["predicted"] - row["measured"]) / row["sd"] for row in found]
    spread = math.sqrt(statistics.mean((row["predicted"] - row["measured"]) ** 2 for row in found))
    inside = sum(abs(miss) <= 1.645 for miss in misses)
    return [
        f"over {len(found)} predictions",
        f"error of {spread:.2f}",
        f"{inside} of the {len(found)} 90% intervals",
    ]


def _predictions(result: Any) -> Iterable[str]:
    plain, explored = result["all"]["real"], result["all"]["real, explored"]
    for found in (plain, explored):
        yield f"{found['inside']} of {found['predictions']}"
    yield f"{plain['median_width']:.0f} times the lower end"
    yield f"intervals of {explored['median_width']:.1f} times"


def _parallel(text: str) -> Iterable[str]:
    for line in text.splitlines():
        words = line.split()
        if not words or not words[0].startswith("trimtuner"):
            continue
        name, at_once = words[0].removeprefix("trimtuner-"), words[2]
        shown = (f"{float(words[place]):.1f}" for place in (4, 6, 7, 9))
        yield f"| {name} | {at_once} | {' | '.join(shown)} |"


def _convergence(result: Any) -> Iterable[str]:
    runs = {(run["strategy"], run["delay_rank"]): run for run in result["runs"]}
    for (strategy, delayed), run in runs.items():
        if delayed is not None:
            continue
        tau = run["configuration"].get("tau", 1)
        name = f"`{strategy}`" if tau == 1 else f"`{strategy}`, tau {tau}"
        late = runs[strategy, 1]
        cells = (
            f"{round(r['samples_to_target'], -2):,.0f} | {r['seconds_to_target']:.0f}" for r in (run, late)
        )
        yield f"| {name} | {' | '.join(cells)} |"


def _convergence_words(result: Any) -> list[str]:
    runs = {(run["strategy"], run["delay_rank"]): run for run in result["runs"]}
    waits = {"all_reduce", "local_sgd", "diloco"}
    gains = [
        runs["all_reduce", 1]["seconds_to_target"] / run["seconds_to_target"]
        for (strategy, delayed), run in runs.items()
        if delayed == 1 and strategy not in waits
    ]
    steps = [
        run["batch_seconds"]
        for (strategy, delayed), run in runs.items()
        if delayed is None and strategy.startswith(("gossip", "parameter"))
    ]
    return [
        f"the target {min(gains):.1f} to {max(gains):.1f} times as fast as all-reduce",
        f"{runs['all_reduce', None]['batch_seconds']:.2f} s with all-reduce",
        f"{min(steps):.2f} to {max(steps):.2f} s without a barrier",
    ]


def _paper_times(rows: Any, clock: str, rate: float, target: int) -> dict[str, float]:
    """Returns the mean seconds to a target on 8 ranks of each strategy whose runs all reached it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        place = (row["clock"], row["learning_rate"], row["ranks"], row["batch_size"])
        if place == (clock, rate, 8, 128):
            found.setdefault(row["strategy"], []).append(row["seconds_to_targets"][target])
    return {name: statistics.mean(times) for name, times in found.items() if None not in times}


def _paper(rows: Any) -> list[str]:
    def lead(clock: str, rate: float, target: int) -> float:
        times = _paper_times(rows, clock, rate, target)
        push = times.pop("gossip_push")
        return min(times.values()) / push

    slow = [lead("slow", 0.2, target) for target in range(3)]
    return [
        f"(by {lead('fast', 0.1, 0):.2f} and {lead('fast', 0.2, 0):.1f} times)",
        f"({min(slow):.1f} to {max(slow):.1f} times)",
    ]


def _paper_push(rows: Any) -> list[str]:
    times = _paper_times(rows, "fast", 0.1, 0)
    return [f"push needs {times['gossip_push']:.1f} s to 0.75 and pull {times['gossip_pull']:.1f} s"]


FIGURES = {
    "emulation": Figures(command="benchmarks.emulation", result="emulation.json", texts=_emulation),
    "emulation_against_real": Figures(
        command="benchmarks.emulation", result="emulation_against_real.json", texts=_emulation_against_real
    ),
    "topology": Figures(command="benchmarks.topology_job", result="topology_job.json", texts=_topology),
    "samples": Figures(
        command="benchmarks.samples_to_target", result="samples_to_target.json", texts=_samples
    ),
    "noise_growth": Figures(
        command="benchmarks.noise_growth", result="noise_growth.json", texts=_noise_growth
    ),
    "parallel": Figures(
        command="benchmarks.replay_parallel", result="replay_parallel_seconds.txt", texts=_parallel
    ),
    "predictions": Figures(command="benchmarks.predictions", result="predictions.json", texts=_predictions),
    "convergence": Figures(
        command="benchmarks.convergence", result="convergence_fashion_mnist.json", texts=_convergence
    ),
    "convergence_words": Figures(
        command="benchmarks.convergence", result="convergence_fashion_mnist.json", texts=_convergence_words
    ),
    "paper": Figures(command="benchmarks.paper", result="paper.json", texts=_paper),
    "paper_push": Figures(command="benchmarks.paper", result="paper.json", texts=_paper_push),
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which figures; all by default.")] = None,
) -> None:
    """Print the figures that README and docs state, with their commands and stored results."""
    chosen: Sequence[str] = names or list(FIGURES)
    for name in chosen:
        figures = FIGURES[name]
        typer.echo(f"{name}: python -m {figures.command}, benchmarks/results/{figures.result}")
        for text in figures.stated():
            typer.echo(f"    {text}")


if __name__ == "__main__":
    typer.run(main)
