from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tuner.probes.tiny_workloads import Blobs
from tuner.probes.ranks.evaluation import fresh_batch_norm

CPU = torch.device("cpu")


def test_statistics_are_those_of_the_present_parameters_and_go_back_afterwards() -> None:
    workload = Blobs(num_samples=400, batch_norm=True)
    model = workload.model()
    data = workload.training_data()
    with torch.no_grad():
        model[0].weight.mul_(3.0)  # type: ignore[index]
    norm = model[1]  # type: ignore[index]
    stored = {name: value.clone() for name, value in norm.named_buffers()}
    model.eval()
    draw = torch.random.get_rng_state()
    with fresh_batch_norm(model, workload, data, CPU, seed=0), torch.no_grad():
        inputs = model[0](data.tensors[0])  # type: ignore[index,attr-defined]
        # A few batches of 128 out of 400: their mean is the whole's but for sampling.
        torch.testing.assert_close(norm.running_mean, inputs.mean(dim=0), atol=0.3, rtol=0.2)
        torch.testing.assert_close(norm.running_var, inputs.var(dim=0), atol=0.5, rtol=0.2)
        assert not model.training
    for name, value in norm.named_buffers():
        assert torch.equal(value, stored[name])
    assert norm.momentum == pytest.approx(0.1)
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), draw)


def test_model_without_such_statistics_is_left_alone() -> None:
    workload = Blobs()
    model = nn.Sequential(nn.Linear(4, 3))
    before = model.training
    with fresh_batch_norm(model, workload, workload.training_data(), CPU, seed=0):
        assert model.training == before
