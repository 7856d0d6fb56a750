"""The chart of predicted against measured time, on logarithmic axes with the diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.domain.format import (
    format_configuration,
    format_duration_tick,
    format_interval,
    format_seconds,
    format_share,
)
from tuner.domain.recommendation import Estimate
from tuner.ledger import PredictedAgainstMeasured
from tuner.ledger.records import EARLY_SHARE
from tuner.report.findings import estimate_of
from tuner.report.markup import Markup, joined
from tuner.report.plot import Axis, Plot, Size, ticks_of
from tuner.report.scales import Scale, duration_ticks, padded

SIZES = (
    Size(name="wide", width=490, height=430, num_ticks=6),
    Size(name="narrow", width=370, height=370, num_ticks=5),
)

#: Predictions of one run take at most so many pixels.
_WIDEST_RUN = 54.0

#: Bars may reach so many times beyond the medians before they are cut off.
_BAR_LENGTH = 3.0


def checked_chart(checked: Sequence[PredictedAgainstMeasured]) -> Markup | None:
    """Every prediction with a finite median, and its 90% interval; None where there is none."""
    drawn = [(check, estimate_of(check.prediction.quantiles)) for check in checked]
    shown = [
        (check, estimate)
        for check, estimate in drawn
        if estimate is not None and 0 < estimate.median < math.inf and check.measured_seconds > 0
    ]
    if not shown:
        return None
    return joined(*(_chart(shown, size) for size in SIZES))


def _chart(shown: Sequence[tuple[PredictedAgainstMeasured, Estimate]], size: Size) -> Markup:
    centers = [value for check, estimate in shown for value in (check.measured_seconds, estimate.median)]
    low, high = min(centers), max(centers)
    ends = [min(estimate.upper, high * _BAR_LENGTH) for _, estimate in shown]
    starts = [max(estimate.lower, low / _BAR_LENGTH) for _, estimate in shown]
    domain = padded(min(low, *starts), max(high, *ends), logarithmic=True, share=0.08)
    x = Scale(low=domain[0], high=domain[1], start=60, end=size.width - 16, logarithmic=True)
    y = Scale(low=domain[0], high=domain[1], start=size.height - 46, end=34, logarithmic=True)
    plot = Plot(size=size, x=x, y=y, summary="Predicted against measured time to target")
    ticks = ticks_of(duration_ticks(*domain, size.num_ticks), format_duration_tick)
    plot.axes(Axis(title="measured", ticks=ticks), Axis(title="predicted, with 90% intervals", ticks=ticks))
    plot.line([(domain[0], domain[0]), (domain[1], domain[1])], "diagonal", "predicted = measured")
    aside = _aside([check for check, _ in shown])
    for (check, estimate), pixels in zip(shown, aside, strict=True):
        early = check.share_known <= EARLY_SHARE
        inside = estimate.lower <= check.measured_seconds <= estimate.upper
        title = (
            f"{format_configuration(check.prediction.configuration)}: predicted "
            f"{format_seconds(estimate.median)} ({format_interval(estimate)}) with "
            f"{format_share(check.share_known)} of the run known; measured "
            f"{format_seconds(check.measured_seconds)}"
        )
        style = "accent" if inside else "missed"
        place = x.value_at(x(check.measured_seconds) + pixels)
        plot.interval(place, estimate.lower, estimate.upper, f"{style} medium", title)
        plot.point(place, estimate.median, style if early else f"{style} hollow", title)
    return plot.render()


def _aside(checked: Sequence[PredictedAgainstMeasured]) -> list[float]:
    """Pixels by which predictions of one run are moved, so that they stand side by side in order."""
    runs: dict[float, list[int]] = {}
    for position, check in enumerate(checked):
        runs.setdefault(check.measured_seconds, []).append(position)
    pixels = [0.0] * len(checked)
    for members in runs.values():
        members.sort(key=lambda position: checked[position].share_known)
        gap = min(9.0, _WIDEST_RUN / len(members))
        for order, position in enumerate(members):
            pixels[position] = gap * (order - (len(members) - 1) / 2)
    return pixels
