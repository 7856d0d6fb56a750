"""The cost of a rank-step: what a row tells, and that a batched call finds what a loop finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import emulation_batched
from benchmarks.emulation import line_of, measure, workloads
from benchmarks.emulation_batched import Replicas
from tests.tuner.emulation.toy import Regression


@pytest.mark.slow
def test_a_row_shows_steps_share_of_the_clock_and_memory() -> None:
    row = measure("digits-mlp-32", "gossip_push", 2, 1, 0.001)
    assert row["workload"] == "digits-mlp-32"
    assert row["ranks"] == 2
    assert row["rank_steps_a_second"] > 0
    assert row["clock_share"] > 0
    assert row["peak_mib"] > 10
    assert "p=2" in line_of(row)


def test_workloads_are_asked_for_by_name() -> None:
    assert list(workloads("digits-cnn")) == ["digits-cnn"]


def test_one_call_for_many_ranks_finds_the_gradients_of_a_loop() -> None:
    replicas = Replicas(Regression(), 3, 4)
    replicas.one_by_one()
    expected = replicas.gradients()
    replicas.again()
    replicas.at_once()
    assert not torch.equal(expected[0], expected[1])
    for found, own in zip(replicas.gradients(), expected, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-10, atol=1e-12)


class Stubborn(Regression):
    """Reads a number of its loss, which no mapped call can."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        found = super().loss(model, batch)
        return found if found.item() < 1e9 else found * 2


def test_a_network_that_cannot_be_mapped_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(emulation_batched, "workloads", lambda *names: {"stubborn": Stubborn()})
    emulation_batched.main(shares="2", counts="2", names=None, windows=1, window_seconds=0.001, as_json=False)
    printed = capsys.readouterr().out
    assert printed.startswith("stubborn")
    assert "item()" in printed
