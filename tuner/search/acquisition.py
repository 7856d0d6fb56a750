"""One decision's candidates: what each is expected to save, what its next slice costs, and where it ends."""

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
from tuner.search.limits import may_start, seconds_left
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.policy import Continue, Start
from tuner.search.probe_cost import probe_cost
from tuner.search.prospects import NEVER, Prospects
from tuner.search.runs import Run
from tuner.search.state import SearchState, run_of
from tuner.search.timings import timing_key

Array = npt.NDArray[np.float64]

#: A new probe covers this share of its predicted length; a started one resumes for this share of what it has
#: done.
_NEW_SHARE, _MORE_SHARE = 0.04, 0.3
#: Where resuming costs a start-up the best known configuration resumes for this share of its length.
_TRAINING_SHARE = 0.2
#: Predicted lengths are capped at so many times the incumbent's: longer training is never chosen.
_LENGTHS = 2.0
#: No slice costs more than this share of all that was spent: what is learnt first decides on expensive ones.
_SHARE_OF_SPENT = 0.15
#: A slice is worth its start-up: at least this share of it, and so many steps.
_STARTUP_SHARE, _FEWEST_STEPS = 0.5, 4
#: A slice lasts at least this many steps, whatever it may cost.
_WHOLE_STEP = 1.1
#: A gain below this share of what the best known configuration costs is not worth a probe, even a free one.
_LEAST_GAIN = 1e-2
#: A timing probe ends after so many training seconds even if it has steps left.
_TIMING_SECONDS = 1.5
#: Steps are timed first where more than this share of what is unknown of log seconds is how long they take.
_TIMING_SHARE = 0.5
#: The target is out of reach where any candidate reaches it with no more than this probability.
_LEAST_CHANCE = 0.1
#: A run that may be the answer goes on to the target while its chance to arrive within the budget is such.
_SURE_TO_ARRIVE, _MAY_ARRIVE = 0.75, 0.5
#: Such a slice lasts until the run has arrived with this probability.
_NEARLY_SURE = 0.9
#: A probe that takes this many times what was expected ends without its score.
_OVERRUN_FACTOR = 4.0


@dataclass(frozen=True, kw_only=True)
class Option:
    """A slice that could run next.

    Args:
        index: The candidate.
        is_timing: Whether it times steps only.
        charged_seconds: What it is charged.
        share_of_cost: What of its price it costs the goal: 0 where nothing else could use that time.
    """

    index: int
    is_timing: bool
    charged_seconds: float
    share_of_cost: float


class Acquisition:
    """The candidates of one decision.

    Args:
        state: What is known and spent.
        beliefs: What is believed of the candidates.
        prospects: The same as it will be once the slices in flight have ended.
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
        # What can be trained no further is no incumbent, and gains nothing.
        usable = [(run is not None and run.arrived) or self._may_go_on(i) for i, run in enumerate(self._runs)]
        self._any_arrived = any(run.arrived for run in state.runs.values())
        #: How many trainings a better configuration improves, and what each is spared of the started run.
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
        #: What was timed, is being timed, or could not be; None where nothing more may be timed.
        self._timed = state.timed() | state.failed_timings() | under_way if can_time else None

    @property
    def incumbent(self) -> int:
        """The candidate that is expected to cost least."""
        return self.weights.incumbent

    @property
    def has_arrived(self) -> bool:
        """Whether the incumbent's run reached the target."""
        run = self._runs[self.incumbent]
        return run is not None and run.arrived

    @property
    def can_go_on(self) -> bool:
        """Whether the incumbent may be trained further, on its own nodes or from a run on others."""
        return self._may_go_on(self.incumbent)

    def _may_go_on(self, index: int) -> bool:
        run, configuration = self._runs[index], self._prospects.configurations[index]
        if run is None:
            return self._may_start and self._state.space.is_runnable(configuration)
        done = float(self._prospects.status.seconds[index])
        if not self._state.terms.resumes and seconds_left(self._state, configuration) <= done:
            return False  # the budget would be used up before anything new is seen
        if not self._can_transfer(run, configuration):
            return run.is_open
        # After a fault, or for a nearer target than now, it resumes as another probe.
        return (run.is_open and run.configuration == configuration) or (run.can_continue and self._may_start)

    @property
    def is_reachable(self) -> bool:
        """Whether any candidate is expected to reach the target, the goal's limits apart."""
        return self._prospects.reach > _LEAST_CHANCE

    @property
    def keeps_limits(self) -> bool:
        """Whether any candidate has a chance to reach the target within the goal's limits."""
        keeps = keeps_within(self._prospects, self.costs.log_longest)
        return bool(np.any((keeps > LEAST_PROBABILITY) & ~self._prospects.status.ended))

    def best_option(self, opportunity: OpportunityCost) -> Option | None:
        """The slice of highest acquisition among those that pay back and may run now; None where none does.

        Args:
            opportunity: What slices keep from running.
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
        """A candidate's next slice; None where none may run now."""
        configuration = self._prospects.configurations[index]
        if opportunity.leads(configuration) or not self._state.fits(configuration):
            return None
        is_timing = self._may_time(index)
        can_train = self._may_train(index) and not opportunity.is_under_way(configuration)
        seconds = float(self.weights.slice_seconds[index])
        charged, fixed = self._charged.per_second[index], self.costs.fixed[index]
        startup = self._charged.per_slice[index]
        if is_timing and can_train:
            # It is cheaper than training only where starting up is not most of either's cost.
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
        """Whether a candidate's own run may be started, or resumed."""
        run, configuration = self._runs[index], self._prospects.configurations[index]
        if run is None:
            return self._may_start and self._state.space.is_runnable(configuration)
        return run.configuration == configuration and run.is_open

    def _may_time(self, index: int) -> bool:
        """Whether a candidate's steps may be timed, were not and are not being timed."""
        cluster, configuration = self._state.cluster, self._prospects.configurations[index]
        if self._timed is None or timing_key(configuration, cluster) in self._timed:
            return False
        # It would repeat what was described, while true steps can be had elsewhere.
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
        # A slice of less than a step would show nothing.
        most = np.maximum(most, np.maximum(_STARTUP_SHARE * startup, _WHOLE_STEP * step))
        found = np.minimum(np.maximum(share, least), most)
        if not state.terms.resumes:
            # What is paid for again is doubled at least, so that all repetitions cost no more than the last.
            found = np.maximum(found, elapsed)
        return np.asarray(np.maximum(self._to_a_score(found), 1e-6))

    def _to_a_score(self, seconds: Array) -> Array:
        """Slices that end at a score where one that ends earlier shows nothing, or costs another start-up.

        A run without a score shows nothing before it has one. A new run does too where dollars count, since
        there probes of one length may differ in cost a hundredfold. Where seconds count, it shows its step
        time first.
        """
        state, status = self._state, self._prospects.status
        if not state.terms.pays_to_resume:
            is_new = state.job.goal.minimize == "dollars"
            unscored = [is_new if r is None else not r.measurement.trained_curve for r in self._runs]
            return np.where(unscored, status.next_score, seconds)
        samples = [self._end_samples(i, float(s)) - self._seen[i] for i, s in enumerate(seconds)]
        return np.asarray(samples * self._prospects.seconds_per_sample)

    def _end_samples(self, index: int, seconds: float) -> int:
        """Samples at which a candidate's slice of about so many training seconds ends."""
        state, seen = self._state, self._seen[index]
        configuration = self._prospects.configurations[index]
        wanted = seen + seconds / float(self._prospects.seconds_per_sample[index])
        due = state.next_score_samples(configuration, seen) or 0
        run = self._runs[index]
        if run is None or run.rise_samples is None:
            wanted = max(wanted, state.rise_samples)  # before that a run shows little
        if state.schedule.has_scores:
            return max(state.schedule.at_or_after(configuration, wanted), due)
        # One score more shows how fast it gains.
        return max(math.ceil(wanted), state.terms.next_score_samples(due) or 0)

    def execute(self, option: Option) -> Start | Continue:
        """The action of an option."""
        if not option.is_timing:
            if option.index == self.incumbent:
                return self.go_on()
            return self._advance(option.index, Purpose.STATISTICS, self._reason(option.index))
        return Start(
            configuration=self._prospects.configurations[option.index],
            purpose=Purpose.TIMING,
            until=Until(steps=self._state.job.probe.timing_steps, training_seconds=_TIMING_SECONDS),
            reason="its step time decides",
        )

    def before_the_budget_ends(self, option: Option) -> Continue | Start | None:
        """A slice that takes a run to the target, where the budget may not allow that after another slice.

        Without it a search could end with nothing but forecasts, although it could have trained a run to the
        target. None where a run has arrived, where none is likely enough to arrive, while slices are in
        flight, and where runs go on without a start-up.

        Args:
            option: The slice that would run.
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
            later[runs.index(option.index)] = now[runs.index(option.index)]  # its slice is part of the way
        likely = 1.0 - status.never[runs]
        place = int(np.argmax(likely * now))
        # Whether a run arrives at all is no reason to hurry.
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
        """Where a candidate's run has very probably reached the target; the budget may end it earlier."""
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
        reason = "the best known, to confirm it" if has_run else "expected to be the best, not yet run"
        return self._advance(self.incumbent, Purpose.TRAINING, reason)

    def _advance(
        self, index: int, purpose: Purpose, reason: str, until: Until | None = None
    ) -> Start | Continue:
        configuration, run = self._prospects.configurations[index], self._runs[index]
        until = until or self._until(index, purpose)
        if run is not None and run.is_open and run.configuration == configuration:
            return Continue(probe_id=run.probe.probe_id, purpose=purpose, until=until, reason=reason)
        if run is not None and not self._can_transfer(run, configuration):
            # Its statistics are those of all: they are learnt where it runs, without another clock.
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
        """Where a candidate's next slice ends; the budget may end it earlier."""
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
            # Each slice costs a start-up. While little is known of a run, its length may be far off.
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
        """Whether a run can be resumed on other nodes: not from real ranks to emulated ones."""
        cluster = self._state.cluster
        return cluster.emulates(run.configuration) == cluster.emulates(configuration)

    def _reason(self, index: int) -> str:
        prospects, price = self._prospects, self.costs.price
        middle = float(prospects.mean_log[index]) + math.log(price[index]) - self.weights.log_incumbent
        spread = 1.645 * math.sqrt(float(prospects.variance_log[index]))
        low, high = math.exp(min(middle - spread, 50.0)), math.exp(min(middle + spread, 50.0))
        return f"may take {low:.2g} to {high:.2g} times the best known"
