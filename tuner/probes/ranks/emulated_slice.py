"""Entry point of an emulated probe: one process runs one slice (part of the probe) for all virtual ranks.

Emulated means: the ranks' gradients and update rules are computed in this process, and step times come from a
virtual clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from search_spaces import traits_of
from tuner.domain.checkpoints import CheckpointFolder
from tuner.domain.data_order import shard
from tuner.domain.measurement import CurvePoint, Outcome, RankTiming, Spread
from tuner.emulation import Emulation, Trained, emulation
from tuner.launchers import RankContext
from tuner.probes.ranks.checkpoint_state import seed_all
from tuner.probes.ranks.evaluation import ModelScorer
from tuner.probes.ranks.gradient_noise import OneRankNoise, part_size
from tuner.probes.ranks.progress import ProgressReporter
from tuner.probes.ranks.rank_setup import Prepared, is_out_of_memory, parameter_bytes, prepare
from tuner.probes.ranks.warm_runs import WarmRuns
from tuner.probes.slice_plan import (
    CHECKPOINTS_FOLDER,
    MODEL_FILE,
    SlicePlan,
)
from tuner.transport.rendezvous import rank_device

#: A slice ends after this many seconds of real time, independently of the virtual clock.
_LONGEST_SECONDS = 30.0

_warm_runs = WarmRuns()


def run_emulated_slice(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one slice of an emulated probe.

    Args:
        context: Rank context of this process, the only process of the probe.
        payload: Result of `SlicePlan.to_payload`.

    Returns:
        The same keys as `run_slice`, with the timings of all virtual ranks.
    """
    reporter = ProgressReporter(context)
    try:
        reporter.progress("loading the workload")
        plan = SlicePlan.from_payload(payload)
        device = rank_device(context.local_rank, is_shared=True)
        return _EmulatedSlice(plan, prepare(plan), device, reporter).run()
    except Exception as error:
        if is_out_of_memory(error):
            reporter.out_of_memory(error)
        raise


class _EmulatedSlice:
    """Trains one slice (part) of an emulated probe, in which one process computes for all ranks.

    Args:
        plan: Plan of the slice: job, configuration, limits and folder.
        prepared: Workload, data and initial model.
        device: Device that computes the gradients.
        reporter: Sends progress and results.
    """

    def __init__(
        self, plan: SlicePlan, prepared: Prepared, device: torch.device, reporter: ProgressReporter
    ) -> None:
        self._plan, self._reporter = plan, reporter
        cluster = plan.job.resolved_cluster()
        assert cluster.virtual is not None, (
            "a job with emulated ranks must describe the cluster in [cluster.machine]"
        )
        num_ranks = cluster.num_ranks(plan.configuration.nodes)
        self._traits = traits_of(plan.configuration.strategy)
        self._checkpoints = CheckpointFolder(plan.folder / CHECKPOINTS_FOLDER)
        self._run = self._start_run(
            Trained(
                workload=prepared.workload,
                make_model=lambda: prepared.model(device),
                data=prepared.training_data,
                configuration=plan.configuration,
                num_ranks=num_ranks,
                cluster=cluster.virtual,
                seed=plan.job.seed,
                computes=not plan.is_timing,
            )
        )
        self._scorer = ModelScorer(
            self._run.model,
            prepared.workload,
            training_data=prepared.training_data,
            validation_data=prepared.validation_data,
            target=plan.job.goal.target_count(),
            model_path=plan.folder / MODEL_FILE,
            seed=plan.job.seed,
        )
        self._horizon = prepared.horizon_samples
        self._evaluation_points = prepared.evaluation_points(plan)
        most = plan.job.probe.max_batch_size_per_rank
        small = part_size(plan.configuration.batch_size, prepared.num_training_samples, most)
        self._noise = None
        if small is not None:
            self._noise = OneRankNoise(
                workload=prepared.workload,
                model=self._run.model,
                data=prepared.training_data,
                device=device,
                seed=plan.job.seed,
                part_size=small,
            )
        self._started = time.perf_counter()
        self._scoring_seconds = 0.0
        #: Evaluation points are skipped until `time.perf_counter` returns at least this value.
        self._scores_from = 0.0
        self._num_scores = 0
        self._num_ranks = num_ranks

    def run(self) -> dict[str, Any]:
        """Runs the slice, saves a checkpoint unless the training diverged, and returns the result."""
        run, reporter = self._run, self._reporter
        started_samples, started_steps, started_bytes = run.samples, run.rank_steps, run.moved_bytes
        outcome = self._score_untrained()
        setup = reporter.seconds_since_entry - self._scoring_seconds
        reporter.started(setup_seconds=setup, samples=run.samples)
        self._started = time.perf_counter()
        while outcome is Outcome.RUNNING:
            outcome = self._to_next_evaluation(started_steps)
        if outcome is not Outcome.DIVERGED and run.samples > started_samples and not self._plan.is_timing:
            self._save()
        steps = run.rank_steps - started_steps
        return {
            "outcome": outcome.value,
            "leads": True,
            "step": run.samples // self._plan.configuration.batch_size,
            "samples": run.samples,
            "training_seconds": run.seconds,
            "scoring_seconds": self._scoring_seconds,
            "bytes_per_step": (run.moved_bytes - started_bytes, steps),
            "staleness_steps": run.mixed_ages,
            "timings": [asdict(timing) for timing in rank_timings(run)],
            # Unknown: this process needs the memory of all virtual ranks, not of one.
            "peak_bytes": 0,
            "parameter_bytes": parameter_bytes(run.model),
            "seconds": reporter.seconds_since_entry,
        }

    def _to_next_evaluation(self, started_steps: int) -> Outcome:
        """Trains to the next evaluation or to the end of the slice, whichever is first.

        Returns RUNNING, or the outcome of the slice if it has ended.
        """
        run, until = self._run, self._plan.until
        evaluation_samples = self._evaluation_points.next_after(run.samples)
        ends = [evaluation_samples, *(limit for limit in (until.samples, self._horizon) if limit is not None)]
        samples = min(ends) if not self._plan.is_timing else None
        while True:
            if not run.is_finite:
                return Outcome.DIVERGED
            if samples is not None and run.samples >= samples:
                break
            if self._is_over(started_steps):
                return Outcome.STOPPED if self._plan.is_timing else Outcome.PAUSED
            run.advance()
            self._reporter.beat(step=run.samples // self._plan.configuration.batch_size, samples=run.samples)
        if run.samples >= evaluation_samples and (outcome := self._evaluate_at()) is not Outcome.RUNNING:
            return outcome
        if self._horizon is not None and run.samples >= self._horizon:
            return Outcome.STOPPED
        if until.samples is not None and run.samples >= until.samples:
            return Outcome.PAUSED
        if self._plan.has_all_scores(self._num_scores):
            return Outcome.PAUSED
        return Outcome.RUNNING

    def _is_over(self, started_steps: int) -> bool:
        run, until = self._run, self._plan.until
        if until.steps is not None and run.rank_steps - started_steps >= until.steps * self._num_ranks:
            return True
        if until.training_seconds is not None and run.seconds >= until.training_seconds:
            return True
        return time.perf_counter() - self._started > _LONGEST_SECONDS

    def _evaluate_at(self) -> Outcome:
        """Evaluates the model, unless that would exceed the share of time `probe.max_scoring`."""
        began = time.perf_counter()
        if began < self._scores_from:
            return Outcome.RUNNING
        outcome = self._score(began - self._started)
        self._num_scores += self._run.samples > self._plan.scored_samples
        ended = time.perf_counter()
        self._scores_from = ended + (ended - began) / self._plan.job.probe.max_scoring
        return outcome

    def _score_untrained(self) -> Outcome:
        if not self._plan.begins_with_score(self._run.samples):
            return Outcome.RUNNING
        return self._score(0.0)

    def _score(self, spent_seconds: float) -> Outcome:
        run, reporter = self._run, self._reporter
        reporter.progress("scoring")
        began = time.perf_counter()
        is_mixed = self._num_ranks > 1 and self._traits.scored != "common"
        with run.scored():
            value = self._scorer.value_of_model(is_mixed=is_mixed)
            if self._noise is not None and run.samples:
                statistic = self._noise.measure(
                    run.samples,
                    slice_seconds=spent_seconds,
                    seconds_a_sample=spent_seconds / run.samples,
                )
                if statistic is not None:
                    reporter.noise(statistic)
        self._scoring_seconds += time.perf_counter() - began
        if not math.isfinite(value):
            return Outcome.DIVERGED
        point = CurvePoint(
            training_seconds=run.seconds,
            step=run.samples // self._plan.configuration.batch_size,
            samples=run.samples,
            value=value,
        )
        reporter.set_position(
            step=point.step,
            samples=point.samples,
            training_seconds=run.seconds,
            scoring_seconds=self._scoring_seconds,
        )
        reporter.curve(point)
        reporter.progress("training")
        return Outcome.REACHED if self._scorer.is_reached(value) else Outcome.RUNNING

    def _start_run(self, trained: Trained) -> Emulation:
        """Returns the emulation to continue: the cached one, else the newest checkpoint, else a new one."""
        newest = None if self._plan.is_timing else self._checkpoints.latest()
        warm = _warm_runs.take(self._plan.folder, trained, newest.path if newest else None)
        if warm is not None:
            return warm
        seed_all(trained.seed, 1, 0, 0)
        run = emulation(trained)
        if newest is not None:
            content = torch.load(newest.path, map_location="cpu", weights_only=True)
            run.load(content["emulation"])
        return run

    def _save(self) -> None:
        run = self._run
        content = {"emulation": run.state()}
        step = run.samples // self._plan.configuration.batch_size
        position = {"samples": run.samples, "step": step}
        path: Path = self._checkpoints.save(lambda file: torch.save(content, file), position).path
        self._reporter.checkpoint(str(path))
        _warm_runs.keep(self._plan.folder, run, path)


def rank_timings(run: Emulation) -> list[RankTiming]:
    """Returns the step times of the virtual ranks; ranks with equal batch size and delays share an entry.

    Rank 0, which may be the parameter server, has an entry of its own.
    """
    trained = run.trained
    groups: dict[tuple[Any, ...], list[int]] = {}
    for rank, times in enumerate(run.times):
        if times.compute:
            delays = tuple(delay.slows(rank) for delay in trained.cluster.delays)
            _, size = shard(trained.configuration.batch_size, rank, trained.num_ranks)
            groups.setdefault((rank == 0, size, delays), []).append(rank)
    return [_timing(run, ranks, key[1]) for key, ranks in groups.items()]


def _timing(run: Emulation, ranks: Sequence[int], num_samples: int) -> RankTiming:
    compute = [seconds for rank in ranks for seconds in run.times[rank].compute]
    whole = [seconds for rank in ranks for seconds in run.times[rank].whole]
    return RankTiming(
        rank=ranks[0],
        batch_size=num_samples,
        compute=Spread.of(compute),
        sync=Spread.of([max(w - c, 0.0) for w, c in zip(whole, compute, strict=True)]),
        input=Spread.of([0.0]),
        step=Spread.of(whole),
        count=len(ranks),
    )
