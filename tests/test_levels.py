"""The fast level holds its tests to what it promises."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests import levels


def report(when: str, outcome: str = "passed", seconds: float = 0.0) -> Any:
    return SimpleNamespace(
        when=when,
        outcome=outcome,
        duration=seconds,
        longrepr=None if outcome == "passed" else "needs a server",
        passed=outcome == "passed",
        skipped=outcome == "skipped",
    )


def held(level: levels.FastLevel, made: Any) -> Any:
    """What the fast level makes of a report."""
    item: Any = SimpleNamespace(nodeid="tests/test_it.py::test_it")
    steps = level.pytest_runtest_makereport(item)
    next(steps)
    with pytest.raises(StopIteration) as ended:
        steps.send(made)
    return ended.value.value


def test_a_skipped_test_fails_with_its_reason() -> None:
    found = held(levels.FastLevel(), report("call", "skipped"))
    assert found.outcome == "failed"
    assert "mark it slow: needs a server" in found.longrepr


@pytest.mark.parametrize(("seconds", "outcome"), [(19.9, "passed"), (20.1, "failed")])
def test_setup_and_call_together_may_take_so_long(
    seconds: float, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    level = levels.FastLevel()
    assert held(level, report("setup", seconds=10.0)).outcome == "passed"
    assert held(level, report("call", seconds=seconds)).outcome == "passed"
    found = held(level, report("teardown"))
    assert found.outcome == outcome
    assert outcome == "passed" or "may take 30 s: make it faster or mark it slow" in found.longrepr


def test_on_a_busy_machine_a_test_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (12.0, 12.0, 12.0))
    assert levels.longest_seconds() == 2 * levels.LONGEST_SECONDS


def test_a_test_that_failed_says_why_and_not_how_long_it_took() -> None:
    level = levels.FastLevel()
    failed = report("call", "failed", seconds=60.0)
    assert held(level, failed).longrepr == "needs a server"


def test_all_but_a_few_of_many_are_slow() -> None:
    values = levels.mostly_slow([("a", 1), ("b", 1), "c"], fast=[("b", 1)])
    assert values[1] == ("b", 1)
    slow = [values[0], values[2]]
    assert [value.values for value in slow] == [("a", 1), ("c",)]  # type: ignore[attr-defined]
    assert all(value.marks[0].name == "slow" for value in slow)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not among the values"):
        levels.mostly_slow(["a"], fast=["b"])
