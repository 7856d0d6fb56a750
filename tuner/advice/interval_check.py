"""Compares a study's predicted intervals with the times measured later: are its intervals too narrow?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from search_spaces import Configuration
from tuner.domain.ledger import PredictedAgainstMeasured, PredictionRecord
from tuner.domain.recommendation import Estimate, IntervalCheck

#: Share of the measured times that are inside their predicted intervals, if the intervals are right.
_INSIDE = 0.9
#: Intervals count as too narrow if so few measured times, or fewer, were inside with less than this
#: probability.
_UNLIKELY = 0.05


def estimate_of(quantiles: Mapping[float, float]) -> Estimate | None:
    """Returns the median and the 90% interval from quantiles at the levels 0.05, 0.5 and 0.95.

    The result is None if one of these levels is missing.

    Args:
        quantiles: Maps each level to the quantile of the time to target, in seconds.
    """
    by_level = {round(float(level), 6): value for level, value in quantiles.items()}
    levels = (0.05, 0.5, 0.95)
    if any(level not in by_level or math.isnan(by_level[level]) for level in levels):
        return None
    lower, median, upper = (by_level[level] for level in levels)
    return Estimate(lower=lower, median=median, upper=upper)


def compared_predictions(
    predictions: Iterable[PredictionRecord], measured: Mapping[Configuration, float]
) -> list[PredictedAgainstMeasured]:
    """Compares predictions of the time to target with the times that were measured later.

    A search that was interrupted repeats its last predictions when it resumes; they count once.

    Args:
        predictions: The predictions of a study, oldest first.
        measured: Maps each configuration that reached the target to its training seconds to target.
    """
    newest: dict[Configuration, tuple[object, ...]] = {}
    found = []
    for prediction in predictions:
        values = (prediction.quantiles, prediction.probability_of_reaching, prediction.seconds_observed)
        if newest.get(prediction.configuration) != values:
            found.append(PredictedAgainstMeasured.of(prediction, measured.get(prediction.configuration)))
        newest[prediction.configuration] = values
    return [comparison for comparison in found if comparison is not None]


def is_inside(check: PredictedAgainstMeasured) -> bool | None:
    """Whether the measured time is inside the predicted 90% interval; None if no interval was stored."""
    predicted = estimate_of(check.prediction.quantiles)
    if predicted is None:
        return None
    return predicted.lower <= check.measured_seconds <= predicted.upper


def interval_check(checked: Sequence[PredictedAgainstMeasured]) -> IntervalCheck | None:
    """Counts the measured times inside their predicted 90% intervals; None if none was predicted.

    With right intervals, each measured time is inside with a probability of 90%. The intervals count as too
    narrow if the binomial probability of so few inside, or fewer, is below 5%: 0 of 2, 2 of 5, 6 of 10.
    Several predictions of one training are not independent. The rule ignores this, so it errs on the side of
    doubt.

    Args:
        checked: Predictions of the time to target, each with the time measured later.
    """
    verdicts = [inside for check in checked if (inside := is_inside(check)) is not None]
    if not verdicts:
        return None
    num, num_inside = len(verdicts), sum(verdicts)
    return IntervalCheck(
        num_predictions=num, num_inside=num_inside, too_narrow=_at_most(num_inside, num) < _UNLIKELY
    )


def _at_most(num_inside: int, num: int) -> float:
    """Returns the binomial probability of at most `num_inside` of `num` with a probability of 90% each."""
    return sum(math.comb(num, k) * _INSIDE**k * (1 - _INSIDE) ** (num - k) for k in range(num_inside + 1))
