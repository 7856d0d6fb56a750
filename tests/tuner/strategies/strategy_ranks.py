"""What ranks run in the tests of strategies; named by import path, so that a launcher can start it."""

import weakref
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tuner.launchers import RankContext
from tuner.strategies import Links, Share, strategy

#: Every model this process made; none may outlive its job.
freed: list[weakref.ref[nn.Module]] = []


def small_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def batch_of(step: int, rank: int, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return (
        torch.randn(num_samples, 6, generator=generator),
        torch.randint(3, (num_samples,), generator=generator),
    )


def train(context: RankContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Trains by the strategy, or by bare DistributedDataParallel, and tells all there is to tell."""
    group = None
    if context.num_ranks > 1:
        dist.init_process_group(
            "gloo", init_method=context.init_method, rank=context.rank, world_size=context.num_ranks
        )
        group = dist.group.WORLD
    try:
        # In a function of its own: the module must go before the last reference to its group.
        return steps(context, payload, group)
    finally:
        if group is not None:
            dist.destroy_process_group()


def steps(context: RankContext, payload: dict[str, Any], group: Any) -> dict[str, Any]:
    """Makes the steps."""
    sizes = payload["sizes"]
    share = Share(batch_size=sum(sizes), num_ranks=context.num_ranks, num_samples=sizes[context.rank])
    model = small_model()
    freed.append(weakref.ref(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ours = strategy("all_reduce")
    if payload["bare"]:
        module = DistributedDataParallel(model, process_group=group, forward_sync_buffers=False)
    else:
        links = Links(rank=context.rank, num_ranks=context.num_ranks, group=group)
        module = ours.attach(model, optimizer, links, np.random.default_rng(0))
    squares = []
    exchanges = []
    for step in range(payload["steps"]):
        inputs, classes = batch_of(step, context.rank, share.num_samples)
        optimizer.zero_grad()
        ours.before_step(share)
        loss = nn.functional.cross_entropy(module(inputs), classes)
        (loss * ours.loss_weight(share.num_samples, share)).backward()
        if not payload["bare"]:
            ours.after_backward()
            exchanges += ours.exchanges()
        squares.append(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
        optimizer.step()
        ours.after_step()
    own = model[1].running_mean.tolist()
    with nullcontext() if payload["bare"] else ours.scored_parameters():
        scored = model[1].running_mean.tolist()
    after = model[1].running_mean.tolist()
    return {
        "parameters": [p.detach().flatten().tolist() for p in model.parameters()],
        "mean_squares": squares,
        "exchanges": [
            [e.sync_seconds, e.exchanged_bytes, e.local_squared_norm, e.mean_squared_norm] for e in exchanges
        ],
        "running_mean": {"own": own, "scored": scored, "after": after},
        "num_models_alive": sum(model() is not None for model in freed),
        "is_plain": module is model,
    }
