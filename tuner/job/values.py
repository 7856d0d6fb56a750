"""Types of the values in a job file: bandwidths, import paths, lists, names of strategies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
    WithJsonSchema,
)

from search_spaces import STRATEGIES, AxisValue, Configuration, traits_of, unknown_strategy, with_knobs
from tuner.domain.section import BatchSize, Count, NodeCount

_BANDWIDTH = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(bit|B)/s\s*")
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_bandwidth(value: Any) -> Any:
    """Converts text such as `10Gbit/s` or `1.2GB/s` to bytes per second, and returns other values unchanged.

    Raises:
        ValueError: The text is not a bandwidth.
    """
    if not isinstance(value, str):
        return value
    match = _BANDWIDTH.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a bandwidth; write 10Gbit/s, 1.25GB/s or bytes per second")
    return float(match[1]) * _PREFIXES[match[2]] / (8.0 if match[3] == "bit" else 1.0)


Bandwidth = Annotated[float, BeforeValidator(parse_bandwidth), Field(gt=0, allow_inf_nan=False)]


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if sorted(set(values)) != list(values):
        raise ValueError("must be ascending, without repetition")
    return values


NodeCounts = Annotated[tuple[NodeCount, ...], Field(min_length=1), AfterValidator(_ascending)]
BatchSizes = Annotated[tuple[BatchSize, ...], Field(min_length=1), AfterValidator(_ascending)]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("must not repeat a value")
    return values


DistinctCounts = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_distinct)]
DistinctRates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(_distinct)]


def _import_path(value: str) -> str:
    if not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError("must be an import path like 'package.module:Class'")
    return value


ImportPath = Annotated[str, AfterValidator(_import_path)]


def _known_strategies(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        # `traits_of` also knows strategies that only recordings use.
        if name not in STRATEGIES:
            raise ValueError(unknown_strategy(name))
    if len(set(names)) != len(names):
        raise ValueError("must not repeat a strategy")
    return names


StrategyNames = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_strategies)]
StrategyName = Annotated[str, AfterValidator(lambda name: _known_strategies((name,))[0])]


def check_knob(name: str, value: AxisValue, strategies: Sequence[str]) -> None:
    """Checks the value of a knob, a parameter that only some strategies have, such as `tau`.

    Args:
        name: Name of the knob.
        value: Value of the knob in the job file.
        strategies: Names of the strategies in the job file, of which at least one must have the knob.

    Raises:
        ValueError: No strategy has the knob, or the knob does not allow the value.
    """
    knobs = [traits_of(strategy).knobs.get(name) for strategy in strategies]
    found = [knob for knob in knobs if knob is not None]
    if not found:
        having = ", ".join(strategy for strategy, traits in STRATEGIES.items() if name in traits.knobs)
        raise ValueError(
            f"{name} is not a knob of {', '.join(strategies)}, so it has no effect: remove it, or use one of "
            f"{having}"
        )
    if not found[0].allowed.contains(value):
        raise ValueError(f"{name} = {value!r}: allowed is {found[0].allowed.describe()}")


def configuration_with_knobs(configuration: Configuration, **stated: AxisValue | None) -> Configuration:
    """Returns a copy of a configuration with all knobs (parameters) of its strategy.

    Args:
        configuration: A configuration without knobs.
        stated: Maps the name of each knob to its value; None for the default of the knob.

    Raises:
        ValueError: The strategy is unknown, does not have a knob in `stated`, or does not allow the value of
            a knob.
    """
    _known_strategies((configuration.strategy,))
    said = {name: value for name, value in stated.items() if value is not None}
    for name, value in said.items():
        check_knob(name, value, (configuration.strategy,))
    return with_knobs(configuration.replaced(**said))


def _listed(value: Any) -> Configuration:
    if isinstance(value, Configuration):
        return value
    try:
        return Configuration.from_key(value)
    except (TypeError, ValueError, RecursionError):
        # The string in a stored job is always a valid key, so an invalid string is from the user's job file.
        raise ValueError("must be a table") from None


#: A configuration of a recording. In a job file, it is written as a table. In the database, it is stored as a
#: string, `Configuration.key`.
ListedConfiguration = Annotated[
    Configuration,
    PlainValidator(_listed),
    PlainSerializer(lambda configuration: configuration.key, return_type=str),
    WithJsonSchema(
        {
            "type": "object",
            "description": "one of the recorded configurations, with the value of each parameter",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }
    ),
]
