"""The benchmark of strategies runs and prints what it promises; what it measures is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "strategy",
    "ranks",
    "model",
    "step_seconds",
    "ddp_ratio",
    "others_delayed_ratio",
    "others_frozen_ratio",
    "staleness_steps",
    "bytes_per_step",
    "expected_bytes_per_step",
    "peak_bytes",
}


@pytest.mark.slow
def test_strategies_are_measured_beside_the_bare_loop_and_with_faults() -> None:
    flags = (
        "--ranks 2 --strategies gossip_pull,local_sgd --rounds 1 --steps 33 --seconds 1 --model mlp --width 4"
    )
    faults = "--windows 1 --compute sleep:10ms --delay-rank 1 --freeze-rank 1 --json"
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.strategies", *flags.split(), *faults.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)
    assert [row["strategy"] for row in rows] == ["gossip_pull", "local_sgd"]
    for row in rows:
        assert set(row) >= KEYS
        assert row["step_seconds"] >= 0.01
        assert row["peak_bytes"] > 0
    pull, local = rows
    # One without a barrier goes on beside a frozen rank; one with a barrier stands still.
    assert pull["others_frozen_ratio"] > 0.5
    assert local["others_frozen_ratio"] < 0.5
    # Four steps of thirty-two exchange.
    assert local["bytes_per_step"] == pytest.approx(local["expected_bytes_per_step"], rel=0.05)
