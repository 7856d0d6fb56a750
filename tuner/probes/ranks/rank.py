"""Entry point of the ranks of a probe: runs one slice (part of the probe) from the last checkpoint on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from search_spaces import traits_of
from tuner.domain.checkpoints import CheckpointFolder
from tuner.domain.measurement import Outcome
from tuner.launchers import RankContext
from tuner.probes.ranks.async_loop import AsynchronousLoop
from tuner.probes.ranks.checkpoint_state import load_run
from tuner.probes.ranks.evaluation import NoiseWatch, Scorer
from tuner.probes.ranks.membership import Membership
from tuner.probes.ranks.progress import ProgressReporter
from tuner.probes.ranks.rank_setup import (
    Prepared,
    is_out_of_memory,
    parameter_bytes,
    peak_bytes,
    prepare,
    reset_peak_bytes,
)
from tuner.probes.ranks.replica import Replica, rank_timing
from tuner.probes.ranks.slice_loop import SliceLoop, SliceParts
from tuner.probes.ranks.sync_loop import SynchronousLoop
from tuner.probes.slice_plan import (
    CHECKPOINTS_FOLDER,
    MODEL_FILE,
    SlicePlan,
)
from tuner.strategies import Links, strategy
from tuner.transport import MessageTransport
from tuner.transport.rendezvous import broadcast_text, meeting_store, process_group, rank_device

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def run_slice(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one slice of a probe on this rank.

    Args:
        context: Rank context of the launcher.
        payload: Result of `SlicePlan.to_payload`.

    Returns:
        Plain data: outcome, step, samples and training time of the slice; step times, memory and seconds of
        this rank; lost ranks and staleness if the ranks are asynchronous; and whether this rank is the
        leader, whose values are those of the slice.
    """
    reporter = ProgressReporter(context)
    try:
        reporter.progress("loading the workload")
        plan = SlicePlan.from_payload(payload)
        device = rank_device(context.local_rank)
        reset_peak_bytes(device)
        rank = _Rank(context, plan, prepare(plan), device, reporter)
        reporter.progress("connecting to the other ranks")
        if context.num_ranks > 1 and not traits_of(plan.configuration.strategy).barrier:
            return rank.run_asynchronous()
        # The timeout is longer than that of the process that watches the ranks. That process can then tell a
        # rank that hangs from a rank that died.
        timeout_seconds = 2 * plan.job.probe.hang_seconds + 30
        with process_group(
            context.init_method,
            rank=context.rank,
            num_ranks=context.num_ranks,
            device=device,
            timeout_seconds=timeout_seconds,
        ) as group:
            return rank.run_in_step(group)
    except Exception as error:
        if is_out_of_memory(error):
            reporter.out_of_memory(error)
        raise


class _Rank:
    """One rank of one slice.

    Args:
        context: Rank context of the launcher.
        plan: Plan of the slice: job, configuration, limits and folder.
        prepared: Workload, data and initial model.
        device: Device that the rank trains on.
        reporter: Sends progress and results.
    """

    def __init__(
        self,
        context: RankContext,
        plan: SlicePlan,
        prepared: Prepared,
        device: torch.device,
        reporter: ProgressReporter,
    ) -> None:
        self._context, self._plan, self._prepared = context, plan, prepared
        self._device, self._reporter = device, reporter

    def run_in_step(self, group: ProcessGroup | None) -> dict[str, Any]:
        """Runs the slice synchronously with the other ranks of the group, or alone without a group."""
        context, plan = self._context, self._plan
        links = Links(rank=context.rank, num_ranks=context.num_ranks, group=group)
        replica = self._replica(links, self._prepared.model(self._device))
        path = None if plan.is_timing else _newest_checkpoint(plan, context.rank, group)
        loop = SynchronousLoop(self._parts(replica, path, group), rank=context.rank, group=group)
        return {**self._result(loop, loop.run()), "leads": context.rank == 0}

    def run_asynchronous(self) -> dict[str, Any]:
        """Runs the slice on this rank, which makes its steps without waiting for the other ranks."""
        context, plan = self._context, self._plan
        model = self._prepared.model(self._device)
        trainable = [p for p in model.parameters() if p.requires_grad]
        transport = MessageTransport(
            meeting_store(context.init_method, rank=context.rank, num_ranks=context.num_ranks),
            rank=context.rank,
            num_ranks=context.num_ranks,
            num_elements=sum(p.numel() for p in trainable),
            dtype=trainable[0].dtype,
            secret=context.secret,
            one_host=plan.job.cluster.nodes_share_host or plan.configuration.nodes == 1,
        )
        with closing(transport):
            membership = Membership(transport, plan.job.probe.hang_seconds)
            links = Links(
                rank=context.rank,
                num_ranks=context.num_ranks,
                transport=transport,
                live_ranks=membership.live_ranks,
                leader=membership.leader,
                refresh=membership.refresh,
            )
            replica = self._replica(links, model)
            with closing(replica.strategy):
                newest = None if plan.is_timing else _checkpoint(plan)
                loop = AsynchronousLoop(
                    self._parts(replica, newest, None), transport=transport, membership=membership
                )
                outcome = loop.run()
            return {
                **self._result(loop, outcome),
                "leads": membership.leads,
                "lost_ranks": list(loop.lost_ranks),
                "staleness_steps": (sum(loop.staleness), len(loop.staleness)),
            }

    def _parts(self, replica: Replica, checkpoint: Path | None, group: ProcessGroup | None) -> SliceParts:
        """Loads the checkpoint into the replica, and returns all that the training loop needs."""
        context, plan = self._context, self._plan
        run_start = load_run(
            checkpoint, replica, rank=context.rank, num_ranks=context.num_ranks, seed=plan.job.seed
        )
        return SliceParts(
            plan=plan,
            replica=replica,
            scorer=self._scorer(replica, group),
            noise=self._noise(replica, group),
            evaluation_points=self._prepared.evaluation_points(plan),
            run_start=run_start,
            reporter=self._reporter,
            horizon_samples=self._prepared.horizon_samples,
        )

    def _result(self, loop: SliceLoop, outcome: Outcome) -> dict[str, Any]:
        replica, samples = loop.replica, loop.samples
        timing = rank_timing(loop.steps, rank=self._context.rank, batch_size=replica.share.num_samples)
        return {
            "outcome": outcome.value,
            "step": samples // replica.batch_size,
            "samples": samples,
            "training_seconds": loop.seconds,
            "scoring_seconds": loop.scorer.seconds,
            "bytes_per_step": (loop.exchanged_bytes, loop.clock.num_steps),
            "timings": [] if timing is None else [asdict(timing)],
            "peak_bytes": peak_bytes(self._device),
            "parameter_bytes": parameter_bytes(replica.model),
            "seconds": self._reporter.seconds_since_entry,
        }

    def _replica(self, links: Links, model: nn.Module) -> Replica:
        plan, configuration = self._plan, self._plan.configuration
        return Replica(
            workload=self._prepared.workload,
            model=model,
            data=self._prepared.training_data,
            strategy=strategy(configuration.strategy, configuration),
            links=links,
            batch_size=configuration.batch_size,
            learning_rate=configuration.learning_rate,
            max_batch_size_per_rank=plan.job.probe.max_batch_size_per_rank,
            seed=plan.job.seed,
            delay_seconds=_delay(plan, links.rank),
        )

    def _scorer(self, replica: Replica, group: ProcessGroup | None) -> Scorer:
        plan = self._plan
        return Scorer(
            replica=replica,
            validation_data=self._prepared.validation_data,
            group=group,
            rank=self._context.rank,
            target=plan.job.goal.target_count(),
            model_path=plan.folder / MODEL_FILE,
            seed=plan.job.seed,
        )

    def _noise(self, replica: Replica, group: ProcessGroup | None) -> NoiseWatch:
        job = self._plan.job
        most = job.probe.max_batch_size_per_rank
        return NoiseWatch(replica, group, seed=job.seed, max_batch_size_per_rank=most)


def _delay(plan: SlicePlan, rank: int) -> Callable[[], float] | None:
    """Returns a function that draws a rank's artificial delay of a step, in seconds; None for no delay."""
    delays = [delay for delay in plan.job.resolved_cluster().delays if delay.slows(rank)]
    if not delays:
        return None
    rng = np.random.default_rng((plan.job.seed, rank, 2))
    return lambda: float(sum(rng.uniform(delay.low, delay.high) for delay in delays))


def _checkpoint(plan: SlicePlan) -> Path | None:
    newest = CheckpointFolder(plan.folder / CHECKPOINTS_FOLDER).latest()
    return None if newest is None else newest.path


def _newest_checkpoint(plan: SlicePlan, rank: int, group: ProcessGroup | None) -> Path | None:
    """Returns the newest checkpoint that rank 0 finds, on all ranks; None if there is none."""
    newest = _checkpoint(plan) if rank == 0 else None
    if group is None:
        return newest
    found = broadcast_text("" if newest is None else str(newest), group)
    return Path(found) if found else None
