"""The use case `predict`: predicts one configuration from the stored study of a job, without training."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import ValidationError

from search_spaces import KNOBS, AxisValue, Configuration, ListedSpace, SearchSpace, traits_of
from tuner.advice.no_answer import has_score, last_fault
from tuner.advice.prediction import Prediction, predict
from tuner.advice.recommend import Ending
from tuner.domain.errors import InfeasibleError, JobError, ProbeError, did_you_mean
from tuner.domain.format import axis_title
from tuner.domain.ledger import Ledger, ProbeRecord, StudyRecord
from tuner.domain.recommendation import train_command
from tuner.job import BaselineSection, configuration_with_knobs
from tuner.probes.slice_plan import FIRST_EVALUATION_PER_EPOCH, SMALLEST_FIRST_EVALUATION
from tuner.recordings.recording import NEUTRAL_EPOCH_SAMPLES
from tuner.service.opening import OpenedJob, StudyStore
from tuner.service.reporting import make_ending, stored_result
from tuner.service.views import require_study

#: Words that name a configuration of a study, and what they stand for.
RECOMMENDED, BASELINE = "recommended", "baseline"


class StudyForecasts:
    """Forecasts from the measurements of a stored study. Nothing is trained, and torch is not imported.

    Args:
        opened: The job of the study.
        ledger: The database of studies.
        study: The study.

    Raises:
        InfeasibleError: No score was read in the study.
        ProbeError: No score was read, because probes failed.
    """

    def __init__(self, opened: OpenedJob, ledger: Ledger, study: StudyRecord) -> None:
        self.opened, self._ledger, self.study = opened, ledger, study
        epoch_samples = _epoch_samples(opened, ledger.probes(study.study_id))
        self._result = stored_result(opened, ledger, study, epoch_samples)
        self.state = self._result.state
        if not has_score(self.state) or not self.state.runs:
            raise _unscored(self)
        given = ledger.recommendations(study.study_id)
        #: Whether the search of the study gave a recommendation.
        self.has_ended = bool(given)
        self._recommended = (
            Configuration(given[-1].recommendation["choice"]["configuration"]) if given else None
        )

    @property
    def space(self) -> SearchSpace:
        """The search space of the job, without what ran out of memory."""
        return self.state.space

    @property
    def baseline(self) -> Configuration | None:
        """The user's present settings; None if the job does not state them."""
        return self.opened.job.baseline_configuration()

    def recommended(self) -> Configuration:
        """Returns the recommended configuration of the study; before its end, the best so far.

        Raises:
            InfeasibleError: No configuration is expected to reach the target.
        """
        if self._recommended is None:
            ending = self.ending(())
            best = ending.beliefs.recommended or self.baseline
            if best is None:
                raise InfeasibleError(
                    f"study {self.study.name} has no configuration that is expected to reach the target; "
                    "state all values of the configuration"
                )
            self._recommended = best
        return self._recommended

    def ending(self, configurations: Sequence[Configuration]) -> Ending:
        """Returns the measurements and the forecasts of the study.

        Args:
            configurations: Configurations to forecast, inside or outside the search space.
        """
        ending = make_ending(self.opened, self._ledger, self.study, self._result, configurations)
        assert ending is not None, "the study has scored runs"
        return ending


def predict_configuration(
    opened: OpenedJob, store: StudyStore, values: Mapping[str, AxisValue]
) -> tuple[Prediction, str]:
    """Predicts the time to target of a configuration from the newest study of a job.

    Args:
        opened: The job.
        store: The database of studies.
        values: Values of the configuration by the names of their axes. Missing values are those of the
            recommendation.

    Returns:
        The prediction, and the next sensible command.

    Raises:
        JobError: The job has no study, or the configuration is impossible.
        InfeasibleError: No score was read in the study.
        ProbeError: No score was read, because probes failed.
    """
    forecasts = StudyForecasts(opened, store.ledger, require_study(store.ledger, opened))
    base = forecasts.recommended()
    configuration = chosen(forecasts, values, base)
    prediction = predict(forecasts.ending([configuration]), configuration)
    prediction = replace(
        prediction, evidence=(*prediction.evidence, *_source(forecasts, values, base, configuration))
    )
    asked = values.get("strategy", base.strategy)
    if asked != configuration.strategy:
        words = f"On one rank, {asked} trains as {configuration.strategy} does, because nothing is exchanged."
        prediction = replace(prediction, remarks=(words, *prediction.remarks))
    return prediction, _next_command(forecasts, prediction)


def chosen(forecasts: StudyForecasts, values: Mapping[str, AxisValue], base: Configuration) -> Configuration:
    """Returns the configuration with the given values; the other values are those of `base`.

    Values outside the search space are allowed if such a training is possible.

    Args:
        forecasts: The study, whose job defines the axes and what is possible.
        values: The given values, by the names of their axes.
        base: The configuration to change.

    Raises:
        JobError: An axis or a strategy is unknown, or the configuration is impossible.
    """
    space, path = forecasts.space, forecasts.opened.path
    listed = space.configurations if isinstance(space, ListedSpace) else ()
    axes = dict.fromkeys(axis for one in listed for axis in one) if listed else [*space.axes, *KNOBS]
    for axis in values:
        if axis not in axes:
            quoted = did_you_mean(axis, axes)
            raise JobError(f"{path}: unknown key '{axis}'{quoted} Known are {', '.join(axes)}")
    if listed:
        found = _with_recorded(listed, values, base, str(path))
    else:
        found = _with_values(values, base, str(path))
    reasons = [c.reason_against(found) for c in space.conditions]
    against = [reason for reason in reasons if reason is not None]
    if against:
        raise JobError(f"{path}: {found} cannot be trained: {'; '.join(against)}")
    traits = traits_of(found.strategy)
    alone = forecasts.state.cluster.num_ranks(found.nodes) == 1 and not listed
    if alone and traits.statistics_depend_on_nodes and not traits.has_outer_step:
        # On one rank nothing is exchanged, so it is the same training, of which more may be known.
        return found.without("strategy", *traits.knobs).replaced(strategy="all_reduce")
    return found


def _with_values(values: Mapping[str, AxisValue], base: Configuration, path: str) -> Configuration:
    """Changes values of a configuration of a job that trains."""
    knobs = [knob for knob in KNOBS if knob in base]
    stated = {**base.as_dict(), **values}
    if values.get("strategy", base.strategy) != base.strategy:
        stated = {axis: value for axis, value in stated.items() if axis in values or axis not in knobs}
    try:
        checked = BaselineSection.model_validate(stated).model_dump()
        stated = {axis: checked.get(axis, value) for axis, value in stated.items()}
        own = {axis: stated.pop(axis) for axis in [*stated] if axis in KNOBS}
        return configuration_with_knobs(Configuration(stated), **own)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, p['loc']))} = {p['input']!r}: " if p["loc"] else "" for p in error.errors()
        ]
        texts = [
            where + p["msg"].removeprefix("Value error, ").removeprefix("Input ")
            for where, p in zip(problems, error.errors(), strict=True)
        ]
        raise JobError(f"{path}: {'; '.join(texts)}") from error
    except (TypeError, ValueError) as error:
        raise JobError(f"{path}: {error}") from error


def _with_recorded(
    listed: Sequence[Configuration], values: Mapping[str, AxisValue], base: Configuration, path: str
) -> Configuration:
    """Changes values of a recorded configuration. Numbers may differ from all recorded ones, texts not."""
    for axis, value in values.items():
        known = list(dict.fromkeys(one[axis] for one in listed if axis in one))
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in known)
        if numbers and _is_positive(value):
            continue
        if value not in known:
            allowed = "a number above 0" if numbers else f"one of {', '.join(map(str, known))}"
            raise JobError(f"{path}: {axis} = {value!r}: allowed is {allowed}")
    found = base.replaced(**values)
    # 1 and 1.0 are equal but have different texts, so a recorded configuration is used as it is written.
    return next((one for one in listed if dict(one) == dict(found)), found)


def _is_positive(value: AxisValue) -> bool:
    if isinstance(value, bool | str):
        return False
    return math.isfinite(value) and value > 0


def _epoch_samples(opened: OpenedJob, probes: Sequence[ProbeRecord]) -> int:
    """Returns the number of samples in the training set, as far as forecasts depend on it.

    They depend on it through the number of samples before the first evaluation, which the probes show. So the
    training data need not be loaded.
    """
    if opened.job.runs_command:
        return opened.job.command.epoch_samples or NEUTRAL_EPOCH_SAMPLES
    firsts = [m.trained_curve[0].samples for p in probes for m in p.slices[:1] if m.trained_curve]
    first = min(firsts, default=SMALLEST_FIRST_EVALUATION)
    return first if first < SMALLEST_FIRST_EVALUATION else first * FIRST_EVALUATION_PER_EPOCH


def _unscored(forecasts: StudyForecasts) -> InfeasibleError | ProbeError:
    """Returns the error for a study in which no score was read."""
    state, path = forecasts.state, forecasts.opened.path
    words = f"no score was read in study {forecasts.study.name} yet, so nothing can be predicted. "
    if state.num_faults:
        return ProbeError(f"{words}{last_fault(state)} Fix the cause, then run: paceline run {path}")
    check = "see which lines of the script are read: paceline check" if state.job.runs_command else ""
    more = f", or {check} {path}" if check else ""
    return InfeasibleError(f"{words}Run the search until it has a score: paceline run {path}{more}")


def _source(
    forecasts: StudyForecasts,
    values: Mapping[str, AxisValue],
    base: Configuration,
    configuration: Configuration,
) -> list[str]:
    """Says where the values come from that the user left out; nothing if they left out all or none."""
    same = [axis for axis in configuration if axis in base and configuration[axis] == base[axis]]
    left_out = [axis_title(axis) for axis in same if axis not in values and axis not in KNOBS]
    if not values or not left_out:
        return []
    whose = "the recommendation" if forecasts.has_ended else "the best configuration so far"
    return [f"Not given, so as in {whose}: {', '.join(left_out)}."]


def _next_command(forecasts: StudyForecasts, prediction: Prediction) -> str:
    """Returns the command that is most useful after a prediction."""
    path, configuration = shlex.quote(str(forecasts.opened.path)), prediction.forecast.configuration
    if not forecasts.has_ended:
        return f"paceline run {path}"
    if configuration != forecasts.recommended():
        changed = ",".join(f"{axis}={value}" for axis, value in configuration.items())
        return f"paceline compare {path} --a {RECOMMENDED} --b {changed}"
    if forecasts.state.job.recording() is None and not forecasts.state.cluster.emulates(configuration):
        return train_command(forecasts.opened.path, configuration)
    return f"paceline report {path}"
