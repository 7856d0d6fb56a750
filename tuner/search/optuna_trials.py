"""The Optuna study of a search: every probe is a trial."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces import AxisValue, Configuration, ListedSpace
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.search.sampler import ProposedSampler, distributions, knob_distributions, untried


class StudyTrials:
    """Stores the probes as trials of an Optuna study, so that Optuna's own tools can show them.

    A trial's value is the training seconds to target (minimized). A run that reaches the target is COMPLETE,
    a run that is given up is PRUNED, and a failed run is FAIL. A timing probe is PRUNED without a value.
    Intermediate values are the scores, by samples.

    Args:
        study: The Optuna study; `ask` uses its sampler.
        job: The job.
    """

    def __init__(self, study: optuna.Study, job: Job) -> None:
        self._study = study
        self._space = job.search_space()
        baseline = job.baseline_configuration()
        self._asked = distributions(self._space, baseline.as_dict() if baseline else None)

    def begin(self, configuration: Configuration, purpose: Purpose) -> int:
        """Creates a trial for a chosen configuration and returns its number."""
        chooser = self._study.sampler
        self._study.sampler = ProposedSampler(configuration)
        try:
            trial = self._study.ask(self._asked)
            for knob, distribution in knob_distributions(self._space, configuration.strategy).items():
                if configuration.get(knob) in distribution.choices:
                    trial.suggest_categorical(knob, distribution.choices)
        finally:
            self._study.sampler = chooser
        return _described(trial, configuration, purpose)

    def ask(self) -> tuple[int, Configuration]:
        """Creates a trial that the study's sampler suggests; returns its number and configuration."""
        # List the untried configurations before `ask` adds the new trial.
        left = untried(self._study, self._space) if isinstance(self._space, ListedSpace) else []
        trial = self._study.ask(self._asked)
        asked = Configuration(trial.params)
        for knob, choice in self._space.knob_choices(asked.strategy).items():
            offered = knob_distributions(self._space, asked.strategy)[knob].choices
            suggested: AxisValue = trial.suggest_categorical(knob, offered)  # type: ignore[assignment]
            asked = asked.replaced(**{knob: choice.nearest(suggested)})
        if left and asked not in left:  # knobs are sampled one by one, so they may not match the list
            asked = ListedSpace(configurations=tuple(left)).nearest(asked)
        return _described(trial, asked, Purpose.TRAINING), asked

    def report(self, number: int, points: Sequence[CurvePoint]) -> None:
        """Reports new scores to a running trial; Optuna stores the first value at each number of samples."""
        running = self._stored(number)
        if running is None:
            return
        trial = optuna.Trial(self._study, running._trial_id)
        for point in points:
            if point.samples not in running.intermediate_values:
                trial.report(point.value, step=point.samples)

    def end(
        self, number: int, outcome: Outcome, seconds_to_target: float | None, seen: Measurement | None
    ) -> None:
        """Ends a trial, unless it has ended already.

        Args:
            number: Number of the trial.
            outcome: Outcome of the probe.
            seconds_to_target: Training seconds to target; None if the run did not reach it.
            seen: Measurement of the probe; None if there is none.
        """
        running = self._stored(number)
        if running is None:
            return
        trial = optuna.Trial(self._study, running._trial_id)
        trial.set_user_attr("outcome", outcome.value)
        if seen is not None:
            trial.set_user_attr("charged_seconds", seen.charged_seconds)
            if seen.step_seconds is not None:
                trial.set_user_attr("step_seconds", seen.step_seconds.median)
        unreached = TrialState.PRUNED if outcome is Outcome.STOPPED else TrialState.FAIL
        state = unreached if seconds_to_target is None else TrialState.COMPLETE
        self._study.tell(number, seconds_to_target, state=state)

    def fail_orphans(self, known: Collection[int]) -> None:
        """Ends running trials without a probe. They are left if the tuner is killed between the two."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _stored(self, number: int) -> FrozenTrial | None:
        """The stored trial with this number if it is running, else None."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return next((trial for trial in running if trial.number == number), None)


def _described(trial: optuna.Trial, configuration: Configuration, purpose: Purpose) -> int:
    """Stores a trial's purpose, and its configuration if its parameters differ; returns its number."""
    if Configuration(trial.params) != configuration:
        trial.set_user_attr("configuration", configuration.key)
    trial.set_user_attr("purpose", purpose.value)
    return trial.number
