"""Compares repeated trainings of the recommendation with those of the user's present settings.

The result is the ratio of their times to target, with a confidence interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search_spaces import Configuration
from tuner.domain.confirmation import Confirmation, ConfirmedSettings, ConfirmedTraining

#: Confidence level of the two-sided interval.
_LEVEL = 0.9


def compare_trainings(
    recommended: ConfirmedSettings,
    present: ConfirmedSettings,
    *,
    price_ratio: float | None,
    uses_seed: bool,
    num_unfinished: int,
    seconds: float,
    dollars: float,
) -> Confirmation:
    """Compares repeated trainings of the recommendation with those of the user's present settings.

    The speed-up is the geometric mean of the times to target of the present settings, divided by that of the
    recommendation. If a training missed the target, its training time is a lower bound of its time to target:

    - If only trainings of the present settings missed the target, the ratio is a lower bound of the speed-up.
    - If only trainings of the recommendation missed the target, the ratio is an upper bound of the speed-up.
    - If trainings of both missed the target, the result has no ratio.

    Args:
        recommended: Trainings of the recommendation.
        present: Trainings of the present settings.
        price_ratio: Dollars per second of the present settings, divided by dollars per second of the
            recommendation; None if unknown.
        uses_seed: Whether the training uses the seed of each repetition.
        num_unfinished: Number of trainings that were started and have not ended.
        seconds: Seconds charged for all trainings together.
        dollars: Dollars charged for all trainings together.
    """
    speedup = lower = upper = at_least = at_most = None
    if recommended.trainings and present.trainings:
        ours, theirs = _log_seconds(recommended), _log_seconds(present)
        ratio = math.exp(sum(theirs) / len(theirs) - sum(ours) / len(ours))
        if recommended.all_reached and present.all_reached:
            speedup = ratio
            factor = welch_factor(ours, theirs)
            if factor is not None:
                lower, upper = ratio / factor, ratio * factor
        elif recommended.all_reached and _all_trained(present):
            at_least = ratio
        elif present.all_reached and _all_trained(recommended):
            at_most = ratio
    return Confirmation(
        recommended=recommended,
        baseline=present,
        speedup=speedup,
        lower=lower,
        upper=upper,
        at_least=at_least,
        at_most=at_most,
        is_significant=None if lower is None or upper is None else not lower <= 1.0 <= upper,
        price_ratio=price_ratio,
        uses_seed=uses_seed,
        num_unfinished=num_unfinished,
        seconds=seconds,
        dollars=dollars,
    )


def settings_of(configuration: Configuration, trainings: Sequence[ConfirmedTraining]) -> ConfirmedSettings:
    """Collects the repeated trainings of one configuration, with their median time to target.

    Args:
        configuration: The configuration.
        trainings: Repeated trainings of this configuration.
    """
    times = [t.training_seconds if t.reached else math.inf for t in trainings]
    median = float(np.median(times)) if times else math.inf
    return ConfirmedSettings(
        configuration=configuration,
        trainings=tuple(trainings),
        median_seconds=median if math.isfinite(median) else None,
    )


def welch_factor(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Computes the half-width of the 90% confidence interval of a ratio of geometric means, as a factor.

    - The interval is from `ratio / factor` to `ratio * factor`.
    - It is Welch's t interval for the difference of the means of the logarithms (Welch 1947, "The
      generalization of Student's problem when several different population variances are involved",
      Biometrika 34), with the degrees of freedom of Welch and Satterthwaite.
    - It assumes lognormal values. The variances of the two groups may differ.
    - It treats two runs with the same seed as independent. If such runs are positively correlated, the
      interval is wider than necessary.

    Args:
        first: Logarithms of the values of the first group.
        second: Logarithms of the values of the second group.

    Returns:
        The factor, at least 1; None if a group has fewer than two values.
    """
    # Imported here because importing SciPy slows down the start of the command line.
    from scipy.special import stdtrit

    if min(len(first), len(second)) < 2:
        return None
    variances = [float(np.var(group, ddof=1)) / len(group) for group in (first, second)]
    total = sum(variances)
    if total == 0.0:
        return 1.0
    freedom = total**2 / sum(
        variance**2 / (len(group) - 1) for variance, group in zip(variances, (first, second), strict=True)
    )
    return math.exp(float(stdtrit(freedom, 0.5 + _LEVEL / 2)) * math.sqrt(total))


def _all_trained(settings: ConfirmedSettings) -> bool:
    """Whether all trainings lasted longer than 0 s, so their times are lower bounds of times to target."""
    return all(training.training_seconds > 0.0 for training in settings.trainings)


def _log_seconds(settings: ConfirmedSettings) -> list[float]:
    """Returns the logarithm of the seconds that each training took, to the target or to its earlier end."""
    return [math.log(max(training.training_seconds, 1e-9)) for training in settings.trainings]
