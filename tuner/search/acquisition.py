"""Chooses which training run to continue or start next, by expected saving and cost.

A training runs in slices, between which it is paused. For each candidate configuration, `Acquisition`
computes how much a next slice is expected to save (`tuner.search.improvement`), what the slice costs, and how
long it should be. It then turns the best slice that the budget allows into an action of the search policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
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

#: Length of a slice: for a new probe, this share of the predicted training time to target; for a started run,
#: this share of the training time that the run already has.
_NEW_SHARE, _MORE_SHARE = 0.04, 0.3
#: If a start-up is charged for every slice, a slice of the incumbent lasts this share of the incumbent's
#: predicted training time to target.
_TRAINING_SHARE = 0.2
#: When the length of a slice is computed, a candidate's predicted training time is limited to this multiple
#: of the incumbent's predicted training time.
_LENGTHS = 2.0
#: Maximum cost of a slice, as a share of the cost of all slices so far, which makes slices more expensive
#: only gradually.
_SHARE_OF_SPENT = 0.15
#: Minimum length of the first slice of a probe: this share of the start-up time, and this number of steps.
_STARTUP_SHARE, _FEWEST_STEPS = 0.5, 4
#: Minimum length of any slice in steps. It applies even if the slice then exceeds the maximum cost.
_WHOLE_STEP = 1.1
#: A probe must be expected to save at least this share of the cost of a training with the incumbent, even if
#: the probe costs nothing.
_LEAST_GAIN = 1e-2
#: Maximum length of a timing probe in training seconds. The probe then ends even if it has made fewer steps
#: than planned.
_TIMING_SECONDS = 1.5
#: A candidate's steps are timed before the candidate is trained if the uncertainty of step time causes more
#: than this share of the variance of log seconds to target.
_TIMING_SHARE = 0.5
#: The target counts as out of reach if the probability that any candidate reaches it is at most this value.
_LEAST_CHANCE = 0.1
#: Two probabilities, used by `Acquisition.before_the_budget_ends`. A run is trained to the target now if two
#: conditions hold: it reaches the target within the budget with at least probability `_MAY_ARRIVE`, and
#: another slice before it would lower this probability to a value below `_SURE_TO_ARRIVE`.
_SURE_TO_ARRIVE, _MAY_ARRIVE = 0.75, 0.5
#: A slice from `Acquisition.before_the_budget_ends` is long enough to reach the target with this probability.
_NEARLY_SURE = 0.9
#: A slice that should last until the next score ends without it after this multiple of its expected seconds.
_OVERRUN_FACTOR = 4.0


@dataclass(frozen=True, kw_only=True)
class Option:
    """A slice (an uninterrupted part of a training) that could run next.

    Args:
        index: Index of the configuration to train in `Prospects.configurations`.
        is_timing: Whether the slice only measures the time of training steps. If not, it continues a
            training.
        charged_seconds: Expected seconds that are charged for the slice.
        share_of_cost: Seconds or dollars that are lost because the slice runs now (`OpportunityCost`),
            divided by the price of the charged seconds. It is 0 if the nodes would be idle without the slice.
    """

    index: int
    is_timing: bool
    charged_seconds: float
    share_of_cost: float


class Acquisition:
    """Evaluates the next slice of every candidate configuration, for one decision of the search policy.

    A slice is an uninterrupted part of a training. The incumbent is the candidate with the smallest expected
    cost.

    Args:
        state: State of the search.
        beliefs: Forecasts from the measurements so far. They give the price of one second of each candidate.
        prospects: Distribution of the time to target of every candidate. While slices are running, it can be
            the distribution that is expected once they have ended (`Believer.prospects`).
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
        # A candidate becomes the incumbent only if its run has reached the target or can be trained further.
        usable = [(run is not None and run.arrived) or self._may_go_on(i) for i, run in enumerate(self._runs)]
        self._any_arrived = any(run.arrived for run in state.runs.values())
        #: Number of trainings that benefit from a better configuration, and a share of the time that a
        #: started run has trained. Each of these trainings saves this share, because the run continues to the
        #: target.
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
        #: Keys (`timing_key`) of configurations whose steps were timed, are being timed, or failed to be
        #: timed; None if the job does not allow timing probes now.
        self._timed = state.timed() | state.failed_timings() | under_way if can_time else None

    @property
    def incumbent(self) -> int:
        """Index of the incumbent, the candidate configuration with the smallest expected cost."""
        return self.weights.incumbent

    @property
    def has_arrived(self) -> bool:
        """Whether a training of the incumbent, the best candidate so far, reached the target."""
        run = self._runs[self.incumbent]
        return run is not None and run.arrived

    @property
    def can_go_on(self) -> bool:
        """Whether the incumbent (the best candidate so far) can be trained further.

        It can be trained further in its own run, in a new run, or from the checkpoint of another run.
        """
        return self._may_go_on(self.incumbent)

    def _may_go_on(self, index: int) -> bool:
        run, configuration = self._runs[index], self._prospects.configurations[index]
        if run is None:
            return self._may_start and self._state.space.is_runnable(configuration)
        done = float(self._prospects.status.seconds[index])
        if not self._state.terms.resumes and seconds_left(self._state, configuration) <= done:
            return False  # the budget ends while the run repeats its training
        if not self._can_transfer(run, configuration):
            return run.is_open
        # A run that ended by a fault, or that reached an earlier, easier target, resumes as a new probe.
        return (run.is_open and run.configuration == configuration) or (run.can_continue and self._may_start)

    @property
    def is_reachable(self) -> bool:
        """Whether any candidate configuration is expected to reach the target, however long it trains.

        The deadline and the price limit of the goal are ignored.
        """
        return self._prospects.reach > _LEAST_CHANCE

    @property
    def keeps_limits(self) -> bool:
        """Whether any candidate may reach the target within the deadline and dollars of the goal."""
        keeps = keeps_within(self._prospects, self.costs.log_longest)
        return bool(np.any((keeps > LEAST_PROBABILITY) & ~self._prospects.status.ended))

    def best_option(self, opportunity: OpportunityCost) -> Option | None:
        """Returns the best slice that is expected to save more than it costs and that can run now.

        The best slice has the largest `Weights.score`, which is the expected improvement divided by the cost.

        Args:
            opportunity: Computes what is lost if a slice runs now, for example because it delays another one.

        Returns:
            The slice; None if no slice that can run now is expected to save more than it costs.
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
        """Returns the next slice of a candidate configuration; None if this slice cannot run now."""
        configuration = self._prospects.configurations[index]
        if opportunity.leads(configuration) or not self._state.fits(configuration):
            return None
        is_timing = self._may_time(index)
        can_train = self._may_train(index) and not opportunity.is_under_way(configuration)
        seconds = float(self.weights.slice_seconds[index])
        charged, fixed = self._charged.per_second[index], self.costs.fixed[index]
        startup = self._charged.per_slice[index]
        if is_timing and can_train:
            # If start-up is most of the cost of both a timing slice and a training slice, training is better.
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
        """Whether a training of a candidate configuration, on its own nodes, can be started or resumed."""
        run, configuration = self._runs[index], self._prospects.configurations[index]
        if run is None:
            return self._may_start and self._state.space.is_runnable(configuration)
        return run.configuration == configuration and run.is_open

    def _may_time(self, index: int) -> bool:
        """Whether the steps of a candidate configuration can be timed now, and have not been timed before."""
        cluster, configuration = self._state.cluster, self._prospects.configurations[index]
        if self._timed is None or timing_key(configuration, cluster) in self._timed:
            return False
        # The step times of emulated ranks are computed from the cluster's description, so timing them shows
        # nothing new. If a part of the cluster exists, its real ranks can be timed.
        return cluster.at_hand is None or not cluster.emulates(configuration)

    def _slice_seconds(self, log_incumbent: float) -> Array:
        """Computes for how many seconds each candidate configuration should train in its next slice.

        Args:
            log_incumbent: Logarithm of the expected cost of one training with the best candidate so far, in
                the unit of the goal (seconds or dollars).

        Returns:
            The training seconds, `(num,)`.
        """
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
        # A slice shorter than one step measures nothing, so the maximum is at least about one step.
        most = np.maximum(most, np.maximum(_STARTUP_SHARE * startup, _WHOLE_STEP * step))
        found = np.minimum(np.maximum(share, least), most)
        if not state.terms.resumes:
            # Each slice repeats the training from the start. If its length at least doubles each time, then
            # all earlier slices together cost no more than the last one.
            found = np.maximum(found, elapsed)
        return np.asarray(np.maximum(self._to_a_score(found), 1e-6))

    def _to_a_score(self, seconds: Array) -> Array:
        """Extends planned slices so that they end with a score, which is an evaluation of the model.

        - If start-up is charged for every slice, every slice is extended at least to the next score.
        - Otherwise, a started training without a score is extended to its first score, because a shorter
          slice would show nothing new.
        - If the goal is to minimize dollars, a new training is extended to its first score too, because
          slices of equal length may differ in cost by a factor of a hundred. If the goal is to minimize
          seconds, it is not extended, because the step time that it measures is enough at first.

        Args:
            seconds: Planned training seconds of the next slice of each candidate, `(num,)`.

        Returns:
            The training seconds after the extension, `(num,)`.
        """
        state, status = self._state, self._prospects.status
        if not state.terms.pays_to_resume:
            is_new = state.job.goal.minimize == "dollars"
            unscored = [is_new if r is None else not r.measurement.trained_curve for r in self._runs]
            return np.where(unscored, status.next_score, seconds)
        samples = [self._end_samples(i, float(s)) - self._seen[i] for i, s in enumerate(seconds)]
        return np.asarray(samples * self._prospects.seconds_per_sample)

    def _end_samples(self, index: int, seconds: float) -> int:
        """Returns how many samples a training will have processed at the end of its next slice.

        Args:
            index: Index of the candidate configuration that is trained.
            seconds: Planned training seconds of the slice. The slice may be longer, because it is extended to
                a score.
        """
        state, seen = self._state, self._seen[index]
        configuration = self._prospects.configurations[index]
        wanted = seen + seconds / float(self._prospects.seconds_per_sample[index])
        due = state.next_score_samples(configuration, seen) or 0
        run = self._runs[index]
        if run is None or run.rise_samples is None:
            wanted = max(wanted, state.rise_samples)  # most runs do not improve before
        if state.schedule.has_scores:
            return max(state.schedule.at_or_after(configuration, wanted), due)
        # One more score shows how fast the run improves.
        return max(math.ceil(wanted), state.terms.next_score_samples(due) or 0)

    def execute(self, option: Option) -> Start | Continue:
        """Returns the action of the search policy that runs a slice.

        Args:
            option: The slice, from `best_option`.
        """
        if not option.is_timing:
            if option.index == self.incumbent:
                return self.go_on()
            return self._advance(option.index, Purpose.STATISTICS, self._reason(option.index))
        return Start(
            configuration=self._prospects.configurations[option.index],
            purpose=Purpose.TIMING,
            until=Until(steps=self._state.job.probe.timing_steps, training_seconds=_TIMING_SECONDS),
            reason="the time of a step is the largest uncertainty of the predicted time to target",
        )

    def before_the_budget_ends(self, option: Option) -> Continue | Start | None:
        """Decides whether to train a run to the target now, because the budget may not allow it later.

        Without this rule, a search could use up its budget before any run has reached the target.

        Args:
            option: The slice that is run if this rule does not apply.

        Returns:
            The action that trains a run to the target, or None if the rule does not apply. The rule applies
            only if the budget no longer allows this training after the slice `option`, no run has reached the
            target, one run is likely to reach it, no slice is running, and the job trains on real ranks with
            a charge for each start-up.
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
            later[runs.index(option.index)] = now[runs.index(option.index)]  # `option` continues this run
        likely = 1.0 - status.never[runs]
        place = int(np.argmax(likely * now))
        # Compare probabilities with the same factor `likely`, so that only the budget makes a run late.
        is_late = (likely * later).max() < likely[place] * min(now[place], _SURE_TO_ARRIVE)
        if runs[place] == option.index or likely[place] * now[place] < _MAY_ARRIVE or not is_late:
            return None
        return self._advance(
            runs[place],
            Purpose.TRAINING,
            "the run trains to the target now, because the budget may not allow it later",
            self._until_arrival(runs[place]),
        )

    def _until_arrival(self, index: int) -> Until:
        """Returns the limits of a slice that is long enough to reach the target very probably.

        The slice ends earlier if the budget ends earlier.

        Args:
            index: Index of the candidate configuration that is trained.
        """
        seen, left = float(self._prospects.status.seconds[index]), self._seconds_left(index)
        if self._state.job.probe.slice_seconds is not None:
            return self._until(index, Purpose.TRAINING)
        longest = float(np.quantile(np.exp(self._prospects.draws[:, index]), _NEARLY_SURE))
        seconds = max(longest - seen, float(self.weights.slice_seconds[index]))
        return Until(samples=self._end_samples(index, seconds), training_seconds=seen + left)

    def go_on(self) -> Start | Continue:
        """Returns the action that trains the incumbent, the best candidate so far, for one more slice."""
        run, configuration = self._runs[self.incumbent], self._prospects.configurations[self.incumbent]
        has_run = run is not None and (
            run.configuration == configuration or not self._can_transfer(run, configuration)
        )
        reason = (
            "the best so far, trained further to confirm it"
            if has_run
            else "expected to be the best, not trained yet"
        )
        return self._advance(self.incumbent, Purpose.TRAINING, reason)

    def _advance(
        self, index: int, purpose: Purpose, reason: str, until: Until | None = None
    ) -> Start | Continue:
        configuration, run = self._prospects.configurations[index], self._runs[index]
        until = until or self._until(index, purpose)
        if run is not None and run.is_open and run.configuration == configuration:
            return Continue(probe_id=run.probe.probe_id, purpose=purpose, until=until, reason=reason)
        if run is not None and not self._can_transfer(run, configuration):
            # The run cannot be transferred to the incumbent's nodes, but its learning curve is the same on
            # any number of nodes. So the run continues on its own nodes.
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
        """Returns the limits at which the next slice of a candidate ends, such as the end of the budget.

        Args:
            index: Index of the candidate configuration.
            purpose: Why the slice runs, such as to learn about a configuration or to reach the target.
        """
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
            # A start-up is charged for each slice, so a longer slice is cheaper per training second. But the
            # prediction for a run that has trained little may be wrong, so at most double its training time.
            length = math.exp(min(float(self._prospects.mean_log[index]), NEVER))
            seconds = max(seconds, min(_TRAINING_SHARE * length, done))
        samples = self._end_samples(index, seconds)
        return Until(samples=samples, training_seconds=done + left if math.isfinite(left) else None)

    def _seconds_left(self, index: int) -> float:
        """Returns for how many training seconds the budget allows the next slice of a candidate to run."""
        left = seconds_left(self._state, self._prospects.configurations[index])
        if not self._state.terms.resumes:
            left -= float(self._prospects.status.seconds[index])
        if not self._state.terms.is_training:
            left *= float(self._charged.price[index] / self._charged.per_second[index])
        return max(left, 1e-3)

    def _can_transfer(self, run: Run, configuration: Configuration) -> bool:
        """Whether a run can resume from its checkpoint on the nodes of another configuration.

        It cannot if one of them has real ranks and the other has ranks that are emulated on this machine.

        Args:
            run: The run with the checkpoint.
            configuration: The configuration with other nodes.
        """
        cluster = self._state.cluster
        return cluster.emulates(run.configuration) == cluster.emulates(configuration)

    def _reason(self, index: int) -> str:
        prospects, price = self._prospects, self.costs.price
        middle = float(prospects.mean_log[index]) + math.log(price[index]) - self.weights.log_incumbent
        spread = 1.645 * math.sqrt(float(prospects.variance_log[index]))
        low, high = math.exp(min(middle - spread, 50.0)), math.exp(min(middle + spread, 50.0))
        wanted = "price" if self._state.job.goal.minimize == "dollars" else "time"
        return (
            f"may be better: its {wanted} to target is {low:.2g} to {high:.2g} times that of the best so far"
        )
