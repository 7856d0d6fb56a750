"""The experiment of Jin et al. 2016 on emulated ranks: which strategy wins, by ranks, rate and cluster.

    python -m benchmarks.paper --cache FOLDER                           about 100 minutes on one core
    python -m benchmarks.paper --cache FOLDER --quick                   about 11 minutes on one core
    python -m benchmarks.paper --cache FOLDER --only gossip_pull --on fast      these runs alone, anew
    python -m benchmarks.paper --cache FOLDER --missing         only runs whose rows are not there, or priced
    python -m benchmarks.paper --report-only                tables and figures of the rows that are there
    python -m benchmarks.paper --price elastic_averaging    its rows with the seconds of the present clock
    python -m benchmarks.paper --overlap 1                  their map, had all-reduce not hidden at all

All-reduce, elastic averaging (tau 10; a pilot picks its moving rate), pull and push gossip (tau 1) train a
small batch-normalised residual network on Fashion-MNIST on 8, 32 and 128 emulated ranks, with the paper's
optimizer and a rate divided by 10 at fixed samples seen by all. Time is that of two clusters
(`paper_clocks`). Every run that has ended is a line in the cache folder; started again, the command goes on
with the next. With `--only`, `--on` or `--missing` these runs alone are made, and all other rows stay what
they are in `--output`, so that a part can be made anew without the cache of the rest. Tables are printed as
Markdown; rows are written to `--output`, and figures beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.paper_figure import figures
from benchmarks.paper_plan import ALL, FULL, QUICK, Part, lines_of, picked_betas, train_all
from benchmarks.paper_prices import priced_anew, with_overlap
from benchmarks.paper_rows import Row, merged, rows_of
from benchmarks.paper_table import map_table, times_table

_OUTPUT = Path(__file__).parent / "results" / "paper.json"
_LINES = "paper_runs.jsonl"


def read_rows(path: Path) -> list[Row]:
    """Rows of a file that `write_rows` wrote."""
    return [Row.from_json(data) for data in json.loads(path.read_text())]


def write_rows(rows: list[Row], path: Path) -> None:
    """A list of objects, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row.to_json(), separators=(",", ":")) for row in rows]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())


def main(
    cache: Annotated[Path, typer.Option(help="Folder in which finished runs are kept.")] = Path(
        "paceline-out/paper"
    ),
    output: Annotated[Path, typer.Option(help="Rows; figures are written beside it.")] = _OUTPUT,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    quick: Annotated[bool, typer.Option(help="Fewer samples, one seed, fewer runs.")] = False,
    report_only: Annotated[bool, typer.Option(help="Tables and figures of the rows that are there.")] = False,
    so_far: Annotated[bool, typer.Option(help="Rows of the runs that have ended; trains nothing.")] = False,
    only: Annotated[str, typer.Option(help="Strategies whose runs are made; others' rows stay.")] = "",
    on: Annotated[str, typer.Option(help="Clocks, fast or slow, whose runs are made.")] = "",
    missing: Annotated[bool, typer.Option(help="Only runs whose rows are not there, or priced.")] = False,
    price: Annotated[str, typer.Option(help="Strategies whose rows get the seconds of now.")] = "",
    overlap: Annotated[
        float | None, typer.Option(min=1, help="The map if all-reduce overlapped compute so (1: not at all).")
    ] = None,
) -> None:
    """Train by every strategy on emulated ranks, and say which wins where."""
    if overlap is not None:
        print(map_table(with_overlap(read_rows(output), overlap)))
        return
    if report_only:
        rows = read_rows(output)
    elif price:
        rows = priced_anew(read_rows(output), Part(strategies=_names(price)).strategies)
        write_rows(rows, output)
    else:
        plan, path = (QUICK if quick else FULL), cache / _LINES
        rows = read_rows(output) if missing and output.exists() else []
        reported = frozenset(row.place for row in rows if not row.repriced)
        part = Part(strategies=_names(only), clocks=_names(on), reported=reported)
        lines = (
            lines_of(plan, path, part=part)
            if so_far
            else train_all(plan, path, part=part, processes=processes)
        )
        stored = read_rows(output) if part != ALL and output.exists() else []
        rows = merged(stored, rows_of(lines.values()))
        write_rows(rows, output)
        if betas := picked_betas(lines, plan):
            picked = ", ".join(f"{beta:g} on {ranks} ranks" for ranks, beta in betas.items())
            print(f"Moving rate times ranks, as pilots picked it: {picked}.\n")
    print(map_table(rows), times_table(rows), sep="\n\n")
    for name, drawn in figures(rows).items():
        output.with_name(f"{output.stem}_{name}.svg").write_text(drawn)


if __name__ == "__main__":
    typer.run(main)
