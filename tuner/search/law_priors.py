"""Priors of the analytic models from past studies in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tuner.analytic.curve_template import PRIOR
from tuner.analytic.laws import Array
from tuner.analytic.mixed_posterior import PastLaw, PastValue
from tuner.analytic.step_law import UNSTATED_BYTES
from tuner.ledger import FitRecord

#: Unknowns that are one study's own: how far its target is, how emulation errs there, how large its model is.
_OWN = frozenset(
    {"log samples", "log bias of emulated samples", "log bias of emulated seconds", UNSTATED_BYTES}
)


@dataclass(frozen=True, kw_only=True)
class PastLaws:
    """What past studies found of both laws.

    Args:
        seconds: Of seconds a sample.
        samples: Of samples to target.
        shapes: Probability of each shape of a learning curve, `(num_shapes,)`.
        rise_samples: Samples after which imported runs that reached the target left their start, the median;
            0 where unknown.
    """

    seconds: PastLaw = field(default_factory=dict)
    samples: PastLaw = field(default_factory=dict)
    shapes: Array = field(default_factory=lambda: PRIOR)
    rise_samples: float = 0.0


NO_PAST = PastLaws()


def laws_of_fits(fits: Sequence[FitRecord], fingerprint: str) -> PastLaws:
    """Priors of the laws' unknowns from stored fits.

    An unknown that a study left where its prior had it is no finding of that study. Fits of lists of
    recorded runs hold slopes, which no law has.

    Args:
        fits: Of `Ledger.past_fits`, without those of the study that asks.
        fingerprint: Of the study that asks: fits that share it are of the same workload, data and hardware.
    """
    found: dict[str, dict[str, list[PastValue]]] = {"seconds": {}, "samples": {}}
    for fit in fits:
        left = {*_OWN, *fit.summary.get("at_prior", ())}
        for name, (mean, sd) in fit.parameters.items():
            if fit.model in found and name not in left and sd > 0:
                past = PastValue(mean=float(mean), sd=float(sd), is_alike=fit.fingerprint == fingerprint)
                found[fit.model].setdefault(name, []).append(past)
    return PastLaws(seconds=found["seconds"], samples=found["samples"])
