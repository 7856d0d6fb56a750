"""Acquisition of candidates: expected savings, cost and length of each candidate's next slice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.search.beliefs import LEAST_PROBABILITY, Beliefs, log_longest
from tuner.search.improvement import Costs, Weights, keeps_within, weigh
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.policy import Continue, Start
from tuner.search.probe_cost import probe_cost
from tuner.search.prospects import NEVER, Prospects
from tuner.search.runs import Run
from tuner.search.state import SearchState, run_of
from tuner.search.stopping import may_start, seconds_left
from tuner.search.timings import timing_key

Array = npt.NDArray[np.float64]

#: Slice length of a new probe, as a share of its predicted training time, and of a started run, as a share of
#: the time it has trained.
_NEW_SHARE, _MORE_SHARE = 0.04, 0.3
#: If resuming costs a start-up, a slice of the incumbent covers this share of its predicted training time.
_TRAINING_SHARE = 0.2
#: Predicted training times are capped at this multiple of the incumbent's; longer ones are never chosen.
_LENGTHS = 2.0
#: Maximum cost of a slice, as a share of everything spent so far. So expensive slices come late.
_SHARE_OF_SPENT = 0.15
#: Minimum length of a new slice: this share of the start-up time, and this number of steps.
_STARTUP_SHARE, _FEWEST_STEPS = 0.5, 4
#: Minimum length of any slice in steps, regardless of its cost.
_WHOLE_STEP = 1.1
#: Minimum expected saving of a probe, even of a free one, as a share of the incumbent's cost.
_LEAST_GAIN = 1e-2
#: Maximum length of a timing probe in training seconds, even if it has steps left.
_TIMING_SECONDS = 1.5
#: A candidate's steps are timed first if step time makes up more than this share of the variance of its log
#: seconds to target.
_TIMING_SHARE = 0.5
#: The target is out of reach if the probability that any candidate reaches it is at most this.
_LEAST_CHANCE = 0.1
#: Thresholds of `before_the_budget_ends`. A run trains to the target if it reaches the target within the
#: budget with at least the second probability. A later start counts as too late only if it lowers this
#: probability below the first one.
_SURE_TO_ARRIVE, _MAY_ARRIVE = 0.75, 0.5
#: Such a slice is long enough to reach the target with this probability.
_NEARLY_SURE = 0.9
#: A probe ends without its score after this multiple of its expected seconds.
_OVERRUN_FACTOR = 4.0


@dataclass(frozen=True, kw_only=True)
class Option:
    """A slice that could run next.

    Args:
        index: Index of the candidate.
        is_timing: Whether it only times steps.
        charged_seconds: Expected charged seconds.
        share_of_cost: Opportunity cost as a share of its price; 0 if its nodes would be idle otherwise.
    """

    index: int
    is_timing: bool
    charged_seconds: float
    share_of_cost: float


class Acquisition:
    """Evaluates the next slice of every candidate for one decision.

    Args:
        state: State of the search.
        beliefs: Forecasts of the candidates.
        prospects: The forecasts as expected after the slices in flight.
    """

    def __init__(self, state: SearchState, beliefs: Beliefs, prospects: Prospects) -> None:
        self._state = state
        self._prospects = prospects
        self._runs = [run_of(state, c) for c in prospects.configurations]
        self._seen = [run.measurement.samples if run else 0 for run in self._runs]
        self._may_start = may_start(state)
        self._charged = probe_cost(state, prospects, beliefs.price)
        done = prospects.status.seconds
        again = np.zeros(len(done)) if state.terms.resumes else done * self._charged.per_second
        # A candidate that cannot be trained further is no incumbent and gains nothing.
        usable = [(run is not None and run.arrived) or self._may_go_on(i) for i, run in enumerate(self._runs)]
        self._any_arrived = any(run.arrived for run in state.runs.values())
        #: Number of trainings that benefit from a better configuration, and the share of a started run that
        #: each of them does not have to repeat.
        self._trainings, credit = state.further_trainings, 0.0
        if not self._any_arrived and state.terms.is_training:
            self._trainings += 1
            credit = 1.0 / self._trainings if state.terms.resumes else 0.0
        self.costs = Costs(
            price=beliefs.price,
            probing=self._charged.per_second,
            fixed=self._charged.per_slice + again,
            credit=credit,
            log_longest=np.where(usable, log_longest(state, prospects), -np.inf),
        )
        self.weights: Weights = weigh(prospects, self.costs, self._slice_seconds)
        can_time = state.schedule.times_steps and self._may_start and state.terms.times_alone
        under_way = {timing_key(a.configuration, state.cluster) for a in state.capacity.under_way}
        #: Keys that were timed, are being timed, or could not be timed; None if timing is not possible.
        self._timed = state.timed() | state.failed_timings() | under_way if can_time else None

    @property
    def incumbent(self) -> int:
        """Index of the candidate with the smallest expected cost."""
        return self.weights.incumbent

    @property
    def has_arrived(self) -> bool:
        """Whether the incumbent's run reached the target."""
        run = self._runs[self.incumbent]
        return run is not None and run.arrived

    @property
    def can_go_on(self) -> bool:
        """Whether the incumbent can be trained further, by its own run or from a run on other nodes."""
        return self._may_go_on(self.incumbent)

    def _may_go_on(self, index: int) -> bool:
        run, configuration = self._runs[index], self._prospects.configurations[index]
        if run is None:
            return self._may_start and self._state.space.is_runnable(configuration)
        done = float(self._prospects.status.seconds[index])
        if not self._state.terms.resumes and seconds_left(self._state, configuration) <= done:
            return False  # the budget ends before the run trains anything new
        if not self._can_transfer(run, configuration):
            return run.is_open
        # After a fault, or if the target was nearer before, the run resumes as a new probe.
        return (run.is_open and run.configuration == configuration) or (run.can_continue and self._may_start)

    @property
    def is_reachable(self) -> bool:
        """Whether any candidate is expected to reach the target, without regard to the goal's limits."""
        return self._prospects.reach > _LEAST_CHANCE

    @property
    def keeps_limits(self) -> bool:
        """Whether any candidate may reach the target within the goal's limits."""
        keeps = keeps_within(self._prospects, self.costs.log_longest)
        return bool(np.any((keeps > LEAST_PROBABILITY) & ~self._prospects.status.ended))

    def best_option(self, opportunity: OpportunityCost) -> Option | None:
        """The slice with the highest acquisition that pays for itself and can run now; None if there is none.

        Args:
            opportunity: Opportunity costs of slices.
        """
        weights = self.weights
        least = _LEAST_GAIN * math.exp(min(weights.log_incumbent, NEVER))
        for index in np.argsort(-weights.score, kind="stable"):
            if weights.score[index] <= 0 or self._trainings * weights.saving[index] < least:
                continue
            option = self._option(int(index), opportunity)
            if option is not None and self._trainings * weights.return_rate[index] > option.share_of_cost:
                return option
        return None

    def _option(self, index: int, opportunity: OpportunityCost) -> Option | None:
        """A candidate's next slice; None if it cannot run now."""
        configuration = self._prospects.configurations[index]
        if opportunity.leads(configuration) or not self._state.fits(configuration):
            return None
        is_timing = self._may_time(index)
        can_train = self._may_train(index) and not opportunity.is_under_way(configuration)
        seconds = float(self.weights.slice_seconds[index])
        charged, fixed = self._charged.per_second[index], self.costs.fixed[index]
        startup = self._charged.per_slice[index]
        if is_timing and can_train:
            # Timing is cheaper than training only if start-up is not most of the cost of both.
            share = (_TIMING_SECONDS * charged + startup) / (seconds * charged + fixed)
            speed = float(self._prospects.log_seconds_sd[index]) ** 2
            is_timing = speed > max(share, _TIMING_SHARE) * self._prospects.variance_log[index]
        if not is_timing and not can_train:
            return None
        if is_timing:
            seconds, fixed = min(_TIMING_SECONDS, seconds), startup
        price = float(self._charged.price[index])
        charged_seconds = (seconds * float(charged) + float(fixed)) / price
        cost = opportunity.cost(configuration, charged_seconds, price)
        return Option(
            index=index,
            is_timing=is_timing,
            charged_seconds=charged_seconds,
            share_of_cost=cost / max(charged_seconds * price, 1e-12),
        )

    def _may_train(self, index: int) -> bool:
        """Whether a candidate's own run can be started or resumed."""
        run, configuration = self._runs[index], self._prospects.configurations[index]
        if run is None:
            return self._may_start and self._state.space.is_runnable(configuration)
        return run.configuration == configuration and run.is_open

    def _may_time(self, index: int) -> bool:
        """Whether a candidate's steps can be timed and have not been timed yet."""
        cluster, configuration = self._state.cluster, self._prospects.configurations[index]
        if self._timed is None or timing_key(configuration, cluster) in self._timed:
            return False
        # Timing emulated ranks only repeats the description, while real ranks can be timed on other nodes.
        return cluster.at_hand is None or not cluster.emulates(configuration)

    def _slice_seconds(self, log_incumbent: float) -> Array:
        """Training seconds of each candidate's next slice, `(num,)`."""
        state, prospects = self._state, self._prospects
        if state.job.probe.slice_seconds is not None:
            return np.full(len(self._runs), state.job.probe.slice_seconds)
        started, elapsed = prospects.status.started, prospects.status.seconds
        batches = np.array([configuration.batch_size for configuration in prospects.configurations])
        step = prospects.seconds_per_sample * batches
        startup = self._charged.startup
        best = math.exp(min(log_incumbent, NEVER)) / self.costs.price
        length = np.minimum(np.exp(np.minimum(prospects.mean_log, NEVER)), _LENGTHS * best)
        spent = state.spent.dollars if state.job.goal.minimize == "dollars" else state.spent.seconds
        most = (_SHARE_OF_SPENT * spent - self._charged.per_slice) / self._charged.per_second
        least_new = np.maximum(_STARTUP_SHARE * startup, _FEWEST_STEPS * step)
        more = 1.0 if state.terms.pays_to_resume else 0.25
        least = np.where(started, np.maximum(more * startup, 2 * step), least_new)
        share = np.where(started, np.maximum(_MORE_SHARE * elapsed, 0.03 * length), _NEW_SHARE * length)
        # A slice shorter than one step shows nothing.
        most = np.maximum(most, np.maximum(_STARTUP_SHARE * startup, _WHOLE_STEP * step))
        found = np.minimum(np.maximum(share, least), most)
        if not state.terms.resumes:
            # Repeated training at least doubles, so all repetitions together cost no more than the last one.
            found = np.maximum(found, elapsed)
        return np.asarray(np.maximum(self._to_a_score(found), 1e-6))

    def _to_a_score(self, seconds: Array) -> Array:
        """Extends slices to the next score if a shorter slice shows nothing or costs another start-up.

        A started run without a score shows nothing until its first score. A new run shows its step time
        first, which is enough if the goal is to minimize seconds. If the goal is to minimize dollars, a new
        run also trains to its first score, because the costs of equally long probes may differ a
        hundredfold.
        """
        state, status = self._state, self._prospects.status
        if not state.terms.pays_to_resume:
            is_new = state.job.goal.minimize == "dollars"
            unscored = [is_new if r is None else not r.measurement.trained_curve for r in self._runs]
            return np.where(unscored, status.next_score, seconds)
        samples = [self._end_samples(i, float(s)) - self._seen[i] for i, s in enumerate(seconds)]
        return np.asarray(samples * self._prospects.seconds_per_sample)

    def _end_samples(self, index: int, seconds: float) -> int:
        """Samples at which a candidate's slice ends if it trains for about `seconds` training seconds."""
        state, seen = self._state, self._seen[index]
        configuration = self._prospects.configurations[index]
        wanted = seen + seconds / float(self._prospects.seconds_per_sample[index])
        due = state.next_score_samples(configuration, seen) or 0
        run = self._runs[index]
        if run is None or run.rise_samples is None:
            wanted = max(wanted, state.rise_samples)  # a shorter run shows little
        if state.schedule.has_scores:
            return max(state.schedule.at_or_after(configuration, wanted), due)
        # One more score shows how fast the run improves.
        return max(math.ceil(wanted), state.terms.next_score_samples(due) or 0)

    def execute(self, option: Option) -> Start | Continue:
        """The action that runs an option."""
        if not option.is_timing:
            if option.index == self.incumbent:
                return self.go_on()
            return self._advance(option.index, Purpose.STATISTICS, self._reason(option.index))
        return Start(
            configuration=self._prospects.configurations[option.index],
            purpose=Purpose.TIMING,
            until=Until(steps=self._state.job.probe.timing_steps, training_seconds=_TIMING_SECONDS),
            reason="its step time is the main uncertainty",
        )

    def before_the_budget_ends(self, option: Option) -> Continue | Start | None:
        """A slice that trains a run to the target while the budget still allows it.

        Without this rule, a search could end with forecasts only, although it could have trained a run to
        the target.

        Args:
            option: The slice that would run otherwise.

        Returns:
            The action. None if the budget also allows it after `option`, if a run has reached the target, if
            no run is likely to reach it, while slices are in flight, or if resuming costs no start-up.
        """
        state, status, draws = self._state, self._prospects.status, self._prospects.draws
        runs = [i for i, run in enumerate(self._runs) if run and self._may_train(i) and not status.ended[i]]
        trains = state.terms.is_training and state.terms.pays_to_resume
        if not trains or not runs or state.capacity.under_way or self._any_arrived:
            return None
        done = status.seconds[runs] if state.terms.resumes else np.zeros(len(runs))
        to_go = np.exp(draws[:, runs]) - done
        needed = (to_go * self._charged.per_second[runs] + self._charged.per_slice[runs]) / self.costs.price[
            runs
        ]
        allowed = draws[:, runs] <= self.costs.log_longest[runs]
        names = [self._prospects.configurations[i] for i in runs]
        before = self._prospects.configurations[option.index], option.charged_seconds
        now, later = (
            ((needed <= [seconds_left(state, name, after=first) for name in names]) & allowed).mean(axis=0)
            for first in (None, before)
        )
        if option.index in runs and not option.is_timing:
            later[runs.index(option.index)] = now[runs.index(option.index)]  # the slice belongs to this run
        likely = 1.0 - status.never[runs]
        place = int(np.argmax(likely * now))
        # Only the budget is a reason to hurry, not the chance that the run never reaches the target.
        is_late = (likely * later).max() < likely[place] * min(now[place], _SURE_TO_ARRIVE)
        if runs[place] == option.index or likely[place] * now[place] < _MAY_ARRIVE or not is_late:
            return None
        return self._advance(
            runs[place],
            Purpose.TRAINING,
            "the budget may not allow it to reach the target after another run's slice",
            self._until_arrival(runs[place]),
        )

    def _until_arrival(self, index: int) -> Until:
        """End of a slice that very probably reaches the target; the budget may end the slice earlier."""
        seen, left = float(self._prospects.status.seconds[index]), self._seconds_left(index)
        if self._state.job.probe.slice_seconds is not None:
            return self._until(index, Purpose.TRAINING)
        longest = float(np.quantile(np.exp(self._prospects.draws[:, index]), _NEARLY_SURE))
        seconds = max(longest - seen, float(self.weights.slice_seconds[index]))
        return Until(samples=self._end_samples(index, seconds), training_seconds=seen + left)

    def go_on(self) -> Start | Continue:
        """The next slice of the incumbent."""
        run, configuration = self._runs[self.incumbent], self._prospects.configurations[self.incumbent]
        has_run = run is not None and (
            run.configuration == configuration or not self._can_transfer(run, configuration)
        )
        reason = "the best so far, to confirm it" if has_run else "expected to be the best, not yet run"
        return self._advance(self.incumbent, Purpose.TRAINING, reason)

    def _advance(
        self, index: int, purpose: Purpose, reason: str, until: Until | None = None
    ) -> Start | Continue:
        configuration, run = self._prospects.configurations[index], self._runs[index]
        until = until or self._until(index, purpose)
        if run is not None and run.is_open and run.configuration == configuration:
            return Continue(probe_id=run.probe.probe_id, purpose=purpose, until=until, reason=reason)
        if run is not None and not self._can_transfer(run, configuration):
            # The run's curve holds for all nodes, so it continues where it runs.
            samples = until.samples or int(run.measurement.samples + 1)
            until = Until(samples=samples)
            return Continue(probe_id=run.probe.probe_id, purpose=purpose, until=until, reason=reason)
        return Start(
            configuration=configuration,
            purpose=purpose,
            until=until,
            reason=reason,
            resume_from=run.probe.probe_id if run else None,
        )

    def _until(self, index: int, purpose: Purpose) -> Until:
        """End of a candidate's next slice; the budget may end the slice earlier."""
        state = self._state
        run, seconds = self._runs[index], float(self.weights.slice_seconds[index])
        done = float(self._prospects.status.seconds[index])
        left = self._seconds_left(index)
        stated = state.job.probe.slice_seconds
        if stated is not None:
            return Until(training_seconds=done + min(stated, left))
        if not state.terms.pays_to_resume:
            scored = run is not None and bool(run.measurement.trained_curve)
            ends_at_score = not scored and (run is not None or state.job.goal.minimize == "dollars")
            if not ends_at_score:
                return Until(training_seconds=done + min(seconds, left))
            return Until(training_seconds=done + left if math.isfinite(left) else None, scores=1)
        if purpose is Purpose.STATISTICS:
            left = min(left, _OVERRUN_FACTOR * seconds)
        else:
            # Each slice costs a start-up, so train longer. But the predicted length of a short run may be
            # far off, so at most double what the run has trained.
            length = math.exp(min(float(self._prospects.mean_log[index]), NEVER))
            seconds = max(seconds, min(_TRAINING_SHARE * length, done))
        samples = self._end_samples(index, seconds)
        return Until(samples=samples, training_seconds=done + left if math.isfinite(left) else None)

    def _seconds_left(self, index: int) -> float:
        """Training seconds that the budget leaves for a candidate's next slice."""
        left = seconds_left(self._state, self._prospects.configurations[index])
        if not self._state.terms.resumes:
            left -= float(self._prospects.status.seconds[index])
        if not self._state.terms.is_training:
            left *= float(self._charged.price[index] / self._charged.per_second[index])
        return max(left, 1e-3)

    def _can_transfer(self, run: Run, configuration: Configuration) -> bool:
        """Whether a run can resume on other nodes. A run on real ranks cannot resume on emulated ones."""
        cluster = self._state.cluster
        return cluster.emulates(run.configuration) == cluster.emulates(configuration)

    def _reason(self, index: int) -> str:
        prospects, price = self._prospects, self.costs.price
        middle = float(prospects.mean_log[index]) + math.log(price[index]) - self.weights.log_incumbent
        spread = 1.645 * math.sqrt(float(prospects.variance_log[index]))
        low, high = math.exp(min(middle - spread, 50.0)), math.exp(min(middle + spread, 50.0))
        return f"may cost {low:.2g} to {high:.2g} times as much as the best so far"
