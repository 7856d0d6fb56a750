"""The digits workload where its data are missing."""

from __future__ import annotations

import sys

import pytest

from tuner.domain.errors import DataNotFoundError
from tuner.workloads import digits


def test_missing_scikit_learn_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits._split.cache_clear()
    with pytest.raises(DataNotFoundError, match="install it with: pip install scikit-learn"):
        digits.Digits().training_data()
