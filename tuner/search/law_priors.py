"""Priors of the analytic models from past studies in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tuner.analytic.curve_template import PRIOR
from tuner.analytic.laws import Array
from tuner.analytic.mixed_posterior import PastLaw, PastValue
from tuner.analytic.step_law import UNSTATED_BYTES
from tuner.domain.ledger import FitRecord

#: Unknowns that differ between studies: distance of the target, errors of emulation, size of the model.
_OWN = frozenset(
    {"log samples", "log bias of emulated samples", "log bias of emulated seconds", UNSTATED_BYTES}
)


@dataclass(frozen=True, kw_only=True)
class PastLaws:
    """Values of the laws' unknowns from past studies.

    Args:
        seconds: Unknowns of the step-time law.
        samples: Unknowns of the law of samples to target.
        shapes: Probability of each shape of a learning curve, `(num_shapes,)`.
        rise_samples: Median samples after which imported runs that reached the target first improved clearly;
            0 if unknown.
    """

    seconds: PastLaw = field(default_factory=dict)
    samples: PastLaw = field(default_factory=dict)
    shapes: Array = field(default_factory=lambda: PRIOR)
    rise_samples: float = 0.0


NO_PAST = PastLaws()


def laws_of_fits(fits: Sequence[FitRecord], fingerprint: str) -> PastLaws:
    """Priors of the laws' unknowns from stored fits.

    Unknowns that stayed at their prior in a study are left out. Fits to recorded runs are left out too,
    because they contain slopes and not the laws' unknowns.

    Args:
        fits: Records from `Ledger.past_fits`, without those of the present study.
        fingerprint: Fingerprint of the present study. Fits with the same fingerprint are of the same
            workload, data and hardware.
    """
    found: dict[str, dict[str, list[PastValue]]] = {"seconds": {}, "samples": {}}
    for fit in fits:
        left = {*_OWN, *fit.summary.get("at_prior", ())}
        for name, (mean, sd) in fit.parameters.items():
            if fit.model in found and name not in left and sd > 0:
                past = PastValue(mean=float(mean), sd=float(sd), is_alike=fit.fingerprint == fingerprint)
                found[fit.model].setdefault(name, []).append(past)
    return PastLaws(seconds=found["seconds"], samples=found["samples"])
