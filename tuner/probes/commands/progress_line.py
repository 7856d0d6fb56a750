"""Parses the numbers in a script's lines: steps, samples and epochs, values in percent, clocks, dates."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tuner.domain.measurement import NoiseStatistic
from tuner.domain.metric_files import shown
from tuner.job import MetricsSection

#: Kind of a line: "progress" for training progress or a score, "begin" for the start of training, "asks" if
#: the script asks whether to stop, or "noise" for gradient noise.
Event = Literal["progress", "begin", "asks", "noise"]
#: Largest number of steps or samples: floats are exact up to here.
MOST = 2**53
#: Longest part of a line that is stored for messages, characters.
LONGEST_TEXT = 500


@dataclass(frozen=True, kw_only=True)
class ScriptLine:
    """One line of a script with the numbers as the script has written them.

    It is not known yet how the script counts, so the numbers need not be those since the run began.

    Args:
        event: Kind of the line, such as "progress".
        seen_at: Time on the prober's monotonic clock when the line was read, seconds.
        time: When the line was written, seconds on a monotonic clock; None if unknown.
        process: Name of the process that wrote the line; empty if unknown.
        step: Number of optimizer steps, as reported; None if the line has none.
        samples: Number of samples processed, as reported; None if the line has none.
        epoch: Number of the epoch, as reported; may be a fraction. None if the line has none.
        seconds: The clock of the script, as reported, in an unknown unit; None if the line has none.
        value: Value of the metric, as reported, as a fraction or in percent; None if the line has none.
        has_percent_sign: Whether a percent sign follows the value of the metric.
        noise: Estimate of gradient noise if the event is "noise", else None.
        text: The beginning of the line, for messages.
        has_unread_clock: Whether the line has a clock that cannot be parsed.
    """

    event: Event = "progress"
    seen_at: float
    time: float | None = None
    process: str = ""
    step: float | None = None
    samples: float | None = None
    epoch: float | None = None
    seconds: float | None = None
    value: float | None = None
    has_percent_sign: bool = False
    noise: NoiseStatistic | None = None
    text: str = ""
    has_unread_clock: bool = False

    @property
    def has_position(self) -> bool:
        """Whether the line has a number of steps, samples or epochs."""
        return self.step is not None or self.samples is not None or self.epoch is not None


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """One line of a script, with the numbers of steps done and samples processed since the run began.

    Args:
        event: Kind of the line, such as "progress".
        seen_at: Time on the prober's monotonic clock when the line was read, seconds.
        time: When the line was written, seconds on a monotonic clock; None if unknown.
        seconds: The training time that the script reports, seconds since the run began; None if the line has
            none.
        process: Name of the process that wrote the line; empty if unknown.
        step: Number of optimizer steps done since the run began.
        samples: Number of samples processed since the run began.
        value: Value of the metric, in the unit of the job's target; None if the line has none.
        is_late: Whether the value was reported only after lines from later in the training.
        noise: Estimate of gradient noise if the event is "noise", else None.
    """

    event: Event = "progress"
    seen_at: float
    time: float | None = None
    seconds: float | None = None
    process: str = ""
    step: int = 0
    samples: int = 0
    value: float | None = None
    is_late: bool = False
    noise: NoiseStatistic | None = None


@dataclass(frozen=True, kw_only=True)
class LineForm:
    """Parses the fields of a line by the names that the job file specifies.

    Args:
        metrics: The section `[workload.metrics]` of the job, with the names of the fields.
    """

    metrics: MetricsSection

    def line(
        self, fields: Mapping[str, Any], *, seen_at: float, time: float | None = None, text: str = ""
    ) -> ScriptLine | None:
        """Parses the fields of a line.

        Args:
            fields: Maps the field names that the script uses to texts or numbers.
            seen_at: Present time on the prober's monotonic clock, seconds; stored in the result.
            time: When the line was written, seconds on a monotonic clock; None if unknown.
            text: The whole line, for messages.

        Returns:
            The parsed line; None if it has neither training progress (step, samples or epoch) nor a metric
            value.

        Raises:
            ValueError: A field is not a number.
        """
        names = self.metrics
        value, is_percent = read_value(fields, names.value)
        clock = read_clock(fields, names.seconds)
        line = ScriptLine(
            seen_at=seen_at,
            time=time,
            step=self._position(fields, names.step),
            samples=self._position(fields, names.samples),
            epoch=self._position(fields, names.epoch),
            seconds=clock,
            value=value,
            has_percent_sign=is_percent,
            text=text[:LONGEST_TEXT],
            has_unread_clock=clock is None and bool(str(fields.get(names.seconds) or "").strip()),
        )
        return line if line.has_position or line.value is not None else None

    def start(self, fields: Mapping[str, Any]) -> tuple[int, int]:
        """Returns the numbers of steps and samples that a script reports when it starts to train.

        Args:
            fields: Fields of the line, by name.

        Raises:
            ValueError: A number is negative, not finite or too large.
        """
        found = [self._position(fields, name) or 0.0 for name in ("step", "samples")]
        return int(found[0]), int(found[1])

    def expected(self) -> str:
        """Describes the fields that a line must have, for messages."""
        names = self.metrics
        return (
            f"a number named {names.step!r}, {names.samples!r} or {names.epoch!r} and, after each "
            f"evaluation, the score named {names.value!r}"
        )

    @staticmethod
    def _position(fields: Mapping[str, Any], name: str) -> float | None:
        number = read_count(fields, name)
        if number is None:
            return None
        if not math.isfinite(number):
            raise ValueError(f"has {name} = {number}, which is not a finite number")
        if not 0 <= number <= MOST:
            raise ValueError(f"has {name} = {number:g}; allowed is 0 or more, up to {MOST:g}")
        return number


def read_value(fields: Mapping[str, Any], name: str) -> tuple[float | None, bool]:
    """Parses the value of a metric, which may have a decimal comma.

    Args:
        fields: Maps the names of the fields of a line to texts or numbers.
        name: Name of the field with the metric.

    Returns:
        The value, or None if the field is missing or empty; and whether it has a percent sign.

    Raises:
        ValueError: The field has text without a number.
    """
    found = fields.get(name)
    text = _plain_text(found, name)
    if text is None:
        return None, False
    return _number(text, found, name, comma="decimal"), text.endswith("%")


def read_count(fields: Mapping[str, Any], name: str) -> float | None:
    """Parses a number of steps, samples or epochs, in which commas separate thousands.

    Args:
        fields: Fields of a line, by name.
        name: Name of the field with the number.

    Returns:
        The number; None if the field is missing or empty.

    Raises:
        ValueError: The field has text without a number.
    """
    found = fields.get(name)
    text = _plain_text(found, name)
    return None if text is None else _number(text, found, name, comma="thousands")


def read_clock(fields: Mapping[str, Any], name: str) -> float | None:
    """Parses a clock, such as `63.5`, `1:02:03`, `12s`, `3m12s` or a date.

    Args:
        fields: Fields of a line, by name.
        name: Name of the field with the clock.

    Returns:
        Seconds; None if the field is empty or cannot be parsed. A date is converted to seconds since 1970; if
        its format is unknown, its time of day is converted to seconds since midnight.
    """
    try:
        text = _plain_text(fields.get(name), name)
    except ValueError:
        return None
    clock = None if text is None else _clock_of(text, name)
    return clock if clock is not None and abs(clock) <= MOST else None


def _clock_of(text: str, name: str) -> float | None:
    parts = _CLOCK.fullmatch(text)
    if parts is not None and any(parts.groups()):
        hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in parts.groups())
        return 3600.0 * hours + 60.0 * minutes + seconds
    spoken = _SPOKEN_CLOCK.fullmatch(text)
    if spoken is not None and any(spoken.groups()):
        days, hours, minutes, seconds, thousandths = (float(part or 0) for part in spoken.groups())
        return 86400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds + thousandths / 1000.0
    with contextlib.suppress(ValueError):
        return _number(text, text, name, comma="decimal")
    try:
        return datetime.fromisoformat(text.replace(",", ".").replace("/", "-")).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    of_day = _TIME_OF_DAY.search(text)
    if of_day is None:
        return None
    hours, minutes, seconds = (float(part.replace(",", ".")) for part in of_day.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


#: Colors and other control sequences of a terminal.
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")
_TIME_OF_DAY = re.compile(r"(?<![\d:])(\d{1,2}):(\d{2}):(\d{2}(?:[.,]\d+)?)(?![\d:])")
_SPOKEN_CLOCK = re.compile(
    r"(?:(\d+)\s*d(?:ays?)?,?\s*)?(?:(\d+)\s*h(?:ours?|rs?)?,?\s*)?(?:(\d+)\s*m(?:in(?:utes?|s)?)?,?\s*)?"
    r"(?:([\d.]+)\s*s(?:ec(?:onds?|s)?)?)?(?:([\d.]+)\s*ms)?"
)
_GROUPED = re.compile(r"[-+]?\d{1,3}([,_ ']\d{3})+(\.\d+)?")
_PLAIN_NUMBER = re.compile(
    r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf(?:inity)?|nan)\b", re.IGNORECASE
)


def _plain_text(found: Any, name: str) -> str | None:
    """Returns the text of a field without colors, brackets and quotes; None if it is empty."""
    if found is None or found == "":
        return None
    if isinstance(found, int | float) and not isinstance(found, bool):
        return repr(found)
    if not isinstance(found, str):
        raise ValueError(f"has {name} = {shown(repr(found))}, which is not a number")
    return ANSI.sub("", found).strip().strip("[](){}<>\"'*|").rstrip(",;:]").strip() or None


def _number(text: str, found: Any, name: str, *, comma: str) -> float:
    plain = text.rstrip("%").strip()
    if _GROUPED.fullmatch(plain) and (comma == "thousands" or "." in plain or plain.count(",") > 1):
        plain = re.sub(r"[,_ ']", "", plain)
    elif plain.count(",") == 1 and "." not in plain:
        plain = plain.replace(",", ".")
    try:
        number = float(plain)
    except ValueError:
        # A tensor, or a number with a unit.
        numbers = _PLAIN_NUMBER.findall(plain)
        if len(numbers) != 1 and not (numbers and plain.startswith(("tensor(", "array("))):
            raise ValueError(f"has {name} = {shown(str(found))}, which is not a number") from None
        plain = numbers[0]
        number = float(plain)
    if math.isinf(number) and "inf" not in plain.lower():
        raise ValueError(f"has {name} = {shown(str(found))}, which is too large for a number")
    return number


def noise_statistic(fields: Mapping[str, Any]) -> NoiseStatistic:
    """Estimates gradient noise without bias from the squared gradient norms of a small and a large batch.

    The formulas are those of McCandlish et al. 2018, appendix A.1:

    - S = (|g_s|^2 - |g_l|^2) / (1/b - 1/B) is the noise: the trace of the covariance of the gradients of
      single samples, in squared units of the gradient.
    - |G|^2 = (B |g_l|^2 - b |g_s|^2) / (B - b) is the squared norm of the gradient without noise.
    - b and B are the numbers of samples of the small and the large batch; g_s and g_l are the mean gradients
      of these batches.

    Args:
        fields: Maps these names to numbers: `samples` (processed so far), `small_batch` (b),
            `small_squared_norm` (|g_s|^2), `large_batch` (B) and `large_squared_norm` (|g_l|^2).

    Raises:
        ValueError: A number is missing or not finite, or the large batch is not larger than the small one.
    """
    names = ("samples", "small_batch", "small_squared_norm", "large_batch", "large_squared_norm")
    try:
        samples, small, small_norm, large, large_norm = (float(fields[name]) for name in names)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"reports gradient noise, but a field is missing or not a number: {str(error)[:LONGEST_TEXT]}"
        ) from error
    if not all(map(math.isfinite, (samples, small_norm, large_norm))) or not 0 < small < large:
        raise ValueError("reports gradient noise without finite norms, or with small_batch >= large_batch")
    # (B - b) / (b B) equals 1/b - 1/B, but is not rounded to zero if b and B differ by little.
    noise = (small_norm - large_norm) / (large - small) * small * large
    squared_gradient = (large * large_norm - small * small_norm) / (large - small)
    if not math.isfinite(noise) or not math.isfinite(squared_gradient) or not 0 <= samples <= MOST:
        raise ValueError("reports gradient noise with numbers that are too large to compute with")
    return NoiseStatistic(
        samples=int(samples), noise=noise, squared_gradient=squared_gradient, num_estimates=1
    )
