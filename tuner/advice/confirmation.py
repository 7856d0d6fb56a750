"""Compare repeated trainings of two configurations: ratio of times to target with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search_spaces import Configuration
from tuner.domain.confirmation import Confirmation, ConfirmedSettings, ConfirmedTraining

#: Two-sided level of the interval.
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
    """Compares the recommendation with the present settings.

    A training that missed the target took at least as long as it was trained. With its time in place of the
    unknown one, the ratio is a bound: from below if only present settings missed the target, from above if
    only the recommendation did. If both did, nothing follows.

    Args:
        recommended: Trainings of the recommendation.
        present: Trainings of the present settings.
        price_ratio: Dollars per second of the present settings over those of the recommendation.
        uses_seed: Whether the seed reaches the training.
        num_unfinished: Trainings that were started and have not ended.
        seconds: Seconds charged by all trainings.
        dollars: Their price.
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
    """All trainings of one configuration, with their median."""
    times = [t.training_seconds if t.reached else math.inf for t in trainings]
    median = float(np.median(times)) if times else math.inf
    return ConfirmedSettings(
        configuration=configuration,
        trainings=tuple(trainings),
        median_seconds=median if math.isfinite(median) else None,
    )


def welch_factor(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Factor between a ratio of geometric means and the ends of its 90% interval.

    Welch's t interval of a difference of means, on log values: the variances may differ, and the degrees of
    freedom are those of Welch and Satterthwaite (Welch 1947, "The generalization of Student's problem when
    several different population variances are involved", Biometrika 34). It assumes log-normal values. Equal
    seeds in both groups are taken as independent, which is conservative if they correlate positively.

    Args:
        first: Log values of one group.
        second: Log values of the other.

    Returns:
        The factor, at least 1; None with fewer than two values in a group.
    """
    # Imported late: the command line starts quickly without it.
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
    """Whether every training went on for some time, so that it bounds its time to target."""
    return all(training.training_seconds > 0.0 for training in settings.trainings)


def _log_seconds(settings: ConfirmedSettings) -> list[float]:
    """Logarithm of the seconds to target, or of those trained where the target was missed."""
    return [math.log(max(training.training_seconds, 1e-9)) for training in settings.trainings]
