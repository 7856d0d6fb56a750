"""The paper's experiment: it goes on where it was cut off, prices all-reduce once, and tells winners."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import read_rows, write_rows
from benchmarks.paper_clocks import CLOCKS, FAST, PAPER_BYTES
from benchmarks.paper_figure import figures
from benchmarks.paper_plan import FULL, Part, Plan, picked_betas, pilots, runs, train_all
from benchmarks.paper_rows import Row, cells, merged, rows_of
from benchmarks.paper_table import map_table, times_table
from benchmarks.paper_train import Run

SMALL = Plan(
    samples=1000,
    rates=(0.4, 0.1),
    seeds=(0, 1),
    betas=(0.8, 3.2),
    gossip_on_slow=True,
    elastic_on_slow=(8,),
    more_rates=(0.2,),
    other_batches=((8, 256),),
)


class Trainer:
    """Makes up runs, and breaks off after some."""

    def __init__(self, ends_after: int | None = None) -> None:
        self.made: list[Run] = []
        self._ends_after = ends_after

    def __call__(self, run: Run) -> dict[str, Any]:
        if len(self.made) == self._ends_after:
            raise KeyboardInterrupt
        self.made.append(run)
        # All-reduce is slow and good; the larger beta is the better one.
        slow = run.strategy == "all_reduce"
        accuracy = 0.85 if slow else 0.82 + 0.001 * (run.beta or 0.0)
        seconds = [10.0, 20.0] if slow else [5.0, 10.0]
        fields = {name: getattr(run, name) for name in run.__dataclass_fields__}
        return {
            **fields,
            "is_finite": True,
            "curve": [[500, 1.0, 0.7], [1000, 0.5, accuracy]],
            "seconds": {"fast": seconds, "slow": [10 * s for s in seconds]},
            "staleness_steps": None if slow else 1.0,
        }


def test_a_run_that_was_cut_off_goes_on_with_the_next_and_ends_the_same(tmp_path: Path) -> None:
    whole = Trainer()
    expected = train_all(SMALL, tmp_path / "whole.jsonl", train_one=whole)
    path, first, second = tmp_path / "cut.jsonl", Trainer(ends_after=20), Trainer()
    with pytest.raises(KeyboardInterrupt):
        train_all(SMALL, path, train_one=first)
    # What was being written is lost, and does no harm.
    path.write_text(path.read_text()[:-9])
    assert train_all(SMALL, path, train_one=second) == expected
    assert [*first.made[:-1], *second.made] == whole.made
    third = Trainer()
    train_all(SMALL, path, train_one=third)
    assert third.made == []


def test_a_pilot_with_another_seed_picks_the_moving_rate(tmp_path: Path) -> None:
    trainer = Trainer()
    lines = train_all(SMALL, tmp_path / "runs.jsonl", train_one=trainer)
    assert picked_betas(lines, SMALL) == {8: 3.2, 32: 3.2, 128: 3.2}
    elastic = [run for run in trainer.made if run.strategy == "elastic_averaging" and not run.is_pilot]
    assert {run.beta for run in elastic} == {3.2}
    assert not {run.seed for run in pilots(SMALL)} & set(SMALL.seeds)


def test_all_reduce_is_trained_once_for_both_clocks(tmp_path: Path) -> None:
    planned = [run for run in runs(FULL) if run.strategy == "all_reduce"]
    assert len({replace(run, clock="any") for run in planned}) == len(planned)
    rows = rows_of(train_all(SMALL, tmp_path / "runs.jsonl", train_one=Trainer()).values())
    for ranks in (8, 32, 128):
        own = [row for row in rows if row.strategy == "all_reduce" and row.ranks == ranks and row.seed == 0]
        assert {row.clock for row in own} == set(CLOCKS)
        assert not any(row.repriced for row in own)


def test_a_run_scheduled_on_a_clock_replaces_one_that_was_priced_for_it(tmp_path: Path) -> None:
    rows = rows_of(train_all(SMALL, tmp_path / "runs.jsonl", train_one=Trainer()).values())
    elastic = [row for row in rows if row.strategy == "elastic_averaging" and row.clock == "slow"]
    repriced = {(row.ranks, row.seed) for row in elastic if row.repriced}
    assert repriced == {(8, 0), (8, 1), (32, 0), (32, 1), (128, 0), (128, 1)}
    first = [row for row in elastic if (row.ranks, row.seed, row.batch_size) == (8, 0, 128)]
    assert not any(row.repriced for row in first if row.learning_rate in SMALL.rates)
    assert not any(row.repriced for row in rows if row.strategy == "gossip_pull")
    # The second line's gossip was not scheduled on the slow clock, so nothing is told of it there.
    assert {row.clock for row in rows if row.batch_size == 256 and row.ranks == 8} == {"fast"}


GOSSIP_ON_FAST = Part(strategies=frozenset({"gossip_pull", "gossip_push"}), clocks=frozenset({"fast"}))


def test_a_part_made_anew_leaves_all_other_rows(tmp_path: Path) -> None:
    before = rows_of(train_all(SMALL, tmp_path / "before.jsonl", train_one=Trainer()).values())
    trainer = Trainer()

    def faster(run: Run) -> dict[str, Any]:
        line = trainer(run)
        return {**line, "seconds": {name: [s / 2 for s in own] for name, own in line["seconds"].items()}}

    lines = train_all(SMALL, tmp_path / "anew.jsonl", part=GOSSIP_ON_FAST, train_one=faster)
    assert {(run.strategy, run.clock) for run in trainer.made} == {
        ("gossip_pull", "fast"),
        ("gossip_push", "fast"),
    }
    after = merged(before, rows_of(lines.values()))
    assert [(row.arrangement, row.strategy, row.seed) for row in after] == [
        (row.arrangement, row.strategy, row.seed) for row in before
    ]
    for old, new in zip(before, after, strict=True):
        if old.strategy.startswith("gossip") and old.clock == "fast":
            assert new.curve[-1][1] == old.curve[-1][1] / 2
        else:
            assert new == old


def test_what_is_known_already_is_not_made_again(tmp_path: Path) -> None:
    rows = rows_of(train_all(SMALL, tmp_path / "before.jsonl", train_one=Trainer()).values())
    gone = [row for row in rows if (row.strategy, row.seed, row.learning_rate) != ("gossip_push", 1, 0.2)]
    trainer = Trainer()
    reported = frozenset(row.place for row in gone if not row.repriced)
    train_all(SMALL, tmp_path / "anew.jsonl", part=Part(reported=reported), train_one=trainer)
    made = [run for run in trainer.made if not run.is_pilot]
    assert {(run.strategy, run.seed, run.learning_rate) for run in made} == {("gossip_push", 1, 0.2)}
    assert len(made) == 6


def test_a_part_with_elastic_averaging_has_its_pilots(tmp_path: Path) -> None:
    trainer = Trainer()
    part = Part(strategies=frozenset({"elastic_averaging"}), clocks=frozenset({"slow"}))
    lines = train_all(SMALL, tmp_path / "runs.jsonl", part=part, train_one=trainer)
    assert picked_betas(lines, SMALL) == {8: 3.2, 32: 3.2, 128: 3.2}
    assert {run.clock for run in trainer.made if not run.is_pilot} == {"slow"}


def test_a_part_of_a_strategy_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no gossip_pul; it has all_reduce"):
        Part(strategies=frozenset({"gossip_pul"}))


def test_the_first_seed_of_everything_comes_first() -> None:
    seeds = [run.seed for run in runs(FULL) if run.learning_rate in FULL.rates and run.batch_size != 256]
    assert seeds == sorted(seeds)


def row(strategy: str, seed: int, seconds: float, accuracy: float, **changes: Any) -> Row:
    made = Row(
        strategy=strategy,
        ranks=8,
        batch_size=128,
        learning_rate=0.1,
        clock="fast",
        seed=seed,
        beta=None,
        repriced=False,
        curve=((100, seconds / 2, 1.0, 0.6), (200, seconds, 0.5, max(accuracy, 0.6))),
        final_accuracy=accuracy,
        seconds_to_targets=(None, None, None),
        staleness_steps=None,
    )
    return replace(made, **changes)


def test_the_map_names_the_first_to_arrive_and_the_most_accurate() -> None:
    rows = [
        row("all_reduce", 0, 100.0, 0.90),
        row("all_reduce", 1, 120.0, 0.89),
        row("gossip_pull", 0, 50.0, 0.86),
        row("gossip_pull", 1, 60.0, 0.85),
        row("gossip_push", 0, 40.0, 0.86),
        row("gossip_push", 1, 40.0, 0.70),
    ]
    (cell,) = cells(rows, target=0.8)
    # One that arrived with one seed only is no winner.
    assert [status.strategy for status in cell.soonest] == ["gossip_pull", "all_reduce"]
    assert cell.best[0].strategy == "all_reduce"
    assert cell.is_clear
    assert cell.is_clearly_best
    assert cell.lead == pytest.approx(1.8, rel=0.1)
    reported = map_table(rows).splitlines()[2].split(" | ")
    assert reported[5].startswith("gossip_pull 4")
    assert reported[5].endswith("x")
    assert reported[7] == "all_reduce 0.895, +4.0 |"


def test_seeds_that_overlap_and_single_seeds_are_marked() -> None:
    rows = [
        row("all_reduce", 0, 100.0, 0.90),
        row("all_reduce", 1, 60.0, 0.85),
        row("gossip_pull", 0, 50.0, 0.86),
        row("gossip_pull", 1, 90.0, 0.88),
    ]
    assert map_table(rows).splitlines()[2].count("*") == 4
    assert map_table(rows[::2]).splitlines()[2].count("†") == 4


def test_an_arrangement_nobody_masters_has_no_winner() -> None:
    rows = [row("all_reduce", 0, 9.0, 0.1, curve=()), row("gossip_pull", 0, 9.0, 0.1, curve=())]
    (cell,) = cells(rows, target=0.8)
    assert cell.soonest == ()
    assert "| none |" in map_table(rows)


def test_rows_survive_the_file_and_are_drawn(tmp_path: Path) -> None:
    rows = rows_of(train_all(SMALL, tmp_path / "runs.jsonl", train_one=Trainer()).values())
    write_rows(rows, tmp_path / "paper.json")
    assert read_rows(tmp_path / "paper.json") == rows
    assert isinstance(json.loads((tmp_path / "paper.json").read_text()), list)
    drawn = figures(rows)
    assert {"final", "targets", "map", "curves_rate_0.1", "curves_rate_0.4"} <= set(drawn)
    assert all(text.startswith("<svg ") and text.endswith("</svg>\n") for text in drawn.values())
    assert len(times_table(rows).splitlines()) > len(cells(rows, target=0.8)) * 4


def test_a_message_takes_as_long_as_that_of_the_papers_network() -> None:
    cluster = FAST.cluster(8, num_bytes=30_000)
    assert cluster.link_seconds(30_000) == pytest.approx(PAPER_BYTES * 8 / FAST.link_bits_per_second)
