"""Types of values in a job file: durations, bandwidths, ascending lists, names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    WithJsonSchema,
)

from search_spaces import STRATEGIES, AxisValue, Configuration, traits_of, unknown_strategy, with_knobs

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)?\s*")
_SECONDS = {None: 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BANDWIDTH = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(bit|B)/s\s*")
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_duration(value: Any) -> Any:
    """Seconds from a number or from words like `90s`, `10m`, `1h30m`, `50us`; other values pass through.

    Raises:
        ValueError: The words are not a duration.
    """
    if not isinstance(value, str):
        return value
    total, position = 0.0, 0
    while position < len(value):
        match = _DURATION.match(value, position)
        if match is None or match.end() == position:
            raise ValueError(f"{value!r} is not a duration; write 90s, 10m, 2h, 1h30m, 50us or seconds")
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    return total


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
DurationOrZero = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]


def parse_bandwidth(value: Any) -> Any:
    """Bytes a second from a number or from words like `10Gbit/s`, `1.2GB/s`; other values pass through.

    Raises:
        ValueError: The words are not a bandwidth.
    """
    if not isinstance(value, str):
        return value
    match = _BANDWIDTH.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a bandwidth; write 10Gbit/s, 1.25GB/s or bytes a second")
    return float(match[1]) * _PREFIXES[match[2]] / (8.0 if match[3] == "bit" else 1.0)


Bandwidth = Annotated[float, BeforeValidator(parse_bandwidth), Field(gt=0, allow_inf_nan=False)]


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if sorted(set(values)) != list(values):
        raise ValueError("must be ascending, without repetition")
    return values


AscendingCounts = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_ascending)]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("must not repeat a value")
    return values


DistinctCounts = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_distinct)]
DistinctRates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(_distinct)]


def _import_path(value: str) -> str:
    if not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError("must be an import path like 'package.module:Class'")
    return value


ImportPath = Annotated[str, AfterValidator(_import_path)]


def _known_strategies(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        # `traits_of` also knows strategies that only a recording names, but nothing trains with them.
        if name not in STRATEGIES:
            raise ValueError(unknown_strategy(name))
    if len(set(names)) != len(names):
        raise ValueError("must not repeat a strategy")
    return names


def _known_strategy(name: str) -> str:
    return _known_strategies((name,))[0]


StrategyNames = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_strategies)]
StrategyName = Annotated[str, AfterValidator(_known_strategy)]


def check_knob(name: str, value: AxisValue, strategies: Sequence[str]) -> None:
    """Sees that a knob is of one of these strategies and may have this value.

    Raises:
        ValueError: No strategy has the knob, or the value is not allowed; the message says which.
    """
    knobs = [traits_of(strategy).knobs.get(name) for strategy in strategies]
    found = [knob for knob in knobs if knob is not None]
    if not found:
        raise ValueError(
            f"{name} is no knob of {', '.join(strategies)}, so it would do nothing: take it out, "
            f"or use a strategy that has it ({', '.join(_strategies_with(name))})"
        )
    if not found[0].allowed.contains(value):
        raise ValueError(f"{name} = {value!r}: allowed is {found[0].allowed.describe()}")


def configuration_with_knobs(configuration: Configuration, **stated: AxisValue | None) -> Configuration:
    """The configuration with every knob of its strategy: as stated, or its default.

    Args:
        configuration: The configuration to run, without knobs.
        stated: Knobs by name; None if not stated.

    Raises:
        ValueError: The strategy is unknown, a knob is not of it, or may not have its value.
    """
    _known_strategy(configuration.strategy)
    said = {name: value for name, value in stated.items() if value is not None}
    for name, value in said.items():
        check_knob(name, value, (configuration.strategy,))
    return with_knobs(configuration.replaced(**said))


def _strategies_with(knob: str) -> list[str]:
    return [name for name, traits in STRATEGIES.items() if knob in traits.knobs]


def _listed(value: Any) -> Configuration:
    if isinstance(value, Configuration):
        return value
    try:
        return Configuration.from_key(value)
    except (TypeError, ValueError, RecursionError):
        # A string that is no key is what somebody wrote by hand.
        raise ValueError("must be a table") from None


#: One of the configurations that a recording lists. A file states it axis by axis; afterwards it is stored
#: by its key.
ListedConfiguration = Annotated[
    Configuration,
    PlainValidator(_listed),
    PlainSerializer(lambda configuration: configuration.key, return_type=str),
    WithJsonSchema(
        {
            "type": "object",
            "description": "one of the recorded configurations, axis by axis",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }
    ),
]


class Section(BaseModel):
    """A table of the job file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
