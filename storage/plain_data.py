"""A SQLAlchemy column type that stores plain data as JSON, including infinite numbers and NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlalchemy import JSON, Dialect
from sqlalchemy.types import TypeDecorator

#: Key of an object that represents a number JSON cannot represent: `{"$float": "inf"}`.
_TAG = "$float"


def encoded(value: Any) -> Any:
    """Converts data to JSON types: tuples to lists, infinity and NaN to objects such as `{"$float": "inf"}`.

    Args:
        value: Mapping with string keys, list, tuple, string, number (also NumPy's), boolean or None.

    Raises:
        TypeError: The value is or contains an object of another type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_TAG: repr(float(value))}
    if isinstance(value, Mapping):
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise TypeError(f"keys of stored data must be strings, got {strange[0]!r}")
        return {key: encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    raise TypeError(f"only plain data can be stored, got {type(value).__name__}: {value!r}")


def decoded(value: Any) -> Any:
    """Restores data that `encoded` converted, except that former tuples are lists."""
    if isinstance(value, dict):
        if len(value) == 1 and _TAG in value:
            return float(value[_TAG])
        # No call for each number and string: large studies have hundreds of thousands of them.
        return {k: decoded(item) if isinstance(item, dict | list) else item for k, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value


class PlainData(TypeDecorator[Any]):
    """Column type for plain data, stored as `JSON`.

    PostgreSQL's `JSONB` is not used, because it changes the order of keys and the digits of numbers, and
    rejects some characters that error messages may contain.
    """

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return encoded(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return decoded(value)
