"""What every rank of a training probe runs: one slice, from its checkpoint to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from tuner.checkpoints import CheckpointFolder
from tuner.launchers import RankContext
from tuner.probes.marks import ScoreMarks, first_mark
from tuner.probes.memory import is_out_of_memory, parameter_bytes, peak_bytes, reset_peak_bytes
from tuner.probes.rank_setup import Prepared, prepare, process_group, rank_device
from tuner.probes.rank_voice import RankVoice
from tuner.probes.replica import Replica
from tuner.probes.run_state import load_run
from tuner.probes.scoring import NoiseWatch, Scorer
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER, MODEL_FILE, SlicePlan
from tuner.probes.slice_runner import SliceRunner
from tuner.probes.step_timer import rank_timing
from tuner.strategies import strategy

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def run_slice(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one slice of a probe on this rank.

    Args:
        context: The rank's place.
        payload: `SlicePlan.to_payload`.

    Returns:
        Plain data: outcome, where the run stands, this rank's timing, memory and seconds.
    """
    voice = RankVoice(context)
    try:
        voice.progress("loading the workload")
        plan = SlicePlan.from_payload(payload)
        device = rank_device(context.local_rank)
        reset_peak_bytes(device)
        prepared = prepare(plan)
        voice.progress("meeting the other ranks")
        # Longer than the prober's own limit, so that a hang is told from a rank that died.
        timeout_seconds = 2 * plan.job.probe.hang_timeout + 30
        with process_group(context, device, timeout_seconds) as group:
            return _run(context, plan, prepared, device, group, voice)
    except Exception as error:
        if is_out_of_memory(error):
            voice.out_of_memory(error)
        raise


def _run(
    context: RankContext,
    plan: SlicePlan,
    prepared: Prepared,
    device: torch.device,
    group: ProcessGroup | None,
    voice: RankVoice,
) -> dict[str, Any]:
    replica = _replica(context, plan, prepared, device, group)
    path = None if plan.is_timing else _newest_checkpoint(plan, context.rank, group)
    clock_state = load_run(path, replica, rank=context.rank, num_ranks=context.num_ranks, seed=plan.job.seed)
    probe = plan.job.probe
    scorer = Scorer(
        replica=replica,
        validation_data=prepared.validation_data,
        group=group,
        rank=context.rank,
        target=plan.job.goal.target,
        maximize=plan.job.goal.maximize,
        model_path=plan.folder / MODEL_FILE,
    )
    horizon_samples = getattr(prepared.workload.schedule_settings, "horizon_samples", None)
    first = first_mark(len(prepared.training_data), probe.first_score_samples)  # type: ignore[arg-type]
    runner = SliceRunner(
        plan=plan,
        replica=replica,
        scorer=scorer,
        noise=NoiseWatch(
            replica, group, seed=plan.job.seed, max_batch_size_per_rank=probe.max_batch_size_per_rank
        ),
        marks=ScoreMarks(first, probe.score_growth, horizon_samples),
        clock_state=clock_state,
        voice=voice,
        rank=context.rank,
        group=group,
        horizon_samples=horizon_samples,
    )
    outcome = runner.run()
    timing = rank_timing(runner.steps, rank=context.rank, batch_size=replica.share.num_samples)
    return {
        "outcome": outcome.value,
        "step": replica.step,
        "samples": replica.samples,
        "training_seconds": runner.clock.seconds,
        "scoring_seconds": scorer.seconds,
        "timing": None if timing is None else asdict(timing),
        "peak_bytes": peak_bytes(device),
        "parameter_bytes": parameter_bytes(replica.model),
        "seconds": voice.seconds_since_entry,
    }


def _replica(
    context: RankContext,
    plan: SlicePlan,
    prepared: Prepared,
    device: torch.device,
    group: ProcessGroup | None,
) -> Replica:
    configuration = plan.configuration
    return Replica(
        workload=prepared.workload,
        model=prepared.model(device),
        data=prepared.training_data,
        strategy=strategy(configuration.strategy),
        group=group,
        rank=context.rank,
        num_ranks=context.num_ranks,
        batch_size=configuration.batch_size,
        learning_rate=configuration.learning_rate,
        max_batch_size_per_rank=plan.job.probe.max_batch_size_per_rank,
        seed=plan.job.seed,
    )


def _newest_checkpoint(plan: SlicePlan, rank: int, group: ProcessGroup | None) -> Path | None:
    """The checkpoint to go on from: rank 0 looks, so that all ranks take the same."""
    found: list[str | None] = [None]
    if rank == 0:
        newest = CheckpointFolder(plan.folder / CHECKPOINTS_FOLDER).latest()
        found = [None if newest is None else str(newest.path)]
    if group is not None:
        dist.broadcast_object_list(found, src=0, group=group)
    return None if found[0] is None else Path(found[0])
