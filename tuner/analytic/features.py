"""Features of configurations for the slope models, for a space with any axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.analytic.laws import Array
from tuner.analytic.regression import IntArray
from tuner.analytic.slopes import Design, Observations, SlopePrior
from tuner.analytic.strategy_encoding import STRATEGY_LENGTH

#: Length scale of the residual on an ordered axis: a share of its range, and a minimum in e-folds.
_LENGTH_SHARE, _LEAST_LENGTH = 0.4, 0.8


@dataclass(frozen=True, kw_only=True)
class Slope:
    """The prior of a slope: the change of the logarithm per unit of its column.

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


#: Slopes of log seconds per sample. Textbook: ranks and cores give a speedup that is less than proportional,
#: and less so the more there are; larger batches amortize the cost of a step; asynchronous ranks are faster.
SECONDS_SLOPES = {
    "log nodes": Slope(mean=-0.6, sd=0.4, neutral_sd=0.7),
    "log cores": Slope(mean=-0.7, sd=0.3, neutral_sd=0.7),
    "log batch": Slope(mean=-0.4, sd=0.3, neutral_sd=0.7),
    "log rate": Slope(mean=0.0, sd=0.02, neutral_sd=0.02),
    "apart": Slope(mean=-0.2, sd=0.4, neutral_sd=0.7),
    "apart x log nodes": Slope(mean=-0.1, sd=0.3, neutral_sd=0.3),
    "log nodes squared": Slope(mean=0.08, sd=0.1, neutral_sd=0.1),
}
#: Slopes of log samples to target. Textbook: samples grow less than in proportion to the batch (McCandlish et
#: al. 2018); small learning rates are slow, with a minimum; staleness costs more with more ranks; cores do
#: not matter.
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
    """A quantity that the slope model fits; standard deviations are of its logarithm.

    Args:
        name: The name in messages.
        slopes: Priors of the known slopes, by column.
        residual_sds: Standard deviations of the residual; the model mixes them.
        own_sd: Standard deviation of each configuration's independent deviation.
        noise_sd: Standard deviation of an observation's error.
    """

    name: str
    slopes: Mapping[str, Slope]
    residual_sds: tuple[float, ...]
    own_sd: float
    noise_sd: float = 0.0

    def observed(self, rows: IntArray, values: Array) -> Observations:
        """Observations with the error `noise_sd`.

        Args:
            rows: Index of the candidate of each, `(num,)`.
            values: Logarithms of the quantity, `(num,)`.
        """
        noise = np.full(len(rows), self.noise_sd)
        return Observations(rows=rows, values=values, noise_sd=noise, common_sd=np.zeros(len(rows)))


#: Step times repeat within a few percent, trainings by seed within a tenth.
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
#: A column is left out if the prior of its slope is narrower than this.
_NEARLY_NOTHING = 0.1


@dataclass(frozen=True, kw_only=True)
class Features:
    """The columns of a space for the slope models.

    Args:
        names: Names of the columns, `intercept` first.
        columns: `(num_configurations, num_columns)`; ordered axes are logarithms around their middle.
        positions: Inputs of the residual: logarithms of ordered axes, and an indicator for each value of the
            others, `(num_configurations, num_axes)`.
        lengths: Length scales of the positions, `(num_axes,)`.
        axes: Name of each position: a column, or `axis=value`.
    """

    names: tuple[str, ...]
    columns: Array
    positions: Array
    lengths: Array
    axes: tuple[str, ...]

    def design(self, slopes: Mapping[str, Slope]) -> Design:
        """The columns and positions of a model with these slopes, without those that cannot matter."""
        near = [i for i, axis in enumerate(self.axes) if not _cannot_matter(axis, slopes)]
        return Design(self.columns[:, self._used(slopes)], self.positions[:, near], self.lengths[near])

    def names_of(self, slopes: Mapping[str, Slope]) -> list[str]:
        """Names of the columns of `design`."""
        return [self.names[i] for i in self._used(slopes)]

    def _used(self, slopes: Mapping[str, Slope]) -> list[int]:
        others = {*SECONDS_SLOPES, *SAMPLES_SLOPES} - set(slopes)
        return [i for i, name in enumerate(self.names) if name not in others]


def _cannot_matter(axis: str, slopes: Mapping[str, Slope]) -> bool:
    """Whether a position cannot matter: learning rates to seconds, machines to samples to target."""
    slope = slopes.get("log cores" if axis.startswith("machine=") else axis)
    return slope is not None and slope.neutral_sd < _NEARLY_NOTHING


def prior_of(
    name: str, names: Sequence[str], slopes: Mapping[str, Slope], *, level: float, sign: float = 1.0
) -> SlopePrior:
    """A prior over the columns of a design.

    Args:
        name: Name of the prior; `neutral` uses the neutral priors of the slopes.
        names: Names of the columns.
        slopes: Priors of the known slopes, by column; other slopes have a wide prior around 0.
        level: Mean of the intercept.
        sign: Factor of all means; -1 reverses them.
    """
    mean, sd = [level], [_INTERCEPT_SD]
    for column in names[1:]:
        slope = slopes.get(column, _OTHER)
        mean.append(slope.neutral_mean if name == "neutral" else sign * slope.mean)
        sd.append(slope.neutral_sd if name == "neutral" else slope.sd)
    return SlopePrior(name=name, mean=np.array(mean), sd=np.array(sd))


def features_of(
    configurations: Sequence[Configuration], *, cores: Mapping[str, int], devices_per_node: int = 1
) -> Features:
    """The features of the configurations of a space.

    Args:
        configurations: All configurations that will be predicted.
        cores: Cores of each machine type, by name.
        devices_per_node: Ranks on one node.
    """
    axes = {axis: None for c in configurations for axis in c}
    nodes = [float(c.nodes * devices_per_node) for c in configurations]
    ordered: dict[str, Array] = {"log nodes": np.log(nodes)}
    machines = {str(c.get("machine")) for c in configurations}
    if machines <= set(cores):
        ordered["log cores"] = np.log([float(cores[str(c["machine"])]) for c in configurations])
    # If an axis is missing, the properties of the configuration return a default.
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
            # In e-folds if all values are positive, else in standard deviations.
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
            # Options are as different as strategies.
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
