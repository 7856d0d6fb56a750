"""The stored course of seeded searches: the same search gives the same course, and a change is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from benchmarks.golden import RESULT, cases, differences, main, outcome_of

CASES = {case.name: case for case in cases()}
SHORT = "recorded, dollars, 1 trainings, seed 0"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_course_and_another_does_not() -> None:
    first, again = (outcome_of(CASES[SHORT]) for _ in range(2))
    assert first["probes"]
    assert first["num_predictions"] > 0
    assert list(differences(first, again)) == []
    other = outcome_of(CASES[SHORT.replace("seed 0", "seed 1")])
    assert list(differences(first, other)) != []


def test_the_stored_file_has_every_case() -> None:
    stored = json.loads(RESULT.read_text())
    assert list(stored) == list(CASES)
    assert all(case["probes"] for case in stored.values())


def test_differences_name_the_place_and_both_values() -> None:
    stored = {"probes": [["a", 1], ["b", 2]], "gone": 1}
    found = {"probes": [["a", 1], ["b", 3], ["c", 4]], "new": 1}
    assert list(differences(stored, found)) == [
        "/probes: 2 entries stored, 3 found",
        "/probes/1/1: stored 2, found 3",
        "/gone: only in the stored result",
        "/new: only in the new result",
    ]


@pytest.mark.slow
def test_a_check_ends_with_1_where_a_course_differs(tmp_path: Path) -> None:
    file = tmp_path / "golden.json"
    codes = []
    for check in (False, True, True):
        with pytest.raises(typer.Exit) as ended:
            main(check=check, only=SHORT, file=file)
        codes.append(ended.value.exit_code)
        if check:
            stored = json.loads(file.read_text())
            stored[SHORT]["num_predictions"] += 1
            file.write_text(json.dumps(stored))
    assert codes == [0, 0, 1]
