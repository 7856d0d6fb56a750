from __future__ import annotations

import pytest

from benchmarks.memory_ledger import MemoryLedger
from tuner.domain.ledger import Ledger, free_name


def test_the_memory_ledger_is_a_ledger() -> None:
    ledger: Ledger = MemoryLedger(clock=lambda: 5.0)
    assert ledger.open_study("digits", "f1", {}).created_at == 5.0


@pytest.mark.parametrize(
    ("taken", "name"),
    [(set(), "a"), ({"b"}, "a"), ({"a"}, "a-2"), ({"a", "a-2", "a-4"}, "a-3")],
)
def test_a_free_name_is_the_first_no_study_bears(taken: set[str], name: str) -> None:
    assert free_name("a", taken) == name
