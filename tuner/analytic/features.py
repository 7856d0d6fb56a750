"""Features of configurations for the slope models, whatever axes a space has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.analytic.laws import Array
from tuner.analytic.regression import IntArray
from tuner.analytic.slopes import Design, Observations, SlopePrior
from tuner.analytic.strategy_encoding import STRATEGY_LENGTH

#: A residual's length scale on an ordered axis: this share of the axis' range, but not less than so many
#: e-folds.
_LENGTH_SHARE, _LEAST_LENGTH = 0.4, 0.8


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A slope's prior: change of the logarithm for each unit of its column.

    Args:
        mean: Text-book mean.
        sd: Text-book standard deviation.
        neutral_sd: Standard deviation around zero if its sign is unknown.
    """

    mean: float
    sd: float
    neutral_sd: float
    neutral_mean: float = 0.0


#: Slopes of log seconds a sample. Text-book: ranks and cores help less than in proportion, and the less the
#: more there are; larger batches amortise what a step costs; ranks that do not wait are a little faster.
SECONDS_SLOPES = {
    "log nodes": Slope(mean=-0.6, sd=0.4, neutral_sd=0.7),
    "log cores": Slope(mean=-0.7, sd=0.3, neutral_sd=0.7),
    "log batch": Slope(mean=-0.4, sd=0.3, neutral_sd=0.7),
    "log rate": Slope(mean=0.0, sd=0.02, neutral_sd=0.02),
    "apart": Slope(mean=-0.2, sd=0.4, neutral_sd=0.7),
    "apart x log nodes": Slope(mean=-0.1, sd=0.3, neutral_sd=0.3),
    "log nodes squared": Slope(mean=0.08, sd=0.1, neutral_sd=0.1),
}
#: Slopes of log samples to target. Text-book: between no batch effect and one in proportion (McCandlish et
#: al. 2018); small rates crawl, with a basin; staleness costs more the more ranks there are; cores cannot
#: matter.
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
    """A quantity fitted by slopes, and its variation around them (standard deviations of the logarithm).

    Args:
        name: In words.
        slopes: Its known slopes.
        residual_sds: Sizes of the residual to mix.
        own_sd: The part of each configuration's own.
        noise_sd: Error of an observation that does not state its own.
    """

    name: str
    slopes: Mapping[str, Slope]
    residual_sds: tuple[float, ...]
    own_sd: float
    noise_sd: float = 0.0

    def observed(self, rows: IntArray, values: Array) -> Observations:
        """Observations with the error `noise_sd`.

        Args:
            rows: Which candidate each is of, `(num,)`.
            values: Logarithms, `(num,)`.
        """
        noise = np.full(len(rows), self.noise_sd)
        return Observations(rows=rows, values=values, noise_sd=noise, common_sd=np.zeros(len(rows)))


#: Step times repeat within a few percent, trainings by seed within a tenth.
SECONDS = Quantity(
    name="seconds a sample",
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
#: A slope believed to be smaller than this belongs to something that cannot matter.
_NEARLY_NOTHING = 0.1


@dataclass(frozen=True, kw_only=True)
class Features:
    """A space's columns.

    Args:
        names: Of the columns, `intercept` first.
        columns: `(num_configurations, num_columns)`; ordered axes are logarithms around their middle.
        positions: Ordered axes as logarithms, others as indicators, `(num_configurations, num_axes)`.
        lengths: Length scales of the positions, `(num_axes,)`.
        axes: What each position is of: a column's name, or an axis and its value.
    """

    names: tuple[str, ...]
    columns: Array
    positions: Array
    lengths: Array
    axes: tuple[str, ...]

    def design(self, slopes: Mapping[str, Slope]) -> Design:
        """The columns and axes that a model with these slopes uses: what cannot matter is left out."""
        near = [i for i, axis in enumerate(self.axes) if not _cannot_matter(axis, slopes)]
        return Design(self.columns[:, self._used(slopes)], self.positions[:, near], self.lengths[near])

    def names_of(self, slopes: Mapping[str, Slope]) -> list[str]:
        """Names of the columns of `design`."""
        return [self.names[i] for i in self._used(slopes)]

    def _used(self, slopes: Mapping[str, Slope]) -> list[int]:
        others = {*SECONDS_SLOPES, *SAMPLES_SLOPES} - set(slopes)
        return [i for i, name in enumerate(self.names) if name not in others]


def _cannot_matter(axis: str, slopes: Mapping[str, Slope]) -> bool:
    """Rates do not change seconds, nor machines the samples to target."""
    slope = slopes.get("log cores" if axis.startswith("machine=") else axis)
    return slope is not None and slope.neutral_sd < _NEARLY_NOTHING


def prior_of(
    name: str, names: Sequence[str], slopes: Mapping[str, Slope], *, level: float, sign: float = 1.0
) -> SlopePrior:
    """A prior over a design's columns.

    Args:
        name: What to call it; `neutral` believes nothing of signs.
        names: The columns.
        slopes: Of the known ones; others get a neutral slope.
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
    """The columns of a space's configurations.

    Args:
        configurations: All that will be asked about.
        cores: Cores of each machine type.
        devices_per_node: Ranks on one node.
    """
    axes = {axis: None for c in configurations for axis in c}
    nodes = [float(c.nodes * devices_per_node) for c in configurations]
    ordered: dict[str, Array] = {"log nodes": np.log(nodes)}
    machines = {str(c.get("machine")) for c in configurations}
    if machines <= set(cores):
        ordered["log cores"] = np.log([float(cores[str(c["machine"])]) for c in configurations])
    # Where an axis is missing the configuration has a value that stands for it.
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
            # In e-folds where it is positive, else in standard deviations.
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
            # Options are as unlike as strategies.
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
