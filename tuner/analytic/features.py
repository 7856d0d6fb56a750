"""Converts configurations to the columns of linear regressions, for a search space with any axes.

The regressions (slope models, `tuner.analytic.slopes`) predict a logarithm, such as that of seconds per
sample, from columns, such as the logarithm of the number of nodes. The column "apart" is 1 for configurations
whose ranks are asynchronous (without a barrier) and 0 for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.analytic.laws import Array
from tuner.analytic.regression import IntArray
from tuner.analytic.slopes import Design, Observations, SlopePrior
from tuner.analytic.strategy_encoding import STRATEGY_LENGTH

#: Length scale of the residual over an ordered axis: this share of the axis's range, but at least this
#: minimum. The unit of both is that of the column, usually e-folds (factors of e).
_LENGTH_SHARE, _LEAST_LENGTH = 0.4, 0.8


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Two priors of one regression coefficient: the change of the predicted logarithm per unit of a column.

    The textbook prior expresses published knowledge; the neutral prior assumes no direction.

    Args:
        mean: Mean of the textbook prior.
        sd: Standard deviation of the textbook prior.
        neutral_sd: Standard deviation of the neutral prior.
        neutral_mean: Mean of the neutral prior.
    """

    mean: float
    sd: float
    neutral_sd: float
    neutral_mean: float = 0.0


#: Priors for the logarithm of seconds per sample. Textbook knowledge: more ranks and cores give a speedup
#: that is less than proportional, and the more ranks, the less so; larger batches amortize the cost of a
#: step; asynchronous ranks are faster.
SECONDS_SLOPES = {
    "log nodes": Slope(mean=-0.6, sd=0.4, neutral_sd=0.7),
    "log cores": Slope(mean=-0.7, sd=0.3, neutral_sd=0.7),
    "log batch": Slope(mean=-0.4, sd=0.3, neutral_sd=0.7),
    "log rate": Slope(mean=0.0, sd=0.02, neutral_sd=0.02),
    "apart": Slope(mean=-0.2, sd=0.4, neutral_sd=0.7),
    "apart x log nodes": Slope(mean=-0.1, sd=0.3, neutral_sd=0.3),
    "log nodes squared": Slope(mean=0.08, sd=0.1, neutral_sd=0.1),
}
#: Priors for the logarithm of samples to target. Textbook knowledge: the number of samples grows less than in
#: proportion to the batch size (McCandlish et al. 2018); small learning rates are slow, and there is a best
#: rate; staleness costs more samples with more ranks; cores do not matter.
SAMPLES_SLOPES = {
    "log nodes": Slope(mean=0.2, sd=0.4, neutral_sd=0.7),
    "log cores": Slope(mean=0.0, sd=0.05, neutral_sd=0.05),
    "log batch": Slope(mean=0.4, sd=0.4, neutral_sd=0.7),
    "log rate": Slope(mean=-0.5, sd=0.4, neutral_sd=0.7),
    "apart": Slope(mean=0.1, sd=0.4, neutral_sd=0.7),
    "apart x log nodes": Slope(mean=0.1, sd=0.3, neutral_sd=0.3),
    "log rate squared": Slope(mean=0.08, sd=0.08, neutral_sd=0.1, neutral_mean=0.08),
    "log batch x log rate": Slope(mean=-0.05, sd=0.1, neutral_sd=0.1),
}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A quantity whose logarithm a linear regression (slope model) predicts.

    All standard deviations are those of the logarithm.

    Args:
        name: Name of the quantity in messages.
        slopes: Maps the name of a column to the priors of its regression coefficient.
        residual_sds: Standard deviations to try for the smooth deviation from the regression (the residual).
            The model is a mixture over them, weighted by how well they explain the observations.
        own_sd: Standard deviation of the deviation of a single configuration, independent of all others.
        noise_sd: Standard deviation of an observation's noise.
    """

    name: str
    slopes: Mapping[str, Slope]
    residual_sds: tuple[float, ...]
    own_sd: float
    noise_sd: float = 0.0

    def observed(self, rows: IntArray, values: Array) -> Observations:
        """Combines measured values with the noise `noise_sd` to observations for a fit.

        Args:
            rows: Index of the observed candidate for each observation, `(num,)`.
            values: Logarithm of the quantity in each observation, `(num,)`.
        """
        noise = np.full(len(rows), self.noise_sd)
        return Observations(rows=rows, values=values, noise_sd=noise, common_sd=np.zeros(len(rows)))


#: These standard deviations assume that step times differ by a few percent if they are measured again, and
#: that samples to target differ by about 10% between seeds.
SECONDS = Quantity(
    name="seconds per sample",
    slopes=SECONDS_SLOPES,
    residual_sds=(0.12, 0.35, 0.8),
    own_sd=0.05,
    noise_sd=0.03,
)
SAMPLES = Quantity(
    name="samples to target", slopes=SAMPLES_SLOPES, residual_sds=(0.15, 0.4, 0.9), own_sd=0.12
)

_OTHER = Slope(mean=0.0, sd=0.5, neutral_sd=0.5)
_INTERCEPT_SD = 5.0
#: If the neutral prior of an axis's slope has a smaller standard deviation than this, the residual does not
#: depend on the axis.
_NEARLY_NOTHING = 0.1


@dataclass(frozen=True, kw_only=True)
class Features:
    """All configurations of a search space as rows of numbers, for linear regressions (slope models).

    Args:
        names: Names of the columns; the first one is `intercept`.
        columns: Design matrix, `(num_configurations, num_columns)`. Ordered axes are logarithms, shifted so
            that the middle of their range is 0.
        positions: Inputs of a Gaussian process, which models the smooth deviation from the regression,
            `(num_configurations, num_axes)`: ordered axes as in `columns`, and an indicator for each value of
            an unordered axis.
        lengths: Length scale of the Gaussian process in each column of `positions`, `(num_axes,)`.
        axes: Name of each column of `positions`, such as `log nodes` for an ordered axis, and
            `strategy=all_reduce` for a value of an unordered axis.
    """

    names: tuple[str, ...]
    columns: Array
    positions: Array
    lengths: Array
    axes: tuple[str, ...]

    def design(self, slopes: Mapping[str, Slope]) -> Design:
        """Returns the inputs of one regression, without columns that cannot affect its quantity.

        Args:
            slopes: Maps the name of a column to the priors of its regression coefficient.
        """
        near = [i for i, axis in enumerate(self.axes) if not _cannot_matter(axis, slopes)]
        return Design(self.columns[:, self._used(slopes)], self.positions[:, near], self.lengths[near])

    def names_of(self, slopes: Mapping[str, Slope]) -> list[str]:
        """Returns the names of the columns that `design` returns.

        Args:
            slopes: Maps the name of a column to the priors of its regression coefficient.
        """
        return [self.names[i] for i in self._used(slopes)]

    def _used(self, slopes: Mapping[str, Slope]) -> list[int]:
        others = {*SECONDS_SLOPES, *SAMPLES_SLOPES} - set(slopes)
        return [i for i, name in enumerate(self.names) if name not in others]


def _cannot_matter(axis: str, slopes: Mapping[str, Slope]) -> bool:
    """Whether an axis cannot affect a quantity, as the learning rate cannot affect seconds per sample."""
    slope = slopes.get("log cores" if axis.startswith("machine=") else axis)
    return slope is not None and slope.neutral_sd < _NEARLY_NOTHING


def prior_of(name: str, names: Sequence[str], slopes: Mapping[str, Slope], *, level: float) -> SlopePrior:
    """Returns a prior of all coefficients of a linear regression, one for each column.

    Args:
        name: Name of the prior; `neutral` uses the neutral priors of the slopes, any other name the textbook
            priors.
        names: Names of the columns of the design matrix, in order.
        slopes: Maps the name of a column to the priors of its coefficient. Other columns have a wide prior
            around 0.
        level: Prior mean of the intercept.
    """
    mean, sd = [level], [_INTERCEPT_SD]
    for column in names[1:]:
        slope = slopes.get(column, _OTHER)
        mean.append(slope.neutral_mean if name == "neutral" else slope.mean)
        sd.append(slope.neutral_sd if name == "neutral" else slope.sd)
    return SlopePrior(name=name, mean=np.array(mean), sd=np.array(sd))


def features_of(
    configurations: Sequence[Configuration], *, cores: Mapping[str, int], devices_per_node: int = 1
) -> Features:
    """Converts the configurations of a search space to rows of numbers, for linear regressions.

    Args:
        configurations: All configurations that will be predicted, in the order of the result's rows.
        cores: Maps the name of each machine type to its number of cores.
        devices_per_node: Ranks on one node; it converts nodes to ranks.
    """
    axes = {axis: None for c in configurations for axis in c}
    nodes = [float(c.nodes * devices_per_node) for c in configurations]
    ordered: dict[str, Array] = {"log nodes": np.log(nodes)}
    machines = {str(c.get("machine")) for c in configurations}
    if machines <= set(cores):
        ordered["log cores"] = np.log([float(cores[str(c["machine"])]) for c in configurations])
    # These properties of a configuration return a default if the space does not have the axis.
    ordered["log batch"] = np.log([float(c.batch_size) for c in configurations])
    ordered["log rate"] = np.log([float(c.learning_rate) for c in configurations])
    known_by_cores = "log cores" in ordered and len({cores[name] for name in machines}) == len(machines)
    unordered: dict[str, list[str]] = {}
    for axis in axes:
        if axis in ("nodes", "batch_size", "learning_rate") or (axis == "machine" and known_by_cores):
            continue
        values = [c.get(axis) for c in configurations]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(values) and len(set(numbers)) > 2:
            found = np.array(numbers, dtype=float)
            # The unit is an e-fold if all values are positive, else a standard deviation of the values.
            deviations = (found - found.mean()) / max(float(found.std()), 1e-12)
            ordered[axis] = deviations if found.min() <= 0 else np.log(found)
        else:
            unordered[axis] = [str(v) for v in values]
    asynchronous = np.array([0.0 if traits_of(c.strategy).barrier else 1.0 for c in configurations])
    return _assembled(ordered, unordered, asynchronous)


def _assembled(ordered: dict[str, Array], unordered: dict[str, list[str]], asynchronous: Array) -> Features:
    centered = {n: v - 0.5 * (v.min() + v.max()) for n, v in ordered.items() if v.max() > v.min() + 1e-9}
    columns: dict[str, Array] = {"intercept": np.ones(len(asynchronous)), **centered}
    if asynchronous.min() < asynchronous.max():
        columns["apart"] = asynchronous
        if "log nodes" in centered:
            columns["apart x log nodes"] = asynchronous * centered["log nodes"]
    for name in ("log nodes", "log rate"):
        if name in centered:
            columns[f"{name} squared"] = centered[name] ** 2
    if "log batch" in centered and "log rate" in centered:
        columns["log batch x log rate"] = centered["log batch"] * centered["log rate"]
    positions, near = list(centered.values()), list(centered)
    lengths = [max(_LENGTH_SHARE * float(np.ptp(v)), _LEAST_LENGTH) for v in positions]
    for axis, values in unordered.items():
        different = sorted(set(values))
        for value in different if len(different) > 1 else ():
            indicator = np.array([float(v == value) for v in values])
            positions.append(indicator)
            near.append(f"{axis}={value}")
            # Two values of an unordered axis have residuals as different as those of two strategies.
            lengths.append(STRATEGY_LENGTH)
            if axis != "strategy" or len(different) > 2 or "apart" not in columns:
                columns[f"{axis}={value}"] = indicator
    stacked = np.stack(positions, axis=1) if positions else np.zeros((len(asynchronous), 0))
    return Features(
        names=tuple(columns),
        columns=np.stack(list(columns.values()), axis=1),
        positions=stacked,
        lengths=np.array(lengths),
        axes=tuple(near),
    )
