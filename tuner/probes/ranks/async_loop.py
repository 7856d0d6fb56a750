"""Training loop of an asynchronous rank (the strategy has no barrier) for one slice (part of a probe)."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from tuner.domain.measurement import CurvePoint, Outcome
from tuner.probes.ranks.membership import Field, Membership
from tuner.probes.ranks.quiesce import ConsistentSnapshot, Snapshots
from tuner.probes.ranks.replica import StepSeconds
from tuner.probes.ranks.slice_loop import SliceLoop, SliceParts
from tuner.strategies import AdaptiveTimeout
from tuner.transport import Transport

#: While the leader evaluates or saves a checkpoint, the other ranks wait at least this many seconds before
#: they treat the leader as lost.
_LEAST_PAUSE_SECONDS = 10.0
#: Number of steps after which a rank posts its median step time to the other ranks again.
_REPORT_STEPS = 16
#: Seconds after which a waiting rank reads the statuses of the other ranks again.
_IDLE_SECONDS = 0.001

#: Outcomes of a slice. `Field.ENDED` of a status is the index of the outcome in this tuple, counted from 1.
ENDS = (Outcome.PAUSED, Outcome.STOPPED, Outcome.REACHED, Outcome.DIVERGED)


class AsynchronousLoop(SliceLoop):
    """Trains one rank asynchronously until the end of the slice.

    - After each step, a rank posts its status and reads the statuses of the other ranks.
    - The leader is the rank that evaluates, saves checkpoints and decides when the slice ends (see
      `Membership`).
    - When all ranks together have processed the samples of an evaluation point, each rank takes a snapshot
      (copy) of its parameters and continues. When the snapshots have arrived at the leader, it evaluates
      their mean.
    - While the leader evaluates or saves, the other ranks pause as soon as they notice. The pause does not
      count as training time on any rank. The leader does not wait for the other ranks before it evaluates.
    - Ranks that die or stop responding are lost: the other ranks continue without them.
    - Training time, learning curve and outcome of the slice are those of the leader.

    Args:
        parts: Plan, replica, scorer and the other objects that the loop uses.
        transport: Sends vectors and statuses between the ranks.
        membership: Statuses of all ranks, which ranks respond, and which rank is the leader.
    """

    def __init__(self, parts: SliceParts, *, transport: Transport, membership: Membership) -> None:
        # A rank has results to send only while it is the leader.
        super().__init__(parts, sends_results=True)
        plan, replica, run_start = parts.plan, parts.replica, parts.run_start
        self.membership = membership
        self.staleness: list[float] = []
        #: Ranks that did not train to the end of the slice, because they were lost; set on the leader only.
        self.lost_ranks: tuple[int, ...] = ()
        self._score_snapshots = Snapshots(replica.strategy, transport, membership)
        self._snapshot = ConsistentSnapshot(
            replica, membership, plan.folder, self._checkpoints, self.reporter.alive
        )
        self._started_rank_samples = run_start.rank_samples
        self._rank_samples = run_start.rank_samples[membership.rank] if run_start.rank_samples else 0
        self._started_samples = replica.samples
        self._saved_samples = replica.samples
        #: Ranks without a state in the last checkpoint of this slice; None before the first one.
        self._absent_ranks: tuple[int, ...] | None = None
        self._hang_seconds = plan.job.probe.hang_seconds
        self._step_timeout = AdaptiveTimeout(self._hang_seconds)
        self._score_timeout = AdaptiveTimeout(self._hang_seconds, _LEAST_PAUSE_SECONDS)
        self._save_timeout = AdaptiveTimeout(self._hang_seconds, _LEAST_PAUSE_SECONDS)
        self._copied_point: CurvePoint | None = None
        self._last_end: float | None = None
        self._has_led = membership.rank == 0

    def run(self) -> Outcome:
        self._start()
        while (outcome := self._ended()) is Outcome.RUNNING:
            if self._snapshot.is_asked_for():
                self._last_end = None
                self._snapshot.pause()
                continue
            if self._score_snapshots.is_due():
                self._copy()
            if not self.membership.leads:
                self._has_led, self._copied_point = False, None
            elif self._lead():
                continue
            if self._is_used_up():
                # Other ranks may still make their last steps: this rank continues to answer their requests.
                self.replica.strategy.attend()
                self.membership.post()
                self.reporter.alive("serving")
                time.sleep(_IDLE_SECONDS)
            else:
                self._step()
            self.membership.poll()
        self._leave()
        return outcome

    @property
    def samples(self) -> int:
        return self.membership.total_samples

    @property
    def batch_seconds(self) -> float | None:
        """Seconds in which all ranks together process as many samples as a global batch; None if unknown."""
        rate = 0.0
        for rank in self.membership.live_ranks():
            steps, samples = (self.membership.of(rank, field) for field in (Field.STEPS, Field.SAMPLES))
            median = self.membership.of(rank, Field.STEP_MEDIAN)
            if median > 0 and steps > 0:
                rate += samples / steps / median
        return self.replica.batch_size / rate if rate > 0 else None

    def _start(self) -> None:
        """Starts the slice: the leader evaluates the untrained model, and the other ranks wait for it."""
        membership = self.membership
        membership.begin(self._started_rank_samples)
        membership.post(steps=self.replica.step, samples=self._rank_samples, seconds=self.seconds, ready=1)
        membership.poll()
        while not self._may_start():
            self.reporter.alive("waiting for the other ranks")
            time.sleep(_IDLE_SECONDS)
            membership.refresh()
        if membership.leads:
            self._snapshot.clear()
        if membership.leads and membership.own(Field.STARTED) < 1:
            end = 0
            if self.plan.begins_with_score(self.replica.samples):
                self.reporter.progress("scoring")
                value, is_reached = self.scorer.score_untrained()
                if not math.isfinite(value):
                    end = 1 + ENDS.index(Outcome.DIVERGED)
                else:
                    self.reporter.curve(CurvePoint(training_seconds=0.0, step=0, samples=0, value=value))
                    end = 1 + ENDS.index(Outcome.REACHED) if is_reached else 0
            self._set_evaluation(self.evaluation_points.next_after(self.replica.samples))
            membership.post(started=1, ended=end)
        self.reporter.started(
            setup_seconds=self.reporter.seconds_since_entry - self.scorer.seconds,
            samples=self._started_samples,
        )
        membership.poll()

    def _may_start(self) -> bool:
        """Whether this rank may start.

        The leader starts when all live ranks are ready, and the other ranks start after the leader.
        """
        membership = self.membership
        if membership.leads and membership.own(Field.STARTED) < 1:
            return membership.all_live(Field.READY, 1)
        return membership.of_leader(Field.STARTED) >= 1

    def _leave(self) -> None:
        """Answers requests of other ranks until all live ranks have noticed the end of the slice."""
        for _ in self.membership.leave():
            self.replica.strategy.attend()
            self.reporter.alive("serving")
            time.sleep(_IDLE_SECONDS)

    def _step(self) -> None:
        replica, membership = self.replica, self.membership
        replica.samples = membership.total_samples
        began = time.perf_counter()
        between = 0.0 if self._last_end is None else began - self._last_end
        replica.run_chunk(1, lambda: None)
        steps, exchanges, is_finite = replica.read_chunk()
        self._last_end = time.perf_counter()
        # Work between two steps, such as reading statuses, is part of the training time.
        step = StepSeconds(step=steps[0].step + between, input=steps[0].input, sync=steps[0].sync + between)
        self._add_step(step, exchanges[0].exchanged_bytes)
        self._step_timeout.note(step.step)
        if exchanges[0].staleness_steps is not None:
            self.staleness.append(exchanges[0].staleness_steps)
        self._rank_samples += replica.share.num_samples
        usual = {}
        if replica.step % _REPORT_STEPS == 0 or membership.own(Field.STEP_MEDIAN) == 0:
            median, deviation = self._step_timeout.spread
            usual = {"step_median": median, "step_deviation": deviation}
        membership.post(
            steps=replica.step,
            samples=self._rank_samples,
            seconds=self.seconds,
            non_finite=float(not is_finite),
            **usual,
        )
        self._set_position()
        self.reporter.alive("training")

    def _ended(self) -> Outcome:
        end = int(self.membership.of_leader(Field.ENDED))
        return ENDS[end - 1] if end else Outcome.RUNNING

    def _copy(self) -> None:
        """Copies this rank's parameters for an evaluation.

        The leader also stores the training time, the step and the number of samples of the evaluation.
        """
        self._score_snapshots.make()
        if self.membership.leads:
            self._copied_point = CurvePoint(
                training_seconds=self.seconds, step=self.step, samples=self.samples, value=math.nan
            )

    def _lead(self) -> bool:
        """Does the leader's work between two steps: evaluates, saves a checkpoint, or ends the slice.

        Returns whether it did any of these. If so, the caller checks whether the slice has ended before it
        makes the next step.
        """
        membership = self.membership
        if not self._has_led:
            # The training time of the slice continues that of the previous leader, and does not decrease.
            ranks = range(self.replica.share.num_ranks)
            furthest = max(membership.of(rank, Field.SECONDS) for rank in ranks)
            self._ahead_seconds += max(0.0, furthest - self.seconds)
            self._saved_seconds, self._has_led = self.seconds, True
        if any(membership.of(rank, Field.NON_FINITE) > 0 for rank in membership.live_ranks()):
            self._end(Outcome.DIVERGED)
            return True
        if self._copied_point is not None and self._score_snapshots.are_complete() and self._score():
            membership.poll()
            return True
        if self._must_save:
            self._save()
            membership.poll()
            return True
        outcome = self._end_by_limits()
        if outcome is Outcome.RUNNING:
            return False
        self._end(outcome)
        return True

    def _score(self) -> bool:
        """Evaluates the mean of the snapshots while the other ranks pause.

        Returns False, without an evaluation, if a snapshot has not arrived yet.
        """
        own = self.replica.strategy.own_score_vector()
        assert own is not None, "the leading rank must have a vector of parameters to evaluate"
        vector = self._score_snapshots.gathered(own)
        if vector is None or self._copied_point is None:
            return False
        self._last_end = None
        began = time.perf_counter()
        number = self._snapshot.begin(self._score_timeout.seconds)
        end = Outcome.RUNNING
        try:
            self.reporter.progress("scoring")
            scored_before = self.scorer.seconds
            self._send_noise()
            value, is_reached = self.scorer.score_vector(vector, self.batch_seconds)
            point, self._copied_point = self._copied_point, None
            if math.isfinite(value):
                self._send_point(replace(point, value=value))
                is_new = point.samples > self.plan.scored_samples
                self.membership.post(scores=self.membership.own(Field.SCORES) + is_new)
                if is_reached:
                    end = Outcome.REACHED
                elif self._has_all_scores():
                    # The slice ends before the next step, at which another evaluation might be due.
                    end = self._outcome_at_end()
            else:
                end = Outcome.DIVERGED
            self._set_evaluation(self._next_evaluation_point())
            self.scorer.seconds = scored_before + time.perf_counter() - began
        finally:
            self._score_timeout.note(time.perf_counter() - began)
            self._snapshot.end(number)
        self.reporter.progress("training")
        if end is not Outcome.RUNNING:
            self._end(end)
        return True

    def _set_evaluation(self, samples: int) -> None:
        if not self.plan.is_timing:
            self.membership.post(
                evaluation=self.membership.own(Field.EVALUATION) + 1, evaluation_samples=samples
            )

    def _limit_samples(self) -> int | None:
        """Returns the number of samples of all ranks together at which the slice ends; None for no limit."""
        until, limits = self.plan.until, []
        if until.samples is not None:
            limits.append(until.samples)
        if until.steps is not None:
            limits.append(self._started_samples + until.steps * self.replica.batch_size)
        if self.horizon_samples is not None and not self.plan.is_timing:
            limits.append(self.horizon_samples)
        return min(limits, default=None)

    def _is_used_up(self) -> bool:
        limit = self._limit_samples()
        return limit is not None and self.samples >= limit

    def _has_all_scores(self) -> bool:
        """Whether the slice has made as many evaluations as the plan requests; only valid on the leader."""
        return self.plan.has_all_scores(int(self.membership.own(Field.SCORES)))

    def _end_by_limits(self) -> Outcome:
        if self._has_all_scores():
            return self._outcome_at_end()
        seconds = self.plan.until.training_seconds
        if not self._is_used_up() and (seconds is None or self.seconds < seconds):
            return Outcome.RUNNING
        if self._copied_point is not None:
            # A snapshot that was taken is evaluated before the slice ends.
            return Outcome.RUNNING
        return self._outcome_at_end()

    def _end(self, outcome: Outcome) -> None:
        """Saves a checkpoint and ends the slice for all ranks; does nothing if this rank no longer leads."""
        self._resend_unsettled()
        self.membership.refresh()
        if not self.membership.leads:
            return
        ended = 1 + ENDS.index(outcome)
        is_new = outcome is not Outcome.DIVERGED and self.samples > self._saved_samples
        if is_new and not self.plan.is_timing:
            self._save(ended)
        else:
            self.membership.post(ended=ended)
        # A rank whose state is in the last checkpoint has trained to the end, even if it is silent now.
        is_saved = self._absent_ranks is not None and self._saved_samples == self.samples
        self.lost_ranks = (self._absent_ranks or ()) if is_saved else self.membership.lost_ranks()

    def _save(self, ended: int = 0) -> None:
        """Saves a checkpoint, unless another rank becomes the leader meanwhile.

        Args:
            ended: Value of `Field.ENDED` to post after saving; 0 if the slice continues.
        """
        self._last_end = None
        self.reporter.progress("saving")
        began = time.perf_counter()
        path = self._snapshot.save(
            self._clock_state,
            batch_size=self.replica.batch_size,
            seconds=self._save_timeout.seconds,
            ended=ended,
        )
        if path is None:
            return
        self._save_timeout.note(time.perf_counter() - began)
        self.reporter.checkpoint(str(path))
        self._saved_seconds, self._saved_samples = self.seconds, self.samples
        self._absent_ranks = self._snapshot.absent_ranks
