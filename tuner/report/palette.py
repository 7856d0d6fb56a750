"""Color palette: the color of each batch size, the same in every chart of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.domain.measurement import Purpose
from tuner.domain.recommendation import Alternative
from tuner.ledger import ProbeRecord

#: Steps of the ordered palette in the page's style sheet, from light to dark.
NUM_SHADES = 8

#: Categorical colours in the page's style sheet.
NUM_HUES = 6


def batch_shades(probes: Sequence[ProbeRecord], landscape: Sequence[Alternative] = ()) -> dict[int, str]:
    """Batch size to the class of its colour, in order, for every batch size a chart may show."""
    predicted = {alternative.configuration.batch_size for alternative in landscape}
    trained = {p.configuration.batch_size for p in probes if p.purpose is not Purpose.TIMING}
    return _shades(sorted(predicted | trained))


def _shades(batches: Sequence[int]) -> dict[int, str]:
    last = len(batches) - 1
    if last < 1:
        return dict.fromkeys(batches, f"shade{NUM_SHADES - 2}")
    return {batch: f"shade{round(k * (NUM_SHADES - 1) / last)}" for k, batch in enumerate(batches)}


def hues(names: Sequence[str]) -> Mapping[str, str]:
    """Name to the class of its colour, where names have no order."""
    return {name: f"hue{position % NUM_HUES}" for position, name in enumerate(names)}
