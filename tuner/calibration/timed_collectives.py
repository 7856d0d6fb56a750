"""Functions that ranks run during a calibration: they time all-reduces, and steps with and without them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tuner.calibration.plan import CalibrationPlan
from tuner.calibration.timed_steps import StepLoop, own_workload, pause_of, window_steps
from tuner.launchers import RankContext
from tuner.strategies.moments import moment, seconds_between
from tuner.transport.rendezvous import process_group, rank_device

#: Number of all-reduces or steps before the timed ones.
_FIRST = 3
#: How long a rank waits for the other ranks, seconds.
TIMEOUT_SECONDS = 120.0


def time_all_reduces(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Times all-reduces of alternating sizes, each after a pause.

    The time of a rank includes waiting for ranks that join the all-reduce later. The rank that joins last
    does not wait: the shortest time of all ranks is that of the all-reduce itself.

    Args:
        context: Rank context of the launcher.
        payload: `plan` (result of `CalibrationPlan.to_payload`) and `sizes` (sizes of the vectors, in bytes).

    Returns:
        `rounds`: seconds of this rank, indexed by round, size and repetition.
    """
    plan, device = CalibrationPlan.from_payload(payload["plan"]), rank_device(context.local_rank)
    with _all_ranks(context, device) as group:
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
    """Times steps of `DistributedDataParallel` with and without all-reduce, in alternation.

    Args:
        context: Rank context of the launcher.
        payload: `plan` (result of `CalibrationPlan.to_payload`) and `batch_size` (samples per step of this
            rank).

    Returns:
        Seconds of steps, indexed by round and step: `alone` without all-reduce, `together` with it.
    """
    plan, device = CalibrationPlan.from_payload(payload["plan"]), rank_device(context.local_rank)
    batch_size = payload["batch_size"]
    with _all_ranks(context, device) as group:
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
        # All ranks must make the same number of steps, or some would wait forever.
        typical = torch.tensor([usual], dtype=torch.float64)
        dist.broadcast(typical, src=0, group=group)
        count = window_steps(plan, float(typical))
        alone, combined = [], []
        for number in range(plan.effort.rounds):
            with wrapped.no_sync():
                alone.append(loop.run(batch_size, _FIRST + count)[_FIRST:])
            combined.append(loop.run(batch_size, _FIRST + count)[_FIRST:])
            context.send({"round": number})
        # The wrapper has a reference to the group, and must be deleted before the group is destroyed.
        del loop, wrapped
    return {"alone": alone, "together": combined}


def _all_ranks(
    context: RankContext, device: torch.device
) -> AbstractContextManager[dist.ProcessGroup | None]:
    return process_group(
        context.init_method,
        rank=context.rank,
        num_ranks=context.num_ranks,
        device=device,
        timeout_seconds=TIMEOUT_SECONDS,
    )
