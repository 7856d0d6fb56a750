from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.topology_job import foretold, read_timings

HEADER = "app,kind,num_nodes,num_replicas,placement,local_batch_size,step_seconds,sync_seconds\n"


def line(kind: str, nodes: int, replicas: int, placement: str, batch: int) -> str:
    seconds = 0.05 + 1e-3 * batch + (0.002 if nodes == 1 else 0.02 + 0.004 * nodes)
    return f"cifar10,{kind},{nodes},{replicas},{placement},{batch},{seconds},0.01\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Steps on whole nodes of four devices, and some on part of them."""
    path = tmp_path / "steps.csv"
    rows = [line("placements", n, 4 * n, "4" * n, b) for n in (1, 2, 3, 4) for b in (16, 64, 128)]
    rows += [line("placements", 2, 5, "41", 64), line("placements", 2, 4, "22", 64)]
    rows += [line("scalability", n, 4 * n, "", b) for n in (2, 8, 16) for b in (16, 128)]
    path.write_text(HEADER + "".join(rows))
    return path


def test_only_whole_nodes_are_read(table: Path) -> None:
    near, far = read_timings(table, "cifar10", 4)
    assert len(near) == 12
    assert sorted({m.configuration.nodes for m in far}) == [8, 16]
    assert {m.configuration.batch_size for m in far} == {16 * 32, 128 * 32, 16 * 64, 128 * 64}


def test_two_kinds_of_link_are_predicted_better_by_a_law_that_has_them(table: Path) -> None:
    rows = list(foretold("cifar10", 4, *read_timings(table, "cifar10", 4), draws=2))
    errors = {(row.fit_nodes, row.model): row.mean_error for row in rows}
    assert errors[2, "placed"] < 0.5 * errors[2, "alike"]
    assert all(0.0 <= row.coverage_90 <= 1.0 for row in rows)
