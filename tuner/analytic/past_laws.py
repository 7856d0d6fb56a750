"""What past studies found of a law's unknowns, as a second prior beside the neutral one.

Every study's value counts as one more look at the unknown, known as well as that study knew it and as alike
as jobs are. The neutral prior is kept as it is, and both are mixed by how well they foretell what was
measured (`mixed_posterior`), so that a wrong past costs little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.analytic.regression import Parameter

#: How much an unknown differs from one study to the next, in the neutral prior's standard deviations: of the
#: same workload, data and hardware, and of any others. Assumed: a tenth, and half of what is unsure anyway.
_BETWEEN_ALIKE, _BETWEEN_JOBS = 0.1, 0.5


@dataclass(frozen=True, kw_only=True)
class Told:
    """One study's value of an unknown.

    Args:
        mean: In the scale the law takes.
        sd: How well that study knew it, above 0.
        is_alike: Whether it was of the same workload, data and hardware.
    """

    mean: float
    sd: float
    is_alike: bool


PastLaw = Mapping[str, Sequence[Told]]
"""Name of an unknown to what past studies found of it."""


def informed(parameters: Sequence[Parameter], past: PastLaw) -> tuple[Parameter, ...] | None:
    """The unknowns with what past studies say of them; None where they say nothing of any.

    Args:
        parameters: With their neutral priors.
        past: What past studies found.
    """
    if not any(past.get(parameter.name) for parameter in parameters):
        return None
    return tuple(_informed(parameter, past.get(parameter.name, ())) for parameter in parameters)


def _informed(parameter: Parameter, told: Sequence[Told]) -> Parameter:
    """Averaged by precision with the neutral prior as one more study; never surer than jobs are alike."""
    if not told:
        return parameter
    between = [parameter.sd * (_BETWEEN_ALIKE if t.is_alike else _BETWEEN_JOBS) for t in told]
    precisions = [(t.sd**2 + b**2) ** -1 for t, b in zip(told, between, strict=True)]
    total = sum(precisions) + parameter.sd**-2
    mean = sum(p * t.mean for p, t in zip(precisions, told, strict=True)) + parameter.mean * parameter.sd**-2
    return replace(parameter, mean=mean / total, sd=min(parameter.sd, math.hypot(min(between), total**-0.5)))
