"""Other seconds for the same statistics: had an all-reduce hidden better, or is the clock another by now.

Only seconds change; nothing is trained. For all-reduce that is exact. Other strategies' exchanges stay in the
order of the clock they were trained under, so that their rows are told to be priced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from benchmarks.paper_clocks import CLOCKS, OVERLAP
from benchmarks.paper_rows import Row, reseconded
from benchmarks.paper_train import Run, prices, trained_of
from tuner.emulation import emulation


def with_overlap(rows: Iterable[Row], overlap: float) -> list[Row]:
    """The rows, those of all-reduce with the seconds of another overlap exponent; 1 is no overlap."""
    return [_priced(row, overlap) if row.strategy == "all_reduce" else row for row in rows]


def priced_anew(rows: Iterable[Row], strategies: Collection[str]) -> list[Row]:
    """The rows, those of some strategies with the seconds of the present emulation."""
    return [
        replace(_priced(row, OVERLAP), repriced=row.strategy != "all_reduce")
        if row.strategy in strategies
        else row
        for row in rows
    ]


def _priced(row: Row, overlap: float) -> Row:
    if not row.curve:
        return row
    run = Run(
        strategy=row.strategy,
        ranks=row.ranks,
        batch_size=row.batch_size,
        learning_rate=row.learning_rate,
        seed=row.seed,
        clock=row.clock,
        samples=row.curve[-1][0],
        beta=row.beta,
    )
    trained = trained_of(run, CLOCKS[row.clock])
    cluster = replace(trained.cluster, overlap=overlap)
    empty = emulation(replace(trained, cluster=cluster, computes=False))
    return reseconded(row, prices(empty, [samples for samples, *_ in row.curve]))
