"""Mutation testing, apart from mutmut itself: what it says of a survivor, and what is committed of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks.mutation import (
    RESULTS,
    ROOT,
    SHARE_WANTED,
    TESTS,
    Change,
    FileResult,
    Survivor,
    as_entry,
    problems,
    read_reasons,
    states_in,
    survivor,
)

SOURCE = '''"""A module."""


def first() -> int:
    return 1


class Box:
    """A class."""

    def grow(self, size: int) -> int:
        """Makes it larger."""
        larger = size + 1
        return larger
'''
DIFF = """# box.xǁBoxǁgrow__mutmut_2: survived
--- box.py
+++ box.py
@@ -1,4 +1,4 @@
 def grow(self, size: int) -> int:
         \"""Makes it larger.\"""
-        larger = size + 1
+        larger = size - 1
         return larger
"""
CHANGE = Change(
    file="box.py", function="Box.grow", before="larger = size + 1", after='larger = size + "1\\n"'
)


def of(*survivors: Survivor, killed: int = 99) -> FileResult:
    return FileResult(file="box.py", killed=killed, timed_out=0, survivors=survivors)


def test_survivor_is_found_in_its_file() -> None:
    found = survivor("box.py", SOURCE, "box.xǁBoxǁgrow__mutmut_2", DIFF)
    assert SOURCE.splitlines()[found.line - 1].strip() == found.change.before == "larger = size + 1"
    assert found.change.after == "larger = size - 1"
    assert found.change.function == "Box.grow"


def test_change_of_the_first_line_is_found_as_well() -> None:
    diff = "--- box.py\n+++ box.py\n@@ -1,2 +1,2 @@\n-def first() -> int:\n+def first():\n     return 1\n"
    found = survivor("box.py", SOURCE, "box.x_first__mutmut_1", diff)
    assert (found.line, found.change.function) == (4, "first")


def test_states_are_read_from_what_mutmut_lists() -> None:
    listing = "    box.x_first__mutmut_1: killed\n    box.x_first__mutmut_2: no tests\nother: text\n"
    assert dict(states_in(listing)) == {
        "box.x_first__mutmut_1": "killed",
        "box.x_first__mutmut_2": "no tests",
    }


def test_an_entry_is_read_back_as_the_change_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "reasons.toml"
    path.write_text(as_entry(CHANGE).replace('why = ""', 'why = "Because."'), encoding="utf-8")
    assert read_reasons(path) == {CHANGE: "Because."}


def test_every_survivor_needs_a_reason_and_every_reason_a_survivor() -> None:
    left = Survivor(line=12, change=CHANGE)
    assert list(problems([of(left)], {CHANGE: "Because."})) == []
    (unexplained,) = problems([of(left)], {})
    assert unexplained.startswith("box.py:12 survives without a reason")
    assert tomllib.loads(unexplained.partition("\n")[2])["survivor"][0]["after"] == CHANGE.after
    (gone,) = problems([of()], {CHANGE: "Because."})
    assert gone.startswith("box.py: no such survivor any more")


@pytest.mark.parametrize(("killed", "enough"), [(17, True), (16, False)])
def test_too_few_killed_is_a_problem(killed: int, enough: bool) -> None:
    lines = tuple(
        Survivor(line=line, change=Change(file="box.py", function="first", before=str(line), after=""))
        for line in range(20 - killed)
    )
    wrong = list(problems([of(*lines, killed=killed)], {left.change: "Because." for left in lines}))
    assert (wrong == []) is enough


def test_committed_results_are_of_these_files_and_their_reasons() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert {file: result["tests"] for file, result in results.items()} == TESTS
    reasons = read_reasons()
    for file, result in results.items():
        assert (ROOT / file).is_file()
        assert (ROOT / result["tests"]).is_file()
        assert result["share_killed"] >= SHARE_WANTED
        for left in result["survivors"]:
            keys = {key: left[key] for key in ("function", "before", "after")}
            assert left["why"] == reasons[Change(file=file, **keys)] != ""
