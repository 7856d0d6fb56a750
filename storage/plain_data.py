"""A column type for plain data as JSON, including the numbers that JSON cannot write."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlalchemy import JSON, Dialect
from sqlalchemy.types import TypeDecorator

#: Marks a number JSON has no form for: `{"$float": "inf"}`.
_TAG = "$float"


def encoded(value: Any) -> Any:
    """Converts data to what JSON can write: tags infinite numbers and NaN, turns tuples into lists.

    Args:
        value: Mappings with string keys, lists, tuples, strings, numbers (NumPy's as well), booleans, None.

    Raises:
        TypeError: The data contain another type.
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
    """Reverses `encoded`; tuples come back as lists."""
    if isinstance(value, dict):
        if value.keys() == {_TAG}:
            return float(value[_TAG])
        return {key: decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value


class PlainData(TypeDecorator[Any]):
    """A column of plain data.

    It is `JSON`, not PostgreSQL's `JSONB`: the text is stored as it was written, so that numbers come
    back to the last bit, keys retain their order, and a rank's error may contain any character.
    """

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return encoded(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return decoded(value)
