"""Parse progress lines of a script, whatever their format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuner.domain.measurement import NoiseStatistic
from tuner.job import MetricsSection

#: Events of a script: progress, that its training starts, that it polls for a stop, gradient noise.
Event = Literal["progress", "begin", "asks", "noise"]
#: Most steps or samples of a run: floats count exactly up to here.
_MOST = 2**53


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """One report of a script.

    Args:
        event: What it is about.
        seen_at: When it was read, on the prober's clock.
        time: When it was written, on a clock of the script's; None if it is not reported.
        seconds: The script's own training clock; None where it has none.
        process: Names the process that wrote it, if lines name it.
        step: Optimizer steps done.
        samples: Samples seen.
        value: The metric; None where nothing was scored.
        noise: Gradient noise, for that event.
    """

    event: Event = "progress"
    seen_at: float
    time: float | None = None
    seconds: float | None = None
    process: str = ""
    step: int = 0
    samples: int = 0
    value: float | None = None
    noise: NoiseStatistic | None = None


@dataclass(frozen=True, kw_only=True)
class LineForm:
    """Field names of a script's lines, and defaults of missing fields.

    Args:
        metrics: The names.
        batch_size: Of a step.
        epoch_samples: Of an epoch; None if unknown.
    """

    metrics: MetricsSection
    batch_size: int
    epoch_samples: int | None = None

    def line(self, fields: Mapping[str, Any], *, seen_at: float, time: float | None = None) -> ProgressLine:
        """A line from its fields by the user's names.

        Raises:
            ValueError: They do not report how far training is, or something is not a number.
        """
        value = self._number(fields, self.metrics.value)
        seconds = self._number(fields, self.metrics.seconds)
        step, samples = self._place(fields)
        return ProgressLine(
            seen_at=seen_at,
            time=time,
            seconds=seconds if seconds is None or math.isfinite(seconds) else None,
            step=step,
            samples=samples,
            value=value,
        )

    def start(self, fields: Mapping[str, Any]) -> tuple[int, int]:
        """Steps and samples at which a script reports that its training starts.

        Raises:
            ValueError: One of them is not a count.
        """
        found = []
        for name in ("step", "samples"):
            number = self._finite(fields, name) or 0.0
            if not 0 <= number <= _MOST:
                raise ValueError(f"starts at {name} = {number:g}; allowed is 0 or more, up to {_MOST:g}")
            found.append(int(number))
        return found[0], found[1]

    def expected(self) -> str:
        """What a line needs, in words."""
        names = self.metrics
        return (
            f"one of {names.step!r}, {names.samples!r} and {names.epoch!r} with a number in it, and "
            f"{names.value!r} where something was scored"
        )

    def _place(self, fields: Mapping[str, Any]) -> tuple[int, int]:
        step = self._finite(fields, self.metrics.step)
        samples = self._finite(fields, self.metrics.samples)
        if samples is None and step is not None:
            samples = step * self.batch_size
        if samples is None:
            epoch = self._finite(fields, self.metrics.epoch)
            if epoch is not None and self.epoch_samples is None:
                raise ValueError(
                    "reports only epochs, and workload.epoch_samples is not set in the job: add it"
                )
            samples = epoch * (self.epoch_samples or 0) if epoch is not None else None
        if samples is None:
            raise ValueError(f"does not report how far training is; expected {self.expected()}")
        if step is None:
            step = samples // self.batch_size
        for number, what in ((samples, "samples"), (step, "steps")):
            if not 0 <= number <= _MOST:
                raise ValueError(f"reports {number:g} {what}; allowed is 0 or more, up to {_MOST:g}")
        return int(step), int(samples)

    def _finite(self, fields: Mapping[str, Any], name: str) -> float | None:
        number = self._number(fields, name)
        if number is not None and not math.isfinite(number):
            raise ValueError(f"has {name} = {number}, which is not a position in a training run")
        return number

    @staticmethod
    def _number(fields: Mapping[str, Any], name: str) -> float | None:
        found = fields.get(name)
        if found is None or found == "":
            return None
        if isinstance(found, bool):
            raise ValueError(f"has {name} = {found}, which is not a number")
        try:
            return float(found)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"has {name} = {found!r}, which is not a number") from None


def noise_statistic(fields: Mapping[str, Any]) -> NoiseStatistic:
    """Unbiased estimates from the squared norms of a small and a large batch's gradient.

    S = (|g_s|^2 - |g_l|^2) / (1/b - 1/B) and |G|^2 = (B |g_l|^2 - b |g_s|^2) / (B - b) (McCandlish et al.
    2018, appendix A.1), b and B being the samples of the small and of the large batch.

    Raises:
        ValueError: A number is missing or not finite, or the batches are not of two sizes.
    """
    names = ("samples", "small_batch", "small_squared_norm", "large_batch", "large_squared_norm")
    try:
        samples, small, small_norm, large, large_norm = (float(fields[name]) for name in names)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"of gradient noise lacks a number: {error}") from error
    if not all(map(math.isfinite, (samples, small_norm, large_norm))) or not 0 < small < large:
        raise ValueError("of gradient noise needs finite norms, and a small batch that is smaller")
    # 1/b - 1/B = (B - b) / (b B), which is not zero where b and B differ by little.
    noise = (small_norm - large_norm) / (large - small) * small * large
    squared_gradient = (large * large_norm - small * small_norm) / (large - small)
    if not math.isfinite(noise) or not math.isfinite(squared_gradient) or not 0 <= samples <= _MOST:
        raise ValueError("of gradient noise has numbers too large to compute with")
    return NoiseStatistic(
        samples=int(samples), noise=noise, squared_gradient=squared_gradient, num_estimates=1
    )
