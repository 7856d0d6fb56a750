from __future__ import annotations

import pytest
import torch
from torch import nn

from tuner.domain.errors import JobError
from tuner.strategies.flat import FlatParameters


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def trained(*, nesterov: bool) -> tuple[nn.Module, torch.optim.Optimizer, FlatParameters]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=nesterov)
    flat = FlatParameters(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 3, 4, 4)).square().sum().backward()
        optimizer.step()
        flat.stepped()
    return model, optimizer, flat


def test_parameters_keep_values_and_memory_layout_and_become_views() -> None:
    model, reference = network(), network()
    flat = FlatParameters(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()
    flat.vector.zero_()
    assert all(bool((p == 0).all()) for p in model.parameters())
    assert flat.num_bytes == 4 * sum(p.numel() for p in model.parameters())


def test_plain_point_is_the_vector_itself_without_lookahead() -> None:
    _, _, flat = trained(nesterov=False)
    assert flat.plain() is flat.vector


def test_plain_point_undoes_the_lookahead_at_the_rate_it_was_made_with() -> None:
    model, optimizer, flat = trained(nesterov=True)
    wanted = [p.detach() + 0.1 * 0.9 * optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    optimizer.param_groups[0]["lr"] = 0.001  # the schedule has moved on; the step was made before
    scratch = torch.empty_like(flat.vector)
    plain = flat.plain(scratch)
    assert plain is scratch
    with torch.no_grad():
        stored = flat.vector.clone()
        flat.vector.copy_(plain)
        for parameter, value in zip(model.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.detach(), value)
        flat.vector.copy_(stored)


def test_frozen_parameters_stay_out() -> None:
    model = network()
    next(model.parameters()).requires_grad_(False)
    flat = FlatParameters(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert flat.vector.numel() == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_parameters_of_two_types_are_refused_with_what_to_do() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(
        JobError, match=r"float32 on cpu, torch\.float64 on cpu.*convert the model, or use all_r"
    ):
        FlatParameters(model, torch.optim.SGD(model.parameters(), lr=0.1))
