"""Computes prior distributions of model parameters from past studies in the database.

The models are those of step time and of samples to target (`tuner.analytic`): formulas with parameters that
are fitted to measurements. The code calls these models laws.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tuner.analytic.curve_template import PRIOR
from tuner.analytic.laws import Array
from tuner.analytic.mixed_posterior import PastLaw, PastValue
from tuner.analytic.step_law import UNSTATED_BYTES
from tuner.domain.ledger import FitRecord

#: Parameters that are specific to one study: the difficulty of its target, the errors of its emulated ranks,
#: and the size of its model. Past studies give no priors of them.
_OWN = frozenset(
    {"log samples", "log emulation bias (samples)", "log emulation bias (seconds)", UNSTATED_BYTES}
)


@dataclass(frozen=True, kw_only=True)
class PastLaws:
    """Values that the parameters of the prediction models had in past studies and imported runs.

    Args:
        seconds: Values of the parameters of the model of step time.
        samples: Values of the parameters of the model of samples to target.
        shapes: Prior probability of each shape of a learning curve, `(num_shapes,)`.
        rise_samples: Median number of samples after which imported runs that reached the target first
            improved clearly; 0 if unknown.
    """

    seconds: PastLaw = field(default_factory=dict)
    samples: PastLaw = field(default_factory=dict)
    shapes: Array = field(default_factory=lambda: PRIOR)
    rise_samples: float = 0.0


NO_PAST = PastLaws()


@cache
def _renamed_parameters() -> Mapping[str, str]:
    """Returns the new names of parameters that earlier versions stored under other names."""
    return tomllib.loads(Path(__file__).with_name("renamed_parameters.toml").read_text())


def laws_of_fits(fits: Sequence[FitRecord], fingerprint: str) -> PastLaws:
    """Collects the values that the parameters of the prediction models had in past studies.

    Values of parameters that the measurements of a study did not determine are left out. `fits` may contain
    fits to recorded runs; they have no effect, because their parameters have other names.

    Args:
        fits: Records from `Ledger.past_fits`, without those of the present study.
        fingerprint: Fingerprint of the present study. A past study with the same fingerprint had the same
            workload, data and hardware.
    """
    renamed = _renamed_parameters()
    found: dict[str, dict[str, list[PastValue]]] = {"seconds": {}, "samples": {}}
    for fit in fits:
        left = {*_OWN, *(renamed.get(name, name) for name in fit.summary.get("at_prior", ()))}
        for stored, (mean, sd) in fit.parameters.items():
            name = renamed.get(stored, stored)
            if fit.model in found and name not in left and sd > 0:
                past = PastValue(mean=float(mean), sd=float(sd), is_alike=fit.fingerprint == fingerprint)
                found[fit.model].setdefault(name, []).append(past)
    return PastLaws(seconds=found["seconds"], samples=found["samples"])
