from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.plain_data import decoded, encoded

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
data = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(data)
def test_plain_data_survives_strict_json(value: object) -> None:
    assert decoded(json.loads(json.dumps(encoded(value), allow_nan=False))) == value


def test_nan_survives() -> None:
    assert math.isnan(decoded(encoded({"a": math.nan}))["a"])


def test_numbers_of_numpy_become_plain() -> None:
    stored = encoded({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.float64("inf")})
    assert json.dumps(stored) == '{"a": 0.5, "b": 3, "c": true, "d": {"$float": "inf"}}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: 2}, "keys of stored data must be strings, got 1"),
        ([Path("x")], "only plain data can be stored, got PosixPath"),
        (np.zeros(2), "only plain data can be stored, got ndarray"),
    ],
)
def test_what_is_not_plain_is_refused(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        encoded(value)
