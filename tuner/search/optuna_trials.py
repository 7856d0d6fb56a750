"""Stores the trainings of a search as trials of an Optuna study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces import AxisValue, Configuration, ListedSpace
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.search.sampler import ProposedSampler, distributions, knob_distributions, untried


class StudyTrials:
    """Stores each probe (trial training) of a search as a trial of an Optuna study, for Optuna's tools.

    - The value of a trial is the number of training seconds to target, which is minimized.
    - The intermediate values are the scores of the run. Their step is the number of samples processed.
    - A run that reaches the target becomes a COMPLETE trial. A run that is ended before the target becomes a
      PRUNED trial, and a failed run becomes a FAIL trial.
    - A probe that only times steps becomes a PRUNED trial without a value.

    Args:
        study: The Optuna study. Its sampler suggests the configurations of `ask`.
        job: The job, which defines the search space.
    """

    def __init__(self, study: optuna.Study, job: Job) -> None:
        self._study = study
        self._space = job.search_space()
        baseline = job.baseline_configuration()
        self._asked = distributions(self._space, baseline.as_dict() if baseline else None)

    def begin(self, configuration: Configuration, purpose: Purpose) -> int:
        """Creates an Optuna trial for a configuration that the search has chosen; returns the trial's number.

        Args:
            configuration: The configuration.
            purpose: Why the configuration is trained, such as to time its steps.
        """
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
        """Lets the Optuna sampler suggest a configuration; returns trial number and configuration."""
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
        """Adds scores (evaluations of the metric) to a running Optuna trial as intermediate values.

        Args:
            number: Number of the trial.
            points: Scores of the run. If the trial already has a value at the number of samples of a score,
                this score is ignored.
        """
        running = self._stored(number)
        if running is not None:
            self._add(running, points)

    def end(
        self, number: int, outcome: Outcome, seconds_to_target: float | None, seen: Measurement | None
    ) -> None:
        """Ends a running Optuna trial. Does nothing if the trial has ended already.

        Args:
            number: Number of the trial.
            outcome: How the training of the trial ended.
            seconds_to_target: Training seconds to target; None if the run did not reach the target.
            seen: Measurement of the training, which is stored with the trial; None if nothing was measured.
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

    def complete(self, probes: Sequence[ProbeRecord], seconds_to_target: Mapping[int, float | None]) -> None:
        """Adds scores, ends and whole trials that are in the ledger, but not in the Optuna study.

        Call this before a search starts. A measurement is stored in the ledger first and in the Optuna study
        afterwards, so scores are missing if Paceline was killed in between. All trials are missing if the
        ledger was recovered into a new database. A running trial without a probe becomes a FAIL trial,
        because Paceline was killed after it had created the trial.

        Args:
            probes: All probes of the study.
            seconds_to_target: Training seconds to target by probe id; None if the target was not reached.
        """
        by_number = {probe.trial_number: probe for probe in probes if probe.trial_number is not None}
        trials = self._study.get_trials(deepcopy=False)
        missing = range(len(trials), max(by_number, default=-1) + 1)
        for number in missing:
            try:
                self._study.add_trial(self._as_trial(by_number[number]))
            except (KeyError, ValueError):  # no probe, or a value that the job's space no longer has
                self._study.ask()
        for trial in self._study.get_trials(deepcopy=False) if missing else trials:
            if trial.state.is_finished():
                continue
            probe = by_number.get(trial.number)
            if probe is None:
                self._study.tell(trial.number, state=TrialState.FAIL)
                continue
            self._add(trial, [point for measured in probe.slices for point in measured.curve])
            if not probe.outcome.can_continue:
                seconds = seconds_to_target.get(probe.probe_id)
                self.end(trial.number, probe.outcome, seconds, probe.measurement)

    def _as_trial(self, probe: ProbeRecord) -> FrozenTrial:
        """Returns a running trial with the configuration, the purpose and all scores of a probe."""
        configuration = probe.configuration
        knobs = knob_distributions(self._space, configuration.strategy)
        asked = self._asked | {k: d for k, d in knobs.items() if configuration.get(k) in d.choices}
        parameters = {axis: configuration[axis] for axis in asked}
        attributes = {"purpose": probe.purpose.value}
        if Configuration(parameters) != configuration:
            attributes["configuration"] = configuration.key
        return optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions=asked,
            user_attrs=attributes,
            intermediate_values={p.samples: p.value for m in probe.slices for p in m.curve},
        )

    def _add(self, running: FrozenTrial, points: Sequence[CurvePoint]) -> None:
        trial = optuna.Trial(self._study, running._trial_id)
        for point in points:
            if point.samples not in running.intermediate_values:
                trial.report(point.value, step=point.samples)

    def _stored(self, number: int) -> FrozenTrial | None:
        """Returns the Optuna trial with this number if it is running, else None."""
        # `get_trials` would read the scores of all running trials.
        storage = self._study._storage
        try:
            trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        except KeyError:
            return None
        trial = storage.get_trial(trial_id)
        return trial if trial.state is TrialState.RUNNING else None


def _described(trial: optuna.Trial, configuration: Configuration, purpose: Purpose) -> int:
    """Stores the purpose of a training with its Optuna trial, and returns the number of the trial.

    If the parameters of the trial differ from the configuration, the configuration is stored too.
    """
    if Configuration(trial.params) != configuration:
        trial.set_user_attr("configuration", configuration.key)
    trial.set_user_attr("purpose", purpose.value)
    return trial.number
