"""Rank functions that time all-reduces, and `DistributedDataParallel` steps with and without theirs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tuner.calibration.plan import CalibrationPlan
from tuner.calibration.timed_steps import StepLoop, own_workload, pause_of, window_steps
from tuner.launchers import RankContext
from tuner.strategies.moments import moment, seconds_between
from tuner.transport.rendezvous import process_group, rank_device

#: Exchanges and steps that come before those that count.
_FIRST = 3
#: How long a rank waits for the others, seconds.
TIMEOUT_SECONDS = 120.0


def time_all_reduces(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Times all-reduces of several sizes, in alternation, after pauses.

    A rank's time includes its waiting for ranks that came later; for one all-reduce, the rank that came
    last timed only the exchange, which is the shortest time of all ranks.

    Args:
        context: The rank's place.
        payload: `plan` (`CalibrationPlan.to_payload`) and `sizes`, bytes.

    Returns:
        By round, size and exchange, seconds of this rank.
    """
    plan, device = CalibrationPlan.from_payload(payload["plan"]), rank_device(context.local_rank)
    with process_group(
        context.init_method,
        rank=context.rank,
        num_ranks=context.num_ranks,
        device=device,
        timeout_seconds=TIMEOUT_SECONDS,
    ) as group:
        vectors = [torch.zeros(size // 4, device=device) for size in payload["sizes"]]
        rounds = []
        for number in range(plan.effort.rounds):
            times = []
            for vector in vectors:
                count = plan.effort.exchanges + (_FIRST if number == 0 else 1)
                seconds = []
                for _ in range(count):
                    time.sleep(plan.effort.pause_seconds)
                    start = moment(device)
                    dist.all_reduce(vector, group=group)
                    seconds.append(seconds_between(start, moment(device)))
                times.append(seconds[-plan.effort.exchanges :])
            rounds.append(times)
            context.send({"round": number})
    return {"rounds": rounds}


def time_overlap(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Times steps of `DistributedDataParallel`, windows with the all-reduce alternating with ones without.

    Args:
        context: The rank's place.
        payload: `plan` (`CalibrationPlan.to_payload`) and `batch_size`, of this rank.

    Returns:
        By round, seconds of the steps: `alone` without, `combined` with the exchange.
    """
    plan, device = CalibrationPlan.from_payload(payload["plan"]), rank_device(context.local_rank)
    batch_size = payload["batch_size"]
    with process_group(
        context.init_method,
        rank=context.rank,
        num_ranks=context.num_ranks,
        device=device,
        timeout_seconds=TIMEOUT_SECONDS,
    ) as group:
        workload, model = own_workload(plan, device)
        wrapped = DistributedDataParallel(
            model, process_group=group, device_ids=None if device.type == "cpu" else [device]
        )
        loop = StepLoop(
            workload,
            wrapped,
            learning_rate=plan.learning_rate,
            device=device,
            pause=pause_of(plan, context.rank),
        )
        usual = sorted(loop.run(batch_size, _FIRST + 5)[_FIRST:])[2]
        # Whoever makes fewer steps than the others would leave them waiting.
        typical = torch.tensor([usual], dtype=torch.float64)
        dist.broadcast(typical, src=0, group=group)
        count = window_steps(plan, float(typical))
        alone, combined = [], []
        for number in range(plan.effort.rounds):
            with wrapped.no_sync():
                alone.append(loop.run(batch_size, _FIRST + count)[_FIRST:])
            combined.append(loop.run(batch_size, _FIRST + count)[_FIRST:])
            context.send({"round": number})
        # The wrapper holds the group, and must be gone before it.
        del loop, wrapped
    return {"alone": alone, "together": combined}
