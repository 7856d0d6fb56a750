"""The Optuna study of a search: every probed configuration is a trial of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces import AxisValue, Configuration, ListedSpace
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.search.sampler import ProposedSampler, distributions, knob_distributions, untried


class StudyTrials:
    """Keeps an Optuna study up to date with the probes, so that Optuna's own tools show them.

    The study's value is the training seconds to target (minimized). A run that reaches it is COMPLETE, one
    that is given up PRUNED, one that broke down FAIL; a timing probe is PRUNED without a value.
    Intermediate values are the metric by samples, one for each scoring.

    Args:
        study: The study; its sampler chooses in `ask`.
        job: The job.
    """

    def __init__(self, study: optuna.Study, job: Job) -> None:
        self._study = study
        self._space = job.search_space()
        baseline = job.baseline_configuration()
        self._asked = distributions(self._space, baseline.as_dict() if baseline else None)

    def begin(self, configuration: Configuration, purpose: Purpose) -> int:
        """Makes a chosen configuration a trial; returns its number."""
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
        """The trial that the study's own sampler suggests: its number and configuration."""
        # Asked for before the trial is one: it is no trial of itself.
        left = untried(self._study, self._space) if isinstance(self._space, ListedSpace) else []
        trial = self._study.ask(self._asked)
        asked = Configuration(trial.params)
        for knob, choice in self._space.knob_choices(asked.strategy).items():
            offered = knob_distributions(self._space, asked.strategy)[knob].choices
            suggested: AxisValue = trial.suggest_categorical(knob, offered)  # type: ignore[assignment]
            asked = asked.replaced(**{knob: choice.nearest(suggested)})
        if left and asked not in left:  # knobs are asked for one by one, and may be none of the list together
            asked = ListedSpace(configurations=tuple(left)).nearest(asked)
        return _described(trial, asked, Purpose.TRAINING), asked

    def report(self, number: int, points: Sequence[CurvePoint]) -> None:
        """Adds scorings to a trial that has not ended; Optuna keeps the first value at each place."""
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
        """Reports the end of a trial; one that was reported already is left alone."""
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
        """Ends running trials for which no probe was recorded: the tuner ended in between."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _stored(self, number: int) -> FrozenTrial | None:
        """What is stored of a trial that has not ended."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return next((trial for trial in running if trial.number == number), None)


def _described(trial: optuna.Trial, configuration: Configuration, purpose: Purpose) -> int:
    """Stores what a trial is, where its parameters do not say it; returns its number."""
    if Configuration(trial.params) != configuration:
        trial.set_user_attr("configuration", configuration.key)
    trial.set_user_attr("purpose", purpose.value)
    return trial.number
